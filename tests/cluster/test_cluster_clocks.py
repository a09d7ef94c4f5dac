"""What a cluster keeps when the time of day of its members jumps.

It takes libfaketime, of apt's package `faketime`. What takes longest is left to `-m campaign`.
"""

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import grpc
import pytest
from cluster.clocks import NEEDED, Clock, library
from cluster.members import DEADLINE_S, RealCluster, RealMember, eventually, places_on_loopback
from cluster.writing import Load
from e2e.world import INVALID_TOKEN, refused
from support.processes import wait_until
from support.rpc import Client

from kvsecure.proto import auth_pb2, cluster_pb2, kv_pb2, lease_pb2

pytestmark = pytest.mark.skipif(library() is None, reason=NEEDED)

_HOUR_S: Final = 3_600.0
# Of all members, so that their time may be set back further than certificates are old.
_AHEAD_S: Final = 2 * _HOUR_S
# Longer than certificates are good for, and less than their authority is.
_TOO_FAR_S: Final = 200 * 24 * _HOUR_S
_SHORT_S: Final = 2.0
_READ: Final = kv_pb2.RangeRequest(key=b"clock")


class _Turned(NamedTuple):
    """A cluster, and the time of day of each member."""

    cluster: RealCluster
    clocks: dict[str, Clock]

    def jump(self, member: RealMember, seconds: float) -> None:
        """Have a member be so many seconds away from the others."""
        self.clocks[member.name].set(_AHEAD_S + seconds)
        self.cluster.set_apart(member.name, is_apart=bool(seconds))


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Turned]:
    """Three members with clocks that can be turned, and the clock of a fourth."""
    directory = tmp_path_factory.mktemp("clocks")
    names = [f"m{number}" for number in range(1, 5)]
    clocks = {name: Clock(directory / f"clock-{name}", _AHEAD_S) for name in names}
    environments = {name: clock.environment for name, clock in clocks.items()}
    there = directory / "cluster"
    there.mkdir(mode=0o700)
    with RealCluster(there, places_on_loopback(3), environments=environments) as cluster:
        yield _Turned(cluster, clocks)


@pytest.fixture
def turned(founded: _Turned) -> Iterator[_Turned]:
    """A cluster whose members have the same time; in the end they have the same history."""
    for member in founded.cluster.members:
        founded.jump(member, 0)
    founded.cluster.mend()
    yield founded
    for member in founded.cluster.members:
        founded.jump(member, 0)
    founded.cluster.mend()
    founded.cluster.assert_alike()


def test_lease_lasts_its_time_whatever_time_it_is(turned: _Turned) -> None:
    """The leader's clock jumps by hours: a lease that is kept lives, and one that is not ends."""
    trio = turned.cluster
    leader, follower = trio.leader(), trio.followers()[0]
    client = trio.client(follower.name)
    granted = client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=2))
    keep = lease_pb2.LeaseKeepAliveRequest(ID=granted.ID)
    client.kv.Put(kv_pb2.PutRequest(key=_READ.key, value=b"v", lease=granted.ID))

    begun = kept_at = time.monotonic()
    for seconds in (6 * _HOUR_S, -_HOUR_S, 0.0, 70.0, -_HOUR_S):
        turned.jump(leader, seconds)
        kept_at = time.monotonic()
        (kept,) = client.lease.LeaseKeepAlive(iter([keep]))
        assert kept.TTL == granted.TTL
    turned.jump(leader, 6 * _HOUR_S)
    wait_until(
        lambda: not eventually(lambda: trio.client(follower.name).kv.Range(_READ)).kvs,
        deadline_s=DEADLINE_S,
        what="the end of the lease",
    )

    assert time.monotonic() - kept_at >= granted.TTL
    assert time.monotonic() - begun < _HOUR_S


@pytest.mark.campaign
def test_no_write_is_lost_while_all_clocks_jump(turned: _Turned) -> None:
    """Members with times hours apart elect leaders, serve, and keep what was acknowledged."""
    trio = turned.cluster

    with Load(trio, b"/jumping") as load:
        for far_s in (_HOUR_S, -_HOUR_S, 600.0):
            for member, seconds in zip(trio.members, (far_s, -far_s, 0.0), strict=True):
                turned.jump(member, seconds)
            load.wait_for_more(20)
        trio.leader().kill9()
        load.wait_for_more(20)
        trio.start()

    assert [load.lost(member.name) for member in trio.members] == [set()] * 3


def test_token_is_good_where_it_is_time(turned: _Turned) -> None:
    """A member with another time refuses what has ended by it, gives its own, and comes back."""
    trio = turned.cluster
    member, other = trio.followers()
    old = trio.token

    def ask(name: str, token: str) -> object:
        with trio.stranger(name) as client:
            client.use_token(token)
            return refused(lambda: client.kv.Range(_READ))

    def log_in(name: str) -> str:
        with trio.stranger(name) as client:
            return eventually(lambda: client.login("root", trio.password)).token

    turned.jump(member, _HOUR_S)
    there = log_in(member.name)

    assert ask(member.name, old) == INVALID_TOKEN
    assert ask(member.name, there) is None
    assert ask(other.name, there) == INVALID_TOKEN
    assert ask(other.name, old) is None
    turned.jump(member, 0)
    assert ask(member.name, old) is None
    assert ask(member.name, there) == INVALID_TOKEN


@pytest.mark.campaign
def test_member_with_another_time_joins(turned: _Turned) -> None:
    """A newcomer hours ahead learns everything, serves, and may be removed."""
    trio = turned.cluster
    (place,) = places_on_loopback(1)
    client = trio.client(trio.leader().name)
    revision = trio.put("m1", b"clock", b"v")

    request = cluster_pb2.MemberAddRequest(peerURLs=[place.peer_url])
    # Not while a member has not been heard of for a while.
    added = eventually(lambda: client.cluster.MemberAdd(request)).member
    newcomer = trio.make_newcomer("m4", place)
    turned.jump(newcomer, 6 * _HOUR_S)
    newcomer.process.start()
    found = eventually(lambda: trio.client("m4").kv.Range(_READ))
    client.cluster.MemberRemove(cluster_pb2.MemberRemoveRequest(ID=added.ID))
    newcomer.process.wait_exit()
    turned.jump(newcomer, 0)
    trio.forget("m4")

    assert found.kvs[0].mod_revision == revision


def test_leader_whose_time_is_outside_of_certificates_fails_closed_and_heals(
    turned: _Turned,
) -> None:
    """It trusts nobody and serves nobody, another leads, and with its time it is back."""
    trio = turned.cluster
    leader = trio.leader()
    other = trio.followers()[0]
    login = auth_pb2.AuthenticateRequest(name="root", password=trio.password)

    def code(client: Client) -> grpc.StatusCode | None:
        try:
            client.kv.Range(_READ, timeout=_SHORT_S)
        except grpc.RpcError as error:
            return error.code()
        return None

    def new_leader() -> bool:
        return eventually(lambda: trio.status(other.name)).leader not in {0, before}

    before = trio.member_id(leader.name)
    client = trio.client(leader.name)
    turned.clocks[leader.name].set(_TOO_FAR_S)
    wait_until(new_leader, deadline_s=DEADLINE_S, what="another leader")
    revision = eventually(lambda: trio.put(other.name, b"clock", b"new"))
    with_token = code(client)
    certificate = trio.authority.client("root")
    with Client(leader.place.endpoint, trio.authority.certificate, certificate) as certified:
        with_certificate = code(certified)
    with trio.stranger(leader.name) as stranger, pytest.raises(grpc.RpcError) as with_password:
        stranger.auth.Authenticate(login, timeout=_SHORT_S)

    passing = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert {with_token, with_certificate, with_password.value.code()} <= {
        *passing,
        grpc.StatusCode.UNAUTHENTICATED,
    }
    turned.jump(leader, 0)
    trio.leader()
    (kv,) = eventually(lambda: trio.client(leader.name).kv.Range(_READ)).kvs
    assert (kv.value, kv.mod_revision) == (b"new", revision)

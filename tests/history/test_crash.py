"""Kill -9 at random moments, and what must be true afterwards.

Owns: the moments, the number of rounds, and what else than keys must survive.
Never: claims anything about power loss; a killed process leaves its page cache behind.
"""

import os
import random
import time
from collections.abc import Iterator
from enum import Enum, auto

import pytest
from support.crash import Ledger, Writers
from support.rpc import Client
from support.servers import Member

from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2

# 200 and more in a campaign: `CRASH_ROUNDS=200 pytest tests/history`.
_ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))
_WRITERS = 3
_LEASE_TTL_S = 3_600
# An upper bound for a round, start-up included; etcd takes 1.3 s to start again.
_ROUND_S_MAX = 8


class Moment(Enum):
    """When the server is killed."""

    AT_RANDOM = auto()
    AFTER_AN_ANSWER = auto()
    DURING_START = auto()
    WHEN_READY = auto()


class Victim(Enum):
    """What of a server is killed."""

    MEMBER = auto()
    MEMBER_AND_CHILDREN = auto()
    CHILDREN_FIRST = auto()


class Witness:
    """Leases, users and roles that were acknowledged, one of each per round."""

    def __init__(self) -> None:
        self._leases: dict[int, bytes] = {}
        self._revoked: set[int] = set()
        self._passwords: dict[str, str] = {}

    def add(self, client: Client, number: int) -> None:
        """Make a lease with a key, a user with a role, and drop the oldest of several leases."""
        key = b"leased/%d" % number
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=number, TTL=_LEASE_TTL_S))
        client.kv.Put(kv_pb2.PutRequest(key=key, value=b"v", lease=number))
        self._leases[number] = key
        if len(self._leases) > 5:
            oldest = min(self._leases)
            client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=oldest))
            self._revoked.add(oldest)
            del self._leases[oldest]
        if number % 5 == 0:
            self._add_user(client, f"user{number}")

    def _add_user(self, client: Client, name: str) -> None:
        password = f"password-of-{name}-1"
        permission = authstore_pb2.Permission(key=b"leased/", range_end=b"leased0")
        client.auth.UserAdd(auth_pb2.AuthUserAddRequest(name=name, password=password))
        client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name=name))
        client.auth.RoleGrantPermission(
            auth_pb2.AuthRoleGrantPermissionRequest(name=name, perm=permission)
        )
        client.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user=name, role=name))
        self._passwords[name] = password

    def verify(self, client: Client, member: Member) -> None:
        """Find all of it, and let the newest user read what the role allows."""
        listed = client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases
        assert {lease.ID for lease in listed} == set(self._leases)
        for number, key in self._leases.items():
            request = lease_pb2.LeaseTimeToLiveRequest(ID=number, keys=True)
            answer = client.lease.LeaseTimeToLive(request)
            assert list(answer.keys) == [key]
            assert 0 < answer.TTL <= _LEASE_TTL_S == answer.grantedTTL
        users = client.auth.UserList(auth_pb2.AuthUserListRequest()).users
        assert set(users) == {"root", *self._passwords}
        assert client.auth.AuthStatus(auth_pb2.AuthStatusRequest()).enabled
        for name, password in list(self._passwords.items())[-1:]:
            with member.client(name, password) as user:
                everything = kv_pb2.RangeRequest(key=b"leased/", range_end=b"leased0")
                assert user.kv.Range(everything).count == len(self._leases)


@pytest.fixture
def writers(subject: Member) -> Iterator[Writers]:
    """Processes that write to the server under test, not yet let go."""
    writers = Writers(subject, _WRITERS)
    yield writers
    writers.close()


def _crash(member: Member, writers: Writers, chance: random.Random) -> Moment:
    moment, victim = chance.choice(list(Moment)), chance.choice(list(Victim))
    writers.go()
    match moment:
        case Moment.AT_RANDOM:
            # The one sleep in these tests: the moment is what is random.
            time.sleep(chance.uniform(0.0, 0.3))
        case Moment.AFTER_AN_ANSWER:
            writers.wait_acknowledged(chance.randint(1, 50))
        case Moment.WHEN_READY | Moment.DURING_START:
            _kill(member, victim)
            begun = time.monotonic()
            member.process.spawn()
            member.process.wait_ready()
            start_s = time.monotonic() - begun
            if moment is Moment.DURING_START:
                _kill(member, victim)
                member.process.spawn()
                time.sleep(chance.uniform(0.0, start_s))
    _kill(member, victim)
    return moment


def _kill(member: Member, victim: Victim) -> None:
    match victim:
        case Victim.MEMBER:
            member.process.kill9()
        case Victim.MEMBER_AND_CHILDREN:
            member.process.kill9_all()
        case Victim.CHILDREN_FIRST:
            # For a moment the member is alone; it must not answer for what it cannot keep.
            member.process.kill9_children()
            member.process.kill9()


@pytest.mark.timeout(120 + _ROUNDS * _ROUND_S_MAX)
def test_crash_loses_nothing_and_leaves_nothing_half_done(
    subject: Member, writers: Writers, pytestconfig: pytest.Config
) -> None:
    """After kill -9 at any moment all that was acknowledged is there, whole, and nothing else."""
    chance = random.Random(pytestconfig.getoption("randomly_seed", 0))
    ledger, witness = Ledger(writers), Witness()
    moments = []

    for number in range(1, _ROUNDS + 1):
        with subject.client() as client:
            witness.add(client, number)
        moments.append(_crash(subject, writers, chance))
        subject.restart()
        writers.pause()
        with subject.client() as client:
            ledger.verify(client)
            witness.verify(client, subject)

    with subject.client() as client:
        ledger.verify_all(client)
    assert len(moments) == _ROUNDS
    assert writers.acknowledged > _ROUNDS


@pytest.mark.timeout(120)
def test_stop_in_good_order_loses_nothing(subject: Member, writers: Writers) -> None:
    """A server that is asked to stop, under load, ends by itself and has all it acknowledged."""
    ledger = Ledger(writers)

    writers.go()
    writers.wait_acknowledged(50)
    subject.stop()
    subject.restart()
    writers.wait_acknowledged(50)
    writers.pause()

    with subject.client() as client:
        ledger.verify_all(client)

"""What any member of a cluster does for clients, while nothing is wrong."""

import contextlib
import socket
import ssl
import time

import pytest
from cluster.members import RealCluster, RealMember, eventually
from e2e.world import DENIED, PASSWORD, READ, refused
from support.certificates import Authority, KeyPair
from support.processes import wait_until
from support.rpc import Client

from kvsecure.pki.trust import MEMBER_ALPN
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    cluster_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
)
from kvsecure.server.peers.framing import Kind, frame
from kvsecure.server.peers.hello import VERSIONS, Hello, Purpose, Refusal

_DEADLINE_S = 10.0


def test_any_member_takes_writes_and_linearizable_reads(calm: RealCluster) -> None:
    """What one member has acknowledged is there at once for whoever reads at another."""
    names = [member.name for member in calm.members]

    for writer in names:
        for number in range(5):
            value = b"%s-%d" % (writer.encode(), number)
            calm.put(writer, b"any", value)
            assert {calm.value(reader, b"any") for reader in names} == {value}


def test_token_of_one_member_is_good_at_all(calm: RealCluster) -> None:
    """Whoever has logged in at one member needs not do so at the others."""
    for member in calm.members:
        with calm.stranger(member.name) as client:
            token = eventually(lambda at=client: at.login("root", calm.password)).token
        for other in calm.members:
            with calm.stranger(other.name) as client:
                client.use_token(token)
                assert client.kv.Range(kv_pb2.RangeRequest(key=b"k")).header.revision


def _read(client: Client) -> kv_pb2.RangeResponse:
    return client.kv.Range(kv_pb2.RangeRequest(key=b"/app/k"))


def test_change_of_accounts_at_one_member_bites_at_the_others(calm: RealCluster) -> None:
    """A right that was given or taken, acknowledged by one member, is so at all at once."""
    first = calm.client("m1").auth
    permission = authstore_pb2.Permission(permType=READ, key=b"/app/", range_end=b"/app0")
    grant = auth_pb2.AuthUserGrantRoleRequest(user="web", role="app")
    revoke = auth_pb2.AuthUserRevokeRoleRequest(name="web", role="app")
    first.UserAdd(auth_pb2.AuthUserAddRequest(name="web", password=PASSWORD))
    first.RoleAdd(auth_pb2.AuthRoleAddRequest(name="app"))
    first.RoleGrantPermission(auth_pb2.AuthRoleGrantPermissionRequest(name="app", perm=permission))

    with contextlib.ExitStack() as opened:
        webs = [opened.enter_context(calm.stranger(member.name)) for member in calm.members]
        token = webs[2].login("web", PASSWORD).token
        for web in webs:
            web.use_token(token)
        for _ in range(5):
            assert [refused(lambda at=web: _read(at)) for web in webs] == [DENIED] * 3
            first.UserGrantRole(grant)
            assert [refused(lambda at=web: _read(at)) for web in webs] == [None] * 3
            first.UserRevokeRole(revoke)
        first.UserDelete(auth_pb2.AuthUserDeleteRequest(name="web"))
        assert None not in [refused(lambda at=web: _read(at)) for web in webs]


def test_lease_is_kept_and_told_by_a_follower(calm: RealCluster) -> None:
    """A lease lives as long as it is kept alive at a follower, and not for ever after that."""
    first, second = (calm.client(member.name) for member in calm.followers())
    granted = first.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=2))
    request = lease_pb2.LeaseTimeToLiveRequest(ID=granted.ID, keys=True)
    first.kv.Put(kv_pb2.PutRequest(key=b"leased", value=b"v", lease=granted.ID))
    keep = lease_pb2.LeaseKeepAliveRequest(ID=granted.ID)
    begun = time.monotonic()

    while time.monotonic() < begun + granted.TTL + 1:
        (kept,) = first.lease.LeaseKeepAlive(iter([keep]))
        told = second.lease.LeaseTimeToLive(request)
        assert kept.TTL == told.grantedTTL == granted.TTL
        assert 0 <= told.TTL <= granted.TTL
        assert list(told.keys) == [b"leased"]

    wait_until(
        lambda: not second.kv.Range(kv_pb2.RangeRequest(key=b"leased")).kvs,
        deadline_s=_DEADLINE_S,
        what="the end of the lease",
    )
    assert second.lease.LeaseTimeToLive(request).TTL == -1


def test_move_leader_makes_another_member_lead(calm: RealCluster) -> None:
    """Whoever leads hands over to the member it is told, and a member that follows refuses."""
    leader = calm.leader()
    heir = next(member for member in calm.members if member is not leader)
    request = maintenance_pb2.MoveLeaderRequest(targetID=calm.member_id(heir.name))

    refusal = refused(lambda: calm.client(heir.name).maintenance.MoveLeader(request))
    calm.client(leader.name).maintenance.MoveLeader(request)

    assert refusal == ("FAILED_PRECONDITION", "etcdserver: not leader")
    assert calm.leader() is heir
    calm.put(leader.name, b"moved", b"v")


def test_all_members_tell_the_same_members(calm: RealCluster) -> None:
    """Names, ids and URLs are those of the flags, wherever they are asked for."""
    request = cluster_pb2.MemberListRequest(linearizable=True)

    lists = [calm.client(each.name).cluster.MemberList(request).members for each in calm.members]

    told = {(each.name, tuple(each.peerURLs), tuple(each.clientURLs)) for each in lists[0]}
    wanted = {
        (each.name, (each.place.peer_url,), (f"https://{each.place.endpoint}",))
        for each in calm.members
    }
    assert told == wanted
    assert list(lists[0]) == list(lists[1]) == list(lists[2])


# --- on the port of the members -------------------------------------------------------------------


def _said(member: RealMember, pair: KeyPair | None, authority: Authority, content: bytes) -> bytes:
    """Say something to a member over TLS, with a certificate or without; return what it says."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.check_hostname = False
    context.set_alpn_protocols(MEMBER_ALPN)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    heard = b""
    with (
        socket.create_connection((member.place.host, member.place.peer_port)) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain) as link,
    ):
        link.settimeout(_DEADLINE_S)
        link.sendall(content)
        while piece := link.recv(65_536):
            heard += piece
    return heard


def _hello(calm: RealCluster, sender: str, to: str) -> bytes:
    cluster = calm.status(to).header.cluster_id
    ids = (calm.member_id(sender), calm.member_id(to))
    hello = Hello(VERSIONS, Purpose.MESSAGES, cluster, *ids, sender)
    return frame(Kind.HELLO, hello.encode())


@pytest.mark.parametrize("shown", ["nothing", "a client's", "a server's", "another member's"])
def test_nobody_speaks_as_a_member_without_its_certificate(calm: RealCluster, shown: str) -> None:
    """A right hello with a wrong certificate is not welcome, and the cluster goes on."""
    leader = calm.leader()
    follower = next(member for member in calm.members if member is not leader)
    pairs = {
        "nothing": None,
        "a client's": calm.authority.client("root"),
        "a server's": calm.authority.server_at("stray", "127.0.0.1"),
        "another member's": calm.authority.peer("m9"),
    }

    heard = _said(leader, pairs[shown], calm.authority, _hello(calm, follower.name, leader.name))

    refusal = Refusal.NAME if shown == "another member's" else Refusal.CERTIFICATE
    assert heard in {b"", frame(Kind.REFUSAL, bytes([refusal.code]))}
    assert calm.leader() is leader
    calm.put(follower.name, b"goes-on", b"v")


def test_plaintext_on_the_port_of_members_is_cut(calm: RealCluster) -> None:
    """Whoever does not begin with TLS is hung up on without an answer that means anything."""
    leader = calm.leader()
    follower = next(member for member in calm.members if member is not leader)
    content = _hello(calm, follower.name, leader.name)

    with socket.create_connection((leader.place.host, leader.place.peer_port)) as plain:
        plain.settimeout(_DEADLINE_S)
        plain.sendall(content)
        heard = b""
        with contextlib.suppress(ConnectionError):
            while piece := plain.recv(65_536):
                heard += piece

    assert bytes([Kind.WELCOME]) not in heard[4:5]
    assert calm.leader() is leader
    calm.put(follower.name, b"goes-on", b"v")

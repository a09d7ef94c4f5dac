"""Waiting for a lock over the wire: whoever goes away, is thrown out, or is left by the server."""

import contextlib
import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from e2e.world import DENIED, READWRITE, Fortress, refused
from support.gateway import Gateway
from support.processes import wait_until
from support.rpc import Client, Refusal, refusal_of

from kvsecure.proto import auth_pb2, kv_pb2, lease_pb2
from kvsecure.proto.election_pb2 import CampaignRequest, LeaderRequest, ResignRequest
from kvsecure.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest

_DEADLINE_S: Final = 10.0
_PREFIX: Final = b"/app/"
_NAME: Final = b"/app/l"
_LOCK: Final = "/v3lockpb.Lock/Lock"


@pytest.fixture(scope="module")
def held(fortress: Fortress) -> Iterator[Client]:
    """A client of root, which holds the lock under lease 1; the leases 2 to 5 are there."""
    root = fortress.root()
    for lease in range(1, 6):
        root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=3_600))
    root.lock.Lock(LockRequest(name=_NAME, lease=1))
    return root


def _places(client: Client, name: bytes = _NAME) -> list[bytes]:
    request = kv_pb2.RangeRequest(key=name + b"/", range_end=name + b"0", keys_only=True)
    return [bytes(kv.key) for kv in client.kv.Range(request).kvs]


def _begin(client: Client, lease: int, watcher: Client, name: bytes = _NAME) -> Any:
    """Begin to wait, and return the call once its place is there."""
    start = client.prepared(_LOCK, timeout_s=120.0)
    call = start(LockRequest(name=name, lease=lease).SerializeToString())
    _wait_for(watcher, name, b"%b/%x" % (name, lease), is_there=True)
    assert not call.done()
    return call


def _wait_for(client: Client, name: bytes, key: bytes, *, is_there: bool) -> None:
    wait_until(
        lambda: (key in _places(client, name)) is is_there,
        deadline_s=_DEADLINE_S,
        what=f"{key!r} to be {'there' if is_there else 'gone'}",
    )


def _refusal(call: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        call.result(timeout=_DEADLINE_S)
    return refusal_of(caught.value)


# --- who goes away ------------------------------------------------------------------------------


def test_cancelled_wait_gives_up_its_place(fortress: Fortress, held: Client) -> None:
    """A client that takes its call back is out of the queue, and its connection goes on."""
    client = fortress.certified("web")
    call = _begin(client, 2, held)

    call.cancel()

    _wait_for(held, _NAME, b"/app/l/2", is_there=False)
    assert client.kv.Range(kv_pb2.RangeRequest(key=b"/app/k")).count == 1


def test_lost_connection_gives_up_its_places(fortress: Fortress, held: Client) -> None:
    """Everything that waited on a connection is out of the queues with it."""
    client = fortress.certified("web")
    for lease in (2, 3, 4):
        _begin(client, lease, held)

    client.close()

    for lease in (2, 3, 4):
        _wait_for(held, _NAME, b"/app/l/%d" % lease, is_there=False)


def test_json_wait_is_answered_and_given_up(fortress: Fortress, held: Client) -> None:
    """A lock in JSON waits like any, and is given up with its connection."""
    gateway = Gateway(fortress.server, fortress.server.authority.client("web"))
    key = "L2FwcC9q"
    first = gateway.ask("/v3/lock/lock", {"name": key, "lease": "1"})
    assert (first.status, first.value["key"]) == (200, "L2FwcC9qLzE=")

    with contextlib.closing(gateway.connection) as connection:
        _post(connection, "/v3beta/lock/lock", '{"name":"L2FwcC9q","lease":2}')
        _wait_for(held, b"/app/j", b"/app/j/2", is_there=True)
        held.lock.Unlock(UnlockRequest(key=b"/app/j/1"))
        assert b'"key":"L2FwcC9qLzI="' in connection.getresponse().read()
        _post(connection, "/v3/lock/lock", '{"name":"L2FwcC9q","lease":3}')
        _wait_for(held, b"/app/j", b"/app/j/3", is_there=True)

    _wait_for(held, b"/app/j", b"/app/j/3", is_there=False)


def _post(connection: http.client.HTTPConnection, path: str, body: str) -> None:
    connection.request("POST", path, body, {"Content-Type": "application/json"})


# --- who is thrown out --------------------------------------------------------------------------

_TAKEN: Final[dict[str, Callable[[Client], Any]]] = {
    "role revoked": lambda root: root.auth.UserRevokeRole(
        auth_pb2.AuthUserRevokeRoleRequest(name="gone", role="app")
    ),
    "password changed": lambda root: root.auth.UserChangePassword(
        auth_pb2.AuthUserChangePasswordRequest(name="gone", password="another-Meadow-4711-dusk")
    ),
    "user deleted": lambda root: root.auth.UserDelete(auth_pb2.AuthUserDeleteRequest(name="gone")),
}


@pytest.mark.parametrize("what", _TAKEN)
def test_revoked_user_waits_no_more(fortress: Fortress, held: Client, what: str) -> None:
    """Whoever is out does not get the lock, is told, and is in nobody's way."""
    fortress.user("gone", "app")
    try:
        call = _begin(fortress.bearer("gone"), 5, held)

        _TAKEN[what](held)

        assert _refusal(call) == DENIED
        _wait_for(held, _NAME, b"/app/l/5", is_there=False)
    finally:
        refused(lambda: _TAKEN["user deleted"](held))


# --- tenants ------------------------------------------------------------------------------------


def test_locks_of_tenants_are_others(fortress: Fortress, held: Client) -> None:
    """The same name and lease in another tenant is another lock, handed over there as well."""
    acme = fortress.tenant("acme")
    for lease in (1, 2):
        acme.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=3_600))

    key = acme.lock.Lock(LockRequest(name=_NAME, lease=1)).key
    call = _begin(acme, 2, acme)
    held.lock.Unlock(UnlockRequest(key=b"/app/l/2"))
    assert not call.done()
    acme.lock.Unlock(UnlockRequest(key=key))

    assert LockResponse.FromString(call.result(timeout=_DEADLINE_S)).key == b"/app/l/2"
    assert _places(held) == [b"/app/l/1"]


def test_elections_of_tenants_are_others(fortress: Fortress, held: Client) -> None:
    """Who leads in a tenant leads there alone."""
    globex = fortress.tenant("globex")

    leads = globex.election.Campaign(CampaignRequest(name=b"e", value=b"globex")).leader

    assert globex.election.Leader(LeaderRequest(name=b"e")).kv.value == b"globex"
    nobody = Refusal("UNKNOWN", "election: no leader")
    assert refused(lambda: held.election.Leader(LeaderRequest(name=b"e"))) == nobody
    assert not refused(lambda: held.election.Resign(ResignRequest(leader=leads)))
    assert globex.election.Leader(LeaderRequest(name=b"e")).kv.value == b"globex"


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.campaign
def test_hundreds_wait_on_one_connection_and_come_in_order(
    fortress: Fortress, held: Client
) -> None:
    """Each gets its turn, in the order in which it came, and nothing else is held up."""
    client = fortress.certified("web")
    start = client.prepared(_LOCK, timeout_s=120.0)
    name = b"/app/many"
    leases = range(1_000, 1_300)
    for lease in leases:
        held.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=3_600))
    calls = [start(LockRequest(name=name, lease=lease).SerializeToString()) for lease in leases]
    wait_until(
        lambda: len(_places(held, name)) == len(leases), deadline_s=_DEADLINE_S, what="a queue"
    )
    request = kv_pb2.RangeRequest(
        key=name + b"/", range_end=name + b"0", sort_target="CREATE", sort_order="ASCEND"
    )
    order = [bytes(kv.key) for kv in held.kv.Range(request).kvs]
    by_key = {b"%b/%x" % (name, lease): call for lease, call in zip(leases, calls, strict=True)}

    for number, key in enumerate(order):
        assert LockResponse.FromString(by_key[key].result(timeout=_DEADLINE_S)).key == key
        assert not any(by_key[later].done() for later in order[number + 1 :][:3])
        held.lock.Unlock(UnlockRequest(key=key))

    assert _places(held, name) == []


def test_stop_tells_who_waits_and_leaves_no_place(tmp_path: Path) -> None:
    """A member that stops sends waiters away, and they are out of the queue when it is back."""
    with Fortress(tmp_path) as fortress:
        root = fortress.root()
        for lease in (1, 2):
            root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=3_600))
        root.lock.Lock(LockRequest(name=_NAME, lease=1))
        call = _begin(fortress.root(), 2, root)

        fortress.server.stop()
        assert _refusal(call) == Refusal("UNAVAILABLE", "etcdserver: server stopped")
        fortress.server.restart()

        assert _places(fortress.root()) == [b"/app/l/1"]


def test_killed_member_keeps_the_queue(tmp_path: Path) -> None:
    """After a crash the places are as they were: who asks again with its lease has its own."""
    with Fortress(tmp_path) as fortress:
        fortress.role("app", (READWRITE, _PREFIX, b"/app0"))
        fortress.user("web", "app")
        root = fortress.root()
        for lease in (1, 2, 3):
            root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=3_600))
        root.lock.Lock(LockRequest(name=_NAME, lease=1))
        call = _begin(fortress.certified("web"), 2, root)

        fortress.server.kill9()
        assert _refusal(call).code == "UNAVAILABLE"
        fortress.server.restart()
        root = fortress.root()
        last = _begin(fortress.certified("web"), 3, root)
        again = fortress.certified("web").prepared(_LOCK)(
            LockRequest(name=_NAME, lease=2).SerializeToString()
        )
        root.lock.Unlock(UnlockRequest(key=b"/app/l/1"))

        assert LockResponse.FromString(again.result(timeout=_DEADLINE_S)).key == b"/app/l/2"
        assert not last.done()

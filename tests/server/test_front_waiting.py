"""Unary calls whose answer is long in coming: what becomes of their streams reaches them."""

from typing import Final

import pytest
from support.gateway import curl
from support.processes import wait_until
from support.rpc import Client
from support.servers import KvsecureServer
from wire.rawframes import END_STREAM, data, headers, message, request_block, reset
from wire.socket_peer import SocketPeer, call_fields

from kvsecure.proto import kv_pb2, lease_pb2, lock_pb2

_LOCK: Final = "/v3lockpb.Lock/Lock"
_DEADLINE_S: Final = 10.0


@pytest.fixture(scope="module", autouse=True)
def _held(root: Client) -> None:
    """Root holds the lock under lease 1, and lease 2 is there."""
    for lease in (1, 2):
        root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=600))
    root.lock.Lock(lock_pb2.LockRequest(name=b"l", lease=1))


def _waits(root: Client, *, waits: bool) -> None:
    request = kv_pb2.RangeRequest(key=b"l/2", count_only=True)
    wait_until(
        lambda: bool(root.kv.Range(request).count) is waits,
        deadline_s=_DEADLINE_S,
        what="the place to be " + ("there" if waits else "gone"),
    )


def _request() -> bytes:
    return message(lock_pb2.LockRequest(name=b"l", lease=2).SerializeToString())


def test_reset_ends_the_wait_of_a_request_that_came_whole(peer: SocketPeer, root: Client) -> None:
    """A stream that is reset is not waited on, and others of its connection go on."""
    peer.send(peer.request(1, call_fields(_LOCK, root.token), _request()))
    _waits(root, waits=True)

    peer.send(reset(1))

    _waits(root, waits=False)
    content = kv_pb2.RangeRequest(key=b"l/1").SerializeToString()
    assert peer.call(3, "/etcdserverpb.KV/Range", content, token=root.token).status[0] == "0"


def test_reset_ends_the_wait_of_a_request_that_came_in_pieces(
    peer: SocketPeer, root: Client
) -> None:
    """However a request came, its stream is heard of while it is served."""
    peer.send(headers(1, request_block(call_fields(_LOCK, root.token))))
    for byte in _request():
        peer.send(data(1, bytes((byte,))))
    peer.send(data(1, b"", END_STREAM))
    _waits(root, waits=True)

    peer.send(reset(1))

    _waits(root, waits=False)


def test_deadline_of_a_wait_is_kept_by_the_server(peer: SocketPeer, root: Client) -> None:
    """A client that only waits is told when its time is over, and is out of the queue."""
    content = lock_pb2.LockRequest(name=b"l", lease=2).SerializeToString()

    answered = peer.call(1, _LOCK, content, token=root.token, grpc_timeout="300m")

    assert answered.status == ("4", "context deadline exceeded")
    _waits(root, waits=False)


def test_json_wait_over_http2_ends_with_its_stream(member: KvsecureServer, root: Client) -> None:
    """A wait in JSON ends when its client goes, and when the time that it gave is over."""
    authorization = ("--header", f"Authorization: {root.token}")
    body = '{"name":"bA==","lease":"2"}'

    late = curl(
        member, "--http2", *authorization, "--header", "Grpc-Timeout: 300m",
        path="/v3/lock/lock", body=body,
    )  # fmt: skip
    _waits(root, waits=False)
    gone = curl(member, "--http2", *authorization, path="/v3/lock/lock", body=body, seconds=1)

    assert (late.status, gone.status) == (504, 0)
    _waits(root, waits=False)

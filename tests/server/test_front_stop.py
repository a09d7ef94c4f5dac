"""Stopping: what clients see of SIGTERM, what is still answered, and how the process ends."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from support.processes import wait_until
from support.rpc import Client, refusal_of
from support.servers import KvsecureServer
from wire.rawframes import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    Frame,
    data,
    goaway_code,
    headers,
    message,
    ping,
    request_block,
)
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import kv_pb2, watch_pb2
from kvsecure.wire.h2.frames import ErrorCode

_PUT: Final = "/etcdserverpb.KV/Put"
_WATCH: Final = "/etcdserverpb.Watch/Watch"
_STOPPED: Final = ("14", "etcdserver: server stopped")


@pytest.fixture
def member(tmp_path: Path) -> Iterator[KvsecureServer]:
    """A member that a test may stop."""
    with KvsecureServer(tmp_path) as serving:
        yield serving


def _peer(member: KvsecureServer) -> SocketPeer:
    return SocketPeer(member.port, client_tls(member.authority.certificate)).begin()


def _settled(peer: SocketPeer) -> None:
    """Wait until everything that was sent has been read."""
    peer.send(ping())
    peer.frames_until(lambda found: any(one.type == PING for one in found))


def _all(peer: SocketPeer) -> list[Frame]:
    """Return what comes until the server hangs up."""
    return peer.frames_until(lambda _: False)


def _terminate(member: KvsecureServer) -> None:
    os.kill(member.process.pid, signal.SIGTERM)


def _ended(frames: list[Frame]) -> set[int]:
    """Return the streams that were answered to their end."""
    return {one.stream for one in frames if one.type in (DATA, HEADERS) and one.flags & END_STREAM}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_ends_by_the_signal(member: KvsecureServer, number: signal.Signals) -> None:
    """Whoever started the process sees that it was the signal: 128 and its number (etcd)."""
    os.kill(member.process.pid, number)

    assert member.process.wait_exit(deadline_s=5) == -number


def test_idle_connection_is_told_and_closed(member: KvsecureServer) -> None:
    """A client without calls gets GOAWAY without an error, and then the end."""
    with _peer(member) as peer:
        _settled(peer)
        _terminate(member)
        frames = _all(peer)

    assert goaway_code(frames) == ErrorCode.NO_ERROR
    assert member.process.wait_exit(deadline_s=5) == -signal.SIGTERM


def test_idle_http1_connection_is_closed(member: KvsecureServer) -> None:
    """HTTP/1.1 has no word for it."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with SocketPeer(member.port, tls) as peer:
        peer.send(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.sock.recv(1 << 16)
        _terminate(member)

        assert peer.read_all() == b""


def test_watch_is_told_that_the_member_stops(member: KvsecureServer) -> None:
    """A stream ends with UNAVAILABLE and etcd's word, not with a connection that breaks."""
    with member.client() as root, _peer(member) as peer:
        create = watch_pb2.WatchRequest(
            create_request=watch_pb2.WatchCreateRequest(key=b"a")
        ).SerializeToString()
        fields = call_fields(_WATCH, root.token)
        peer.send(peer.request(1, fields, message(create), ends=False))
        created = peer.frames_until(lambda found: any(one.type == DATA for one in found))
        _terminate(member)
        frames = _all(peer)

    assert peer.answered(1, [*created, *frames]).status == _STOPPED
    assert goaway_code(frames) == ErrorCode.NO_ERROR


def test_stock_client_sees_unavailable(member: KvsecureServer) -> None:
    """A stock client's watch fails with what makes it look for another member."""
    with member.client() as root:
        stream = _watch(root)
        next(stream)
        _terminate(member)

        with pytest.raises(grpc.RpcError) as caught:
            next(stream)

    assert refusal_of(caught.value) == ("UNAVAILABLE", _STOPPED[1])


def _watch(root: Client) -> Iterator[watch_pb2.WatchResponse]:
    create = watch_pb2.WatchCreateRequest(key=b"a")
    requests = iter([watch_pb2.WatchRequest(create_request=create)])
    return iter(root.watch.Watch(requests, timeout=20))


def test_half_sent_request_is_refused(member: KvsecureServer) -> None:
    """A request that will not come whole any more is not waited for."""
    with _peer(member) as peer:
        peer.send(headers(1, request_block(call_fields(_PUT))), data(1, b"\0\0\0"))
        _settled(peer)
        _terminate(member)

        assert peer.answered(1, _all(peer)).status == _STOPPED
    assert member.process.wait_exit(deadline_s=5) == -signal.SIGTERM


def test_calls_in_flight_are_answered(member: KvsecureServer) -> None:
    """Every call that the member took is answered; what it says was written is there afterwards."""
    count = 400
    with member.client() as root, _peer(member) as peer:
        puts = [
            peer.request(
                2 * number + 1,
                call_fields(_PUT, root.token),
                message(kv_pb2.PutRequest(key=b"k%d" % number, value=b"v").SerializeToString()),
            )
            for number in range(count)
        ]
        peer.send(*puts[: count // 2])
        frames = peer.frames_until(lambda found: bool(_ended(found)))
        peer.send(*puts[count // 2 :])
        _terminate(member)
        frames += _all(peer)
    assert member.process.wait_exit(deadline_s=5) == -signal.SIGTERM

    (last,) = (int.from_bytes(one.payload[:4], "big") for one in frames if one.type == GOAWAY)
    taken = set(range(1, last + 1, 2))
    refused = {one.stream for one in frames if one.type == RST_STREAM}
    assert _ended(frames) == taken
    assert not refused & taken
    statuses = {stream: peer.answered(stream, frames).status for stream in sorted(taken)}
    assert set(statuses.values()) <= {("0", ""), _STOPPED}
    member.restart()
    with member.client() as root:
        answer = root.kv.Range(kv_pb2.RangeRequest(key=b"k", range_end=b"l", keys_only=True))
    written = {one.key for one in answer.kvs}
    assert written >= {
        b"k%d" % (stream // 2) for stream, status in statuses.items() if status[0] == "0"
    }
    assert written <= {b"k%d" % (stream // 2) for stream in taken}


def test_client_that_does_not_read_does_not_hold_the_member(member: KvsecureServer) -> None:
    """Who does not take what it is told is left behind after a second."""
    with member.client() as root:
        value = bytes(1_000_000)
        root.kv.Put(kv_pb2.PutRequest(key=b"large", value=value))
        tls = client_tls(member.authority.certificate)
        with SocketPeer(member.port, tls, receive_bytes=4_096) as peer:
            peer.begin([(4, 1 << 30)])
            request = kv_pb2.RangeRequest(key=b"large").SerializeToString()
            for number in range(20):
                fields = call_fields("/etcdserverpb.KV/Range", root.token)
                peer.send(peer.request(2 * number + 1, fields, message(request)))
            wait_until(
                lambda: member.process.is_running and root.kv.Range(_ANY).count == 0,
                deadline_s=20,
                what="the member to be done with them",
            )
            _terminate(member)

            assert member.process.wait_exit(deadline_s=10) == -signal.SIGTERM


_ANY: Final = kv_pb2.RangeRequest(key=b"nothing")


def test_stop_does_not_wait_for_handshakes(member: KvsecureServer) -> None:
    """A connection that never became one is no reason to stay."""
    with SocketPeer(member.port) as peer:
        _terminate(member)

        assert member.process.wait_exit(deadline_s=5) == -signal.SIGTERM
        assert peer.read_all() == b""


def test_stop_leaves_everything_in_order(member: KvsecureServer) -> None:
    """The log has no error in it, and a second start finds everything in order."""
    with member.client() as root, _peer(member) as peer:
        root.kv.Put(kv_pb2.PutRequest(key=b"a", value=b"b"))
        peer.send(headers(1, request_block(call_fields(_WATCH, root.token))))
        _settled(peer)
        _terminate(member)
        member.process.wait_exit(deadline_s=5)

    printed = member.process.log()
    member.restart()
    assert b"Traceback" not in printed
    assert b'"error"' not in printed
    with member.client() as root:
        assert root.kv.Range(kv_pb2.RangeRequest(key=b"a")).kvs[0].value == b"b"

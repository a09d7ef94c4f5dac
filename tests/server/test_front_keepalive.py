"""The keep-alive flags of the running server, by stock clients and a raw one."""

from pathlib import Path

import grpc
from support.servers import KvsecureServer
from wire.rawframes import ACK, PING, Frame, goaway_code, headers, ping, request_block
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import watch_pb2
from kvsecure.wire.h2.frames import ErrorCode

_WATCH = "/etcdserverpb.Watch/Watch"


def _peer(member: KvsecureServer) -> SocketPeer:
    peer = SocketPeer(member.port, client_tls(member.authority.certificate)).begin()
    peer.send(headers(1, request_block(call_fields(_WATCH))))
    return peer


def _acks(found: list[Frame]) -> int:
    return sum(one.type == PING and one.flags == ACK for one in found)


def test_default_interval_is_enforced(tmp_path: Path) -> None:
    """Without a flag it is etcd's five seconds, and two pings may come too early."""
    with KvsecureServer(tmp_path) as member, _peer(member) as peer:
        peer.send(ping() * 3)
        assert _acks(peer.frames_until(lambda found: _acks(found) == 3)) == 3
        peer.send(ping())

        assert goaway_code(peer.frames_until(lambda _: False)) == ErrorCode.ENHANCE_YOUR_CALM


def test_flags_are_obeyed(tmp_path: Path) -> None:
    """No interval for them; and a peer that is silent is pinged, and dropped without an answer."""
    flags = (
        "--grpc-keepalive-min-time=0s",
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=1s",
    )
    with KvsecureServer(tmp_path, flags=flags) as member, _peer(member) as peer:
        peer.send(ping() * 100)
        assert _acks(peer.frames_until(lambda found: _acks(found) == 100)) == 100
        frames = peer.frames_until(lambda _: False)

        assert [(one.type, one.flags) for one in frames] == [(PING, 0)]


def test_stock_client_is_kept_by_its_answers(tmp_path: Path) -> None:
    """A stock client that does nothing but wait answers the pings, and keeps its stream."""
    flags = ("--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s")
    with KvsecureServer(tmp_path, flags=flags) as member, member.client() as root:
        create = watch_pb2.WatchCreateRequest(key=b"a")
        requests = iter([watch_pb2.WatchRequest(create_request=create)])
        stream = root.watch.Watch(requests, timeout=4.5)
        try:
            list(stream)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 - the end

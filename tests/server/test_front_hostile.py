"""Clients that mean harm: what they get is an end of their own connection, and nobody else's.

The attacks that have a name are in tests/attacks.
"""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.processes import wait_until
from support.rpc import Client
from support.servers import KvsecureServer
from wire.rawframes import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    PING,
    RST_STREAM,
    data,
    frame,
    goaway_code,
    headers,
    message,
    ping,
    request_block,
    reset,
    window_update,
)
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import kv_pb2
from kvsecure.wire.h2.frames import ErrorCode

_RANGE: Final = "/etcdserverpb.KV/Range"
_CALM: Final = ErrorCode.ENHANCE_YOUR_CALM
_MB: Final = 1_000_000
# What one connection may make a member keep, generously; unbounded it would be hundreds of MB.
_GROWTH_BYTES_MAX: Final = 80 * _MB
_WIDE: Final = [(4, (1 << 31) - 1)]


def _peer(member: KvsecureServer, *, receive_bytes: int | None = None) -> SocketPeer:
    tls = client_tls(member.authority.certificate)
    return SocketPeer(member.port, tls, receive_bytes=receive_bytes).begin(_WIDE)


def _memory_bytes(member: KvsecureServer) -> int:
    fields = Path(f"/proc/{member.process.pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


def _spent_s(member: KvsecureServer) -> float:
    """Return the processor time of a member, in seconds."""
    content = Path(f"/proc/{member.process.pid}/stat").read_text(encoding="ascii")
    fields = content.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serves(root: Client) -> bool:
    return bool(root.kv.Range(kv_pb2.RangeRequest(key=b"nothing")).count == 0)


def _rest(member: KvsecureServer, root: Client) -> None:
    """Wait until the member has nothing left to do."""
    last = -1.0

    def is_idle() -> bool:
        nonlocal last
        assert _serves(root)
        before, last = last, _spent_s(member)
        threading.Event().wait(0.05)
        return last - before <= 0.011

    wait_until(is_idle, deadline_s=20, what="the member to rest")


@contextlib.contextmanager
def _pouring(peer: SocketPeer, words: bytes) -> Iterator[None]:
    """Send more than the server takes, from a thread, until it is done or the peer hangs up."""

    def pour() -> None:
        with contextlib.suppress(OSError, ValueError):
            peer.send(words)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield
    finally:
        peer.close()
        thread.join()


# --- those that do not read -------------------------------------------------------------------


def test_pages_that_are_not_read_are_bounded(member: KvsecureServer, root: Client) -> None:
    """Whoever asks for thousands of pages at once holds nobody up."""
    with _peer(member, receive_bytes=4_096) as peer:
        block = request_block([(b":method", b"GET"), *call_fields("/metrics")[1:4]])
        words = [window_update(0, (1 << 31) - 1 - 65_535)]
        words += [headers(2 * n + 1, block, END_HEADERS | END_STREAM) for n in range(4_000)]
        _rest(member, root)
        before, begun_s = _memory_bytes(member), _spent_s(member)
        with _pouring(peer, b"".join(words)):
            _rest(member, root)
            grown, spent_s = _memory_bytes(member) - before, _spent_s(member) - begun_s

    assert grown < _GROWTH_BYTES_MAX
    assert spent_s < 3


def test_pipelined_pages_are_bounded(member: KvsecureServer, root: Client) -> None:
    """The same over HTTP/1.1: what comes in one piece is not all answered in one piece."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with SocketPeer(member.port, tls, receive_bytes=4_096) as peer:
        words = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000
        _rest(member, root)
        before, begun_s = _memory_bytes(member), _spent_s(member)
        with _pouring(peer, words):
            _rest(member, root)
            grown, spent_s = _memory_bytes(member) - before, _spent_s(member) - begun_s

    assert grown < _GROWTH_BYTES_MAX
    assert spent_s < 3


# --- those that make work ---------------------------------------------------------------------


def test_reset_calls_leave_nothing_behind(member: KvsecureServer, root: Client) -> None:
    """Calls that were begun and taken back are over: begun and ended stay in step."""
    block = request_block(call_fields("/etcdserverpb.KV/Txn", root.token))
    with _peer(member) as peer:
        peer.send(*[headers(n, block) + reset(n) for n in range(1, 301, 2)])
        peer.send(ping())
        peer.frames_until(lambda found: any(one.type == PING for one in found))
        page = _metrics(peer, 1_001)

    begun = _value(page, 'grpc_server_started_total{grpc_method="Txn"')
    assert begun == _value(page, "grpc_server_handled_total", 'grpc_method="Txn"') > 0


def _metrics(peer: SocketPeer, stream: int) -> list[str]:
    peer.send(peer.request(stream, [(b":method", b"GET"), *call_fields("/metrics")[1:4]]))
    (page,) = peer.answer(stream).messages
    return page.decode().splitlines()


def _value(page: list[str], start: str, also: str = "") -> float:
    return sum(float(line.split()[-1]) for line in page if line.startswith(start) and also in line)


def test_streams_beyond_the_limit_are_refused(member: KvsecureServer, root: Client) -> None:
    """A client cannot hold more streams than it was told, and those within go on."""
    fields = call_fields("/grpc.health.v1.Health/Watch")
    with _peer(member) as peer:
        block = request_block(fields)
        for start in range(0, 4_096, 512):
            peer.send(*[headers(2 * n + 1, block) for n in range(start, start + 512)])
        peer.send(headers(8_193, block), headers(8_195, block))
        frames = peer.frames_until(lambda found: sum(one.type == RST_STREAM for one in found) == 2)
        peer.send(data(1, message(b"")))
        frames = peer.frames_until(lambda found: any(one.type == DATA for one in found))

        assert {one.stream for one in frames if one.type == DATA} == {1}
    assert _serves(root)


def test_large_head_is_refused(member: KvsecureServer, root: Client) -> None:
    """Fields beyond the bound end the stream or the connection, however they are packed."""
    fields = [*call_fields(_RANGE), *[(b"x%d" % n, b"y" * 1_000) for n in range(100)]]
    with _peer(member) as peer:
        block = request_block(fields)
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        peer.send(headers(1, pieces[0], 0))
        peer.send(*[frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:]])
        peer.send(frame(CONTINUATION, END_HEADERS, 1))
        frames = peer.frames_until(lambda found: any(one.type == RST_STREAM for one in found))

    assert goaway_code(frames) == _CALM
    assert _serves(root)


def test_member_has_survived_it_all(member: KvsecureServer, root: Client) -> None:
    """Nothing of this was an error of the program."""
    assert _serves(root)
    assert b"Traceback" not in member.process.log()

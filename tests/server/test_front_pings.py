"""Keep-alive over real sockets: too many pings, silent peers, and connections that never speak."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.processes import wait_until
from wire.listening import Bounds, Front
from wire.rawframes import (
    ACK,
    GOAWAY,
    PING,
    Frame,
    begin,
    goaway_code,
    headers,
    ping,
    request_block,
)
from wire.socket_peer import ANSWER_S, SocketPeer, call_fields

from kvsecure.wire.h2.frames import ErrorCode
from kvsecure.wire.h2.pings import PingLimits

_S: Final = 1_000_000_000
_WATCH: Final = "/etcdserverpb.Watch/Watch"
_LIMITS: Final = PingLimits(interval_ns_min=5 * _S, silence_ns_max=10 * _S, answer_ns_max=5 * _S)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A front end without TLS, whose time stands still."""
    with Front(tmp_path, bounds=Bounds(pings=_LIMITS)) as listening:
        yield listening


def _watching(front: Front) -> SocketPeer:
    """Return a peer with an open stream."""
    peer = SocketPeer(front.port).begin()
    peer.send(headers(1, request_block(call_fields(_WATCH))), ping())
    peer.frames_until(_has_ack)
    return peer


def _has_ack(found: list[Frame]) -> bool:
    return any(one.type == PING and one.flags & ACK for one in found)


def _speaks(peer: SocketPeer) -> bool:
    """Tell whether the server still answers; this asks it with a page, which forgives strikes."""
    fields = call_fields("/version")[1:4]
    peer.send(peer.request(101, [(b":method", b"GET"), *fields]))
    return peer.answer(101).fields.get(":status") == "200"


def _say(front: Front, peer: SocketPeer, words: bytes) -> None:
    """Send something, and wait until it has been heard."""
    before = front.statistics.received_bytes
    peer.send(words)
    wait_until(
        lambda: front.statistics.received_bytes >= before + len(words),
        deadline_s=ANSWER_S,
        what="the words to come",
    )


def test_too_many_pings_end_the_connection(front: Front) -> None:
    """The fourth ping within the interval is answered by GOAWAY, and the connection is closed."""
    with _watching(front) as peer:
        peer.send(ping(), ping(), ping())
        frames = peer.frames_until(lambda _: False)

    assert goaway_code(frames) == ErrorCode.ENHANCE_YOUR_CALM
    assert [one.payload[8:] for one in frames if one.type == GOAWAY] == [b"too_many_pings"]


def test_pings_in_time_go_on(front: Front) -> None:
    """A client that keeps the interval keeps its connection and its stream."""
    with _watching(front) as peer:
        for _ in range(5):
            front.pass_seconds(5)
            peer.send(ping())
            peer.frames_until(_has_ack)

        assert _speaks(peer)


def test_silent_peer_is_pinged_and_dropped(front: Front) -> None:
    """A peer that has gone without a word is noticed, and its connection closed."""
    with _watching(front) as peer:
        front.pass_seconds(12)
        frames = peer.frames_until(lambda found: any(one.type == PING for one in found))
        front.pass_seconds(6)

        assert [one.flags for one in frames if one.type == PING] == [0]
        assert peer.read_all() == b""
    assert front.connection_count == 0


def test_answered_ping_keeps_the_connection(front: Front) -> None:
    """A peer that only ever acknowledges is there."""
    with _watching(front) as peer:
        for _ in range(4):
            front.pass_seconds(12)
            frames = peer.frames_until(lambda found: any(one.type == PING for one in found))
            _say(front, peer, ping(frames[-1].payload, ACK))

        assert front.connection_count == 1
        assert _speaks(peer)


@pytest.mark.parametrize("words", [b"", b"PRI", begin()[:20], begin()[:24]])
def test_connection_that_does_not_begin_is_closed(front: Front, words: bytes) -> None:
    """Who holds a connection says what it wants of it within ten seconds."""
    with SocketPeer(front.port) as peer, SocketPeer(front.port).begin() as other:
        _say(front, peer, words)
        other.send(ping())
        other.frames_until(_has_ack)
        front.pass_seconds(9)
        assert front.connection_count == 2
        front.pass_seconds(1)
        peer.read_all()

        assert front.connection_count == 1
        assert _speaks(other)


def test_idle_http1_connection_is_closed(front: Front) -> None:
    """A request that drips in byte by byte does not hold a connection for ever."""
    with SocketPeer(front.port) as peer:
        _say(front, peer, b"GET /version HTTP/1.1\r\n")
        for _ in range(59):
            _say(front, peer, b"a")
            front.pass_seconds(1)
        assert front.connection_count == 1
        front.pass_seconds(1)

        assert peer.read_all() == b""
    assert front.connection_count == 0

"""The attacks, one by one, by the names they are known under.

Owns: what each one sends, what stops it, and what an attempt may meet with.
Never: measures; the arena does.
Follows: the advisories named, as far as they concern a server.
"""

import gzip
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from attacks.attack import Attack, Ground
from attacks.strikes import (
    calling,
    crowding,
    dripping,
    dropping,
    flooding,
    holding,
    shaking_halfway,
)
from hpack import Encoder
from wire.rawframes import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    SETTINGS,
    WINDOW_UPDATE,
    begin,
    data,
    frame,
    headers,
    message,
    ping,
    request_block,
    reset,
    settings,
    window_update,
)
from wire.socket_peer import call_fields

from kvsecure.proto import kv_pb2, watch_pb2

__all__ = ["ATTACKS"]

_CALM: Final = "GOAWAY ENHANCE_YOUR_CALM"
_RANGE: Final = "/etcdserverpb.KV/Range"
_WATCH: Final = "/etcdserverpb.Watch/Watch"
_HEALTH_WATCH: Final = "/grpc.health.v1.Health/Watch"
_WHOLE: Final = END_HEADERS | END_STREAM
_LARGE: Final = message(kv_pb2.RangeRequest(key=b"large").SerializeToString())
_HISTORY: Final = message(
    watch_pb2.WatchRequest(
        create_request=watch_pb2.WatchCreateRequest(key=b"large", start_revision=1)
    ).SerializeToString()
)
_INITIAL_WINDOW: Final = 4
_HEADER_TABLE_SIZE: Final = 1
_CLOSED: Final = [(_INITIAL_WINDOW, 0)]
_IDLE_BOUND: Final = "1,000 frames a second that carry nothing"
_RESET_BOUND: Final = "200 resets a second"
_MISTAKE_BOUND: Final = "50 mistakes a second that have to be answered with a reset"
_UNREAD_BOUND: Final = "8 MB of unread answers, and then nothing is made or read"
_BLOCK: Final = request_block(call_fields(_RANGE))
_STREAMS: Final = range(1, 2_001, 2)


def _each(make: Callable[[int], bytes], streams: Iterable[int] = _STREAMS) -> bytes:
    return b"".join(map(make, streams))


def _always(words: bytes) -> Callable[[Ground], bytes]:
    return lambda _: words


def _calls(
    count: int, content: bytes, path: str = _RANGE, *, ends: bool = True
) -> Callable[[Ground], bytes]:
    """Return words that make many calls with the token, each on a stream of its own."""

    def words(ground: Ground) -> bytes:
        block = request_block(call_fields(path, ground.token))
        wide = window_update(0, (1 << 31) - 1 - 65_535)
        flags = END_STREAM if ends else 0
        return wide + _each(
            lambda n: headers(n, block) + data(n, content, flags), range(1, 2 * count, 2)
        )

    return words


def _flood(name: str, identity: str, what: str, words: bytes, bound: str = _IDLE_BOUND) -> Attack:
    """Return an attack of which each attempt ends its own connection."""
    return Attack(
        name=name,
        identity=identity,
        what=what,
        bound=bound,
        strike=flooding(_always(words)),
        met=frozenset({_CALM}),
    )


# --- 2019: eight floods -------------------------------------------------------------------------


def _dribbled(ground: Ground) -> bytes:
    """Return calls for large answers, and windows for them of one byte each."""
    ask = _calls(100, _LARGE)(ground)
    return ask + _each(lambda n: window_update(n, 1), list(range(1, 200, 2)) * 200)


_FLOODS_OF_2019: Final = (
    Attack(
        name="CVE-2019-9511 Data Dribble",
        identity="data-dribble",
        what="asks for 100 answers of 1 MB and opens their windows one byte at a time",
        bound=_UNREAD_BOUND,
        strike=holding(_dribbled, changes=_CLOSED, reads=True),
        # Those that are ahead of the answers open windows for nothing.
        met=frozenset({"served", _CALM}),
    ),
    _flood(
        "CVE-2019-9512 Ping Flood",
        "ping-flood",
        "pings without end",
        ping() * 3_000,
        "two pings that come too early (`--grpc-keepalive-min-time`)",
    ),
    _flood(
        "CVE-2019-9512 Ping Flood (acknowledgements)",
        "ping-ack-flood",
        "answers pings that nobody sent",
        frame(PING, ACK, 0, bytes(8)) * 3_000,
    ),
    _flood(
        "CVE-2019-9513 Resource Loop",
        "resource-loop",
        "shuffles the priorities of streams",
        _each(lambda n: headers(n, _BLOCK), range(1, 200, 2))
        + _each(
            lambda n: frame(PRIORITY, 0, n, (n % 97 * 2 + 1).to_bytes(4, "big") + b"\x10"),
            [n for n in range(1, 200, 2) if n % 97 * 2 + 1 != n] * 40,
        ),
    ),
    _flood(
        "CVE-2019-9514 Reset Flood",
        "reset-flood",
        "opens streams with requests that are none, each of which is reset",
        _each(lambda n: headers(n, request_block([(b":bad", b"x")]))),
        _MISTAKE_BOUND,
    ),
    _flood("CVE-2019-9515 Settings Flood", "settings-flood", "sends SETTINGS", settings() * 3_000),
    _flood(
        "CVE-2019-9515 Settings Flood (acknowledgements)",
        "settings-ack-flood",
        "acknowledges SETTINGS that nobody sent",
        frame(SETTINGS, ACK, 0) * 3_000,
    ),
    _flood(
        "CVE-2019-9516 0-Length Headers Leak",
        "zero-length-headers",
        "sends header fields without name and value",
        _each(lambda n: headers(n, _BLOCK + b"\0\0\0" * 20)),
        _MISTAKE_BOUND,
    ),
    Attack(
        name="CVE-2019-9517 Internal Data Buffering",
        identity="internal-data-buffering",
        what="opens every window, asks for 4 GB and reads nothing from the socket",
        bound=_UNREAD_BOUND,
        strike=holding(_calls(2_000, _LARGE)),
        met=frozenset({"held", "held: not read from any more"}),
    ),
    _flood(
        "CVE-2019-9518 Empty Frames Flood (DATA)",
        "empty-data",
        "sends DATA without data",
        headers(1, _BLOCK) + data(1, b"") * 3_000,
    ),
    _flood(
        "CVE-2019-9518 Empty Frames Flood (CONTINUATION)",
        "empty-continuations",
        "sends CONTINUATION without fields",
        headers(1, _BLOCK, 0) + frame(CONTINUATION, 0, 1) * 3_000,
    ),
    Attack(
        name="CVE-2019-9518 Empty Frames Flood (PUSH_PROMISE)",
        identity="empty-push-promises",
        what="promises what only a server may",
        bound="the first one",
        strike=flooding(_always(frame(PUSH_PROMISE, END_HEADERS, 1) * 3_000)),
        met=frozenset({"GOAWAY PROTOCOL_ERROR"}),
    ),
)

# --- 2023 to 2025: resets and header blocks -----------------------------------------------------


def _made(wrong: Callable[[int], bytes], flags: int = _WHOLE) -> bytes:
    """Return requests, each followed by what makes a server reset it."""
    return _each(lambda n: headers(n, _BLOCK, flags) + wrong(n))


# Identity -> what it is in words, and what does it.
_MADE: Final = {
    "empty-window": ("a window update of nothing", _made(lambda n: window_update(n, 0))),
    "window-overflow": (
        "a window that overflows",
        _made(lambda n: window_update(n, (1 << 31) - 1)),
    ),
    "late-data": ("DATA after the end", _made(lambda n: data(n, b"x"))),
    "late-headers": ("HEADERS after the end", _made(lambda n: headers(n, _BLOCK, _WHOLE))),
    "priority-of-itself": (
        "a priority that rests on itself",
        _made(lambda n: frame(PRIORITY, 0, n, n.to_bytes(4, "big") + b"\0")),
    ),
    "priority-length": (
        "a priority of a wrong length",
        _made(lambda n: frame(PRIORITY, 0, n, bytes(4))),
    ),
}
_RESETS: Final = (
    _flood(
        "CVE-2023-44487 Rapid Reset",
        "rapid-reset",
        "begins requests and takes them back",
        _each(lambda n: headers(n, _BLOCK) + reset(n)),
        _RESET_BOUND,
    ),
    *[
        _flood(
            f"CVE-2025-8671 MadeYouReset ({what})",
            f"made-you-reset-{identity}",
            f"makes the server reset every stream, by {what}",
            words,
            _MISTAKE_BOUND,
        )
        for identity, (what, words) in _MADE.items()
    ],
    Attack(
        name="CVE-2025-8671 MadeYouReset (a window update of a wrong length)",
        identity="made-you-reset-window-length",
        what="makes the server end the connection, which is all it can do",
        bound="the first one",
        strike=flooding(_always(_made(lambda n: frame(WINDOW_UPDATE, 0, n, bytes(3))))),
        met=frozenset({"GOAWAY FRAME_SIZE_ERROR"}),
    ),
)
_CONTINUATIONS: Final = "CVE-2024-27316, -27919, -28182, -24549, -2653, -31309, CVE-2023-45288"
_BLOCK_BOUND: Final = "64 KB of one header block"
_HEADS: Final = (
    _flood(
        f"CONTINUATION Flood ({_CONTINUATIONS})",
        "continuation-flood",
        "begins a header block that does not end",
        headers(1, _BLOCK, 0) + frame(CONTINUATION, 0, 1, b"\0\x01x\x01y" * 3_000) * 40,
        _BLOCK_BOUND,
    ),
    _flood(
        "CONTINUATION Flood, a byte a frame",
        "continuation-flood-of-bytes",
        "the same with frames of one byte",
        headers(1, _BLOCK, 0) + frame(CONTINUATION, 0, 1, b"x") * 80_000,
    ),
    Attack(
        name="CONTINUATION Flood, broken off (CVE-2024-27983)",
        identity="continuation-flood-broken-off",
        what="hangs up within a header block, over and over",
        bound="what was kept goes with the connection",
        strike=dropping(
            _always(headers(1, _BLOCK, 0) + frame(CONTINUATION, 0, 1, bytes(15_000)) * 3)
        ),
        met=frozenset({"dropped"}),
    ),
    Attack(
        name="CVE-2016-6581 HPACK Bomb",
        identity="hpack-bomb",
        what="sends few bytes that stand for megabytes of fields",
        bound="16 KB of fields, counted while they are decoded",
        strike=flooding(
            _always(headers(1, _BLOCK + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4_000 + b"\xbe" * 10_000))
        ),
        met=frozenset({"GOAWAY COMPRESSION_ERROR"}),
    ),
    Attack(
        name="Header list overflow",
        identity="header-list-overflow",
        what="sends more fields than was announced, in the clear",
        bound="16 KB of fields, counted while they are decoded",
        strike=flooding(
            _always(headers(1, request_block([(b"x%02d" % n, b"y" * 940) for n in range(17)])))
        ),
        met=frozenset({"GOAWAY COMPRESSION_ERROR"}),
    ),
    Attack(
        name="Header fields of one byte",
        identity="one-byte-fields",
        what="sends requests with 300 fields that are a byte each on the wire",
        bound="100 fields a request",
        strike=flooding(
            _always(_each(lambda n: headers(n, _BLOCK + b"\x8f" * 300 + b"\0\x01x\x04%04d" % n)))
        ),
        met=frozenset({"GOAWAY COMPRESSION_ERROR"}),
    ),
    Attack(
        name="HPACK table resizing",
        identity="table-resizing",
        what="changes the size of the dynamic table thousands of times in a block",
        bound="two changes a block",
        strike=flooding(_always(headers(1, b"\x20" * 16_000))),
        met=frozenset({"GOAWAY COMPRESSION_ERROR"}),
    ),
    Attack(
        name="Huge SETTINGS_HEADER_TABLE_SIZE",
        identity="huge-header-table",
        what="offers a table of 4 GB, and fills ours with new fields",
        bound="answers are not compressed by a table; the peer's has 4 KB",
        strike=holding(
            lambda _: _filled_table(), changes=[(_HEADER_TABLE_SIZE, (1 << 32) - 1)], reads=True
        ),
        met=frozenset({"served"}),
    ),
)


def _filled_table() -> bytes:
    encoder = Encoder()
    fields = call_fields(_RANGE)
    return b"".join(
        headers(n, encoder.encode([*fields, (b"x-%d" % n, b"y" * 100)]), _WHOLE) for n in _STREAMS
    )


# --- windows ------------------------------------------------------------------------------------


def _blocked(words: bytes) -> bytes:
    """Return calls whose answers all wait for windows that are closed, and what comes then."""
    block = request_block(call_fields(_HEALTH_WATCH))
    watches = _each(lambda n: headers(n, block) + data(n, message(b""), END_STREAM), _FULL)
    return watches + words


_FULL: Final = range(1, 8_001, 2)
_WINDOWS: Final = (
    _flood(
        "WINDOW_UPDATE by one byte",
        "window-updates-by-one",
        "opens the connection's window, a byte at a time, for nothing",
        window_update(0, 1) * 3_000,
    ),
    Attack(
        name="WINDOW_UPDATE by one byte, 4,000 answers waiting",
        identity="window-updates-while-blocked",
        what="the same, while 4,000 streams wait for windows of their own",
        bound=_IDLE_BOUND,
        strike=flooding(_always(_blocked(window_update(0, 1) * 20_000)), changes=_CLOSED),
        met=frozenset({_CALM}),
    ),
    Attack(
        name="SETTINGS_INITIAL_WINDOW_SIZE toggled",
        identity="initial-window-toggled",
        what="moves the windows of 4,000 streams up and down",
        bound="1,000 frames a second; one that moves 16 streams' windows counts as two",
        strike=flooding(
            _always(
                _blocked(
                    (settings([(_INITIAL_WINDOW, 0)]) + settings([(_INITIAL_WINDOW, 1)])) * 20_000
                )
            ),
            changes=_CLOSED,
        ),
        met=frozenset({_CALM}),
    ),
    Attack(
        name="SETTINGS_INITIAL_WINDOW_SIZE toggled within one frame",
        identity="initial-window-toggled-in-a-frame",
        what="the same, 2,700 times in each SETTINGS",
        bound="the last value of a frame counts",
        strike=flooding(
            _always(_blocked(settings([(_INITIAL_WINDOW, 0), (_INITIAL_WINDOW, 1)] * 1_350) * 300)),
            changes=_CLOSED,
        ),
        met=frozenset({_CALM}),
    ),
    Attack(
        name="Zero-window reader",
        identity="zero-window-reader",
        what="asks for 4 GB on streams whose windows are closed",
        bound=_UNREAD_BOUND,
        strike=holding(_calls(2_000, _LARGE), changes=_CLOSED),
        met=frozenset({"held", "held: not read from any more"}),
    ),
    Attack(
        name="Slow watchers",
        identity="slow-watchers",
        what="watches 20 MB of history on 100 streams and reads nothing",
        bound="1 MB queued for a watcher, 8 MB for its connection; the rest stays history",
        strike=holding(_calls(100, _HISTORY, _WATCH, ends=False)),
        met=frozenset({"held", "held: not read from any more"}),
    ),
)

# --- connections --------------------------------------------------------------------------------

_SLOW_HEAD: Final = b"GET /health HTTP/1.1\r\nHost: x\r\nX-" + b"a" * 4_000
_CONNECTIONS: Final = (
    Attack(
        name="Slowloris",
        identity="slowloris",
        what="sends HTTP/1.1 requests a byte at a time on 100 connections",
        bound="60 s for a request, 10,000 connections",
        strike=dripping(_always(_SLOW_HEAD), 50, alpn="http/1.1"),
        met=frozenset({"held"}),
    ),
    Attack(
        name="One byte at a time",
        identity="one-byte-at-a-time",
        what="sends calls over HTTP/2 a byte a packet on 20 connections",
        bound="16 KB of a frame are kept, and 64 KB of a header block",
        strike=dripping(
            lambda ground: begin() + _calls(20, message(b"\n\1x"))(ground),
            10,
        ),
        met=frozenset({"held"}),
    ),
    Attack(
        name="Half-open handshakes",
        identity="half-open-handshakes",
        what="begins 400 handshakes and says no more",
        bound="10 s for a handshake, 10,000 connections",
        strike=shaking_halfway(200),
        met=frozenset({"held", "closed"}),
    ),
    Attack(
        name="Handshake flood",
        identity="handshake-flood",
        what="shakes hands and hangs up, over and over",
        bound="none but the attackers' own work; a handshake costs both sides the same",
        strike=crowding(1_000),
        met=frozenset({"served"}),
    ),
)

# --- gRPC ---------------------------------------------------------------------------------------


def _empty_messages(ground: Ground) -> bytes:
    block = request_block(call_fields(_WATCH, ground.token))
    return headers(1, block) + data(1, message(b"") * 3_276) * 300


_GRPC: Final = (
    Attack(
        name="gzip bomb",
        identity="gzip-bomb",
        what="sends a message of 100 KB that inflates to 100 MB",
        bound="a message is inflated up to the limit of a request",
        strike=calling(
            _RANGE,
            lambda: message(gzip.compress(bytes(100_000_000), 1, mtime=0), 1),
            grpc_encoding="gzip",
        ),
        met=frozenset({"status 8"}),
        strikes_max=10,
    ),
    Attack(
        name="Lying length prefix",
        identity="lying-length",
        what="announces a message of 4 GB",
        bound="the announcement is refused",
        strike=calling(_RANGE, lambda: b"\0\xff\xff\xff\xff" + bytes(1_000)),
        met=frozenset({"status 8"}),
    ),
    Attack(
        name="Length prefix without a message",
        identity="length-without-message",
        what="announces 1 MB on 4,000 streams, and sends one byte of each",
        bound="what has come is kept, and no more",
        strike=holding(
            _calls(4_000, (1_000_000).to_bytes(5, "big") + b"x", ends=False), reads=True
        ),
        met=frozenset({"served"}),
    ),
    _flood(
        "Frames of no known type",
        "unknown-frames",
        "sends frames that have to be ignored",
        frame(99, 0, 0, b"x") * 3_000,
    ),
    Attack(
        name="Messages without content",
        identity="empty-messages",
        what="sends a million empty messages on one stream",
        bound="a frame of them, and then it is the others' turn",
        strike=holding(_empty_messages, reads=True),
        met=frozenset({"served"}),
    ),
    Attack(
        name="Unread responses",
        identity="unread-responses",
        what="asks for 100 MB on each of 20 connections, and reads nothing",
        bound="8 MB a connection; 64 KB each once 256 MB are unread",
        strike=holding(_calls(100, _LARGE)),
        met=frozenset({"held", "held: not read from any more"}),
        attackers=20,
        grown_bytes_max=20 * 30_000_000,
    ),
)

ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        attack.identity: attack
        for attack in (
            *_FLOODS_OF_2019,
            *_RESETS,
            *_HEADS,
            *_WINDOWS,
            *_CONNECTIONS,
            *_GRPC,
        )
    }
)

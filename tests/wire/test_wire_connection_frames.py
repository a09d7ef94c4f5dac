"""RFC 9113 sections 3 to 8, rule by rule: what each frame has to be, and what it does."""

from typing import Final

import pytest
from wire.dialogue import LIMITS, TRAILERS, Dialogue, continued, merged
from wire.rawframes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    REQUEST_FIELDS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    data,
    frame,
    headers,
    ping,
    request_block,
    reset,
    settings,
    window_update,
)

from kvsecure.wire.h2.connection import DATA as DATA_EVENT
from kvsecure.wire.h2.connection import DRAINED, REQUEST, RESET
from kvsecure.wire.h2.frames import ErrorCode

_PROTOCOL: Final = ErrorCode.PROTOCOL_ERROR
_SIZE: Final = ErrorCode.FRAME_SIZE_ERROR
_FLOW: Final = ErrorCode.FLOW_CONTROL_ERROR
_HEADER_TABLE_SIZE, _PUSH, _STREAMS, _WINDOW, _FRAME, _LIST = range(1, 7)


def test_server_speaks_first() -> None:
    """The first frame of a server is its settings (section 3.4)."""
    dialogue = Dialogue(fresh=True)

    first, second = dialogue.look()

    assert first.type == SETTINGS
    assert first.payload == b"".join(
        number.to_bytes(2, "big") + value.to_bytes(4, "big")
        for number, value in (
            (_STREAMS, LIMITS.streams_max),
            (_WINDOW, LIMITS.stream_window_bytes),
            (_LIST, LIMITS.header_list_bytes_max),
        )
    )
    increment = (LIMITS.connection_window_bytes - 65_535).to_bytes(4, "big")
    assert second == Frame(WINDOW_UPDATE, 0, 0, increment)


@pytest.mark.parametrize("first", [ping(), headers(1, request_block()), frame(77, 0, 0)])
def test_peer_begins_with_settings(first: bytes) -> None:
    """A connection that does not begin with settings is no HTTP/2 (section 3.4)."""
    dialogue = Dialogue(fresh=True)

    dialogue.feed(PREFACE, first)

    assert dialogue.failure == _PROTOCOL


_WRONG: Final[dict[str, tuple[bytes, ErrorCode]]] = {
    "5.1.1 an even stream": (headers(2, request_block()), _PROTOCOL),
    "5.5 an unknown frame within a header block": (
        headers(1, b"", 0) + frame(77, 0, 1),
        _PROTOCOL,
    ),
    "6.1 data of no stream": (data(0, b"x"), _PROTOCOL),
    "6.1 padding as long as the payload": (
        headers(1, request_block()) + data(1, b"\3ab", PADDED),
        _PROTOCOL,
    ),
    "6.1 padding without a length": (headers(1, request_block()) + data(1, b"", PADDED), _PROTOCOL),
    "6.2 headers of no stream": (headers(0, request_block()), _PROTOCOL),
    "6.2 padding as long as the block": (headers(1, b"\3ab", END_HEADERS | PADDED), _PROTOCOL),
    "6.2 a cut priority": (headers(1, b"\0\0\0\0", END_HEADERS | PRIORITY_FLAG), _SIZE),
    "6.2 a request that rests on itself": (
        headers(1, b"\0\0\0\1\0" + request_block(), END_HEADERS | PRIORITY_FLAG),
        _PROTOCOL,
    ),
    "6.2 data within a header block": (headers(1, b"", 0) + data(1, b"x"), _PROTOCOL),
    "6.2 another request within a header block": (
        headers(1, b"", 0) + headers(3, request_block()),
        _PROTOCOL,
    ),
    "6.3 priority of no stream": (frame(PRIORITY, 0, 0, bytes(5)), _PROTOCOL),
    "6.4 reset of no stream": (reset(0), _PROTOCOL),
    "6.4 reset of an idle stream": (reset(1), _PROTOCOL),
    "6.4 a short reset": (frame(RST_STREAM, 0, 1, bytes(3)), _SIZE),
    "6.4 a long reset": (frame(RST_STREAM, 0, 1, bytes(5)), _SIZE),
    "6.5 settings of a stream": (frame(SETTINGS, 0, 1), _PROTOCOL),
    "6.5 an acknowledgement with settings": (frame(SETTINGS, ACK, 0, bytes(6)), _SIZE),
    "6.5 settings of a wrong size": (frame(SETTINGS, 0, 0, bytes(5)), _SIZE),
    "6.5.2 push neither on nor off": (settings([(_PUSH, 2)]), _PROTOCOL),
    "6.5.2 a window too large": (settings([(_WINDOW, 2**31)]), _FLOW),
    "6.5.2 frames too small": (settings([(_FRAME, 16_383)]), _PROTOCOL),
    "6.5.2 frames too large": (settings([(_FRAME, 2**24)]), _PROTOCOL),
    "6.6 a push": (frame(PUSH_PROMISE, 4, 1, bytes(4)), _PROTOCOL),
    "6.7 a ping of a stream": (frame(PING, 0, 1, bytes(8)), _PROTOCOL),
    "6.7 a short ping": (frame(PING, 0, 0, bytes(7)), _SIZE),
    "6.7 a long ping": (frame(PING, ACK, 0, bytes(9)), _SIZE),
    "6.8 a goaway of a stream": (frame(GOAWAY, 0, 1, bytes(8)), _PROTOCOL),
    "6.8 a short goaway": (frame(GOAWAY, 0, 0, bytes(7)), _SIZE),
    "6.9 a short window update": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), _SIZE),
    "6.9 a window update of nothing": (window_update(0, 0), _PROTOCOL),
    "6.9 a window update of an idle stream": (window_update(1, 1), _PROTOCOL),
    "6.9.1 a connection's window too large": (window_update(0, 2**31 - 65_535), _FLOW),
    "6.10 a continuation of nothing": (frame(CONTINUATION, 4, 1), _PROTOCOL),
    "6.10 a continuation of another stream": (
        headers(1, b"", 0) + frame(CONTINUATION, 4, 3),
        _PROTOCOL,
    ),
    "4.3 a block that cannot be decoded": (
        headers(1, b"\xff\xff"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "4.3 trailers that cannot be decoded": (
        headers(1, request_block()) + headers(1, b"\xff\xff", END_HEADERS | END_STREAM),
        ErrorCode.COMPRESSION_ERROR,
    ),
}


@pytest.mark.parametrize(("sent", "code"), _WRONG.values(), ids=_WRONG.keys())
def test_wrong_frame_ends_the_connection(sent: bytes, code: ErrorCode) -> None:
    """Each rule about a frame is kept, and its error has the code that its section names."""
    dialogue = Dialogue()

    dialogue.feed(sent)

    assert dialogue.failure == code


_WRONG_ON_A_STREAM: Final[dict[str, tuple[bytes, ErrorCode]]] = {
    "5.3.1 a stream that rests on itself": (frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), _PROTOCOL),
    "6.3 priority of a wrong size": (frame(PRIORITY, 0, 1, bytes(4)), _SIZE),
    "6.9 a window update of nothing": (window_update(1, 0), _PROTOCOL),
    "6.9.1 a window too large": (window_update(1, 2**31 - 65_535), _FLOW),
    "8.1 trailers that do not end": (headers(1, TRAILERS), _PROTOCOL),
    "8.1 trailers with a pseudo-header field": (
        headers(1, request_block(), END_HEADERS | END_STREAM),
        _PROTOCOL,
    ),
}


@pytest.mark.parametrize(
    ("sent", "code"), _WRONG_ON_A_STREAM.values(), ids=_WRONG_ON_A_STREAM.keys()
)
def test_wrong_frame_ends_its_stream(sent: bytes, code: ErrorCode) -> None:
    """An error of one stream is answered on it, and told to whoever serves it."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()))

    events = dialogue.feed(sent)

    assert (dialogue.failure, dialogue.resets) == (None, {1: code})
    assert events == [(RESET, 1, code)]


# --- what frames do ---------------------------------------------------------------------------


def test_request_in_one_piece_is_one_event() -> None:
    """A request that comes whole is told whole."""
    dialogue = Dialogue()

    events = dialogue.feed(headers(1, request_block()), data(1, b"content", END_STREAM))

    ((kind, stream, head, content, ended),) = events
    assert (kind, stream, content, ended) == (REQUEST, 1, b"content", True)
    assert head.path == b"/etcdserverpb.KV/Range"
    assert dialogue.connection.outgoing.streams == {1: None}


def test_padding_is_no_content() -> None:
    """Padding of headers and data is cut off (sections 6.1 and 6.2)."""
    dialogue = Dialogue()
    padded = b"\4" + request_block() + bytes(4)

    dialogue.feed(headers(1, padded, END_HEADERS | PADDED))
    dialogue.feed(data(1, b"\3abc\0\0\0", PADDED), data(1, b"\0def", PADDED | END_STREAM))

    assert merged(dialogue.events)[1][1:] == [b"abcdef", True, None]


def test_priority_of_a_request_is_skipped() -> None:
    """The priority in front of a header block is not part of it (section 6.2)."""
    dialogue = Dialogue()
    block = b"\2\0\0\0\3\x10" + request_block() + bytes(2)

    events = dialogue.feed(headers(1, block, END_HEADERS | PRIORITY_FLAG | PADDED))

    assert [event[:2] for event in events] == [(REQUEST, 1)]


@pytest.mark.parametrize("size", [1, 2, 50, 10_000])
def test_header_block_may_come_in_pieces(size: int) -> None:
    """A header block may be cut anywhere; its flags are those of its beginning (section 6.10)."""
    dialogue = Dialogue()

    events = dialogue.feed(continued(1, request_block(), size, END_STREAM))

    assert [(event[0], event[2].path, event[4]) for event in events] == [
        (REQUEST, b"/etcdserverpb.KV/Range", True)
    ]


def test_trailers_end_a_request() -> None:
    """A second header block is the end of a request (section 8.1)."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()), data(1, b"x"))

    events = dialogue.feed(headers(1, TRAILERS, END_HEADERS | END_STREAM))

    assert events == [(DATA_EVENT, 1, b"", True)]


def test_settings_are_acknowledged_in_order() -> None:
    """Every settings frame is acknowledged once, and an acknowledgement is not (section 6.5.3)."""
    dialogue = Dialogue()

    dialogue.feed(settings(), settings([(_FRAME, 20_000)]), frame(SETTINGS, ACK, 0))

    assert [one for one in dialogue.frames if one.type == SETTINGS] == [
        Frame(SETTINGS, ACK, 0, b"")
    ] * 2


def test_unknown_settings_are_ignored() -> None:
    """A setting that is not known means nothing (section 6.5.2)."""
    dialogue = Dialogue()

    dialogue.feed(settings([(0, 1), (77, 2**32 - 1), (0xFFFF, 0), (_HEADER_TABLE_SIZE, 0)]))

    assert dialogue.failure is None


def test_last_of_equal_settings_counts() -> None:
    """Settings take effect in the order they stand in (section 6.5.3)."""
    dialogue = Dialogue(changes=[(_WINDOW, 100), (_WINDOW, 1)])
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))

    dialogue.connection.outgoing.respond(1, b"\x88", b"", b"abc", TRAILERS)

    assert [one.payload for one in dialogue.look() if one.type == DATA] == [b"a"]


def test_larger_initial_window_lets_content_go() -> None:
    """Content that waits for its stream goes when the initial window grows (section 6.9.2)."""
    dialogue = Dialogue(changes=[(_WINDOW, 1)])
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))
    dialogue.connection.outgoing.respond(1, b"\x88", b"", b"abc", TRAILERS)
    dialogue.look()

    dialogue.feed(settings([(_WINDOW, 3)]))

    assert [one.payload for one in dialogue.frames if one.type == DATA] == [b"a", b"bc"]


def test_settings_are_acknowledged_before_they_are_used() -> None:
    """What new settings allow comes after their acknowledgement (section 6.5.3)."""
    dialogue = Dialogue(changes=[(_WINDOW, 0)])
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))
    dialogue.connection.outgoing.respond(1, b"\x88", b"", bytes(20_000), TRAILERS)
    dialogue.look()
    dialogue.frames.clear()

    dialogue.feed(settings([(_WINDOW, 20_000), (_FRAME, 20_000)]))

    assert [one.type for one in dialogue.frames] == [SETTINGS, DATA, HEADERS]


def test_initial_window_may_not_overflow_a_stream() -> None:
    """A setting that makes a stream's window too large ends the connection (section 6.9.2)."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()), window_update(1, 2**31 - 1 - 65_535))

    dialogue.feed(settings([(_WINDOW, 65_536)]))

    assert dialogue.failure == _FLOW


def test_ping_is_answered_and_an_answer_is_not() -> None:
    """A ping comes back with its content; an answer to one does not (section 6.7)."""
    dialogue = Dialogue()

    dialogue.feed(ping(b"abcdefgh"), ping(b"ABCDEFGH", ACK))

    assert dialogue.said == [Frame(PING, ACK, 0, b"abcdefgh")]


def test_goaway_of_the_peer_lets_its_requests_go_on() -> None:
    """A peer that goes away still gets its answers, and may even ask (section 6.8)."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()))

    dialogue.feed(frame(GOAWAY, 0, 0, bytes(8) + b"bye"))

    assert dialogue.feed(data(1, b"x", END_STREAM)) == [(DATA_EVENT, 1, b"x", True)]
    assert dialogue.failure is None


def test_reset_is_told_with_its_code() -> None:
    """Whoever works on an answer learns that nobody waits for it (section 6.4)."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))

    assert dialogue.feed(reset(1, 0x12345678)) == [(RESET, 1, 0x12345678)]
    assert dialogue.feed(reset(1)) == []


def test_producer_is_told_that_its_stream_is_drained() -> None:
    """A window update that lets the last of a held stream go says so."""
    dialogue = Dialogue(changes=[(_WINDOW, 0)])
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))
    outgoing = dialogue.connection.outgoing
    outgoing.send_headers(1, b"\x88")
    outgoing.send_data(1, b"abc")

    assert outgoing.is_full(1, 2)
    assert dialogue.feed(window_update(1, 2)) == []
    assert dialogue.feed(window_update(1, 1)) == [(DRAINED, 1)]


# --- flow control of what comes ---------------------------------------------------------------


def test_peer_may_use_its_whole_window() -> None:
    """As much as was promised may come in one go, and is promised again (section 6.9)."""
    limits = LIMITS._replace(stream_window_bytes=20_000, connection_window_bytes=70_000)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))

    dialogue.feed(data(1, bytes(10_000)), data(1, bytes(10_000)))

    assert dialogue.failure is None
    updates = [
        (one.stream, int.from_bytes(one.payload, "big"))
        for one in dialogue.frames
        if one.type == WINDOW_UPDATE
    ]
    assert updates == [(1, 10_000), (1, 10_000)]


def test_stream_may_not_get_more_than_promised() -> None:
    """Data beyond a stream's window ends the stream (section 6.9)."""
    limits = LIMITS._replace(stream_window_bytes=100)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))

    events = dialogue.feed(data(1, bytes(101)))

    assert (dialogue.resets, events) == ({1: _FLOW}, [(RESET, 1, _FLOW)])


def test_connection_may_not_get_more_than_promised() -> None:
    """Data beyond the connection's window ends it, on whatever streams it comes (section 6.9)."""
    limits = LIMITS._replace(connection_window_bytes=65_535, stream_window_bytes=16_384)
    dialogue = Dialogue(limits)
    streams = range(1, 11, 2)
    dialogue.feed(*(headers(stream, request_block()) for stream in streams))

    dialogue.feed(*(data(stream, bytes(16_384), END_STREAM) for stream in streams))

    assert dialogue.failure == _FLOW


@pytest.mark.parametrize("padding", [0, 200])
def test_padding_uses_the_window(padding: int) -> None:
    """The whole payload counts, padding as well (section 6.9.1)."""
    limits = LIMITS._replace(stream_window_bytes=150)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))

    dialogue.feed(data(1, bytes((padding,)) + b"x" + bytes(padding), PADDED))

    assert dialogue.resets == ({1: _FLOW} if padding else {})


def test_data_for_nobody_is_promised_again() -> None:
    """Data of streams that were given up uses the connection's window, and gives it back."""
    limits = LIMITS._replace(connection_window_bytes=65_535)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.outgoing.refuse(1, TRAILERS)

    for _ in range(100):
        assert dialogue.feed(data(1, bytes(10_000))) == []

    assert dialogue.failure is None


# --- content-length ---------------------------------------------------------------------------


def _with_length(length: int) -> bytes:
    return request_block((*REQUEST_FIELDS, (b"content-length", b"%d" % length)))


_CONTENTS: Final = {
    "whole": (data(1, b"abc", END_STREAM),),
    "in pieces": (data(1, b"a"), data(1, b"bc"), data(1, b"", END_STREAM)),
    "with trailers": (data(1, b"abc"), headers(1, TRAILERS, END_HEADERS | END_STREAM)),
    "padded": (data(1, b"\2abc\0\0", PADDED | END_STREAM),),
}


@pytest.mark.parametrize("parts", _CONTENTS.values(), ids=_CONTENTS.keys())
@pytest.mark.parametrize("promised", [2, 3, 4])
def test_content_is_as_long_as_it_says(parts: tuple[bytes, ...], promised: int) -> None:
    """A request whose content is not as long as it says is malformed (section 8.1.1)."""
    dialogue = Dialogue()

    dialogue.feed(headers(1, _with_length(promised)), *parts)

    told = merged(dialogue.events).get(1)
    if promised == 3:
        assert told is not None
        assert told[1:] == [b"abc", True, None]
    else:
        assert dialogue.resets == {1: _PROTOCOL}
        assert told is None or told[3] == _PROTOCOL


def test_request_without_content_says_so() -> None:
    """A request that ends with its head has no content, and may say so (section 8.1.1)."""
    dialogue = Dialogue()
    flags = END_HEADERS | END_STREAM

    dialogue.feed(headers(1, _with_length(0), flags), headers(3, _with_length(1), flags))

    assert list(merged(dialogue.events)) == [1]
    assert dialogue.resets == {3: _PROTOCOL}


@pytest.mark.parametrize("flags", [END_HEADERS, END_HEADERS | END_STREAM])
def test_malformed_request_costs_its_stream(flags: int) -> None:
    """A request that is malformed is reset and never told (section 8.1.1)."""
    dialogue = Dialogue()

    events = dialogue.feed(headers(1, request_block([(b"a", b"b")]), flags))

    assert (events, dialogue.resets, dialogue.failure) == ([], {1: _PROTOCOL}, None)
    assert dialogue.feed(data(1, b"late")) == []
    assert dialogue.failure is None


def test_first_frame_of_a_kind_is_the_header() -> None:
    """An answer begins with its headers, whatever else happens on the connection."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()), data(1, b"x", END_STREAM), ping())

    dialogue.connection.outgoing.respond(1, b"\x88", b"", b"y", TRAILERS)

    assert [one.type for one in dialogue.look()] == [HEADERS, DATA, HEADERS]

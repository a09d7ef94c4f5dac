"""What a peer may make a connection hold or do, and what happens beyond it (section 10.5)."""

from typing import Final

import pytest
from wire.dialogue import LIMITS, TRAILERS, Dialogue, continued
from wire.rawframes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    PING,
    PRIORITY,
    REQUEST_FIELDS,
    SETTINGS,
    WINDOW_UPDATE,
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

from kvsecure.wire.h2.frames import ErrorCode

_CALM: Final = ErrorCode.ENHANCE_YOUR_CALM
_REFUSED: Final = ErrorCode.REFUSED_STREAM
_WHOLE: Final = END_HEADERS | END_STREAM


def _requests(streams: range) -> bytes:
    block = request_block()
    return b"".join(
        headers(stream, block) + data(stream, message(b""), END_STREAM) for stream in streams
    )


# --- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [END_HEADERS, _WHOLE])
def test_streams_beyond_the_limit_are_refused(flags: int) -> None:
    """A request beyond the limit is refused as not begun: it may be tried again (5.1.2)."""
    dialogue = Dialogue(LIMITS._replace(streams_max=3))

    events = dialogue.feed(*(headers(stream, request_block(), flags) for stream in range(1, 11, 2)))

    assert [event[1] for event in events] == [1, 3, 5]
    assert dialogue.resets == {7: _REFUSED, 9: _REFUSED}
    assert dialogue.failure is None


def test_answered_stream_makes_room() -> None:
    """A stream that is over counts no more, however it ended."""
    dialogue = Dialogue(LIMITS._replace(streams_max=3))
    dialogue.feed(_requests(range(1, 7, 2)))

    dialogue.connection.outgoing.respond(1, b"\x88", b"", b"", TRAILERS)
    dialogue.connection.outgoing.refuse(3, TRAILERS)
    dialogue.feed(reset(5))

    assert len(dialogue.feed(_requests(range(7, 13, 2)))) == 3
    assert not dialogue.resets


def test_refused_request_still_changes_the_table() -> None:
    """The header block of a refused request is decoded: later ones rest on it (section 4.3)."""
    dialogue = Dialogue(LIMITS._replace(streams_max=1))
    named = request_block() + b"\x40\x05token\x05alice"
    dialogue.feed(headers(1, request_block(), _WHOLE), headers(3, named, _WHOLE), reset(1))

    ((_, _, head, _, _),) = dialogue.feed(headers(5, request_block() + b"\xbe", _WHOLE))

    assert (b"token", b"alice") in head.fields


def test_held_data_is_not_promised_again() -> None:
    """While what came is being held the connection promises no more; then it does at once."""
    limits = LIMITS._replace(connection_window_bytes=65_535, stream_window_bytes=65_535)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.hold()

    dialogue.feed(*[data(1, bytes(16_000))] * 4)
    held = [one.stream for one in dialogue.frames if one.type == WINDOW_UPDATE]
    dialogue.connection.release()
    released = dialogue.look()

    assert 0 not in held
    assert [(one.type, one.stream, one.payload) for one in released] == [
        (WINDOW_UPDATE, 0, (64_000).to_bytes(4, "big"))
    ]


def test_held_connection_is_bounded() -> None:
    """While it is held, a peer that goes on ends its connection at the window."""
    limits = LIMITS._replace(connection_window_bytes=65_535)
    dialogue = Dialogue(limits)
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.hold()

    dialogue.feed(*[data(1, bytes(16_000))] * 5)

    assert dialogue.failure == ErrorCode.FLOW_CONTROL_ERROR


# --- header blocks ----------------------------------------------------------------------------


def test_header_block_is_bounded() -> None:
    """A header block that does not end is given up, before it is decoded (CVE-2024-27316)."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, bytes(16_000), 0))
    for _ in range(10):
        dialogue.feed(frame(CONTINUATION, 0, 1, bytes(16_000)))

    assert dialogue.failure == _CALM
    assert len(dialogue.connection._header_block) < 2 * LIMITS.header_block_bytes_max


def test_empty_continuations_are_bounded() -> None:
    """A header block that goes on with nothing is given up."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, b"", 0))

    dialogue.feed(frame(CONTINUATION, 0, 1) * (LIMITS.idle_frames_per_s_max + 1))

    assert dialogue.failure == _CALM


def test_small_continuations_are_bounded() -> None:
    """A header block that comes in thousands of frames is given up long before its size."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, b"", 0))

    dialogue.feed(frame(CONTINUATION, 0, 1, b"x") * (LIMITS.idle_frames_per_s_max + 1))

    assert dialogue.failure == _CALM


def test_fields_are_bounded() -> None:
    """Fields beyond the announced size are not taken, however few bytes they came in."""
    dialogue = Dialogue()
    entry = b"\x40\x01x\x7f\xa1\x1e" + bytes(b"v" * 4_000)
    dialogue.feed(headers(1, request_block() + entry, _WHOLE))

    dialogue.feed(headers(3, request_block() + b"\xbe" * 5, _WHOLE))

    assert dialogue.failure == ErrorCode.COMPRESSION_ERROR


def test_largest_header_block_is_taken() -> None:
    """What the limits allow is a request, in however many pieces."""
    dialogue = Dialogue()
    fields = [(b"x", b"v" * 1_000)] * 15

    events = dialogue.feed(continued(1, request_block((*REQUEST_FIELDS, *fields)), 700))

    assert len(events) == 1


# --- floods -----------------------------------------------------------------------------------

_FLOODS: Final[dict[str, bytes]] = {
    "pings": ping(),
    "acknowledged pings": ping(flags=ACK),
    "settings": settings(),
    "acknowledged settings": frame(SETTINGS, ACK, 0),
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\3\0"),
    "empty data": data(1, b""),
    "window updates of the connection": window_update(0, 1),
    "window updates of a stream": window_update(1, 1),
    "window updates of a stream that is over": window_update(3, 1),
    "goaways": frame(GOAWAY, 0, 0, bytes(8)),
    "unknown frames": frame(77, 0, 0),
}


def _flooded() -> Dialogue:
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()), headers(3, request_block(), _WHOLE))
    dialogue.connection.outgoing.refuse(3, TRAILERS)
    return dialogue


@pytest.mark.parametrize("flood", _FLOODS.values(), ids=_FLOODS.keys())
def test_flood_ends_the_connection(flood: bytes) -> None:
    """Frames that cost us work and the peer nothing are bounded (CVE-2019-9512 and its kin)."""
    dialogue = _flooded()
    # What the one answer has earned, if they open windows.
    dialogue.feed(window_update(0, 1) * 2)

    dialogue.feed(flood * (LIMITS.idle_frames_per_s_max + 1))

    assert dialogue.failure == _CALM


@pytest.mark.parametrize("flood", _FLOODS.values(), ids=_FLOODS.keys())
def test_patient_peer_is_not_taken_for_a_flood(flood: bytes) -> None:
    """As many as allowed in every second are no flood."""
    dialogue = _flooded()
    for _ in range(5):
        dialogue.feed(flood * (LIMITS.idle_frames_per_s_max // 2))
        dialogue.connection.tick()

    assert dialogue.failure is None


@pytest.mark.parametrize("flood", [ping(), window_update(0, 1)], ids=["pings", "windows"])
def test_busy_peer_is_not_taken_for_a_flood(flood: bytes) -> None:
    """Who is sent answers may ping and open windows as often as it is sent them."""
    dialogue = Dialogue()
    for stream in range(1, 2 * 3 * LIMITS.idle_frames_per_s_max, 2):
        dialogue.feed(_requests(range(stream, stream + 2, 2)), flood)
        dialogue.connection.outgoing.respond(stream, b"\x88", b"", b"x", TRAILERS)
        dialogue.look()

    assert dialogue.failure is None


def test_taking_requests_back_is_bounded() -> None:
    """Beginning requests and taking them back is bounded (CVE-2023-44487)."""
    dialogue = Dialogue()
    block = request_block()
    for stream in range(1, 2 * (LIMITS.resets_per_s_max + 2), 2):
        dialogue.feed(headers(stream, block, _WHOLE), reset(stream))

    assert dialogue.failure == _CALM


def test_taking_some_requests_back_is_allowed() -> None:
    """Cancelling as many requests a second as allowed is no attack."""
    dialogue = Dialogue()
    block = request_block()
    stream = 1
    for _ in range(5):
        for _ in range(LIMITS.resets_per_s_max):
            dialogue.feed(headers(stream, block, _WHOLE), reset(stream))
            stream += 2
        dialogue.connection.tick()

    assert dialogue.failure is None


_MADE_US: Final[dict[str, bytes]] = {
    "a window update of nothing": frame(8, 0, 1, bytes(4)),
    "a window too large": window_update(1, 2**31 - 1),
    "data after the end": data(1, b"x"),
    "headers after the end": headers(1, TRAILERS),
    "a priority of itself": frame(PRIORITY, 0, 1, b"\0\0\0\1\0"),
}


@pytest.mark.parametrize("wrong", _MADE_US.values(), ids=_MADE_US.keys())
def test_making_us_reset_is_bounded(wrong: bytes) -> None:
    """Of errors that make us reset fewer are borne than of the peer's resets (CVE-2025-8671)."""
    dialogue = Dialogue()
    block = request_block()
    for stream in range(1, 2 * (LIMITS.mistakes_per_s_max + 2), 2):
        number = stream.to_bytes(4, "big")
        one = wrong[:5] + number + wrong[9:].replace(b"\0\0\0\1\0", number + b"\0")
        dialogue.feed(headers(stream, block, _WHOLE), one)

    assert dialogue.failure == _CALM


def test_malformed_requests_are_bounded() -> None:
    """Requests that are none cost a reset each."""
    dialogue = Dialogue()
    block = request_block([(b"a", b"b")])

    dialogue.feed(*(headers(n, block) for n in range(1, 2 * (LIMITS.mistakes_per_s_max + 2), 2)))

    assert dialogue.failure == _CALM


def test_streams_that_are_one_too_many_are_borne_like_resets() -> None:
    """A peer that is faster than our settings makes no mistake; one that goes on is a flood."""
    dialogue = Dialogue(LIMITS._replace(streams_max=1))
    block = request_block()

    dialogue.feed(*(headers(n, block) for n in range(1, 2 * LIMITS.resets_per_s_max + 2, 2)))
    assert dialogue.failure is None

    dialogue.feed(headers(2 * LIMITS.resets_per_s_max + 3, block))
    assert dialogue.failure == _CALM


# --- windows ----------------------------------------------------------------------------------

_INITIAL_WINDOW: Final = 4


def _starved(count: int) -> Dialogue:
    """Return a connection on which answers wait for windows of streams that are all closed."""
    dialogue = Dialogue(changes=[(_INITIAL_WINDOW, 0)])
    for stream in range(1, 2 * count + 1, 2):
        dialogue.feed(headers(stream, request_block(), _WHOLE))
        dialogue.connection.outgoing.send_headers(stream, b"\x88")
        dialogue.connection.outgoing.send_data(stream, bytes(1_000))
    dialogue.connection.tick()
    return dialogue


def test_moving_the_windows_of_many_streams_is_bounded() -> None:
    """A SETTINGS frame that makes us look at every stream counts as so many frames."""
    few, many = _starved(1), _starved(LIMITS.streams_max)
    toggles = (settings([(_INITIAL_WINDOW, 1)]) + settings([(_INITIAL_WINDOW, 0)])) * 150

    for dialogue in (few, many):
        dialogue.connection.tick()
        # Whatever is waited for is sent with the first; after that nothing moves.
        dialogue.feed(toggles)

    assert few.failure is None
    assert many.failure == _CALM


def test_windows_are_moved_once_for_a_frame() -> None:
    """However often one SETTINGS frame changes its mind, the last word counts (section 6.5.3)."""
    dialogue = _starved(2)

    dialogue.feed(settings([(_INITIAL_WINDOW, 500), (_INITIAL_WINDOW, 0)] * 900))
    assert not [one for one in dialogue.frames if one.type == DATA]

    dialogue.feed(settings([(_INITIAL_WINDOW, 0), (_INITIAL_WINDOW, 7)]))
    assert [len(one.payload) for one in dialogue.frames if one.type == DATA] == [7, 7]


def test_window_that_was_too_large_on_the_way_is_an_error() -> None:
    """A value that overflows a stream's window is one, even if a smaller one follows it."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()), window_update(1, 2**31 - 1 - 65_535))
    dialogue.connection.outgoing.send_headers(1, b"\x88")

    dialogue.feed(settings([(_INITIAL_WINDOW, 65_535), (_INITIAL_WINDOW, 65_536 - 1)]))
    assert dialogue.failure is None

    dialogue.feed(settings([(_INITIAL_WINDOW, 65_536), (_INITIAL_WINDOW, 10)]))
    assert dialogue.failure == ErrorCode.FLOW_CONTROL_ERROR


def test_streams_without_a_window_are_not_looked_at() -> None:
    """What a window update costs does not grow with the answers that wait for other windows."""
    dialogue = _starved(LIMITS.streams_max)
    outgoing = dialogue.connection.outgoing

    dialogue.feed(window_update(0, 1) * 10)
    assert not outgoing._queued

    dialogue.feed(window_update(3, 1))
    assert [one.stream for one in dialogue.frames if one.type == DATA] == [3]
    assert not outgoing._queued


def test_windows_that_move_nothing_are_bounded_while_answers_wait() -> None:
    """That something waits does not make every window update one that was waited for."""
    dialogue = _starved(3)

    dialogue.feed(window_update(0, 1) * (LIMITS.idle_frames_per_s_max + 20))

    assert dialogue.failure == _CALM


def test_stream_that_is_gone_waits_for_nothing() -> None:
    """Requests that are taken back while the connection's window is closed leave nothing behind."""
    dialogue = Dialogue()
    outgoing = dialogue.connection.outgoing
    outgoing.send_window = 0
    for stream in range(1, 201, 2):
        dialogue.feed(headers(stream, request_block(), _WHOLE))
        outgoing.send_headers(stream, b"\x88")
        outgoing.send_data(stream, b"x")
        dialogue.feed(reset(stream))

    assert not outgoing._queued
    assert not outgoing.streams


# --- going away -------------------------------------------------------------------------------


def test_going_away_names_the_last_request() -> None:
    """Who is asked to go elsewhere learns which requests were taken (section 6.8)."""
    dialogue = Dialogue()
    dialogue.feed(_requests(range(1, 7, 2)))

    dialogue.connection.go_away()
    dialogue.connection.go_away()
    dialogue.look()

    assert [(one.payload[:4], one.payload[4:8]) for one in dialogue.goaways] == [
        (b"\0\0\0\5", bytes(4))
    ]


def test_requests_are_answered_after_going_away() -> None:
    """Requests that were taken go on, with their content and their answers."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.go_away()

    events = dialogue.feed(data(1, message(b""), END_STREAM))
    dialogue.connection.outgoing.respond(1, b"\x88", b"", b"x", TRAILERS)

    assert [event[1:] for event in events] == [(1, message(b""), True)]
    assert [one.stream for one in dialogue.look()] == [1, 1, 1]


def test_requests_on_their_way_do_not_end_the_connection() -> None:
    """However many requests were on their way when we went away, those before are answered."""
    dialogue = Dialogue()
    dialogue.feed(_requests(range(1, 3, 2)))
    dialogue.connection.go_away()

    events = dialogue.feed(_requests(range(3, 2 * 2_000, 2)))

    assert (events, dialogue.failure) == ([], None)
    assert 1 in dialogue.connection.outgoing.streams


def test_later_goaway_never_takes_more_requests() -> None:
    """A second GOAWAY does not name a later stream than the first (section 6.8)."""
    dialogue = Dialogue()
    dialogue.feed(_requests(range(1, 5, 2)))
    dialogue.connection.go_away()
    dialogue.feed(_requests(range(5, 9, 2)))

    dialogue.feed(frame(PING, 0, 1, bytes(8)))

    assert [one.payload[:4] for one in dialogue.goaways] == [b"\0\0\0\3", b"\0\0\0\3"]


@pytest.mark.parametrize(
    "late", [data(1, b""), headers(1, TRAILERS, _WHOLE)], ids=["empty data", "trailers"]
)
def test_frames_of_a_stream_that_was_given_up_are_counted(late: bytes) -> None:
    """What is ignored because it may be late is still not free."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.outgoing.reset(1, ErrorCode.CANCEL)

    dialogue.feed(late * (LIMITS.idle_frames_per_s_max + 1))

    assert dialogue.connection.failed is _CALM


def test_windows_that_answers_earned_are_not_counted_against_the_peer() -> None:
    """A client opens two windows for every frame it got, however late it comes to do so (gRPC)."""
    count = 3 * LIMITS.idle_frames_per_s_max
    dialogue = Dialogue(changes=[(4, 1 << 20)])
    dialogue.feed(headers(1, request_block()), window_update(0, 1 << 20))
    outgoing = dialogue.connection.outgoing
    outgoing.send_headers(1, b"\x88")
    for _ in range(count):
        outgoing.send_data(1, message(b""))

    for _ in range(count // 100):
        dialogue.feed((window_update(0, 5) + window_update(1, 5)) * 100)
        dialogue.connection.tick()

    assert dialogue.connection.failed is None
    dialogue.feed(window_update(0, 1) * (2 * LIMITS.idle_frames_per_s_max))
    assert dialogue.connection.failed is _CALM


def test_earned_windows_do_not_need_a_second() -> None:
    """All at once is as good as one by one."""
    count = 3 * LIMITS.idle_frames_per_s_max
    dialogue = Dialogue(changes=[(4, 1 << 20)])
    dialogue.feed(headers(1, request_block()))
    dialogue.connection.outgoing.send_headers(1, b"\x88")
    for _ in range(count):
        dialogue.connection.outgoing.send_data(1, message(b""))

    dialogue.feed((window_update(0, 5) + window_update(1, 5)) * count)

    assert dialogue.connection.failed is None

"""RFC 9113 section 5.1: every state of a stream, and every frame that may come in it."""

from collections.abc import Callable
from typing import Final

import pytest
from wire.dialogue import TRAILERS, Dialogue
from wire.rawframes import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    PRIORITY,
    PUSH_PROMISE,
    data,
    frame,
    headers,
    message,
    reset,
    window_update,
)

from kvsecure.wire.h2.connection import DATA, REQUEST, RESET
from kvsecure.wire.h2.frames import ErrorCode

_STREAM: Final = 5


def _idle(_: Dialogue) -> None:
    """Nothing was ever sent on it."""


def _open(dialogue: Dialogue) -> None:
    dialogue.feed(dialogue.request(_STREAM))


def _open_with_data(dialogue: Dialogue) -> None:
    dialogue.feed(dialogue.request(_STREAM))
    dialogue.feed(data(_STREAM, b"x"))


def _half_closed(dialogue: Dialogue) -> None:
    dialogue.feed(dialogue.request(_STREAM), data(_STREAM, message(b""), END_STREAM))


def _half_closed_late(dialogue: Dialogue) -> None:
    _open(dialogue)
    dialogue.feed(data(_STREAM, b"", END_STREAM))


def _half_closed_answering(dialogue: Dialogue) -> None:
    _half_closed(dialogue)
    dialogue.connection.outgoing.send_headers(_STREAM, b"\x88")


def _closed(dialogue: Dialogue) -> None:
    _half_closed(dialogue)
    dialogue.connection.outgoing.respond(_STREAM, b"\x88", b"", b"x", TRAILERS)


def _closed_by_peer(dialogue: Dialogue) -> None:
    _open(dialogue)
    dialogue.feed(reset(_STREAM))


def _closed_by_us(dialogue: Dialogue) -> None:
    _open(dialogue)
    dialogue.connection.outgoing.reset(_STREAM, ErrorCode.CANCEL)


def _answered_early(dialogue: Dialogue) -> None:
    _open(dialogue)
    dialogue.connection.outgoing.refuse(_STREAM, TRAILERS)


def _skipped(dialogue: Dialogue) -> None:
    dialogue.feed(dialogue.request(_STREAM + 2))


_STATES: Final[dict[str, Callable[[Dialogue], None]]] = {
    "idle": _idle,
    "open": _open,
    "open, some data": _open_with_data,
    "half-closed (remote)": _half_closed,
    "half-closed (remote), empty end": _half_closed_late,
    "half-closed (remote), answering": _half_closed_answering,
    "closed": _closed,
    "closed by the peer's reset": _closed_by_peer,
    "closed by our reset": _closed_by_us,
    "answered early": _answered_early,
    "skipped": _skipped,
}

_FRAMES: Final[dict[str, bytes]] = {
    "DATA": data(_STREAM, b"y"),
    "DATA, end": data(_STREAM, b"y", END_STREAM),
    "HEADERS": headers(_STREAM, TRAILERS),
    "HEADERS, end": headers(_STREAM, TRAILERS, END_HEADERS | END_STREAM),
    "PRIORITY": frame(PRIORITY, 0, _STREAM, b"\0\0\0\1\0"),
    "RST_STREAM": reset(_STREAM),
    "PUSH_PROMISE": frame(PUSH_PROMISE, END_HEADERS, _STREAM, b"\0\0\0\2" + TRAILERS),
    "WINDOW_UPDATE": window_update(_STREAM, 1),
    "CONTINUATION": frame(CONTINUATION, END_HEADERS, _STREAM, TRAILERS),
}

_PROTOCOL: Final = f"connection {ErrorCode.PROTOCOL_ERROR.name}"
_CLOSED: Final = f"connection {ErrorCode.STREAM_CLOSED.name}"
_STREAM_CLOSED: Final = f"stream {ErrorCode.STREAM_CLOSED.name}"
_STREAM_PROTOCOL: Final = f"stream {ErrorCode.PROTOCOL_ERROR.name}"
_ALWAYS: Final = {
    "PRIORITY": "nothing",
    "PUSH_PROMISE": _PROTOCOL,
    "CONTINUATION": _PROTOCOL,
}
_OPEN: Final = {
    "DATA": "data",
    "DATA, end": "end",
    "HEADERS": _STREAM_PROTOCOL,
    "HEADERS, end": "end",
    "RST_STREAM": "reset",
    "WINDOW_UPDATE": "nothing",
    **_ALWAYS,
}
_HALF_CLOSED: Final = {
    **dict.fromkeys(("DATA", "DATA, end", "HEADERS", "HEADERS, end"), _STREAM_CLOSED),
    "RST_STREAM": "reset",
    "WINDOW_UPDATE": "nothing",
    **_ALWAYS,
}
_CLOSED_STREAM: Final = {
    **dict.fromkeys(("DATA", "DATA, end", "HEADERS", "HEADERS, end"), _CLOSED),
    "RST_STREAM": "nothing",
    "WINDOW_UPDATE": "nothing",
    **_ALWAYS,
}
# Data that was under way when its sender gave up, as grpc-java sends it (RFC 7540 section 5.1).
_RESET: Final = {**_CLOSED_STREAM, "DATA": _STREAM_CLOSED, "DATA, end": _STREAM_CLOSED}
# The peer may have sent them before it knew: what they are does not matter.
_GIVEN_UP: Final = dict.fromkeys(_FRAMES, "nothing") | _ALWAYS

_EXPECTED: Final[dict[str, dict[str, str]]] = {
    "idle": {
        "DATA": _PROTOCOL,
        "DATA, end": _PROTOCOL,
        # Trailers alone are no request.
        "HEADERS": _STREAM_PROTOCOL,
        "HEADERS, end": _STREAM_PROTOCOL,
        "RST_STREAM": _PROTOCOL,
        "WINDOW_UPDATE": _PROTOCOL,
        **_ALWAYS,
    },
    "open": _OPEN,
    "open, some data": _OPEN,
    "half-closed (remote)": _HALF_CLOSED,
    "half-closed (remote), empty end": _HALF_CLOSED,
    "half-closed (remote), answering": _HALF_CLOSED,
    "closed": _CLOSED_STREAM,
    "closed by the peer's reset": _RESET,
    "closed by our reset": _GIVEN_UP,
    "answered early": _GIVEN_UP,
    "skipped": _CLOSED_STREAM,
}
_CASES: Final = [(state, name) for state in _STATES for name in _FRAMES]


def _outcome(dialogue: Dialogue, sent: bytes) -> str:
    """Return in a word what a frame has done."""
    dialogue.look()
    dialogue.frames.clear()
    events = dialogue.feed(sent)
    if dialogue.failure is not None:
        assert not events
        return f"connection {ErrorCode(dialogue.failure).name}"
    if dialogue.resets:
        assert list(dialogue.resets) == [_STREAM]
        assert all(event[:2] == (RESET, _STREAM) for event in events)
        return f"stream {ErrorCode(dialogue.resets[_STREAM]).name}"
    if not events:
        return "nothing"
    ((kind, stream, *rest),) = events
    assert stream == _STREAM
    if kind == DATA:
        return "end" if rest[-1] else "data"
    return {RESET: "reset", REQUEST: "request"}[kind]


@pytest.mark.parametrize(("state", "name"), _CASES, ids=[" + ".join(case) for case in _CASES])
def test_frame_in_a_state_does_what_the_table_says(state: str, name: str) -> None:
    """Each frame in each state is taken, ignored, or an error of the right kind and reach."""
    dialogue = Dialogue()
    _STATES[state](dialogue)

    outcome = _outcome(dialogue, _FRAMES[name])

    assert outcome == _EXPECTED[state][name]


@pytest.mark.parametrize(
    "state", ["open", "half-closed (remote)", "half-closed (remote), answering"]
)
@pytest.mark.parametrize("name", ["HEADERS", "DATA", "PRIORITY"])
def test_stream_error_is_told_to_whoever_serves_it(state: str, name: str) -> None:
    """Whoever works on an answer learns that nobody waits for it, whatever ended the stream."""
    dialogue = Dialogue()
    _STATES[state](dialogue)
    on_itself = frame(PRIORITY, 0, _STREAM, _STREAM.to_bytes(4, "big") + b"\0")

    events = dialogue.feed(on_itself if name == "PRIORITY" else _FRAMES[name])

    if dialogue.resets:
        assert [event[:2] for event in events] == [(RESET, _STREAM)]
        assert _STREAM not in dialogue.connection.outgoing.streams
    else:
        assert (state, name) == ("open", "DATA")


def test_other_streams_survive_a_stream_error() -> None:
    """An error of one stream leaves the others alone (section 5.4.2)."""
    dialogue = Dialogue()
    dialogue.feed(dialogue.request(1), dialogue.request(3))

    dialogue.feed(headers(1, TRAILERS))

    assert dialogue.feed(data(3, b"x", END_STREAM)) == [(DATA, 3, b"x", True)]


def test_nothing_is_read_after_a_connection_error() -> None:
    """After a connection error no bytes mean anything (section 5.4.1)."""
    dialogue = Dialogue()
    dialogue.feed(frame(PUSH_PROMISE, 4, 1, bytes(4)))
    before = len(dialogue.frames)

    events = dialogue.feed(dialogue.request(1), data(1, b"x", END_STREAM))

    assert (events, len(dialogue.frames)) == ([], before)


_PSEUDO_IN_TRAILERS: Final = headers(_STREAM, b"\x84", END_HEADERS | END_STREAM)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("open", _STREAM_PROTOCOL),
        ("half-closed (remote)", _STREAM_CLOSED),
        ("half-closed (remote), answering", _STREAM_CLOSED),
        ("closed", _CLOSED),
        ("closed by our reset", "nothing"),
        ("answered early", "nothing"),
    ],
)
def test_malformed_trailers_are_judged_by_the_state_first(state: str, expected: str) -> None:
    """That a stream has ended comes before what is wrong with the block that comes on it."""
    dialogue = Dialogue()
    _STATES[state](dialogue)

    assert _outcome(dialogue, _PSEUDO_IN_TRAILERS) == expected


@pytest.mark.parametrize("state", [state for state in _STATES if state != "idle"])
def test_window_update_of_nothing_is_wrong_in_any_state(state: str) -> None:
    """Section 6.9: an increment of 0 is a stream error, also when the stream is closed."""
    dialogue = Dialogue()
    _STATES[state](dialogue)

    assert _outcome(dialogue, window_update(_STREAM, 0)) == _STREAM_PROTOCOL


@pytest.mark.parametrize("state", ["closed by our reset", "answered early"])
def test_nothing_is_late_after_a_reset_of_the_peers(state: str) -> None:
    """A peer that has reset a stream itself cannot have sent more on it without knowing."""
    dialogue = Dialogue()
    _STATES[state](dialogue)
    dialogue.feed(reset(_STREAM))

    assert _outcome(dialogue, data(_STREAM, b"x")) == _CLOSED

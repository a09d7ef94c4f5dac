"""Requests as gRPC's C core sends them: between head and data a window is opened for the answer."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.dialogue import LIMITS, Dialogue
from wire.rawframes import (
    DATA,
    END_STREAM,
    data,
    headers,
    request_block,
    settings,
    window_update,
)

from kvsecure.wire.h2.connection import REQUEST
from kvsecure.wire.h2.frames import ErrorCode, Setting
from kvsecure.wire.h2.windows import WINDOW_MAX

_HEAD: Final = b"\x88"
_TAIL: Final = b"\x00\x0bgrpc-status\x010"


def _asked(stream: int, opening: int = 5, content: bytes = b"content") -> list[bytes]:
    return [
        headers(stream, request_block()),
        window_update(stream, opening),
        data(stream, content, END_STREAM),
    ]


def _sent(dialogue: Dialogue, stream: int) -> int:
    dialogue.look()
    frames = [one for one in dialogue.frames if one.stream == stream and one.type == DATA]
    return sum(len(one.payload) for one in frames)


def test_requests_that_open_a_window_come_whole() -> None:
    """Each is one event, and needs no object until it is answered."""
    dialogue = Dialogue()

    events = dialogue.feed(*_asked(1), *_asked(3), window_update(0, 10), *_asked(5))

    assert [(event[0], event[1], *event[3:]) for event in events] == [
        (REQUEST, stream, b"content", True) for stream in (1, 3, 5)
    ]
    assert dialogue.connection.outgoing.streams == {1: None, 3: None, 5: None}


@given(
    initial=st.integers(0, 100),
    opening=st.integers(1, 100),
    length=st.integers(1, 300),
    is_whole=st.booleans(),
    is_together=st.booleans(),
)
def test_what_was_opened_can_be_sent_and_no_more(
    *, initial: int, opening: int, length: int, is_whole: bool, is_together: bool
) -> None:
    """An answer goes as far as the first window and the update let it, however they came."""
    dialogue = Dialogue(changes=[(Setting.INITIAL_WINDOW_SIZE, initial)])
    outgoing = dialogue.connection.outgoing
    for piece in [b"".join(_asked(1, opening))] if is_whole else _asked(1, opening):
        dialogue.feed(piece)

    if is_together:
        outgoing.respond_each([1], _HEAD, [bytes(length - 5)] if length > 5 else [b""], _TAIL)
        length = max(length, 5)
    else:
        outgoing.respond(1, _HEAD, b"", bytes(length), _TAIL)

    assert _sent(dialogue, 1) == min(length, initial + opening)
    assert (1 in outgoing.streams) is (length > initial + opening)
    dialogue.feed(window_update(1, 1_000))
    assert _sent(dialogue, 1) == length
    assert not outgoing.streams


@pytest.mark.parametrize("how", ["respond", "each", "refuse", "reset"])
def test_nothing_is_kept_of_a_stream_that_is_gone(how: str) -> None:
    """However its answer ends, what was opened for it is forgotten."""
    dialogue = Dialogue()
    outgoing = dialogue.connection.outgoing
    dialogue.feed(*_asked(1))
    assert outgoing._ahead

    match how:
        case "respond":
            outgoing.respond(1, _HEAD, b"", b"x", _TAIL)
        case "each":
            outgoing.respond_each([1], _HEAD, [b"x"], _TAIL)
        case "refuse":
            outgoing.refuse(1, _TAIL)
        case _:
            outgoing.reset(1, ErrorCode.CANCEL)

    assert not outgoing._ahead
    assert not outgoing.streams


@pytest.mark.parametrize("opening", [0, WINDOW_MAX])
def test_a_window_that_is_wrong_resets_its_stream(opening: int) -> None:
    """RFC 9113 section 6.9: by nothing, or by too much, is an error of that stream alone."""
    dialogue = Dialogue()

    dialogue.feed(*_asked(1, opening), *_asked(3))

    code = ErrorCode.FLOW_CONTROL_ERROR if opening else ErrorCode.PROTOCOL_ERROR
    assert dialogue.resets == {1: code}
    assert dialogue.connection.outgoing.streams == {3: None}


def test_a_first_window_that_is_too_large_with_what_was_opened_is_refused() -> None:
    """Section 6.9.2: settings may not move a window beyond its bound, also one opened ahead."""
    dialogue = Dialogue()
    dialogue.feed(*_asked(1))

    dialogue.feed(settings([(Setting.INITIAL_WINDOW_SIZE, WINDOW_MAX)]))

    assert dialogue.failure == ErrorCode.FLOW_CONTROL_ERROR


def test_windows_opened_for_nothing_are_counted() -> None:
    """Requests that open windows and are never answered use up what a peer may do idly."""
    dialogue = Dialogue(LIMITS._replace(streams_max=100_000, idle_frames_per_s_max=50))
    for stream in range(1, 201, 2):
        dialogue.feed(*_asked(stream))

    assert dialogue.failure == ErrorCode.ENHANCE_YOUR_CALM

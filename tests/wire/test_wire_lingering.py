"""Early answers: a plain request is heard out for a moment before its answer ends.

RFC 9113 section 8.1 lets a server answer before it has seen the whole request, and section 8.1.1
wants a malformed request to be a stream error; both are had by waiting for the request's end.
"""

from collections.abc import Callable
from typing import Final

import pytest
from wire.dialogue import TRAILERS, Dialogue
from wire.rawframes import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    REQUEST_FIELDS,
    RST_STREAM,
    Frame,
    data,
    headers,
    request_block,
    window_update,
)

from kvsecure.wire.h2.frames import ErrorCode

_PLAIN: Final = tuple(field for field in REQUEST_FIELDS if field[0] != b"te")
_SIZED: Final = (*_PLAIN, (b"content-length", b"1"))
_ANSWER: Final = b"\x88"
_END: Final = Frame(HEADERS, END_HEADERS | END_STREAM, 1, _ANSWER)
_CUT_SHORT: Final = Frame(RST_STREAM, 0, 1, bytes(4))


def _refuse(dialogue: Dialogue) -> None:
    dialogue.connection.outgoing.refuse(1, _ANSWER)


def _answer(dialogue: Dialogue) -> None:
    outgoing = dialogue.connection.outgoing
    outgoing.send_headers(1, _ANSWER)
    outgoing.send_data(1, b"page")
    outgoing.end(1, b"")


def _begun(
    answer: Callable[[Dialogue], None], fields: tuple[tuple[bytes, bytes], ...] = _PLAIN
) -> Dialogue:
    """Return a dialogue in which a request has begun and has its answer."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block(fields)))
    answer(dialogue)
    dialogue.look()
    return dialogue


def _ends(dialogue: Dialogue) -> list[Frame]:
    return [one for one in dialogue.said if one.flags & END_STREAM or one.type == RST_STREAM]


@pytest.mark.parametrize(
    ("answer", "end"), [(_refuse, _END), (_answer, Frame(DATA, END_STREAM, 1, b""))]
)
@pytest.mark.parametrize(
    "last", [data(1, b"x", END_STREAM), headers(1, TRAILERS, END_HEADERS | END_STREAM)]
)
def test_early_answer_ends_with_its_request(
    answer: Callable[[Dialogue], None], end: Frame, last: bytes
) -> None:
    """An answer to a plain request ends when the request does, and stops nothing then."""
    dialogue = _begun(answer)
    before = _ends(dialogue)

    dialogue.feed(last)

    assert before == []
    assert _ends(dialogue) == [end]
    assert not dialogue.connection.outgoing.streams


@pytest.mark.parametrize("answer", [_refuse, _answer])
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (data(1, b"four", END_STREAM), ErrorCode.PROTOCOL_ERROR),
        (data(1, b"fo") + data(1, b"ur", END_STREAM), ErrorCode.PROTOCOL_ERROR),
        (headers(1, TRAILERS), ErrorCode.PROTOCOL_ERROR),
        (window_update(1, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
    ],
    ids=["too long", "too long in pieces", "unending trailers", "window overflow"],
)
def test_request_with_an_early_answer_may_prove_malformed(
    answer: Callable[[Dialogue], None], wrong: bytes, code: ErrorCode
) -> None:
    """What is wrong with a request is a stream error, however fast its answer was made."""
    dialogue = _begun(answer, _SIZED)

    dialogue.feed(wrong)

    assert dialogue.resets == {1: code}
    assert [one.type for one in _ends(dialogue)] == [RST_STREAM]
    assert not dialogue.connection.outgoing.streams


def test_early_answer_does_not_wait_for_long() -> None:
    """A request that does not end is stopped once its answer has waited for a whole second."""
    dialogue = _begun(_refuse)

    dialogue.connection.tick()
    dialogue.look()
    after_one = _ends(dialogue)
    dialogue.connection.tick()
    dialogue.look()

    assert after_one == []
    assert _ends(dialogue) == [_END, _CUT_SHORT]
    assert dialogue.feed(data(1, b"late")) == []
    assert dialogue.failure is None


@pytest.mark.parametrize("is_first", [True, False])
def test_closing_connection_waits_for_no_request(*, is_first: bool) -> None:
    """Going away ends the answers that wait, and lets none wait from then on."""
    dialogue = Dialogue()
    dialogue.feed(headers(1, request_block(_PLAIN)))
    steps = [lambda: _refuse(dialogue), dialogue.connection.go_away]

    for step in steps if is_first else reversed(steps):
        step()
    dialogue.look()

    assert _ends(dialogue) == [_END, _CUT_SHORT]
    assert not dialogue.connection.outgoing.streams


def test_call_is_refused_at_once() -> None:
    """Whoever takes trailers, as gRPC does, has its refusal while its request goes on."""
    dialogue = _begun(_refuse, REQUEST_FIELDS)

    assert _ends(dialogue) == [_END, _CUT_SHORT]


def test_lingering_stream_that_is_reset_has_no_answer() -> None:
    """A peer that gives up while its answer waits hears no more of it."""
    dialogue = _begun(_refuse)
    dialogue.connection.outgoing.reset(1, ErrorCode.CANCEL)
    dialogue.look()

    dialogue.connection.tick()
    dialogue.connection.tick()
    dialogue.look()

    assert _ends(dialogue) == [Frame(RST_STREAM, 0, 1, b"\0\0\0\x08")]
    assert not dialogue.connection.outgoing._lingering

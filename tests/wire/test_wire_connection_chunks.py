"""However bytes are cut, they mean the same; and any bytes mean something or end the connection."""

from typing import Final

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.dialogue import LIMITS, TRAILERS, Dialogue, continued, cut, merged, told
from wire.rawframes import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    REQUEST_FIELDS,
    begin,
    data,
    frame,
    headers,
    message,
    ping,
    request_block,
    reset,
    window_update,
)
from wire.rawframes import settings as settings_frame

_STREAMS: Final = st.sampled_from([1, 3, 5, 7, 9, 2, 0])
_CONTENT: Final = st.binary(max_size=40)
_FLAGS: Final = st.sampled_from([0, END_STREAM])
_U32: Final = st.integers(0, 2**32 - 1)


@st.composite
def _parts(draw: st.DrawFn) -> bytes:
    """One frame that a client may send, right more often than wrong."""
    stream = draw(_STREAMS)
    kind = draw(st.integers(0, 14))
    match kind:
        case 0 | 1 | 2:
            return headers(stream, request_block(), END_HEADERS | draw(_FLAGS))
        case 3 | 4 | 5:
            return data(stream, draw(_CONTENT), draw(_FLAGS))
        case 6:
            content = draw(_CONTENT)
            padding = draw(st.integers(0, 20))
            padded = bytes((padding,)) + content + bytes(draw(st.integers(0, padding)))
            return data(stream, padded, PADDED | draw(_FLAGS))
        case 7:
            return continued(stream, request_block(), draw(st.integers(1, 90)), draw(_FLAGS))
        case 8:
            fields = (*REQUEST_FIELDS, (b"content-length", b"%d" % draw(st.integers(0, 40))))
            return headers(stream, request_block(fields), END_HEADERS | draw(_FLAGS))
        case 9:
            return headers(stream, TRAILERS, END_HEADERS | draw(_FLAGS))
        case 10:
            return reset(stream)
        case 11:
            return window_update(stream, draw(st.integers(0, 70_000)))
        case 12:
            # As gRPC's C core asks.
            opening = window_update(stream, draw(st.sampled_from((5, 65_535, 65_536, 2**31 - 1))))
            return headers(stream, request_block()) + opening + data(stream, draw(_CONTENT))
        case 13:
            return ping() + settings_frame([(draw(st.integers(0, 9)), draw(_U32))])
        case _:
            flags = END_HEADERS | PRIORITY_FLAG | PADDED
            return headers(stream, b"\3\0\0\0\0\1" + request_block() + bytes(3), flags)


_TRAFFIC: Final = st.lists(_parts(), max_size=20).map(lambda parts: begin() + b"".join(parts))
_CUTS: Final = st.lists(st.integers(0, 5_000), max_size=12)


@settings(max_examples=300)
@given(_TRAFFIC, _CUTS)
def test_bytes_mean_the_same_however_they_come(content: bytes, cuts: list[int]) -> None:
    """Whole, byte by byte and in pieces, the same bytes have the same events, answers and end."""
    whole = told([content])

    assert told([bytes((byte,)) for byte in content]) == whole
    assert told(cut(content, cuts)) == whole


def test_requests_begun_in_one_read_are_told_in_any_cut() -> None:
    """Two requests whose content comes in the opposite order are both told, however cut."""
    content = begin() + b"".join(
        (
            headers(1, request_block()),
            headers(3, request_block()),
            data(3, message(b"three"), END_STREAM),
            data(1, message(b"one"), END_STREAM),
        )
    )

    whole = told([content])

    assert [told[1] for told in whole[0].values()] == [message(b"three"), message(b"one")]
    assert told([bytes((byte,)) for byte in content]) == whole


def test_header_block_is_not_interrupted_by_a_whole_request() -> None:
    """Within a header block no other frame may come, not even what ends another request (6.10)."""
    content = begin() + b"".join(
        (
            headers(1, request_block()),
            headers(3, request_block()[:10], 0),
            data(1, message(b""), END_STREAM),
        )
    )

    assert told([content])[1] == 1
    assert told([bytes((byte,)) for byte in content])[1] == 1


@pytest.mark.parametrize("cut", range(len(PREFACE) + 1))
def test_preface_may_come_in_pieces(cut: int) -> None:
    """The preface is recognised wherever it is cut (section 3.4)."""
    content = begin() + headers(1, request_block(), END_HEADERS | END_STREAM)

    assert told([content[:cut], content[cut:]]) == told([content])


@pytest.mark.parametrize("place", range(len(PREFACE)))
def test_wrong_preface_ends_the_connection(place: int) -> None:
    """The first wrong byte of a preface is enough (section 3.4)."""
    wrong = bytearray(PREFACE)
    wrong[place] ^= 1
    dialogue = Dialogue(fresh=True)

    dialogue.feed(bytes(wrong[: place + 1]))

    assert dialogue.failure == 1


_FRAME_TYPES: Final = st.one_of(st.integers(0, 9), st.integers(0, 255))
_ANY_FRAME: Final = st.builds(
    frame,
    _FRAME_TYPES,
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1, 2**31, 2**32 - 1]),
    st.one_of(st.binary(max_size=60), st.just(request_block()), st.just(bytes(4))),
)


@settings(max_examples=400)
@given(
    st.lists(st.one_of(_ANY_FRAME, _parts(), st.binary(max_size=30)), max_size=25),
    st.sampled_from([b"", begin()]),
    st.data(),
)
def test_any_bytes_are_events_or_one_goaway(
    parts: list[bytes], beginning: bytes, answers: st.DataObject
) -> None:
    """Whatever comes, and whatever is answered, the connection goes on or says why not."""
    dialogue = Dialogue(fresh=True)
    outgoing = dialogue.connection.outgoing
    for part in (beginning, *parts):
        dialogue.feed(part)
        for stream in answers.draw(st.lists(st.sampled_from([*outgoing.streams, 99]), max_size=2)):
            match answers.draw(st.integers(0, 3)):
                case 0:
                    outgoing.respond(stream, b"\x88", b"", bytes(70_000), TRAILERS)
                case 1:
                    outgoing.send_data(stream, b"x")
                case 2:
                    outgoing.refuse(stream, TRAILERS)
                case _:
                    outgoing.end(stream, b"")
        dialogue.look()

    assert len(dialogue.goaways) == (dialogue.failure is not None)
    assert outgoing.unsent_bytes == sum(
        stream.queued_bytes for stream in outgoing.streams.values() if stream is not None
    )


def test_compressed_requests_mean_the_same_however_they_come() -> None:
    """The dynamic table sees every header block once, in order, however blocks are cut."""
    encoder = Encoder()
    content = begin()
    for stream in range(1, 41, 2):
        fields = [*REQUEST_FIELDS, (b"token", b"t%d" % (stream % 6))]
        content += headers(stream, request_block(fields, encoder))
        content += data(stream, message(b"%d" % stream), END_STREAM)

    whole = told([content])

    assert len(whole[0]) == 20
    assert [dict(told[0][4])[b"token"] for told in whole[0].values()] == [
        b"t%d" % (stream % 6) for stream in range(1, 41, 2)
    ]
    assert told([bytes((byte,)) for byte in content]) == whole


def test_unknown_frames_are_ignored() -> None:
    """Frames of unknown types mean nothing, whatever they hold (section 5.5)."""
    dialogue = Dialogue()

    events = dialogue.feed(*(frame(kind, 255, 3, b"x" * 20) for kind in range(10, 256)))

    assert (events, dialogue.failure, dialogue.said) == ([], None, [])


def test_reserved_bit_is_ignored() -> None:
    """The bit in front of a stream's number means nothing (section 4.1)."""
    dialogue = Dialogue()

    dialogue.feed(headers(2**31 + 1, request_block()), data(2**31 + 1, b"x", END_STREAM))

    assert list(merged(dialogue.events)) == [1]


@pytest.mark.parametrize("kind", [PING, PRIORITY, 77])
@pytest.mark.parametrize("room", [0, 1])
def test_frame_has_a_largest_size(kind: int, room: int) -> None:
    """A frame longer than announced is refused by its header alone (section 4.2)."""
    dialogue = Dialogue()

    dialogue.feed(frame(kind, 0, 1, bytes(LIMITS.frame_bytes_max + room))[:9])

    assert dialogue.failure == (6 if room else None)

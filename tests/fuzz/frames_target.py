"""Frames and the connection's state: any bytes are events, or one GOAWAY.

Owns: what is tried with a connection of HTTP/2, and a mutation that keeps the lengths of frames.
Never: replaces a part of it.
"""

import random
from typing import Final

from fuzz.target import Broken, Mutation, SeededMutation, Target, agree, places
from wire.dialogue import LIMITS, TRAILERS, Dialogue, cut, told
from wire.rawframes import Frame, begin, frame

from kvsecure.wire.h2.stream import Stream

__all__ = ["FRAMES"]

# Some bounds are so low here that an input of a few hundred bytes gets to them.
_TIGHT: Final = LIMITS._replace(
    streams_max=4,
    header_block_bytes_max=512,
    frame_bytes_max=1024,
    stream_window_bytes=300,
    idle_frames_per_s_max=8,
    resets_per_s_max=3,
    mistakes_per_s_max=2,
)
_IS_TIGHT, _IS_BEGUN = 0x80, 0x40
_HEAD_BYTES: Final = 9


def _attempt(content: bytes) -> None:
    """Try bytes whole, cut, and with answers in between.

    The first byte says where to cut, and whether bounds are tight; the second, how to answer.
    """
    if len(content) < 2:
        return
    how, answers, stream = content[0], content[1], content[2:]
    limits = _TIGHT if how & _IS_TIGHT else LIMITS
    if how & _IS_BEGUN:
        stream = begin() + stream
    pieces = cut(stream, places(how & 0x3F, len(stream)))
    agree("events", told([stream], limits), told(pieces, limits))
    _converse(pieces, answers, Dialogue(limits, fresh=True))


def _converse(pieces: list[bytes], seed: int, dialogue: Dialogue) -> None:
    """Answer what comes in all ways there are, and check the books after each."""
    dice = random.Random(seed)
    outgoing = dialogue.connection.outgoing
    for piece in pieces:
        dialogue.feed(piece)
        for stream in [*outgoing.streams, 99][: dice.randrange(4)]:
            match dice.randrange(7):
                case 0:
                    outgoing.respond(stream, b"\x88", b"", b"x" * 300, TRAILERS)
                case 1:
                    outgoing.send_headers(stream, b"\x88")
                    outgoing.send_data(stream, bytes(70_000))
                case 2:
                    outgoing.refuse(stream, TRAILERS)
                case 3:
                    outgoing.end(stream, b"")
                case 4:
                    dialogue.connection.tick()
                case 5:
                    dialogue.connection.hold()
                case _:
                    dialogue.connection.release()
        dialogue.look()
        _check(dialogue)
    if seed % 5 == 0:
        dialogue.connection.go_away()
    for _ in range(3):
        dialogue.connection.tick()
    dialogue.look()
    _check(dialogue)


def _check(dialogue: Dialogue) -> None:
    connection = dialogue.connection
    streams = [each for each in connection.outgoing.streams.values() if each is not None]
    failed = [one for one in dialogue.goaways if one.payload[4:8] != bytes(4)]
    for held, why in (
        (len(failed) == (connection.failed is not None), "one GOAWAY says that it has failed"),
        (
            connection.outgoing.unsent_bytes == sum(each.queued_bytes for each in streams),
            "what is unsent is what is queued",
        ),
        (
            all(each.queued_bytes == sum(map(len, each.queue)) for each in streams),
            "what is queued is counted",
        ),
        (
            set(connection.outgoing._queued) == _ready(connection.outgoing.streams),
            "what may be sent has its turn, and nothing else",
        ),
        (len(streams) <= connection._limits.streams_max, "streams are bounded"),
        (
            len(connection._header_block) <= 2 * connection._limits.header_block_bytes_max
            and len(connection._buffer) <= connection._limits.frame_bytes_max + _HEAD_BYTES,
            "what is kept of unfinished frames is bounded",
        ),
    ):
        if not held:
            raise Broken(f"it does not hold that {why}")


def _ready(streams: dict[int, Stream | None]) -> set[int]:
    """Return the streams that have something to send, and a window for it."""
    return {
        number
        for number, stream in streams.items()
        if stream is not None and stream.queue and stream.send_window > 0
    }


# --- mutation -----------------------------------------------------------------------------------


def _loose_frames(content: bytes) -> list[Frame]:
    """Return the frames that bytes consist of; what is left over is the last one's payload."""
    found = []
    while content:
        head = content[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\0")
        end = _HEAD_BYTES + int.from_bytes(head[:3], "big")
        stream = int.from_bytes(head[5:], "big")
        found.append(Frame(head[3], head[4], stream, content[_HEAD_BYTES:end]))
        content = content[end:]
    return found


def _with_frames(mutate: Mutation) -> SeededMutation:
    """Return a mutation that lets frames be what they are half of the time.

    Args:
        mutate: Changes any bytes, and makes them no longer than it is told.
    """

    def change(content: bytes, size_max: int, seed: int) -> bytes:
        dice = random.Random(seed)
        frames = _loose_frames(content[2:])
        if not frames or dice.random() < 0.4:
            return mutate(content, size_max)
        at = dice.randrange(len(frames))
        one = frames[at]
        match dice.randrange(9):
            case 0:
                frames.insert(dice.randrange(len(frames) + 1), one)
            case 1:
                del frames[at]
            case 2:
                other = dice.randrange(len(frames))
                frames[at], frames[other] = frames[other], one
            case 3:
                frames[at] = one._replace(type=dice.randrange(11))
            case 4:
                frames[at] = one._replace(flags=one.flags ^ (1 << dice.choice((0, 2, 3, 5))))
            case 5:
                frames[at] = one._replace(stream=dice.choice((0, 1, 2, 3, 5, 7, 9, 11)))
            case 6:
                first = dice.randrange(len(one.payload) + 1)
                frames[at : at + 1] = [
                    one._replace(payload=one.payload[:first], flags=one.flags & ~5),
                    one._replace(
                        type=9 if one.type == 1 else one.type, payload=one.payload[first:]
                    ),
                ]
            case _:
                payload = mutate(one.payload, 2 * len(one.payload) + 8)
                frames[at] = one._replace(payload=payload)
        changed = content[:2] + b"".join(frame(*each) for each in frames)
        return changed[:size_max]

    return change


FRAMES: Final = Target(
    name="frames",
    attempt=_attempt,
    size_bytes_max=2_048,
    mutate=_with_frames,
)

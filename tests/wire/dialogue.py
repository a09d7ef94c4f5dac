"""A connection under test, and what a peer sees of it.

Owns: feeding bytes, and telling events, frames and errors apart.
Never: replaces a part of the connection.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, final

from wire.rawframes import (
    CONTINUATION,
    GOAWAY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    begin,
    goaway_code,
    headers,
    read_frames,
    request_block,
)

from kvsecure.wire.h2.connection import DATA, REQUEST, RESET, Connection
from kvsecure.wire.h2.limits import Limits

__all__ = ["LIMITS", "TRAILERS", "Dialogue", "continued", "cut", "merged", "told"]

LIMITS: Final = Limits(streams_max=100, header_list_bytes_max=16_384)
TRAILERS: Final = b"\x00\x0bgrpc-status\x010"


@final
class Dialogue:
    """One connection and its peer; the preface and the settings have been exchanged."""

    def __init__(
        self,
        limits: Limits = LIMITS,
        changes: Iterable[tuple[int, int]] = (),
        *,
        fresh: bool = False,
    ) -> None:
        """Begin.

        Args:
            limits: What the peer may make the connection do.
            changes: The peer's settings.
            fresh: True leaves out everything, the preface as well.
        """
        # Monotonic, and still until it is moved.
        self.now_ns = 0
        self.connection = Connection(limits, lambda: self.now_ns)
        self.events: list[tuple[Any, ...]] = []
        self.frames: list[Frame] = []
        if not fresh:
            self.feed(begin(changes))
            self.frames.clear()

    def feed(self, *parts: bytes) -> list[tuple[Any, ...]]:
        """Hand over bytes in one piece; return the events they made."""
        events = self.connection.receive(b"".join(parts))
        self.events += events
        self.look()
        return events

    def look(self) -> list[Frame]:
        """Take what the connection sends; return it."""
        out = self.connection.outgoing.out
        frames = read_frames(b"".join(out))
        out.clear()
        self.frames += frames
        return frames

    def request(self, stream: int, flags: int = 4, block: bytes = b"") -> bytes:
        """Return the beginning of a request; it ends unless the flags say otherwise."""
        return headers(stream, block or request_block(), flags)

    @property
    def failure(self) -> int | None:
        """The code that the connection ended with, or None while it goes on."""
        code = self.connection.failed
        assert (code is None) is (goaway_code(self.frames) in (None, 0))
        return None if code is None else goaway_code(self.frames)

    @property
    def resets(self) -> dict[int, int]:
        """The code that each stream was reset with."""
        return {
            one.stream: int.from_bytes(one.payload, "big")
            for one in self.frames
            if one.type == RST_STREAM
        }

    @property
    def said(self) -> list[Frame]:
        """Everything but acknowledgements of settings and window updates."""
        return [one for one in self.frames if one.type not in (SETTINGS, WINDOW_UPDATE)]

    @property
    def goaways(self) -> list[Frame]:
        """Every GOAWAY."""
        return [one for one in self.frames if one.type == GOAWAY]


def continued(stream: int, block: bytes, size: int, flags: int = 0) -> bytes:
    """Return a request whose header block comes in pieces."""
    pieces = [block[start : start + size] for start in range(0, len(block), size)] or [b""]
    first, rest = pieces[0], pieces[1:]
    out = headers(stream, first, flags if rest else flags | 4)
    for number, piece in enumerate(rest, 1):
        out += _continuation(stream, piece, 4 if number == len(rest) else 0)
    return out


def _continuation(stream: int, piece: bytes, flags: int) -> bytes:
    length = len(piece).to_bytes(3, "big")
    return length + bytes((CONTINUATION, flags)) + stream.to_bytes(4, "big") + piece


def merged(events: Iterable[tuple[Any, ...]]) -> dict[int, list[Any]]:
    """Return what events say of each stream, however its content was cut.

    A stream is `[head, content, whether that is all, reset]`; its parts may have come together or
    one by one, and in a different order relative to other streams.
    """
    streams: dict[int, list[Any]] = {}
    for event in events:
        kind, stream = event[0], event[1]
        if kind == REQUEST:
            head = event[2]
            assert stream not in streams
            told = (head.method, head.scheme, head.path, head.authority, tuple(head.fields))
            streams[stream] = [told, event[3], event[4], None]
        elif kind == DATA:
            assert not streams[stream][2]
            streams[stream][1] += event[2]
            streams[stream][2] = event[3]
        elif kind == RESET:
            streams[stream][3] = event[2]
    return streams


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    """Return content in pieces, cut where it is said, wherever within it that comes to be."""
    within = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(within)]


def told(pieces: Iterable[bytes], limits: Limits = LIMITS) -> tuple[Any, ...]:
    """Return what a connection makes of bytes: its events, how it ended, what it sent.

    It is the same however the bytes were cut.
    """
    dialogue = Dialogue(limits, fresh=True)
    for piece in pieces:
        dialogue.feed(piece)
    failed = dialogue.failure is not None
    # A request that was reset, or failed with its connection, before it was whole is nobody's.
    streams = {
        stream: found
        for stream, found in merged(dialogue.events).items()
        if found[2] or not (failed or found[3] is not None)
    }
    sent = [one for one in dialogue.frames if one.type not in (SETTINGS, WINDOW_UPDATE)]
    acknowledged = [one for one in dialogue.frames if one.type == SETTINGS and one.flags & 1]
    return streams, dialogue.failure, sorted(sent + acknowledged)

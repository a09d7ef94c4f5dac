"""Requests that wait until their peer has read what it was answered before.

Owns: what has come on each stream of one connection and was not begun or handed on, in order.
Never: decides when to go on; the session does.
Keeps: content is held in pieces of a bounded size and together, however small the frames were that
    it came in; the streams take turns, a piece each.
"""

from collections import deque
from typing import Final, NamedTuple, final

from kvsecure.wire.h2.head import Head

__all__ = ["Backlog", "Piece"]

_PIECE_BYTES_MAX: Final = 16 * 1024


class Piece(NamedTuple):
    """What may be handed on next."""

    stream_id: int
    # The request's head, if it has not been begun.
    head: Head | None
    content: bytes
    ended: bool


@final
class _Waiting:
    """What waits of one stream."""

    __slots__ = ("ended", "head", "pieces")

    def __init__(self, head: Head | None) -> None:
        self.head = head
        self.pieces: deque[bytearray] = deque()
        self.ended = False


@final
class Backlog:
    """What waits on one connection."""

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        # The streams, in the order of their turns.
        self._streams: dict[int, _Waiting] = {}

    def __bool__(self) -> bool:
        return bool(self._streams)

    def add_request(self, stream_id: int, head: Head, content: bytes, *, ended: bool) -> None:
        """Keep the beginning of a request."""
        self._streams[stream_id] = _Waiting(head)
        self.add(stream_id, content, ended=ended)

    def add(self, stream_id: int, content: bytes, *, ended: bool) -> None:
        """Keep more of a request."""
        waiting = self._streams.get(stream_id)
        if waiting is None:
            waiting = self._streams[stream_id] = _Waiting(None)
        pieces = waiting.pieces
        if content:
            if pieces and len(pieces[-1]) + len(content) <= _PIECE_BYTES_MAX:
                pieces[-1] += content
            else:
                pieces.append(bytearray(content))
        waiting.ended = ended

    def take(self) -> Piece:
        """Take out a piece of the stream whose turn it is; only when there is one."""
        stream_id, waiting = next(iter(self._streams.items()))
        del self._streams[stream_id]
        head, waiting.head = waiting.head, None
        content = bytes(waiting.pieces.popleft()) if waiting.pieces else b""
        if waiting.pieces:
            self._streams[stream_id] = waiting
            return Piece(stream_id, head, content, ended=False)
        return Piece(stream_id, head, content, waiting.ended)

    def forget(self, stream_id: int) -> bool:
        """Let go of a stream; return whether its request was still to be begun."""
        waiting = self._streams.pop(stream_id, None)
        return waiting is not None and waiting.head is not None

    def clear(self) -> None:
        """Let go of everything."""
        self._streams.clear()

"""Frames: a length, a kind, and so many bytes.

    length   4 bytes, big endian: of the payload alone
    kind     1 byte, see `Kind`
    payload

Owns: cutting bytes into frames, and the bound on a frame.
Never: touches a socket, or knows what a payload means.
Keeps: any bytes are frames or `Malformed`, however they are cut; a length that is too large is
    refused before anything of the payload is kept.
"""

import struct
from enum import IntEnum
from typing import Final, final

__all__ = ["FRAME_HEAD", "FrameReader", "Kind", "Malformed", "frame"]

FRAME_HEAD: Final = struct.Struct(">IB")
_HEAD_BYTES: Final = FRAME_HEAD.size


class Kind(IntEnum):
    """What a frame is."""

    # Both sides of every connection, once each; a refusal ends it.
    HELLO = 1
    WELCOME = 2
    REFUSAL = 3
    # A connection for messages.
    MESSAGE = 4
    PING = 5
    PONG = 6
    # A connection for one bulk stream.
    SUBJECT = 7
    PIECE = 8
    END = 9
    TAKEN = 10
    DONE = 11
    # The answer to whoever asks who the members are.
    MEMBERS = 12


@final
class Malformed(Exception):
    """What a peer sent is not what this protocol allows; the text says what, without its bytes."""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return FRAME_HEAD.pack(len(payload), kind) + payload


@final
class FrameReader:
    """Cuts one connection's bytes into frames."""

    __slots__ = ("_held", "_wanted_bytes", "payload_bytes_max")

    def __init__(self, payload_bytes_max: int) -> None:
        """Start at a frame's first byte.

        Args:
            payload_bytes_max: The longest payload; may be changed between two calls.
        """
        self.payload_bytes_max = payload_bytes_max
        self._held = bytearray()
        # How much must be held before there is a frame; joining earlier would be for nothing.
        self._wanted_bytes = _HEAD_BYTES

    def take(self, content: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that bytes complete: kind and payload of each.

        Raises:
            Malformed: A frame is longer than it may be, or of no known kind.
        """
        if self._held:
            self._held += content
            if len(self._held) < self._wanted_bytes:
                return []
            content = bytes(self._held)
            self._held.clear()
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(content)
        self._wanted_bytes = _HEAD_BYTES
        while end - at >= _HEAD_BYTES:
            length, kind = FRAME_HEAD.unpack_from(content, at)
            if length > self.payload_bytes_max:
                raise Malformed("a frame is longer than it may be")
            if not Kind.HELLO <= kind <= Kind.MEMBERS:
                raise Malformed("a frame is of no known kind")
            stop = at + _HEAD_BYTES + length
            if stop > end:
                self._wanted_bytes = _HEAD_BYTES + length
                break
            frames.append((kind, content[at + _HEAD_BYTES : stop]))
            at = stop
        if at < end:
            self._held += content[at:]
        return frames

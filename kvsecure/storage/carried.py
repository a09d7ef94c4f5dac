"""What the log carries of the audit trail, so that one sync makes both durable.

    piece := number of the segment, offset in it, the bytes that stand there

A frame of the log carries the little that was written to the trail since the frame before it. A
power cut may take that from the trail's own file; at start it is written there again.

Owns: gathering pieces, their form, and writing them again.
Never: knows what is in them: they are sealed as they stand in the trail.
Follows: physical redo logging; docs/adr/0018-one-sync-for-log-and-trail.md.
Keeps: what was never in the trail is not made so, and what was changed there is not made good: a
    piece is written only where all that differs are sectors that never reached the disk.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self, final

from kvsecure.storage.disk import Disk
from kvsecure.storage.files import StorageError
from kvsecure.storage.segments import SegmentPlace, list_segments

__all__ = ["CARRIED_BYTES_MAX", "Carried", "Gatherer", "Piece"]

# More than this is synced where it is: carrying it would cost more than the sync.
CARRIED_BYTES_MAX: Final = 16 * 1024
_PLACE: Final = struct.Struct(">QQ")
# Disks write whole sectors; one that never arrived reads as zeros.
_SECTOR_BYTES: Final = 512


class Piece(NamedTuple):
    """A stretch of a segment of the trail."""

    number: int
    offset: int
    content: bytes

    def encode(self) -> bytes:
        """Return it as bytes."""
        return _PLACE.pack(self.number, self.offset) + self.content

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read what `encode` gave.

        Raises:
            StorageError: It is not that.
        """
        if len(content) < _PLACE.size:
            raise StorageError("what the log carries of the audit trail cannot be read")
        number, offset = _PLACE.unpack_from(content)
        return cls(number, offset, content[_PLACE.size :])


@final
class Gatherer:
    """What was written to the trail and is neither synced nor carried yet."""

    __slots__ = ("_frames", "_must_sync", "_number", "_offset", "_size")

    def __init__(self) -> None:
        self._number = 0
        self._offset = 0
        self._frames: list[bytes] = []
        self._size = 0
        # Whether something was written that cannot be carried.
        self._must_sync = True

    def add(self, number: int, offset: int, frame: bytes) -> None:
        """Take note of a frame that was written behind the one before it, or in a new segment."""
        if number != self._number:
            # The name and the length of a new segment are in no piece.
            self._number, self._must_sync = number, True
        if self._must_sync:
            return
        if not self._frames:
            self._offset = offset
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > CARRIED_BYTES_MAX:
            self._must_sync = True

    def take(self) -> bytes | None:
        """Return what the next frame of the log carries, or None: it has to sync the trail."""
        must_sync, frames = self._must_sync, self._frames
        self._must_sync, self._frames, self._size = False, [], 0
        if must_sync:
            return None
        return Piece(self._number, self._offset, b"".join(frames)).encode() if frames else b""


@final
class Carried:
    """The pieces that a log holds, gathered as it is read at start."""

    def __init__(self) -> None:
        # Of one segment: going over to another syncs the one before.
        self._pieces: list[Piece] = []

    def add(self, content: bytes) -> None:
        """Take what one frame carries; nothing is fine.

        Raises:
            StorageError: It is not a piece.
        """
        if not content:
            return
        piece = Piece.decode(content)
        if self._pieces and self._pieces[-1].number != piece.number:
            self._pieces = []
        self._pieces.append(piece)

    def write_missing(self, place: SegmentPlace) -> int:
        """Write the pieces where they stood, and sync them; return how many bytes were missing.

        Args:
            place: The trail, which nobody has open.

        Raises:
            StorageError: A segment is missing that was there when the log was written.
        """
        if not self._pieces:
            return 0
        number = self._pieces[-1].number
        segments = list_segments(place)
        newest = segments[-1].number if segments else 0
        if newest < number:
            raise StorageError(
                f"{place.directory}: audit segment {number:016x} is missing. Restore it; the log "
                "knows that it was there"
            )
        if newest > number:
            # It was synced when the next one was begun.
            return 0
        path = segments[-1].path
        content = path.read_bytes()
        missing = {piece: _missing_bytes(piece, content) for piece in self._pieces}
        # Also what is there: after a sync that failed it may be in the page cache alone.
        _write(path, [piece for piece, count in missing.items() if count is not None], place.disk)
        return sum(count or 0 for count in missing.values())


def _missing_bytes(piece: Piece, content: bytes) -> int | None:
    """Return how much of a piece a segment lacks, in whole sectors; None: it was changed there."""
    _, offset, wanted = piece
    if content[offset : offset + len(wanted)] == wanted:
        return 0
    count = 0
    end = offset + len(wanted)
    while offset < end:
        boundary = min(end, (offset // _SECTOR_BYTES + 1) * _SECTOR_BYTES)
        part = wanted[: boundary - offset]
        there = content[offset:boundary]
        if part != there:
            # What reached it is what stood there at some moment: a beginning, and zeros behind it.
            if not part.startswith(there.rstrip(b"\0")):
                return None
            count += len(part)
        wanted, offset = wanted[len(part) :], boundary
    return count


def _write(path: Path, pieces: Iterable[Piece], disk: Disk) -> None:
    descriptor = disk.open(path, os.O_WRONLY)
    try:
        for _, offset, content in pieces:
            view, at = memoryview(content), offset
            while view:
                count = disk.write_at(descriptor, view, at)
                view, at = view[count:], at + count
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)

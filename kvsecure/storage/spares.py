"""Spare segments: files of zeros made beside the work, for a writer to take instead of a new file.

Owns: what a spare is called, when one is made, and that making one never fills the disk.
Never: writes to a segment.
Follows: etcd's file pipeline (server/storage/wal/file_pipeline.go); differs: the zeros are written,
    because a block that was only reserved costs the file system a journal entry at its first sync.
Keeps: `spare` is there whole or not at all; whoever takes it renames it away.
"""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final, final

from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.files import sync_directory, write_all

__all__ = ["SPARE_AFTER_BYTES", "SpareMaker", "discard_spares", "spare_of"]

# A member that writes less than this in its life needs no spares.
SPARE_AFTER_BYTES: Final = 1024 * 1024
_PIECE: Final = bytes(1024 * 1024)
# How much room has to be left beside a spare, as a multiple of its size.
_ROOM_FACTOR: Final = 4
_LOOK_EVERY_S: Final = 0.25
_RETRY_S: Final = 10.0


def spare_of(directory: Path) -> Path:
    """Return where a directory's spare segment is, if it has one."""
    return directory / "spare"


def discard_spares(directory: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Remove what a process before this one made or began to make."""
    for path in (spare_of(directory), _unfinished(directory)):
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)


def _unfinished(directory: Path) -> Path:
    return directory / "spare.new"


@final
class SpareMaker:
    """Keeps one spare ready in one directory."""

    __slots__ = ("_directory", "_disk", "_next_look_s", "_size_bytes", "_thread")

    def __init__(self, directory: Path, size_bytes: int, disk: Disk = SYSTEM_DISK) -> None:
        self._directory = directory
        self._disk = disk
        self._size_bytes = size_bytes
        self._thread: threading.Thread | None = None
        self._next_look_s = 0.0

    def look(self, written_bytes: int) -> None:
        """See to it that there is a spare once enough is written; cheap enough for every append.

        Args:
            written_bytes: How large the open segment is.
        """
        now_s = time.monotonic()
        if written_bytes < SPARE_AFTER_BYTES or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        if self.is_making:
            return
        if spare_of(self._directory).exists():
            return
        # It waits for the disk nearly all the time, and then it does not hold the interpreter.
        self._thread = threading.Thread(target=self.make, daemon=True)
        self._thread.start()

    @property
    def is_making(self) -> bool:
        """Whether a spare is being made."""
        return self._thread is not None and self._thread.is_alive()

    def make(self) -> None:
        """Make one now, if there is room."""
        disk, unfinished = self._disk, _unfinished(self._directory)
        try:
            if disk.free_bytes(self._directory) < _ROOM_FACTOR * self._size_bytes:
                self._next_look_s = time.monotonic() + _RETRY_S
                return
            descriptor = disk.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                for offset in range(0, self._size_bytes, len(_PIECE)):
                    write_all(descriptor, _PIECE[: self._size_bytes - offset], disk)
                    # In small steps: the log's syncs have to get through between them.
                    disk.sync_content(descriptor)
                disk.sync(descriptor)
            finally:
                disk.close(descriptor)
            disk.rename(unfinished, spare_of(self._directory))
            sync_directory(self._directory, disk)
        except OSError:
            # Without a spare everything works, only slower.
            with contextlib.suppress(OSError):
                disk.unlink(unfinished)
            self._next_look_s = time.monotonic() + _RETRY_S

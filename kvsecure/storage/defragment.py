"""Defragmentation: a compact copy of the tables takes their place while they are in use.

Owns: the thread that copies, what was written meanwhile, and when there is room for a copy.
Never: stops a write for longer than it takes to bring the copy up to date, or a reader at all.
Follows: docs/adr/0015-defragmentation.md.
Keeps: whatever was reported as written is in the file that a start finds, at every moment.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.rows import unpack_rows
from kvsecure.storage.tables import Sizes, TableWriter

__all__ = ["Defragmenter"]

# What may be written while a copy is made: more has to wait until it is done.
_MISSED_BYTES_MAX: Final = 64 * 1024 * 1024
# A copy leaves this much to the log and the trail, which cannot do without.
_RESERVE_BYTES: Final = 256 * 1024 * 1024

type_done = Callable[[Sizes | OSError, int], None]


@final
class Defragmenter:
    """Defragments the tables of one writer, once at a time."""

    def __init__(
        self,
        directory: Path,
        writer: TableWriter,
        lock: threading.Lock,
        disk: Disk = SYSTEM_DISK,
    ) -> None:
        """Make one that does nothing yet.

        Args:
            directory: Where the tables are.
            writer: Theirs.
            lock: Held by whoever writes.
            disk: Where there has to be room.
        """
        self._directory = directory
        self._disk = disk
        self._writer = writer
        self._lock = lock
        self._thread: threading.Thread | None = None
        self._missed: list[bytes] | None = None
        self._missed_bytes = 0

    def begin(self, done: type_done, *, afresh: bool) -> None:
        """Begin in a thread, after an earlier run has ended.

        Args:
            afresh: Leave nothing behind of rows that are gone; it takes longer.
            done: Told sizes or why it could not be, and how many microseconds it took; the lock is
                held.
        """
        self.wait()
        with self._lock:
            self._missed, self._missed_bytes = [], 0
        self._thread = threading.Thread(
            target=self._run, args=(done,), kwargs={"afresh": afresh}, name="defragment"
        )
        self._thread.start()

    def note(self, packed: bytes) -> None:
        """Take note of rows that were written; the lock is held."""
        if self._missed is not None:
            self._missed.append(packed)
            self._missed_bytes += len(packed)

    @property
    def is_running(self) -> bool:
        """Whether a copy is being made; asked with the lock held."""
        return self._missed is not None

    def wait_for_room(self) -> None:
        """Wait for the copy if it has missed so much that nothing more is to be written."""
        if self._missed_bytes > _MISSED_BYTES_MAX:
            self.wait()

    def wait(self) -> None:
        """Wait until nothing runs."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, done: type_done, *, afresh: bool) -> None:
        started_ns = time.monotonic_ns()
        try:
            self._copy(done, started_ns, afresh=afresh)
        except OSError as error:
            with self._lock:
                self._missed, self._missed_bytes = None, 0
                done(error, _us_since(started_ns))

    def _copy(self, done: type_done, started_ns: int, *, afresh: bool) -> None:
        """Copy, go over, and say so.

        Raises:
            OSError: There is no room, or the copy could not be made or brought up to date.
        """
        self._check_room()
        aside = self._writer.copy_aside(afresh=afresh)
        with self._lock:
            missed = [unpack_rows(packed) for packed in self._missed or ()]
            try:
                take_place = self._writer.go_over(aside, missed)
            except OSError:
                self._writer.discard(aside)
                raise
            self._missed, self._missed_bytes = None, 0
            try:
                sizes = take_place()
            except OSError:
                # Which file is the tables' is not known any more: the next start finds out. The
                # member sees that this process has ended, and ends.
                os._exit(1)
            done(sizes, _us_since(started_ns))

    def _check_room(self) -> None:
        wanted = self._writer.sizes().in_use + _RESERVE_BYTES
        free = self._disk.free_bytes(self._directory)
        if free < wanted:
            raise OSError(
                errno.ENOSPC,
                f"a compact copy needs {wanted} bytes on the disk for a while, and {free} are free",
            )


def _us_since(started_ns: int) -> int:
    return (time.monotonic_ns() - started_ns) // 1000

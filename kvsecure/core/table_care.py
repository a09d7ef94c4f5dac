"""What the table process does besides writing rows: it seals them anew, and gives free pages back.

Owns: asking for it, and telling who asked what came of it.
Never: decides when; flushes are the engine's.
Follows: docs/adr/0014-rotation.md, docs/adr/0015-defragmentation.md.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import final

from kvsecure.core.link import DiskLink
from kvsecure.core.statistics import EngineStatistics
from kvsecure.model.secret import Secret
from kvsecure.storage.files import StorageError
from kvsecure.storage.rows import Row, pack_rows
from kvsecure.storage.worker import FAILED, RESEAL, WRITTEN, Order, Report, encode_keys

__all__ = ["TableCare"]

# Told why it could not be done, or nothing.
type_defragmented = Callable[[OSError | None], None]

_RESEALED: frozenset[Report] = frozenset({Report.RESEALED, Report.NOT_RESEALED})
_DEFRAGMENTED: frozenset[Report] = frozenset({Report.DEFRAGMENTED, Report.NOT_DEFRAGMENTED})


@final
class TableCare:
    """Looks after one member's tables."""

    __slots__ = (
        "_defragmented",
        "_on_fatal",
        "_refresh",
        "_reopen",
        "_resealing",
        "_reseals",
        "_statistics",
        "_tables",
    )

    def __init__(
        self,
        tables: DiskLink,
        statistics: EngineStatistics,
        *,
        refresh: Callable[[], None],
        reopen: Callable[[], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        """Ask for nothing yet.

        Args:
            tables: The table process, ready.
            statistics: Where the tables' sizes are told.
            refresh: Makes the reader of the tables see what has been written.
            reopen: Makes it go over to the tables that have taken the old ones' place.
            on_fatal: Called when the member cannot go on.
        """
        self._tables = tables
        self._statistics = statistics
        self._refresh = refresh
        self._reopen = reopen
        self._on_fatal = on_fatal
        # Who waits for rows that are being sealed anew; one batch at a time.
        self._resealing: asyncio.Future[int] | None = None
        self._reseals = asyncio.Lock()
        self._defragmented: list[type_defragmented] = []

    def give_keys(self, keys: Mapping[int, Secret]) -> None:
        """Give the table process the data keys that `reseal` opens rows with; none takes them."""
        self._tables.send(Order.KEYS, encode_keys(keys))

    async def reseal(self, rows: Sequence[Row], progress: bytes) -> int:
        """Have rows of the tables sealed under the newest data key.

        Args:
            rows: By table, key and scope.
            progress: What is stored of how far this has come, in the same transaction.

        Returns:
            How many of them were not sealed under it yet.

        Raises:
            OSError: Nothing was changed: the disk is full, or fails.
            StorageError: Nothing was changed: a row does not open.
        """
        async with self._reseals:
            self._resealing = asyncio.get_running_loop().create_future()
            self._tables.send(Order.RESEAL, RESEAL.pack(len(progress)), progress, pack_rows(rows))
            try:
                count = await self._resealing
            finally:
                self._resealing = None
        self._refresh()
        return count

    def defragment(self, done: type_defragmented, *, afresh: bool = False) -> None:
        """Give the tables' free pages back to the file system; reads and writes go on.

        Args:
            done: Told when it is done. Whoever asks while it runs is told of that run.
            afresh: Leave nothing behind of rows that are gone by now; nothing else may run.
        """
        self._defragmented.append(done)
        if len(self._defragmented) == 1:
            self._tables.send(Order.DEFRAGMENT, b"\1" if afresh else b"")

    def take(self, kind: Report, body: bytes) -> bool:
        """Take a report of the table process; return whether it was of this."""
        if kind in _RESEALED:
            self._end_reseal(kind, body)
        elif kind in _DEFRAGMENTED:
            self._end_defragmentation(kind, body)
        else:
            return False
        return True

    def _end_reseal(self, kind: Report, body: bytes) -> None:
        waiting = self._resealing
        if waiting is None or waiting.done():
            return
        if kind is Report.RESEALED:
            waiting.set_result(int(RESEAL.unpack(body)[0]))
            return
        number, why = _failure(body)
        waiting.set_exception(OSError(number, why) if number else StorageError(why))

    def _end_defragmentation(self, kind: Report, body: bytes) -> None:
        failed: OSError | None = None
        if kind is Report.DEFRAGMENTED:
            total, in_use, _ = WRITTEN.unpack(body)
            self._statistics.table_bytes = total
            self._statistics.table_bytes_in_use = in_use
            try:
                self._reopen()
            except StorageError as error:
                self._on_fatal(str(error))
                return
        else:
            failed = OSError(*_failure(body))
        waiting, self._defragmented = self._defragmented, []
        for done in waiting:
            done(failed)


def _failure(body: bytes) -> tuple[int, str]:
    (number,) = FAILED.unpack_from(body)
    return number, body[FAILED.size :].decode(errors="replace")

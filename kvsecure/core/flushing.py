"""Flushing: what was applied goes into the tables, behind the log, and holds up nobody.

    taken at one moment -> packed in turns -> one transaction of the table process -> told

Owns: the one flush that is on its way, trying again when there is room, and who waits for its end.
Never: flushes a state that is between two revisions; decides when the log may be purged.
Follows: design D3: the tables follow the log.
"""

import errno
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, final

from kvsecure.core.link import DiskLink
from kvsecure.core.replica import Replica
from kvsecure.core.statistics import EngineStatistics
from kvsecure.model.ids import Index
from kvsecure.storage.worker import FAILED, WRITTEN, Order, Report

__all__ = ["NO_ROOM", "Flushing"]

# What is waited out; anything else that a disk says does not get better by itself.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_RETRY_S: Final = 0.25
# After so long others have their turn; a piece that was begun is finished.
_PACK_NS_MAX: Final = 2_000_000


class _Flush(NamedTuple):
    """What is on its way to the tables."""

    through: Index
    # What has not been packed yet, and what has.
    pieces: Iterator[bytes]
    packed: list[bytes]


@final
class Flushing:
    """Brings the tables to the applied state, again and again."""

    __slots__ = (
        "_audit_head",
        "_flush",
        "_in_turn",
        "_later",
        "_now_ns",
        "_on_fatal",
        "_on_flushed",
        "_refresh",
        "_replica",
        "_statistics",
        "_tables",
        "_waiting",
    )

    def __init__(
        self,
        replica: Replica,
        tables: DiskLink,
        statistics: EngineStatistics,
        *,
        audit_head: Callable[[], tuple[int, bytes]],
        refresh: Callable[[], None],
        now_ns: Callable[[], int],
        in_turn: Callable[[Callable[[], None]], None],
        later: Callable[[float, Callable[[], None]], None],
        on_flushed: Callable[[Index], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        """Flush nothing yet.

        Args:
            replica: Whose state.
            tables: The table process, ready.
            statistics: Where commits and the tables' sizes are told.
            audit_head: Number and hash of the newest audit record known to be on the disk.
            refresh: Makes the reader of the tables see what has been written.
            now_ns: Monotonic time in nanoseconds.
            in_turn: Runs a step of a few milliseconds when it is its turn.
            later: Does something after so many seconds.
            on_flushed: Told through which entry the tables hold everything.
            on_fatal: Called when the member cannot go on.
        """
        self._replica = replica
        self._tables = tables
        self._statistics = statistics
        self._audit_head = audit_head
        self._refresh = refresh
        self._now_ns = now_ns
        self._in_turn = in_turn
        self._later = later
        self._on_flushed = on_flushed
        self._on_fatal = on_fatal
        self._flush: _Flush | None = None
        self._waiting: list[tuple[Index, Callable[[], None]]] = []

    @property
    def is_under_way(self) -> bool:
        """Whether something is on its way to the tables."""
        return self._flush is not None

    def begin(self) -> None:
        """Begin to flush, if there is anything to flush and no flush is on its way."""
        state = self._replica.state
        if self._flush is not None or self._replica.is_between:
            return
        if not state.dirty or not state.index:
            return
        configuration = self._replica.node.configuration_at(state.index).encode()
        self._flush = _Flush(*state.begin_flush(*self._audit_head(), configuration), [])
        self._pack()

    def when_done(self, resume: Callable[[], None]) -> None:
        """Call back once the tables hold everything that is applied by now."""
        state = self._replica.state
        if not state.dirty and self._flush is None:
            resume()
            return
        self._waiting.append((state.index, resume))
        self.begin()

    def take(self, kind: Report, body: bytes) -> bool:
        """Take a report of the table process; return whether it is of a flush."""
        if self._flush is None or kind not in (Report.WRITTEN, Report.FAILED):
            return False
        if kind is Report.WRITTEN:
            total, in_use, took_us = WRITTEN.unpack(body)
            self._statistics.commits.observe(took_us / 1e6)
            self._statistics.table_bytes = total
            self._statistics.table_bytes_in_use = in_use
            through = self._flush.through
            self._flush = None
            self._refresh()
            self._replica.state.end_flush()
            self._on_flushed(through)
            self._tell(through)
            return True
        (number,) = FAILED.unpack_from(body)
        if number in NO_ROOM:
            # The log has it all; the tables follow when there is room. What is held in memory until
            # then is bounded by what the engine takes.
            self._later(_RETRY_S, self._send)
        else:
            # Whoever tries again and again would have a log without end, and nobody told.
            why = body[FAILED.size :].decode(errors="replace")
            self._on_fatal(f"the tables cannot be written: {why}")
        return True

    def _pack(self) -> None:
        """Pack on, as far as it goes in one turn, and send what is to be flushed when it is all."""
        if self._flush is None:
            return
        begun_ns = self._now_ns()
        for piece in self._flush.pieces:
            self._flush.packed.append(piece)
            if self._now_ns() - begun_ns > _PACK_NS_MAX:
                self._in_turn(self._pack)
                return
        self._send()

    def _send(self) -> None:
        if self._flush is not None:
            self._tables.send(Order.WRITE, *self._flush.packed)

    def _tell(self, through: Index) -> None:
        waiting, self._waiting = self._waiting, []
        for wanted, resume in waiting:
            if wanted <= through:
                resume()
            else:
                self._waiting.append((wanted, resume))
        if self._waiting:
            self.begin()

"""Reading the log back: what its frames leave of it, and how that goes with the tables.

Owns: which entries count, from frames that cut off or jump over others, and how much of what the
    tables hold already stays in memory for followers.
Never: reads or changes a file.
Follows: Raft section 5.3 (a leader's entries take the place of others) and 7 (a snapshot's entry).
Keeps: entries behind the tables count only if the log leads to the tables' last entry: if it has
    that entry, of that term, or begins right behind it. Entries may be missing only before a frame
    that begins the log anew: of what it cut off, a crash may have removed the oldest part alone.
"""

from collections import deque
from dataclasses import dataclass
from typing import final

from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.membership import configurations_in
from kvsecure.model.ids import Index, Term
from kvsecure.model.limits import LOG_KEPT_BYTES_MAX

__all__ = ["LogReading", "MissingEntries"]


@final
class MissingEntries(Exception):
    """Entries are in neither the tables nor the log: those after one index and before another."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"entries {first} to {last} are missing")


@dataclass(slots=True)
class _Run:
    """Entries of one frame."""

    first: int
    term: Term
    entries: list[bytes]

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


@final
class LogReading:
    """The log as the frames that were read so far leave it."""

    def __init__(self, known: Index, term: Term, kept_bytes_max: int = LOG_KEPT_BYTES_MAX) -> None:
        """Begin with no frame.

        Args:
            known: Through where the tables hold everything.
            term: Of the entry there.
            kept_bytes_max: How much is kept of what the tables hold as well.
        """
        self._known = known
        self._term = term
        self._kept_bytes_max = kept_bytes_max
        # The index before the oldest entry that is here.
        self._offset: int = known
        self._has_begun = False
        self._runs: deque[_Run] = deque()
        # Of the runs that end at or before `known`.
        self._kept_bytes = 0

    @property
    def last(self) -> Index:
        """Through where tables and log go together."""
        return Index(max(self._last, self._known))

    @property
    def _last(self) -> int:
        return self._runs[-1].last if self._runs else self._offset

    def take(self, first: int, term: Term, entries: list[bytes]) -> None:
        """Take the next frame; if entries before it are missing, a later one may cut it off."""
        if not self._has_begun:
            self._has_begun = True
            self._offset = min(first - 1, self._known)
        if self._last + 1 < first <= self._known + 1:
            # What is between is in the tables; so is what was before.
            self._drop(self._offset)
            self._offset = first - 1
        self._drop(first - 1)
        if not self._runs:
            self._offset = min(self._offset, first - 1)
        if entries:
            self._runs.append(_Run(first, term, entries))
            if self._runs[-1].last <= self._known:
                self._kept_bytes += _bytes_of(entries)
                self._forget()

    def check_whole(self, following: int) -> None:
        """Check that nothing is missing of what frames have left, and before what is written next.

        Raises:
            MissingEntries: There is.
        """
        last: int = self._known
        for run in self._runs:
            if run.first > last + 1:
                raise MissingEntries(last + 1, run.first - 1)
            last = max(last, run.last)
        if following > last + 1:
            raise MissingEntries(last + 1, following - 1)

    def leads_to_tables(self) -> bool:
        """Tell whether the tables are of this log."""
        if self._offset == self._known:
            return self._has_begun or not self._known
        return any(
            run.first <= self._known <= run.last and run.term == self._term for run in self._runs
        )

    def log(self) -> RaftLog:
        """Return what is read, behind and a little before what the tables hold; `leads_to_tables`.

        All of it is durable; what the tables hold is committed and applied.
        """
        known = self._known
        self._split()
        offset, term = known, self._term
        before = [run for run in self._runs if run.last <= known]
        if before:
            # Its oldest entry stands for the snapshot; only its term is needed.
            offset, term = Index(before[0].first), before[0].term
        for run in before:
            # From here on it is in force that is in force in the tables.
            found = configurations_in(Index(run.first), run.entries)
            if found and found[-1][0] > offset:
                offset, term = found[-1][0], run.term
        log = RaftLog(offset, term)
        for run in self._runs:
            if run.last > offset:
                log.append(run.term, run.entries[max(offset + 1 - run.first, 0) :])
        log.committed = log.applied = known
        log.durable = log.last
        return log

    def _drop(self, after: int) -> None:
        """Drop the entries after an index."""
        runs = self._runs
        while runs and runs[-1].last > after:
            run = runs.pop()
            if run.last <= self._known:
                self._kept_bytes -= _bytes_of(run.entries)
            if run.first <= after:
                rest = _Run(run.first, run.term, run.entries[: after + 1 - run.first])
                runs.append(rest)
                if rest.last <= self._known:
                    self._kept_bytes += _bytes_of(rest.entries)

    def _forget(self) -> None:
        """Drop the oldest entries, if there are too many, but not the last of the tables'."""
        runs = self._runs
        while self._kept_bytes > self._kept_bytes_max and runs[0].last < self._known:
            run = runs.popleft()
            self._kept_bytes -= _bytes_of(run.entries)
            self._offset = run.last

    def _split(self) -> None:
        """See to it that no run goes across the end of the tables."""
        for at, run in enumerate(self._runs):
            if run.first <= self._known < run.last:
                count = self._known + 1 - run.first
                self._runs[at] = _Run(run.first, run.term, run.entries[:count])
                rest = _Run(self._known + 1, run.term, run.entries[count:])
                self._runs.insert(at + 1, rest)
                return


def _bytes_of(entries: list[bytes]) -> int:
    return sum(map(len, entries))

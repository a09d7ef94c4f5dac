"""The Raft log: entries by index, of which a prefix is durable, committed, applied.

Owns: the entries in memory and the four marks on them.
Never: writes anything; it says what has to be written.
Follows: Raft sections 5.3 and 7.
Keeps: offset <= applied <= committed <= last, applied <= durable <= last; entries at or below
    `offset` are in the snapshot and gone from memory. What is committed is never cut off. Entries
    are kept as parallel lists: they are the hot path.

What is committed may be ahead of what is durable here: a majority of others can store it before
this member does (thesis 10.2.1). Only what is both may be applied: that is `settled`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import final

from kvsecure.model.errors import invariant
from kvsecure.model.ids import Index, Term

__all__ = ["RaftLog"]


@final
class RaftLog:
    """The entries after the snapshot at (offset, offset_term)."""

    __slots__ = ("_entries", "_terms", "applied", "committed", "durable", "offset", "offset_term")

    def __init__(self, offset: Index, offset_term: Term) -> None:
        self.offset = offset
        self.offset_term = offset_term
        self.durable = offset
        self.committed = offset
        self.applied = offset
        self._terms: list[Term] = []
        self._entries: list[bytes] = []

    @property
    def last(self) -> Index:
        """The index of the newest entry."""
        return Index(self.offset + len(self._entries))

    @property
    def last_term(self) -> Term:
        """The term of the newest entry."""
        return self._terms[-1] if self._terms else self.offset_term

    @property
    def settled(self) -> Index:
        """Through where entries are committed and durable here: what may be applied."""
        return min(self.committed, self.durable)

    def term_of(self, index: Index) -> Term | None:
        """Return an entry's term, or None where the log does not have it."""
        if index == self.offset:
            return self.offset_term
        if self.offset < index <= self.last:
            return self._terms[index - self.offset - 1]
        return None

    def append(self, term: Term, entries: Sequence[bytes]) -> Index:
        """Append entries of one term; return the index of the first."""
        invariant(term >= self.last_term, "terms in a log never fall")
        first = Index(self.last + 1)
        self._terms.extend([term] * len(entries))
        self._entries.extend(entries)
        return first

    def entries(self, after: Index, through: Index) -> list[bytes]:
        """Return the entries after one index through another."""
        invariant(self.offset <= after <= through <= self.last, "the log has these entries")
        return self._entries[after - self.offset : through - self.offset]

    def run_after(self, after: Index) -> tuple[Term, list[bytes]]:
        """Return the longest run of entries of one term that starts after an index."""
        start = after - self.offset
        term = self._terms[start]
        end = len(self._terms)
        if self._terms[-1] != term:
            end = bisect_right(self._terms, term, start)
        return term, self._entries[start:end]

    def bounded_run_after(
        self, after: Index, entries_max: int, bytes_max: int
    ) -> tuple[Term, list[bytes], int]:
        """Return a run of entries of one term, and its bytes.

        Args:
            after: There is an entry after it.
            entries_max: How many it may be.
            bytes_max: What the entries may be together; the first is taken in any case.
        """
        start = after - self.offset
        term = self._terms[start]
        end = bisect_right(self._terms, term, start, min(start + entries_max, len(self._terms)))
        run = self._entries[start:end]
        size = sum(map(len, run))
        if size > bytes_max:
            sizes = list(accumulate(map(len, run)))
            count = max(bisect_right(sizes, bytes_max), 1)
            del run[count:]
            size = sizes[count - 1]
        return term, run, size

    def matching_after(self, after: Index, term: Term, count: int) -> int:
        """Return how many of the next entries are of a term, without a gap; at most `count`."""
        start = after - self.offset
        if start >= len(self._terms) or self._terms[start] != term:
            return 0
        return min(bisect_right(self._terms, term, start), start + count) - start

    def last_not_after(self, index: Index, term: Term) -> Index:
        """Return the last index at or before one whose entry is of no later term.

        What is in the snapshot or before it is not looked into: it counts as of an early term.
        """
        if index <= self.offset:
            return index
        within = min(index, self.last) - self.offset
        return Index(self.offset + bisect_right(self._terms, term, 0, within))

    def commit(self, index: Index) -> None:
        """Mark entries as committed; the mark never moves back (Raft: leader completeness)."""
        invariant(self.committed <= index <= self.last, "the commit index rises within the log")
        self.committed = index

    def truncate(self, after: Index) -> None:
        """Cut off the entries after an index: another leader had no such entries (5.3)."""
        invariant(self.committed <= after <= self.last, "what is committed is never cut off")
        del self._terms[after - self.offset :]
        del self._entries[after - self.offset :]
        self.durable = Index(min(self.durable, after))

    def forget(self, through: Index) -> None:
        """Drop entries that a snapshot holds."""
        through = Index(min(through, self.applied, self.durable))
        count = through - self.offset
        if count > 0:
            self.offset_term = self._terms[count - 1]
            del self._terms[:count]
            del self._entries[:count]
            self.offset = through

    def restore(self, index: Index, term: Term) -> bool:
        """Begin anew behind a snapshot of another member's, ahead of what is committed here.

        Returns:
            Whether the entries behind the snapshot were kept: they are when the log had its last
            entry (Raft section 7), and some of them are durable. What is not was never
            acknowledged, and what the disk has there may be of another log.
        """
        invariant(index > self.committed, "a snapshot only moves the log ahead")
        keeps = self.durable > index and self.term_of(index) == term
        count = index - self.offset if keeps else len(self._entries)
        del self._terms[:count]
        del self._entries[:count]
        self.offset, self.offset_term = index, term
        self.applied = self.committed = index
        if not keeps:
            self.durable = index
        return keeps

"""The Raft log: entries by index, of which a prefix is durable, committed, applied.

Owns: the entries in memory and the four marks on them.
Never: writes anything; it says what has to be written.
Follows: Raft sections 5.3 and 7.
Keeps: offset <= applied <= committed <= last, durable <= last; entries at or below `offset` are in
    the snapshot and gone from memory. Entries are kept as parallel lists: they are the hot path.
"""

from collections.abc import Sequence
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
            end = next(i for i in range(start, end) if self._terms[i] != term)
        return term, self._entries[start:end]

    def commit(self, index: Index) -> None:
        """Mark entries as committed; the mark never moves back (Raft: leader completeness)."""
        invariant(self.committed <= index <= self.last, "the commit index rises within the log")
        self.committed = index

    def forget(self, through: Index) -> None:
        """Drop entries that a snapshot holds."""
        through = Index(min(through, self.applied, self.durable))
        count = through - self.offset
        if count > 0:
            self.offset_term = self._terms[count - 1]
            del self._terms[:count]
            del self._entries[:count]
            self.offset = through

"""What of a member would be there if its power failed now.

Owns: the newest vote and the terms of the log that are durable, as the disk was told to write them.
Never: asks the member, or reads the disk: it is what both are compared with.
"""

from typing import final

from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Ready
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Durable"]


@final
class Durable:
    """The durable part of one member's log, behind a snapshot."""

    __slots__ = ("hard_state", "offset", "terms")

    def __init__(self) -> None:
        self.hard_state = HardState(Term(0), MemberId(0), Index(0))
        self.offset = 0
        self.terms: list[int] = []

    @property
    def last(self) -> int:
        """Through where it reaches."""
        return self.offset + len(self.terms)

    def has(self, index: int, term: int) -> bool:
        """Tell whether an entry is durable, in the log or in the snapshot."""
        if index <= self.offset:
            return True
        return index <= self.last and self.terms[index - self.offset - 1] == term

    def take(self, ready: Ready, *, is_void: bool) -> None:
        """Take note that a work order is durable.

        Args:
            ready: What was written.
            is_void: A snapshot has come meanwhile, and the entries do not count.
        """
        self.hard_state = ready.hard_state
        if is_void or not ready.entries:
            return
        terms = [ready.term] * len(ready.entries)
        begin = ready.first - 1 - self.offset
        if begin < 0:
            # The first of them are in a snapshot that came meanwhile.
            del terms[:-begin]
            begin = 0
        del self.terms[begin:]
        self.terms += terms

    def begin_at(self, index: int, *, keeps: bool) -> None:
        """Take note that the state through an index is durable.

        Args:
            index: Of its last entry.
            keeps: Whether entries behind it stay.
        """
        if keeps and index <= self.last:
            del self.terms[: index - self.offset]
        else:
            self.terms.clear()
        self.offset = index

    def check(self, log: RaftLog, hard_state: HardState) -> None:
        """Check that what a start has found is at least this, and take note of what more there is.

        Raises:
            AssertionError: Something durable is gone.
        """
        assert hard_state.term >= self.hard_state.term, "a term that was durable is gone"
        if hard_state.term == self.hard_state.term and self.hard_state.vote:
            assert hard_state.vote == self.hard_state.vote, "a vote that was durable is gone"
        self.hard_state = hard_state
        # An unfinished write may have reached the disk, and have cut off what was there.
        found = [log.term_of(Index(at)) or 0 for at in range(log.offset + 1, log.last + 1)]
        self.offset, self.terms = log.offset, found

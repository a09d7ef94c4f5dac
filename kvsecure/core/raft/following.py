"""A follower's side of replication: what of a leader's entries is taken, and what is answered.

Owns: through where the log is known to be the leader's, and whether an answer is owed.
Never: sends; changes a role or a term.
Follows: Raft section 5.3 (consistency check; a conflicting suffix is cut off), and its end for the
    hint that saves the leader from going back one by one.
Keeps: what is committed, or was found to be this leader's, is never cut off, whatever is said.
"""

from enum import Enum
from typing import final

from kvsecure.core.raft.configuration import DamagedConfiguration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.membership import Membership, configurations_in
from kvsecure.core.raft.messages import Append
from kvsecure.model.ids import Index, Term

__all__ = ["Following", "Taken"]


class Taken(Enum):
    """What became of entries that a leader sent."""

    STORED = "stored"
    # The entry before them is not in the log.
    REJECTED = "rejected"
    # No leader of this term can have sent them.
    IMPOSSIBLE = "impossible"


@final
class Following:
    """What a member knows of the leader of its term."""

    __slots__ = ("_log", "_membership", "is_owing", "truncated", "verified")

    def __init__(self, log: RaftLog, membership: Membership) -> None:
        self._log = log
        self._membership = membership
        # Through where the log is the leader's. A leader has all that was ever committed (Raft
        # section 5.4.3).
        self.verified = log.committed
        # Entries were taken that are not durable; the answer goes out when they are.
        self.is_owing = False
        # After which index entries were cut off, if any were since this was last looked at.
        self.truncated: Index | None = None

    def begin(self) -> None:
        """Know nothing of a new term's leader."""
        self.verified = self._log.committed
        self.is_owing = False

    def restore(self, index: Index, *, keeps: bool) -> None:
        """Go on behind a snapshot: what it holds is committed, and so the leader's."""
        self.verified = Index(max(self.verified, index)) if keeps else index

    def take(self, message: Append) -> Taken:
        """Put the entries of a leader's message into the log, if they fit."""
        log = self._log
        prev, entries, term = message.prev_index, message.entries, message.entry_term
        if prev < log.committed:
            # What is committed is the leader's as well; it need not be in memory any more.
            entries = entries[log.committed - prev :]
            prev = log.committed
        elif log.term_of(prev) != message.prev_term:
            return Taken.REJECTED
        kept = log.matching_after(prev, term, len(entries))
        if kept < len(entries):
            cut = Index(prev + kept)
            fresh = entries[kept:]
            if cut < log.last and cut < self.verified:
                return Taken.IMPOSSIBLE
            if (log.term_of(cut) or 0) > term:
                return Taken.IMPOSSIBLE
            try:
                found = configurations_in(Index(cut + 1), fresh)
            except DamagedConfiguration:
                return Taken.IMPOSSIBLE
            if cut < log.last:
                self._truncate(cut)
            log.append(term, fresh)
            if found:
                self._membership.forget(log.offset)
                self._membership.add(found)
        self.verified = Index(max(self.verified, prev + len(entries)))
        self.commit(message.committed)
        return Taken.STORED

    def hear(self, index: Index, term: Term) -> None:
        """Take over what a leader has committed, if that very entry is here (log matching)."""
        if self._log.term_of(index) == term:
            self.verified = Index(max(self.verified, index))
            self.commit(index)

    def commit(self, index: Index) -> None:
        """Take over a leader's commit index, as far as the log is known to be the leader's."""
        log = self._log
        index = Index(min(index, self.verified))
        if index > log.committed:
            log.commit(index)

    def _truncate(self, after: Index) -> None:
        self._log.truncate(after)
        self._membership.truncate(after)
        self.truncated = after if self.truncated is None else Index(min(self.truncated, after))

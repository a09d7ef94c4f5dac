"""Linearizable reads without entries in the log: rounds of questions.

    leader      a round has the commit index of its beginning; a majority that answers a heartbeat
                with the round's number says that this member still led when it began. As few are
                asked as make a majority, those who were quickest of late; whoever does not answer
                is made up for by the next heartbeat, which goes to everybody
    follower    a round is one question to the leader; the answer is the index

Owns: which reads wait for a round, which are part of one, and which are confirmed.
Never: reads a clock: there are no leases.
Follows: thesis 6.4.
Keeps: a read is answered with the commit index of a leader at some time after it was asked. One
    round is on its way at a time; what comes meanwhile is the next. No read of this member's own
    is lost: when the leader changes it is asked again.
"""

from typing import NamedTuple, final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.model.ids import Index, MemberId

__all__ = ["Reads"]


class _Round(NamedTuple):
    number: int
    # When it began; a follower does not know it.
    committed: Index
    own: list[int]
    # Of others, the newest question of each: who can see what was asked last can see what was
    # asked before.
    others: dict[MemberId, int]


@final
class Reads:
    """The reads of one member, and as a leader those of others."""

    __slots__ = ("_answered", "_asked", "_confirmed", "_others", "_own", "number")

    def __init__(self, number: int) -> None:
        """Make an empty queue.

        Args:
            number: Where rounds are numbered from. It must be drawn by chance: answers to what was
                asked before a restart must not answer what is asked now.
        """
        # Of the newest round.
        self.number = number
        self._own: list[int] = []
        self._others: dict[MemberId, int] = {}
        self._asked: _Round | None = None
        self._answered: dict[MemberId, int] = {}
        self._confirmed: list[tuple[int, Index]] = []

    @property
    def count(self) -> int:
        """How many reads of this member's own are not confirmed."""
        return len(self._own) + (len(self._asked.own) if self._asked else 0)

    @property
    def is_asking(self) -> bool:
        """Whether a round is on its way."""
        return self._asked is not None

    @property
    def can_begin(self) -> bool:
        """Whether reads wait for a round, and none is on its way."""
        return self._asked is None and bool(self._own or self._others)

    def add(self, context: int) -> None:
        """Take a read of this member's own."""
        self._own.append(context)

    def add_other(self, member: MemberId, context: int) -> None:
        """Take a question of another member's."""
        self._others[member] = context

    def begin(self, committed: Index) -> None:
        """Begin a round with everything that waits; a follower does not say what is committed."""
        self.number += 1
        self._asked = _Round(self.number, committed, self._own, self._others)
        self._own, self._others = [], {}

    def answer(self, member: MemberId, number: int) -> None:
        """Take note, as a leader, that a member has answered a round."""
        if self._answered.get(member, 0) < number <= self.number:
            # Among those who have answered the same round, the first one comes first.
            self._answered.pop(member, None)
            self._answered[member] = number

    def quickest(self) -> list[MemberId]:
        """Return who has answered this leader, who answered the newest round first coming first."""
        answered = self._answered
        return sorted(answered, key=answered.__getitem__, reverse=True)

    def confirm(self, configuration: Configuration) -> list[tuple[MemberId, int, Index]]:
        """Confirm, as a leader, the round if enough members have answered it.

        Returns:
            Who else asked what, and the index that is the answer.
        """
        asked = self._asked
        if asked is None or configuration.agreed_round(self._answered) < asked.number:
            return []
        self._asked = None
        self._confirmed += [(context, asked.committed) for context in asked.own]
        return [(member, context, asked.committed) for member, context in asked.others.items()]

    def confirm_asked(self, number: int, index: Index) -> None:
        """Confirm, as a follower, the round that the leader has answered."""
        asked = self._asked
        if asked is not None and asked.number == number:
            self._asked = None
            self._confirmed += [(context, index) for context in asked.own]

    def restart(self) -> None:
        """Let what was asked be asked again: the role, the term or the leader is another.

        What others asked is theirs to ask again.
        """
        if self._asked is not None:
            self._own = self._asked.own + self._own
            self._asked = None
        self._others = {}
        self._answered.clear()

    def take(self) -> list[tuple[int, Index]]:
        """Return what has been confirmed, once."""
        if not self._confirmed:
            return []
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

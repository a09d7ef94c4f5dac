"""The election timeout and the votes of one election.

Owns: how long a member has heard of no leader, and who has said what.
Never: changes a role or a term.
Follows: Raft section 5.2 (randomised timeouts); thesis 4.2.3 and 6.2 (while a leader is heard,
    nobody votes).
"""

from random import Random
from typing import final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.model.ids import MemberId

__all__ = ["Election"]


@final
class Election:
    """What a member knows of an election, its own or the next."""

    __slots__ = ("_rng", "_ticks", "_timeout", "elapsed", "votes")

    def __init__(self, ticks: int, rng: Random) -> None:
        self._ticks = ticks
        self._rng = rng
        self._timeout = self._draw()
        # Since a leader was heard of, or since the election began.
        self.elapsed = 0
        self.votes: dict[MemberId, bool] = {}

    def begin(self) -> None:
        """Forget the votes, and draw a new timeout."""
        self.votes = {}
        self.elapsed = 0
        self._timeout = self._draw()

    def expire(self) -> None:
        """Let the next tick be the last."""
        self.elapsed = self._timeout

    def tick(self) -> bool:
        """Let time pass; tell whether the timeout is over."""
        self.elapsed += 1
        return self.elapsed >= self._timeout

    @property
    def is_quiet(self) -> bool:
        """Whether a leader, if there is one, was heard of less than the least timeout ago."""
        return self.elapsed < self._ticks

    def count(self, voter: MemberId, configuration: Configuration, *, granted: bool) -> bool | None:
        """Count a vote; the first word of a voter holds.

        Returns:
            Whether the election is won or lost; None while it is open.
        """
        self.votes.setdefault(voter, granted)
        if configuration.have_agreed([who for who, said in self.votes.items() if said]):
            return True
        refusals = [who for who, said in self.votes.items() if not said]
        return False if configuration.have_refused(refusals) else None

    def _draw(self) -> int:
        return self._ticks + self._rng.randrange(self._ticks)

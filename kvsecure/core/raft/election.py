"""The election timeout and the votes of one election.

Owns: how long a member has heard of no leader, whether it has reason to think that there is none,
    and who has said what.
Never: changes a role or a term.
Follows: Raft section 5.2 (randomised timeouts); thesis 4.2.3 and 6.2 (while a leader is heard,
    nobody votes).
"""

from random import Random
from typing import Final, final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.model.ids import MemberId

__all__ = ["Election"]

# Within so many ticks a member stands whose leader seems to be gone: by chance, so that not all of
# them do at once.
_SUSPICIOUS_TICKS: Final = 2


@final
class Election:
    """What a member knows of an election, its own or the next."""

    __slots__ = ("_is_suspicious", "_patience", "_rng", "_ticks", "_timeout", "elapsed", "votes")

    def __init__(self, ticks: int, rng: Random) -> None:
        self._ticks = ticks
        self._rng = rng
        self._timeout = self._draw()
        # Since a leader was heard of, or since the election began.
        self.elapsed = 0
        # Whether the leader seems to be gone, and after how many ticks that is enough to stand; 0
        # if somebody else does.
        self._is_suspicious = False
        self._patience = 0
        self.votes: dict[MemberId, bool] = {}

    def begin(self) -> None:
        """Forget the votes, and draw a new timeout."""
        self.votes = {}
        self.hear()
        self._timeout = self._draw()

    def hear(self) -> None:
        """Take note that there is a leader, or that there will be one: begin to wait anew."""
        self.elapsed = 0
        self._is_suspicious = False
        self._patience = 0

    def suspect(self) -> None:
        """Wait for no more than a moment, unless the leader is heard of again."""
        if not self._is_suspicious:
            self._is_suspicious = True
            self._patience = 1 + self._rng.randrange(_SUSPICIOUS_TICKS)

    def relent(self) -> None:
        """Leave it to somebody else to stand first: wait for the whole timeout."""
        self._patience = 0

    def expire(self) -> None:
        """Let the next tick be the last."""
        self.elapsed = self._timeout

    def tick(self) -> bool:
        """Let time pass; tell whether the timeout is over."""
        self.elapsed += 1
        if self._patience:
            self._patience -= 1
            if not self._patience:
                return True
        return self.elapsed >= self._timeout

    @property
    def is_quiet(self) -> bool:
        """Whether a leader, if there is one, was heard of less than the least timeout ago.

        It was not, whatever the time, where it seems to be gone.
        """
        return self.elapsed < self._ticks and not self._is_suspicious

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

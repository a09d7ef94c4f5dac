"""Timing: how long links wait, from how fast consensus ticks.

Owns: the pace of pings, of attempts and of looks, and when silence means that a peer is gone.
Never: reads a clock.
"""

from dataclasses import dataclass
from random import Random
from typing import Final, final

__all__ = ["LinkTiming"]

# A link is not what finds out that a leader is gone; it only must not be kept for dead for long.
_SILENT_ELECTIONS: Final = 3.0
# After how many failures attempts are no further apart.
_DOUBLINGS_MAX: Final = 16


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTiming:
    """The settings of consensus, in seconds: etcd's heartbeat-interval and election-timeout."""

    heartbeat_s: float = 0.1
    election_s: float = 1.0

    @property
    def tick_s(self) -> float:
        """How often links are looked after; a ping goes with it unless one is under way."""
        return self.heartbeat_s

    @property
    def silence_s(self) -> float:
        """How long a peer may say nothing: a ping's answer, or a ping."""
        return _SILENT_ELECTIONS * self.election_s

    def pause_s(self, failures: int, dice: Random) -> float:
        """Return how long to wait after so many failures in a row: twice as long each time.

        It is a heartbeat at first and an election at most, less up to a half by chance, so that
        members that lost each other at once do not come back at once.
        """
        doubled = self.heartbeat_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)
        return min(doubled, self.election_s) * dice.uniform(0.5, 1.0)

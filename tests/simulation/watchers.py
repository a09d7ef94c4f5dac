"""Watchers: each follows what changes, at one member after the other.

    Watchers        several of them; `check` compares what they saw with what was committed

Owns: what watchers ask, and what they must have seen.
Never: needs a leader: a member tells what it has applied.
Keeps: a watcher goes on at the index where it was; what is gone meanwhile it is told of.
"""

from bisect import bisect_right
from typing import Final, NamedTuple, final

from simulation.cluster import Cluster
from simulation.kernel import MS
from simulation.machine import Change

__all__ = ["Watchers"]

_COUNT: Final = 3
_PAUSE_US: Final = 60 * MS


class _Stretch(NamedTuple):
    """What a watcher was told without a gap: everything after one index, through another."""

    after: int
    through: int
    changes: list[Change]


@final
class Watchers:
    """Several watchers."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen = 0
        self._cluster = cluster
        self._at = [0] * _COUNT
        self._stretches: list[_Stretch] = []
        for watcher in range(_COUNT):
            self._later(watcher)

    def check(self) -> None:
        """Check that all was seen that there was, once and in order.

        Raises:
            AssertionError: Something is missing, too much, or elsewhere.
        """
        everything = list(self._cluster.invariants.state().changes)
        at = [change.at for change in everything]
        for stretch in self._stretches:
            first, last = bisect_right(at, stretch.after), bisect_right(at, stretch.through)
            wanted = everything[first:last]
            assert stretch.changes == wanted, (
                f"of changes after {stretch.after} through {stretch.through} a watcher saw "
                f"{stretch.changes} and not {wanted}"
            )

    def _later(self, watcher: int) -> None:
        kernel = self._cluster.kernel
        kernel.after(kernel.chance.randrange(MS, _PAUSE_US), self._look, watcher)

    def _look(self, watcher: int) -> None:
        """Ask any member for what is new."""
        members = list(self._cluster.members.values())
        machine = self._cluster.kernel.chance.choice(members).machine
        at = self._at[watcher]
        if machine is not None and machine.applied > at:
            changes = machine.changes_after(at)
            if changes is None:
                # It is told that it has missed something, and from where on it has not.
                self._at[watcher] = machine.forgotten
            else:
                self.seen += len(changes)
                self._stretches.append(_Stretch(at, machine.applied, changes))
                self._at[watcher] = machine.applied
        self._later(watcher)

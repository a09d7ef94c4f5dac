"""Leases by the clock of whoever leads: what a member knows of how long each lives.

    begin       a member leads: all leases begin anew, for nobody knows how long they have left
    keep        a lease lives on, if its end is not on its way
    due         whose time is over

Owns: deadlines.
Never: ends a lease; a command does.
Follows: etcd's lessor, whose deadlines are the leader's alone.
"""

from typing import final

from simulation.kernel import Clock
from simulation.machine import Machine

from kvsecure.model.ids import Term

__all__ = ["Leases"]


@final
class Leases:
    """The deadlines of one running member; they count while it leads."""

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self.led = Term(0)
        self._machine = machine
        self._clock = clock
        # By owner, in virtual microseconds of the member's own clock.
        self._deadlines: dict[str, float] = {}
        # The end of these was proposed.
        self._ending: set[str] = set()

    def begin(self, term: Term) -> None:
        """Begin to lead."""
        self.led = term
        self._ending.clear()
        now_us = self._clock.now_us()
        self._deadlines = {
            owner: now_us + ttl_us for owner, (_, ttl_us) in self._machine.leases.items()
        }

    def note(self, owner: str) -> None:
        """Take note of what a command has done to a lease."""
        lease = self._machine.leases.get(owner)
        if lease is None:
            self._deadlines.pop(owner, None)
            self._ending.discard(owner)
        elif owner not in self._deadlines:
            self._deadlines[owner] = self._clock.now_us() + lease[1]

    def keep(self, owner: str) -> bool:
        """Let a lease live on; return whether it does."""
        lease = self._machine.leases.get(owner)
        if lease is None or owner in self._ending:
            return False
        self._deadlines[owner] = self._clock.now_us() + lease[1]
        return True

    def due(self) -> list[tuple[str, str]]:
        """Return the keys and owners of leases whose time is over, once each."""
        now_us = self._clock.now_us()
        return [
            (self._machine.leases[owner][0], owner)
            for owner, deadline_us in self._deadlines.items()
            if deadline_us < now_us and owner not in self._ending
        ]

    def end(self, owner: str) -> None:
        """Take note that a lease's end was proposed."""
        self._ending.add(owner)

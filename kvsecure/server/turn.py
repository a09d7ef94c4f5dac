"""Turns: what one round of the event loop asked for leaves together, recorded first.

Owns: the order at the end of a turn: producers, the audit trail, the log, the answers.
Never: knows what an answer is.
Follows: docs/adr/0008-audit-before-the-core.md.
Keeps: an answer is written to a socket only after the records of its turn were written; if they
    could not be, every answer of the turn becomes the refusal that says so, and nothing is
    proposed; one connection's failure is no other one's.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, final

from kvsecure.model.errors import Refused
from kvsecure.security.gate import Gate

__all__ = ["Answering", "Flushing", "Turn"]


class Answering(Protocol):
    """An answer that waits for the end of its turn."""

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Encode a message, a refusal, or with neither the end of a stream."""
        ...


class Flushing(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write it."""
        ...


# Whom to, and a message or a refusal.
type_answer = tuple[Answering, bytes | None, Refused | None]


@final
class Turn:
    """The turn that is going on."""

    __slots__ = ("_answers", "_dirty", "_gate", "_loop", "_producers", "_scheduled", "number")

    def __init__(self, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._gate = gate
        self._loop = loop
        self._answers: list[type_answer] = []
        self._dirty: set[Flushing] = set()
        self._producers: list[Callable[[], None]] = []
        self._scheduled = False
        # How many have ended: tells one turn from the next.
        self.number = 0

    def schedule(self) -> None:
        """End the turn once everything that has come in by now was dealt with."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.end)

    def answer(self, to: Answering, message: bytes | None, refused: Refused | None) -> None:
        """Let an answer wait for the end of the turn."""
        self._answers.append((to, message, refused))
        if not self._scheduled:
            self.schedule()

    def mark(self, connection: Flushing) -> None:
        """Write what a connection has to write at the end of the turn."""
        self._dirty.add(connection)
        if not self._scheduled:
            self.schedule()

    def at_end(self, produce: Callable[[], None]) -> None:
        """Do something first when the turn ends: what it answers still leaves with this turn."""
        self._producers.append(produce)
        if not self._scheduled:
            self.schedule()

    def end(self) -> None:
        """Record, propose, answer, write; whatever goes wrong, the next turn comes."""
        # What is added from here on belongs to this turn until its answers are taken.
        self._scheduled = True
        self.number += 1
        try:
            self._produce()
            self._hand_over(self._record())
        finally:
            self._scheduled = False
            if self._answers or self._producers or self._dirty:
                self.schedule()

    def _produce(self) -> None:
        while self._producers:
            producers, self._producers = iter(self._producers), []
            try:
                for produce in producers:
                    produce()
            finally:
                # Those behind one that failed.
                self._producers[:0] = producers

    def _record(self) -> list[type_answer]:
        """Record and propose; return what may leave now."""
        # Out of reach until it is recorded: what fails here in an unknown way is never answered.
        answers, self._answers = self._answers, []
        gate = self._gate
        failed: Refused | None = None
        try:
            gate.end_turn()
        except Refused as error:
            failed = error
            gate.drop_turn(error)
        else:
            failed = self._propose()
        answers += self._answers
        self._answers = []
        return answers if failed is None else [(to, None, failed) for to, _, _ in answers]

    def _propose(self) -> Refused | None:
        """Propose; return why what that finished at once could not be recorded, if so."""
        self._gate.engine.end_turn()
        try:
            self._gate.end_turn()
        except Refused as error:
            return error
        return None

    def _hand_over(self, answers: list[type_answer]) -> None:
        """Deliver and write; what fails at one connection leaves the others to the next turn."""
        delivering = iter(answers)
        try:
            for to, message, refused in delivering:
                to.deliver(message, refused)
        finally:
            self._answers[:0] = delivering
        dirty, self._dirty = self._dirty, set()
        flushing = iter(dirty)
        try:
            for connection in flushing:
                connection.flush()
        finally:
            self._dirty.update(flushing)

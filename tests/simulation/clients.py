"""Clients that do things, and what they were told.

    Request, Outcome     what a member is asked, and how it ends
    Clients              several of them, each doing one thing at a time
    Histories            what all were told, for the checkers

Owns: what is asked of whom, how long is waited, and what is asked again.
Never: looks into a member.
Keeps: what a member has refused was not done, and may be asked of another; what was not answered in
    time may have been done, and is never asked again.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, final

from simulation.kernel import MS, SECOND, Kernel
from simulation.machine import command
from support.linearizability import Model, Operation
from support.models import LIST, LOCK, REGISTER, SET

__all__ = ["LEASE_US", "Ask", "Clients", "Histories", "Outcome", "Reply", "Request", "model_of"]

_TIMEOUT_US: Final = 1_500 * MS
_PATIENCE_US: Final = 4 * SECOND
LEASE_US: Final = 2 * SECOND
# A key has so many operations before the next of its kind begins: histories stay short.
_OPERATIONS_OF_A_KEY: Final = 40
_PADDINGS: Final = (0, 0, 0, 0, 30, 600, 1_500)
_KINDS: Final = ("register", "list", "set", "lock")
_MODELS: Final[dict[str, Model]] = {"register": REGISTER, "list": LIST, "set": SET, "lock": LOCK}


class Ask(Enum):
    """What kind of request it is."""

    WRITE = "write"
    READ = "read"
    KEEP = "keep"


class Outcome(Enum):
    """How a request ends, if it does."""

    DONE = "done"
    # Nothing was done, and another member may do it.
    REFUSED = "refused"
    # It was in a log, and is in none any more.
    LOST = "lost"


class Request(NamedTuple):
    """What a member is asked; unlike any other."""

    ask: Ask
    serial: int
    key: str
    # The entry of a write; the owner of the lease that is to be kept.
    entry: bytes = b""
    owner: str = ""


Reply = Callable[[Outcome, Hashable], None]


def model_of(key: str) -> Model:
    """Return what one copy does with a key."""
    return _MODELS[key.partition("/")[0]]


@final
@dataclass
class Histories:
    """What clients were told."""

    operations: list[Operation] = field(default_factory=list)
    # By owner of a lease, when it was asked for the last time that it lives on, and was told so.
    kept_us: dict[str, int] = field(default_factory=dict)
    # By owner of a lease, when it ended for the first who knew.
    expired_us: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class _Doing:
    """An operation on its way."""

    __slots__ = ("arguments", "attempt", "called_at", "is_over", "name", "request", "then")

    def __init__(
        self,
        request: Request,
        name: str,
        arguments: tuple[Hashable, ...],
        called_at: int,
        then: Callable[[Outcome | None, Hashable], None],
    ) -> None:
        self.request = request
        self.name = name
        self.arguments = arguments
        self.called_at = called_at
        self.then = then
        self.attempt = 0
        self.is_over = False


@final
class Clients:
    """Several clients."""

    def __init__(
        self,
        kernel: Kernel,
        members: Callable[[], Sequence[int]],
        ask: Callable[[int, Request, Reply], None],
        *,
        count: int,
        lost: float,
        pause_us: int,
    ) -> None:
        """Let clients begin.

        Args:
            kernel: Time and chance.
            members: Who may be asked now.
            ask: Hands a request to a member.
            count: How many clients there are.
            lost: Of how many requests and replies each is lost, from 0 to 1.
            pause_us: How long a client rests between two operations, at most.
        """
        self.histories = Histories()
        self.is_stopped = False
        self._kernel = kernel
        self._members = members
        self._ask = ask
        self._lost = lost
        self._pause_us = pause_us
        self._serial = 0
        self._turns: Counter[str] = Counter()
        self._open: dict[int, tuple[int, _Doing]] = {}
        self._leader = [0] * count
        # What each client believes to be in a register, and holds.
        self._seen: list[dict[str, Hashable]] = [{} for _ in range(count)]
        self._held: list[tuple[str, str] | None] = [None] * count
        for client in range(count):
            kernel.after(kernel.chance.randrange(1, 300 * MS), self._next, client)

    def close(self) -> None:
        """Write down what is still open: it may have been done."""
        self.is_stopped = True
        for client, doing in self._open.values():
            self._record(client, doing)
        self._open.clear()

    def expiring(self, key: str, owner: str) -> None:
        """Take note that a member has proposed that a lease ends; it may happen or not."""
        now_us = self._kernel.now_us
        self.histories.operations.append(Operation(-1, key, "expire", (owner,), now_us))

    def next_serial(self) -> int:
        """Return a number that nothing else has."""
        self._serial += 1
        return self._serial

    # --- what is done -----------------------------------------------------------------------------

    def _next(self, client: int) -> None:
        if self.is_stopped:
            return
        chance = self._kernel.chance
        held = self._held[client]
        if held is not None and chance.random() < 0.7:
            self._go_on_with_lock(client, *held)
            return
        kind = chance.choices(_KINDS, (4, 3, 2, 2))[0]
        turn = self._turns[kind]
        self._turns[kind] += 1
        key = f"{kind}/{turn // (2 * _OPERATIONS_OF_A_KEY)}.{turn % 2}"
        if chance.random() < 0.4:
            self._read(client, key)
            return
        value = self.next_serial()
        match kind:
            case "register" if chance.random() < 0.4:
                self._write(client, "swap", key, (self._seen[client].get(key), value))
            case "register":
                self._write(client, "put", key, (value,))
            case "list":
                self._write(client, "append", key, (value,))
            case "set":
                seen = self._seen[client].get(key)
                if isinstance(seen, frozenset) and seen and chance.random() < 0.5:
                    self._write(client, "take", key, (min(seen),))
                else:
                    self._write(client, "add", key, (value,))
            case _ if held is None:
                self._write(client, "acquire", key, (f"{client}:{value}",))
            case _:
                self._read(client, key)

    def _go_on_with_lock(self, client: int, key: str, owner: str) -> None:
        """Keep a lock, give it back, or forget it."""
        draw = self._kernel.chance.random()
        if draw < 0.1:
            self._held[client] = None
            self._rest(client)
        elif draw < 0.3:
            self._held[client] = None
            self._write(client, "release", key, (owner,))
        else:
            request = Request(Ask.KEEP, self.next_serial(), key, owner=owner)
            doing = _Doing(request, "keep", (owner,), self._kernel.now_us, _nothing)
            self._begin(client, doing)

    def _write(self, client: int, name: str, key: str, arguments: tuple[Hashable, ...]) -> None:
        serial = self.next_serial()
        # Large ones reach over sectors of a disk, of which some may be lost, and over messages.
        padding = "x" * self._kernel.chance.choice(_PADDINGS)
        extra = LEASE_US if name == "acquire" else padding
        entry = command(serial, name, key, *arguments, extra)

        def then(outcome: Outcome | None, answer: Hashable) -> None:
            if name == "acquire" and outcome is Outcome.DONE and answer is not None:
                (owner,) = arguments
                self._held[client] = (key, str(owner))

        request = Request(Ask.WRITE, serial, key, entry)
        self._begin(client, _Doing(request, name, arguments, self._kernel.now_us, then))

    def _read(self, client: int, key: str) -> None:
        def then(outcome: Outcome | None, answer: Hashable) -> None:
            if outcome is Outcome.DONE:
                self._seen[client][key] = answer

        name = "holder" if key.startswith("lock") else "get"
        request = Request(Ask.READ, self.next_serial(), key)
        self._begin(client, _Doing(request, name, (), self._kernel.now_us, then))

    # --- asking -----------------------------------------------------------------------------------

    def _begin(self, client: int, doing: _Doing) -> None:
        self._open[doing.request.serial] = (client, doing)
        self._try(client, doing)

    def _try(self, client: int, doing: _Doing) -> None:
        """Ask a member: the one believed to lead, as a rule."""
        kernel, chance = self._kernel, self._kernel.chance
        members = self._members()
        if self.is_stopped or not members:
            self._finish(client, doing, None, None)
            return
        believed = self._leader[client]
        wants_leader = chance.random() < 0.7
        member = believed if wants_leader and believed in members else chance.choice(members)
        doing.attempt += 1
        attempt = doing.attempt

        def reply(outcome: Outcome, answer: Hashable) -> None:
            if chance.random() >= self._lost:
                delay_us = chance.randrange(100, 2 * MS)
                kernel.after(
                    delay_us, self._replied, client, doing, attempt, member, outcome, answer
                )

        kernel.after(_TIMEOUT_US, self._timed_out, client, doing, attempt)
        if chance.random() >= self._lost:
            delay_us = chance.randrange(100, 2 * MS)
            kernel.after(delay_us, self._ask, member, doing.request, reply)

    def _replied(
        self,
        client: int,
        doing: _Doing,
        attempt: int,
        member: int,
        outcome: Outcome,
        answer: Hashable,
    ) -> None:
        if doing.is_over or doing.attempt != attempt:
            return
        if outcome is Outcome.DONE:
            if doing.request.ask is Ask.WRITE:
                self._leader[client] = member
            self._finish(client, doing, outcome, answer)
            return
        kernel = self._kernel
        if outcome is Outcome.LOST or kernel.now_us - doing.called_at > _PATIENCE_US:
            self._finish(client, doing, outcome, None)
            return
        self._leader[client] = answer if isinstance(answer, int) else 0
        doing.attempt += 1
        kernel.after(kernel.chance.randrange(MS, 100 * MS), self._try, client, doing)

    def _timed_out(self, client: int, doing: _Doing, attempt: int) -> None:
        if not doing.is_over and doing.attempt == attempt:
            self._leader[client] = 0
            self._finish(client, doing, None, None)

    def _finish(
        self, client: int, doing: _Doing, outcome: Outcome | None, answer: Hashable
    ) -> None:
        doing.is_over = True
        self._open.pop(doing.request.serial, None)
        histories = self.histories
        histories.counts["unanswered" if outcome is None else outcome.value] += 1
        if outcome is None:
            self._record(client, doing)
        elif outcome is Outcome.DONE:
            self._record(client, doing, self._kernel.now_us, answer)
        doing.then(outcome, answer)
        self._rest(client)

    def _record(
        self, client: int, doing: _Doing, returned_at: int | None = None, answer: Hashable = None
    ) -> None:
        histories, request = self.histories, doing.request
        if request.ask is Ask.KEEP:
            if answer is True:
                histories.kept_us[request.owner] = doing.called_at
            return
        if doing.name == "acquire" and answer is not None:
            histories.kept_us[str(doing.arguments[0])] = doing.called_at
        asked = Operation(client, request.key, doing.name, doing.arguments, doing.called_at)
        if returned_at is not None:
            asked = asked._replace(returned_at=returned_at, answer=answer)
        histories.operations.append(asked)

    def _rest(self, client: int) -> None:
        kernel = self._kernel
        kernel.after(kernel.chance.randrange(MS, self._pause_us), self._next, client)


def _nothing(outcome: Outcome | None, answer: Hashable) -> None:
    """Make nothing of an answer."""

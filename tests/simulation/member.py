"""A member: the real consensus over a simulated disk, and a small state machine on top.

    Member      starts, ticks, takes messages and requests, stops, crashes

Owns: the order in which a member writes, sends, applies and answers; leases by its own clock.
Never: decides what goes wrong; never sees another member.
Follows: `kvsecure.server` for that order: what consensus wants durable is written, then it is told.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Final, Protocol, final

from simulation.clients import Ask, Outcome, Reply, Request
from simulation.disk import SimulatedDisk
from simulation.durable import Durable
from simulation.invariants import Invariants, is_configuration
from simulation.kernel import SECOND, Clock, Kernel, Timer
from simulation.leases import Leases
from simulation.machine import Machine, command, command_of
from simulation.profile import Profile
from simulation.recovery import Saved, recovered

from kvsecure.core.raft.codec import DamagedMessage, decode, encode
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.raft.refusals import Refusal
from kvsecure.core.raft.status import Role
from kvsecure.core.replica import encode_frame
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Member", "Surroundings"]

# What a link carries: a message, a snapshot, or that one was installed.
_MESSAGE: Final = b"m"
_SNAPSHOT: Final = b"s"
_INSTALLED: Final = b"i"
_SNAPSHOT_TIMEOUT_US: Final = 1 * SECOND


class Surroundings(Protocol):
    """What a member needs of the cluster that it is in."""

    kernel: Kernel
    profile: Profile
    founding: Configuration
    invariants: Invariants
    counts: Counter[str]

    def send(self, sender: MemberId, receiver: MemberId, content: bytes) -> None:
        """Carry bytes to another member, perhaps."""

    def expiring(self, key: str, owner: str) -> None:
        """Take note that a member proposes that a lease ends."""

    def expired(self, owner: str) -> None:
        """Take note that somebody has applied that a lease ends."""

    def next_serial(self) -> int:
        """Return a number that nothing else has."""

    def say(self, text: str) -> None:
        """Tell whoever listens."""

    @property
    def is_traced(self) -> bool:
        """Whether anybody listens."""


@final
class _Running:
    """What a member has in memory, and loses when it ends."""

    def __init__(self, node: Node, machine: Machine, clock: Clock) -> None:
        self.node = node
        self.machine = machine
        self.leases = Leases(machine, clock)
        # By the index of the entry.
        self.writes: dict[int, tuple[Term, Reply]] = {}
        # By context: what is asked, and what was committed anywhere when it was.
        self.reads: dict[int, tuple[Request, Reply, int]] = {}
        self.contexts = 0
        # Reads that wait until an index is applied.
        self.waiting: list[tuple[int, int, Request, Reply]] = []
        # Of the tables on the disk, or on their way there.
        self.saved_index = Index(0)
        self.is_saving = False
        # The work order that is out, and whether its entries count when it is done.
        self.ordered: Ready | None = None
        self.is_void = False
        # Of snapshots that were sent, by receiver: the newest one's number.
        self.sendings: dict[MemberId, int] = {}
        self.inbox: deque[Callable[[], None]] = deque()
        self.ticking: Timer | None = None


@final
class Member:
    """One of a cluster, up or not."""

    def __init__(self, around: Surroundings, member: MemberId) -> None:
        self.member = member
        self.disk = SimulatedDisk(around.kernel, member, around.profile.pace, self._broken)
        self.is_paused = False
        # The power fails in the middle of the next write.
        self.is_doomed = False
        self._around = around
        self._kernel = around.kernel
        self._invariants = around.invariants
        self._running: _Running | None = None
        self._clock = Clock(around.kernel)
        self._invariants.durable[member] = Durable()

    @property
    def is_up(self) -> bool:
        """Whether it runs, paused or not."""
        return self._running is not None

    @property
    def node(self) -> Node | None:
        """Its part in consensus, while it runs."""
        return self._running.node if self._running is not None else None

    @property
    def machine(self) -> Machine | None:
        """Its state, while it runs."""
        return self._running.machine if self._running is not None else None

    # --- starting and ending ----------------------------------------------------------------------

    def start(self) -> None:
        """Start with what is on the disk, if it does not run."""
        if self._running is not None:
            return
        around, chance = self._around, self._kernel.chance
        restored = recovered(self.disk.recover(), around.founding)
        durable = self._invariants.durable[self.member]
        durable.check(restored.log, restored.hard_state)
        if restored.is_severed:
            self._begin_log_anew(restored.hard_state, restored.saved_index, Term(0))
        node = Node(
            self.member,
            restored.log,
            restored.hard_state,
            restored.configuration,
            around.profile.settings,
            random.Random(chance.getrandbits(64)),
        )
        self._clock = Clock(self._kernel)
        self._running = running = _Running(node, restored.machine, self._clock)
        running.saved_index = restored.saved_index
        self._tick_later(running)
        around.say(
            f"{self.member} starts in term {node.term} with {restored.saved_index} in its tables "
            f"and {node.log.last} in its log"
        )
        self._turn()

    def crash(self, *, is_power_lost: bool) -> None:
        """End at once; clients and other members hear nothing of it."""
        running = self._running
        if running is None:
            return
        self._end(running)
        self.disk.crash(is_power_lost=is_power_lost)

    def _fall(self, running: _Running) -> None:
        if running is self._running:
            self.crash(is_power_lost=True)
            self.start_later()

    def start_later(self) -> None:
        """Start in a while."""
        delay_us = self._kernel.chance.randrange(1, self._around.profile.down_us_max)
        self._kernel.after(delay_us, self.start)

    def _end(self, running: _Running) -> None:
        if running.ticking is not None:
            running.ticking.call_off()
        self._running = None
        self.is_paused = False
        self._invariants.forget(self.member)
        self._around.say(f"{self.member} ends")

    def _broken(self) -> None:
        """A sync has failed: nothing that was to be durable may be taken for it."""
        if self._running is not None:
            self.crash(is_power_lost=False)
            self.start_later()

    def pause(self) -> None:
        """Do nothing until told to go on; what arrives meanwhile waits."""
        if self._running is not None:
            self.is_paused = True

    def go_on(self) -> None:
        """Do everything that has waited."""
        running = self._running
        self.is_paused = False
        while running is not None and running.inbox and running is self._running:
            running.inbox.popleft()()

    # --- time -------------------------------------------------------------------------------------

    def drift(self, rate: float) -> None:
        """Let its clock be fast or slow."""
        self._clock.go(rate)

    def jump(self, ticks: int) -> None:
        """Let ticks happen at once, as after a pause of the machine."""
        for _ in range(ticks):
            self._now(self._tick)

    def suspect(self, gone: MemberId | None = None) -> None:
        """Take its leader for gone, rightly or not; only if it is this one, if one is named."""

        def suspect() -> None:
            running = self._running
            if running is not None and gone in (None, running.node.leader):
                running.node.suspect_leader()
                self._turn()

        self._now(suspect)

    def _tick_later(self, running: _Running) -> None:
        delay_us = int(self._around.profile.tick_us / self._clock.rate)
        running.ticking = self._kernel.after(delay_us, self._ticked, running)

    def _ticked(self, running: _Running) -> None:
        if running is self._running:
            self._tick_later(running)
            if not self.is_paused:
                self._tick()

    def _tick(self) -> None:
        running = self._running
        if running is not None:
            running.node.tick()
            self._expire(running)
            self._turn()

    # --- what comes -------------------------------------------------------------------------------

    def _now(self, action: Callable[[], None]) -> None:
        """Do something now, or after a pause."""
        running = self._running
        if running is None:
            return
        if self.is_paused:
            running.inbox.append(action)
        else:
            action()

    def deliver(self, sender: MemberId, content: bytes, *, is_whole: bool) -> None:
        """Take what has come over a link."""
        if not is_whole:
            # It never reaches consensus; that it can be read or not is all there is to it.
            self._around.counts["damaged read"] += self._read_damaged(content)
            return
        self._now(lambda: self._take(sender, content))

    def _read_damaged(self, content: bytes) -> bool:
        text = content[1:]
        try:
            message = decode(text)
        except DamagedMessage:
            return False
        assert encode(message) == text, "a message has two forms"
        return True

    def _take(self, sender: MemberId, content: bytes) -> None:
        running = self._running
        if running is None:
            return
        kind, text = content[:1], content[1:]
        if kind == _MESSAGE:
            message = decode(text)
            if self._around.is_traced:
                self._around.say(f"{self.member} <- {message}")
            running.node.step(message)
        elif kind == _SNAPSHOT:
            self._install(running, sender, int.from_bytes(text[:8], "big"), text[8:])
        elif running.sendings.get(sender) == int.from_bytes(text, "big"):
            del running.sendings[sender]
            running.node.report_snapshot(sender, ok=True)
        self._turn()

    def ask(self, request: Request, reply: Reply) -> None:
        """Take a client's request."""
        self._now(lambda: self._ask(request, reply))

    def _ask(self, request: Request, reply: Reply) -> None:
        running = self._running
        if running is None:
            return
        node = running.node
        try:
            if request.ask is Ask.WRITE:
                index = node.propose([request.entry])
                running.writes[index] = (node.term, reply)
            else:
                running.contexts += 1
                running.reads[running.contexts] = (request, reply, self._invariants.highest)
                node.read(running.contexts)
        except Refusal:
            reply(Outcome.REFUSED, node.leader)
        self._turn()

    def try_to(self, action: Callable[[], object], text: str) -> bool:
        """Do something that consensus may refuse; return whether it was taken."""
        try:
            action()
        except Refusal:
            return False
        self._around.say(f"{self.member} will {text}")
        self._turn()
        return True

    # --- what follows -----------------------------------------------------------------------------

    def _turn(self) -> None:
        """Write, send, apply and answer what there is."""
        running = self._running
        if running is None:
            return
        node = running.node
        self._invariants.stepped(node)
        if node.log.applied < node.log.settled:
            self._apply(running)
        if node.role is Role.LEADER and running.leases.led != node.term:
            running.leases.begin(node.term)
        for message in node.take_messages():
            self._invariants.said(node, message)
            self._around.send(self.member, message.to, _MESSAGE + encode(message))
        for context, index in node.take_reads():
            request, reply, asked_at = running.reads.pop(context)
            self._invariants.may_read(self.member, index, asked_at)
            heapq.heappush(running.waiting, (index, context, request, reply))
        while running.waiting and running.waiting[0][0] <= running.machine.applied:
            _, _, request, reply = heapq.heappop(running.waiting)
            self._answer(running, request, reply)
        for order in node.take_snapshots():
            self._send_snapshot(running, order.to)
        ready = node.ready()
        if ready is not None:
            self._invariants.ordered(node, ready)
            running.ordered, running.is_void = ready, False
            self.disk.append(
                ready.first, len(ready.entries), encode_frame(ready), lambda: self._written(running)
            )
            if self.is_doomed:
                self.is_doomed = False
                within_us = self._kernel.chance.randrange(self.disk.pace.sync_us_min)
                self._kernel.after(within_us, self._fall, running)

    def _written(self, running: _Running) -> None:
        if running is not self._running:
            return
        if self.is_paused:
            running.inbox.append(lambda: self._written(running))
            return
        ready, running.ordered = running.ordered, None
        assert ready is not None
        self._invariants.is_durable(self.member, ready, is_void=running.is_void)
        running.node.persisted()
        self._turn()

    def _apply(self, running: _Running) -> None:
        node, machine = running.node, running.machine
        log = node.log
        first, settled = log.applied, log.settled
        for index, entry in enumerate(log.entries(first, settled), first + 1):
            answer: Hashable = None
            if is_configuration(entry):
                machine.skip(index, entry)
            else:
                answer = machine.apply(index, entry)
                self._note_lease(running, entry)
            self._invariants.applied(self.member, index, machine.digest)
            write = running.writes.pop(index, None)
            if write is not None:
                term, reply = write
                is_mine = log.term_of(Index(index)) == term
                reply(*(Outcome.DONE, answer) if is_mine else (Outcome.LOST, None))
        log.applied = settled
        if settled - running.saved_index >= self._around.profile.tables_every:
            self.write_tables()

    def _answer(self, running: _Running, request: Request, reply: Reply) -> None:
        if request.ask is Ask.READ:
            reply(Outcome.DONE, running.machine.read(request.key))
        elif running.node.role is not Role.LEADER:
            reply(Outcome.REFUSED, running.node.leader)
        else:
            reply(Outcome.DONE, running.leases.keep(request.owner))

    # --- leases -----------------------------------------------------------------------------------

    def _note_lease(self, running: _Running, entry: bytes) -> None:
        """Take note of a lease that begins or ends."""
        if not entry:
            return
        _, name, _, arguments = command_of(entry)
        if name in ("acquire", "release", "expire"):
            if name == "expire":
                self._around.expired(arguments[0])
            running.leases.note(arguments[0])

    def _expire(self, running: _Running) -> None:
        """Propose the end of leases that nobody has kept."""
        node, leases = running.node, running.leases
        if node.role is not Role.LEADER or leases.led != node.term:
            return
        for key, owner in leases.due():
            entry = command(self._around.next_serial(), "expire", key, owner)
            try:
                node.propose([entry])
            except Refusal:
                return
            leases.end(owner)
            self._around.expiring(key, owner)

    # --- tables and snapshots ---------------------------------------------------------------------

    def write_tables(self) -> None:
        """Write the state down, and forget the log behind it when that is durable."""
        running = self._running
        if running is None or running.is_saving:
            return
        applied = running.node.log.applied
        if applied <= running.saved_index:
            return
        running.is_saving = True
        self.disk.replace_tables(
            self._saved(running).encode(), lambda: self._saved_own(running, applied)
        )

    def _saved(self, running: _Running) -> Saved:
        log = running.node.log
        term = log.term_of(log.applied)
        assert term is not None
        configuration = running.node.configuration_at(log.applied)
        return Saved(log.applied, term, configuration, running.machine.save())

    def _saved_own(self, running: _Running, index: Index) -> None:
        running.is_saving = False
        running.saved_index = max(running.saved_index, index)
        if running is not self._running:
            return
        kept = self._around.profile.kept_behind
        running.node.log.forget(Index(max(index - kept, 0)))
        self.disk.purge(index)
        self._around.counts["tables written"] += 1

    def _send_snapshot(self, running: _Running, to: MemberId) -> None:
        number = self._around.next_serial()
        running.sendings[to] = number
        saved = self._saved(running)
        self._around.counts["snapshots sent"] += 1
        self._around.say(f"{self.member} sends {to} a snapshot through {saved.applied}")
        content = _SNAPSHOT + number.to_bytes(8, "big") + saved.encode()
        self._around.send(self.member, to, content)
        self._kernel.after(_SNAPSHOT_TIMEOUT_US, self._give_up, running, to, number)

    def _give_up(self, running: _Running, to: MemberId, number: int) -> None:
        if running is self._running and running.sendings.get(to) == number:
            del running.sendings[to]
            running.node.report_snapshot(to, ok=False)
            self._turn()

    def _install(self, running: _Running, sender: MemberId, number: int, text: bytes) -> None:
        """Make another member's state durable, then take it over if it is still wanted."""
        saved = Saved.decode(text)
        node = running.node
        if saved.applied <= node.log.committed:
            self._say_installed(sender, number)
            return
        if running.is_saving:
            return
        running.is_saving = True

        def written() -> None:
            running.is_saving = False
            running.saved_index = max(running.saved_index, saved.applied)
            if running is self._running:
                self._now(lambda: self._take_over(running, saved, sender, number))

        self.disk.replace_tables(text, written)

    def _begin_log_anew(self, hard_state: HardState, index: Index, term: Term) -> None:
        frame = encode_frame(Ready(hard_state, Index(index + 1), term, []))
        self.disk.begin_anew(index + 1, frame)

    def _take_over(self, running: _Running, saved: Saved, sender: MemberId, number: int) -> None:
        node = running.node
        durable = self._invariants.durable[self.member]
        if node.restore(saved.applied, saved.term, saved.configuration):
            if node.log.last == saved.applied:
                # What is in the log's files has nothing to do with what will follow.
                hard_state = running.ordered.hard_state if running.ordered else durable.hard_state
                self._begin_log_anew(hard_state, saved.applied, saved.term)
                running.is_void = True
            durable.begin_at(saved.applied, keeps=node.log.last > saved.applied)
            running.machine.load(saved.machine)
            self._invariants.applied(self.member, saved.applied, running.machine.digest)
            gone = [index for index in running.writes if index <= saved.applied]
            for index in gone:
                del running.writes[index]
            self._around.counts["snapshots installed"] += 1
        self._say_installed(sender, number)
        self._turn()

    def _say_installed(self, sender: MemberId, number: int) -> None:
        self._around.send(self.member, sender, _INSTALLED + number.to_bytes(8, "big"))

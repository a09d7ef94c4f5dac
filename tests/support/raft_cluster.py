"""A cluster of Raft nodes in one thread: messages, disks and time move when a test says so.

    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()

Owns: the network between nodes, a disk for each, what each has applied, and the safety properties.
Never: looks into a node to decide; what it checks it sees from outside.
Follows: Raft figure 3.
Keeps: the properties are checked after whatever happens; `Violated` says which does not hold.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from kvsecure.core.raft.codec import decode, encode
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.messages import Message
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["TICKS", "Cluster", "Disk", "Violated", "command"]

TICKS: Final = 10
_NOTHING: Final = HardState(Term(0), MemberId(0), Index(0))


def command(word: str | bytes) -> bytes:
    """Return the entry of a command."""
    return b"\x01" + (word.encode() if isinstance(word, str) else word)


@final
class Violated(AssertionError):
    """A safety property of Raft does not hold."""


@dataclass
class Disk:
    """What survives a crash."""

    configuration: Configuration
    hard_state: HardState = _NOTHING
    # Of the snapshot: through which entry, of which term, and what was applied.
    offset: int = 0
    offset_term: int = 0
    body: list[bytes] = field(default_factory=list)
    entries: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, hard_state: HardState, first: int, term: int, entries: list[bytes]) -> None:
        """Carry out a work order."""
        self.hard_state = hard_state
        if entries:
            # A snapshot that came meanwhile holds what is before it.
            skipped = max(self.offset + 1 - first, 0)
            position = max(first - self.offset - 1, 0)
            if position > len(self.entries):
                raise Violated("a work order leaves a gap on the disk")
            self.entries[position:] = [(term, entry) for entry in entries[skipped:]]

    def log(self) -> RaftLog:
        """Read the log back."""
        log = RaftLog(Index(self.offset), Term(self.offset_term))
        for term, entry in self.entries:
            log.append(Term(term), [entry])
        log.durable = log.last
        return log

    @property
    def last(self) -> int:
        """The index of the newest entry."""
        return self.offset + len(self.entries)


@dataclass
class _Running:
    node: Node
    applied: list[bytes]


@final
class Cluster:
    """Members by number, and what is on its way between them."""

    def __init__(
        self,
        voters: Sequence[int],
        learners: Sequence[int] = (),
        *,
        settings: Settings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or Settings(election_ticks=TICKS)
        self.random = random.Random(seed)
        self.configuration = Configuration(
            tuple(map(MemberId, voters)), (), tuple(map(MemberId, learners))
        )
        self.disks: dict[int, Disk] = {}
        self.running: dict[int, _Running] = {}
        self.wire: list[Message] = []
        self.orders: list[tuple[int, SnapshotOrder]] = []
        # Pairs (from, to) between which nothing passes.
        self.cut: set[tuple[int, int]] = set()
        self.stuck_disks: set[int] = set()
        # The work orders that disks have begun.
        self.writing: dict[int, Ready] = {}
        self.reads: list[tuple[int, int, int]] = []
        # What was ever committed, by index, and who led which term.
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.leaders: dict[int, int] = {}
        self.checked: dict[int, int] = {}
        # The least index that each read must see.
        self.asked: dict[int, int] = {}
        for member in (*voters, *learners):
            self.start(member)

    # --- members ----------------------------------------------------------------------------------

    def node(self, member: int) -> Node:
        """Return a running member's node."""
        return self.running[member].node

    def applied(self, member: int) -> list[bytes]:
        """Return the commands that a member has applied."""
        return self.running[member].applied

    def start(self, member: int, *, configuration: Configuration | None = None) -> Node:
        """Start a member from its disk; from an empty one the first time."""
        disk = self.disks.setdefault(member, Disk(configuration or self.configuration))
        node = Node(
            MemberId(member),
            disk.log(),
            disk.hard_state,
            disk.configuration,
            self.settings,
            random.Random(self.random.getrandbits(64)),
        )
        self.running[member] = _Running(node, list(disk.body))
        self.checked[member] = disk.offset
        return node

    def crash(self, member: int, *, is_written: bool = False) -> None:
        """Stop a member; what its disk has begun may be on it or not, without a word to anybody."""
        order = self.writing.pop(member, None)
        if order is not None and is_written:
            self.disks[member].write(*order)
        del self.running[member]
        self.orders = [(at, order) for at, order in self.orders if at != member]

    def compact(self, member: int) -> None:
        """Have a member keep what it applied as a snapshot, and forget the entries."""
        running, disk = self.running[member], self.disks[member]
        log = running.node.log
        index = log.applied
        if index == disk.offset or index > disk.last:
            return
        disk.configuration = running.node.configuration_at(index)
        disk.offset_term = log.term_of(index) or 0
        del disk.entries[: index - disk.offset]
        disk.offset, disk.body = index, list(running.applied)
        log.forget(index)

    # --- time, disks, network ---------------------------------------------------------------------

    def tick(self, member: int, count: int = 1) -> None:
        """Let time pass at a member, with nothing done about it."""
        for _ in range(count):
            self.node(member).tick()
        self._collect(member)

    def persist(self, member: int) -> bool:
        """Have a member's disk do what it is asked; tell whether there was anything."""
        is_news = False
        while self.begin_writing(member):
            self.finish_writing(member)
            is_news = True
        return is_news

    def begin_writing(self, member: int) -> bool:
        """Have a member's disk begin what it is asked; tell whether it is at work."""
        if member not in self.stuck_disks and member not in self.writing:
            order = self.node(member).ready()
            if order is not None:
                self.writing[member] = order
        return member in self.writing

    def finish_writing(self, member: int) -> None:
        """Have a member's disk finish what it has begun, if it has."""
        order = self.writing.pop(member, None)
        if order is not None:
            self.disks[member].write(*order)
            self.node(member).persisted()
        self._collect(member)

    def deliver(self, wanted: Callable[[Message], bool] = lambda _: True) -> int:
        """Deliver the messages that are on their way now; return how many."""
        arriving = [message for message in self.wire if wanted(message)]
        self.wire = [message for message in self.wire if not wanted(message)]
        for message in arriving:
            self.hand_over(message)
        return len(arriving)

    def hand_over(self, message: Message) -> None:
        """Give one message to whom it is for, as bytes, unless the way is cut."""
        if message.to in self.running and (message.sender, message.to) not in self.cut:
            self.node(message.to).step(decode(encode(message)))
            self._collect(message.to)

    def install(self) -> None:
        """Carry out the snapshots that were ordered, as a transport does."""
        orders, self.orders = self.orders, []
        for sender, order in orders:
            reached = order.to in self.running and (sender, order.to) not in self.cut
            if reached:
                self.give_snapshot(sender, order.to)
            self.node(sender).report_snapshot(order.to, ok=reached)
            self._collect(sender)

    def give_snapshot(self, sender: int, to: int) -> bool:
        """Have a member take what another has applied; tell whether it wanted it."""
        node, running, disk = self.node(to), self.running[to], self.disks[to]
        source = self.node(sender)
        index = source.log.applied
        term = source.log.term_of(index)
        assert term is not None
        configuration = source.configuration_at(index)
        if not node.restore(index, term, configuration):
            return False
        running.applied = list(self.applied(sender))
        disk.body = list(running.applied)
        if node.log.last > index:
            del disk.entries[: index - disk.offset]
        else:
            disk.entries.clear()
            if to in self.writing:
                self.writing[to] = self.writing[to]._replace(entries=[])
        disk.offset, disk.offset_term, disk.configuration = index, term, configuration
        self.checked[to] = index
        self._collect(to)
        return True

    def settle(self, *, rounds: int = 1_000) -> None:
        """Let disks and network work until nothing happens any more; no time passes."""
        for _ in range(rounds):
            # All of them: no short cut behind the first that has something.
            is_busy = sum(map(self.persist, list(self.running))) > 0
            is_busy |= bool(self.deliver()) or bool(self.orders)
            self.install()
            if not is_busy:
                return
        raise Violated("the cluster does not come to rest")

    def pass_time(self, ticks: int) -> None:
        """Let time pass for everybody, and everything that follows happen at once."""
        for _ in range(ticks):
            for member in list(self.running):
                self.tick(member)
            self.settle()

    def isolate(self, members: Iterable[int]) -> None:
        """Cut these members off from the others, in both directions."""
        group = set(members)
        for one in self.disks:
            for other in self.disks:
                if (one in group) != (other in group):
                    self.cut.add((one, other))

    def heal(self) -> None:
        """Let everything pass again."""
        self.cut.clear()

    # --- what is asked of it ----------------------------------------------------------------------

    def silence(self, member: int) -> None:
        """Have a member think that it has not heard of a leader for the least timeout."""
        self.node(member)._election.elapsed = TICKS

    def elect(self, member: int) -> None:
        """Have a member win an election; its rivals' clocks stand still meanwhile."""
        for _ in range(4 * TICKS):
            if self.node(member).role is Role.LEADER:
                return
            for other in set(self.running) - {member}:
                self.silence(other)
            self.tick(member)
            self.settle()
        raise Violated(f"{member} is not elected")

    def elect_bare(self, member: int, voter: int) -> None:
        """Have a member win with one vote, and nobody store anything of its term."""
        self.tick(member, 2 * TICKS)
        for _ in range(4 * TICKS):
            if self.node(member).role is Role.LEADER:
                return
            self.persist(member)
            self.deliver()
            self.persist(voter)
        raise Violated(f"{member} is not elected")

    @property
    def leader(self) -> int:
        """Who leads the latest term, or 0."""
        leading = [
            (running.node.term, member)
            for member, running in self.running.items()
            if running.node.role is Role.LEADER
        ]
        return max(leading)[1] if leading else 0

    def propose(self, member: int, *words: str | bytes) -> int:
        """Propose commands in one batch; return the index of the first."""
        index = self.node(member).propose([command(word) for word in words])
        self._collect(member)
        return index

    def change(self, member: int, voters: Iterable[int], learners: Iterable[int] = ()) -> int:
        """Propose other members."""
        index = self.node(member).propose_change(
            [MemberId(one) for one in voters], [MemberId(one) for one in learners]
        )
        self._collect(member)
        return index

    def read(self, member: int, context: int) -> None:
        """Ask for a read that has to see everything committed by now."""
        self.asked[context] = max(self.committed, default=0)
        self.node(member).read(context)
        self._collect(member)

    # --- properties -------------------------------------------------------------------------------

    def _collect(self, member: int) -> None:
        node = self.node(member)
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, member)
            if known != member:
                raise Violated(f"election safety: {known} and {member} lead term {node.term}")
        self._check_committed(member)
        self._apply(member)
        self.wire += node.take_messages()
        self.orders += [(member, order) for order in node.take_snapshots()]
        for context, index in node.take_reads():
            if index < self.asked[context]:
                raise Violated(f"read {context} sees {index}, not {self.asked[context]}")
            self.reads.append((member, context, index))

    def _check_committed(self, member: int) -> None:
        log = self.node(member).log
        start = max(self.checked[member], log.offset)
        for index in range(start + 1, log.committed + 1):
            term = log.term_of(Index(index))
            assert term is not None
            entry = log.entries(Index(index - 1), Index(index))[0]
            if self.committed.setdefault(index, (term, entry)) != (term, entry):
                raise Violated(f"state machine safety: {member} has another entry {index}")
        self.checked[member] = log.committed

    def _apply(self, member: int) -> None:
        running = self.running[member]
        log = running.node.log
        entries = running.node.committed_after(log.applied)
        running.applied += [entry for entry in entries if entry and entry[0]]
        log.applied = log.settled

    def check_logs(self) -> None:
        """Check log matching and leader completeness over everybody's whole log (figure 3).

        Raises:
            Violated: One does not hold.
        """
        logs = {member: running.node.log for member, running in self.running.items()}
        seen: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        for member, log in logs.items():
            for index in range(log.offset + 1, log.last + 1):
                term = log.term_of(Index(index))
                assert term is not None
                entry = log.entries(Index(index - 1), Index(index))[0]
                here = (entry, log.term_of(Index(index - 1)))
                if seen.setdefault((index, term), here) != here:
                    raise Violated(f"log matching: {member} differs at {index} of term {term}")
        leader = self.leader
        if leader:
            log = logs[leader]
            for index, (term, _) in self.committed.items():
                if index > log.offset and log.term_of(Index(index)) != term:
                    raise Violated(f"leader completeness: {leader} lacks {index}")

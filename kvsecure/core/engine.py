"""The engine: runs a replica's work orders on the disk processes, and keeps its time.

Owns: group commit, applying in turns, compaction slices, ticks, who leads, and what happens when
    the log's disk is full or broken.
Never: decides what a command does or who may send it.
Follows: docs/adr/0004-disk-processes.md.
Keeps: nothing is acknowledged before the log process has said that it is durable; a sync that
    failed stops the member, because what it covered can no longer be known.

Everything happens on one event loop: `submit` collects, `end_turn` proposes what one turn collected
as one batch, or sends it to whoever leads, and the next batch collects while that one is on its way
to the disk. `drive` does what follows whenever consensus has been told something.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, final

from kvsecure.core.audit_mark import AuditMark
from kvsecure.core.entry import DamagedEntry, encode_clock
from kvsecure.core.flushing import NO_ROOM, Flushing
from kvsecure.core.leading import Leading
from kvsecure.core.link import DiskLink
from kvsecure.core.log_memory import LogMemory
from kvsecure.core.membership_care import MembershipCare
from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.peering import NoPeers, Peering, Peers
from kvsecure.core.raft.refusals import Refusal, TooMuchUncommitted
from kvsecure.core.raft.status import Role
from kvsecure.core.reading import Reading, type_fail
from kvsecure.core.replica import Outcome, Proposal, Replica, clock_proposal, encode_frame
from kvsecure.core.slicing import Slicing
from kvsecure.core.state import State
from kvsecure.core.statistics import EngineStatistics
from kvsecure.core.table_care import TableCare
from kvsecure.core.timers import Timers
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index
from kvsecure.model.limits import (
    PROPOSALS_PENDING_MAX,
    REQUEST_TIMEOUT_S,
    UNFLUSHED_BYTES_MAX,
)
from kvsecure.model.secret import Secret
from kvsecure.storage.worker import (
    APPEND,
    APPENDED,
    FAILED,
    Order,
    Report,
    encode_keys,
)

__all__ = ["TICK_S", "Engine"]

TICK_S: Final = 0.1
_FLUSH_EVERY_S: Final = 0.2
_RETRY_S: Final = 0.25
_SWEEP_S: Final = 0.25
# After so long others have their turn; an entry that was begun is finished.
_APPLY_NS_MAX: Final = 10_000_000
_NS: Final = 1_000_000_000
_NOBODY: Final = NoPeers()

type_finish = Callable[[Proposal, Outcome], None]


class _Frame(NamedTuple):
    """A frame on its way to the log."""

    head: bytes
    text: bytes
    # The newest audit record that is durable with it.
    audit_head: tuple[int, bytes]


@final
class Engine:
    """Runs one replica."""

    def __init__(
        self,
        replica: Replica,
        log: DiskLink,
        tables: DiskLink,
        *,
        refresh: Callable[[], None],
        reopen: Callable[[], None],
        now_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        on_finished: type_finish,
        on_batch: Callable[[], None],
        on_fatal: Callable[[str], None],
        audit: AuditMark,
        on_slow_apply: Callable[[int], None],
        slow_apply_ns: int,
        in_turn: Callable[[Callable[[], None]], None],
        peers: Peers = _NOBODY,
        tick_s: float = TICK_S,
    ) -> None:
        """Make an engine that `start` sets going.

        Args:
            replica: Restored from the disk.
            log: The log process, ready.
            tables: The table process, ready.
            refresh: Makes the reader of the tables see what has been written.
            reopen: Makes it go over to the tables that have taken the old ones' place.
            now_ns: Monotonic time in nanoseconds.
            wall_ns: The time of day, in nanoseconds since 1970.
            on_finished: Told of every proposal of `submit` that is finished.
            on_batch: Called after the outcomes of a batch have been told.
            on_fatal: Called once when the member cannot go on.
            audit: The audit trail, as far as it is stored here.
            on_slow_apply: Told how many nanoseconds applying a batch took, if that was long.
            slow_apply_ns: What is long.
            in_turn: Runs a step of a few milliseconds when it is its turn.
            peers: The ways to the other members.
            tick_s: How long a tick of consensus is.
        """
        self.replica = replica
        self.statistics = EngineStatistics()
        self.reading = Reading(replica.node)
        self.peering = Peering(replica, peers, self, now_ns)
        self.leading = Leading(replica, self.peering, self.reading, self.statistics, now_ns)
        self.memory = LogMemory(replica.node)
        self._log, self._tables = log, tables
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self._tick_s = tick_s
        # In which second something was last proposed.
        self._stamped_s = 0
        self._on_finished = on_finished
        self._on_batch = on_batch
        self._on_fatal = on_fatal
        self._audit = audit
        self._on_slow_apply = on_slow_apply
        self._slow_apply_ns = slow_apply_ns
        self._in_turn = in_turn
        # Whether what is left to apply waits for its turn.
        self._awaits_turn = False
        self._collected: list[Proposal] = []
        # Of commands that are not finished, and of their entries.
        self._pending_count = self._pending_bytes = 0
        # Whether what follows is to be done in this turn of the event loop.
        self._drives_soon = False
        # What is on its way to the log.
        self._frame: _Frame | None = None
        self._disk_full = False
        self._syncing: tuple[int, bytes] | None = None
        self._settled: list[Callable[[], None]] = []
        self.membership = MembershipCare(replica, peers.follow, self.drive_soon, self._fatal)
        self.timers = Timers()
        self.slicing = Slicing(replica, self.timers, lambda damage: self._fatal(_damaged(damage)))
        self._started, self._stopped = asyncio.Event(), False
        self.flushing = Flushing(
            replica,
            tables,
            self.statistics,
            audit_head=lambda: audit.durable_head,
            refresh=refresh,
            now_ns=now_ns,
            in_turn=in_turn,
            later=self.timers.later,
            on_flushed=self._on_flushed,
            on_fatal=self._fatal,
        )
        self.care = TableCare(
            tables, self.statistics, refresh=refresh, reopen=reopen, on_fatal=self._fatal
        )

    async def start(self) -> None:
        """Attach the disk processes, and wait until this member can read or is stopped.

        It can once it leads, or has heard from who leads and has caught up.
        """
        await self._log.attach(self._on_log_report, lambda: self._fatal("the log process ended"))
        await self._tables.attach(
            self._on_table_report, lambda: self._fatal("the table process ended")
        )
        self.when_readable(self._started.set)
        self.timers.every(self._tick_s, self._tick)
        self.timers.every(_FLUSH_EVERY_S, self.flushing.begin)
        self.timers.every(_SWEEP_S, self._sweep)
        self._tick()
        await self._started.wait()
        # Work that was not done when the member ended; nothing may be applied for a long time.
        self.slicing.begin()

    @property
    def state(self) -> State:
        """The applied state; read it only when `can_read` says so, or for what may be stale."""
        return self.replica.state

    @property
    def is_alone(self) -> bool:
        """Whether nobody else has any part in the cluster."""
        return self.replica.node.is_alone

    @property
    def has_leader(self) -> bool:
        """Whether anybody leads."""
        return self.replica.node.leader != 0

    def is_in_touch(self) -> bool:
        """Tell whether a majority has been heard from lately."""
        return self.can_read_keys() if self.is_alone else self.leading.is_in_touch

    @property
    def pending_count(self) -> int:
        """How many commands are on their way."""
        return self._pending_count

    @property
    def is_disk_full(self) -> bool:
        """Whether the log waits for room, and nothing new is taken."""
        return self._disk_full

    # --- commands -------------------------------------------------------------------------------

    def submit(self, proposal: Proposal) -> None:
        """Take a command on its way; it is finished through `on_finished`.

        Raises:
            Refused: It was not taken, and will not be carried out.
        """
        self.check_taking()
        self.take(proposal)

    def check_taking(self) -> None:
        """Check that a command can be taken now.

        Raises:
            Refused: It cannot.
        """
        if self._stopped:
            raise Refused(Failure.STOPPED)
        if self._disk_full:
            raise Refused(Failure.NO_SPACE)
        if self._pending_count >= PROPOSALS_PENDING_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)
        if self.state.records.unflushed_bytes + self._pending_bytes > UNFLUSHED_BYTES_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)

    def take(self, proposal: Proposal) -> None:
        """Take a command on its way after `check_taking`."""
        self._collected.append(proposal)
        self._pending_count += 1
        self._pending_bytes += len(proposal.entry)

    def end_turn(self) -> None:
        """Propose what was submitted since the last call, as one batch, or have it proposed."""
        if not self._collected:
            return
        waiting = self.peering.relay.waiting
        waiting += self._collected
        self._collected = []
        self.peering.hand_on()
        # What else follows does so when this turn is over: its answers are this turn's.
        self._persist()
        if not self.is_alone:
            self.peering.speak()

    def put(self, proposals: Sequence[Proposal]) -> Index:
        """Put commands that were taken into the log, as its leader; return the first one's index.

        Raises:
            Refusal: Consensus does not take them.
        """
        self._stamp()
        return self.replica.propose(proposals)

    def adopt(self, proposals: Sequence[Proposal]) -> Index:
        """Put commands that another member has taken into the log, as its leader.

        Raises:
            Refused: There is no room for them now.
            Refusal: Consensus does not take them.
        """
        self.check_taking()
        first = self.put(proposals)
        self._pending_count += len(proposals)
        self._pending_bytes += sum(len(proposal.entry) for proposal in proposals)
        return first

    def lose(self, proposals: Iterable[Proposal], refused: Refused) -> None:
        """Finish commands without their having been applied here."""
        is_any = False
        for proposal in proposals:
            is_any = True
            self._let_go(proposal)
            if not proposal.done:
                proposal.done = True
                self.statistics.proposals_failed += 1
                self._on_finished(proposal, refused)
        if is_any:
            self._tell_settled()
            self._on_batch()

    def _let_go(self, proposal: Proposal) -> None:
        self._pending_count -= 1
        self._pending_bytes -= len(proposal.entry)

    def _stamp(self) -> None:
        """Say in the log which second it is, if that is new; raise Refusal if it cannot be."""
        second = self._wall_ns() // _NS
        if second != self._stamped_s:
            self.replica.node.propose([encode_clock(second)])
            self._stamped_s = second

    def drop_turn(self) -> list[Proposal]:
        """Give back what was submitted and not proposed; it will not be carried out."""
        dropped, self._collected = self._collected, []
        for proposal in dropped:
            self._let_go(proposal)
        return dropped

    # --- reads ----------------------------------------------------------------------------------

    def can_read(self) -> bool:
        """Tell whether the applied state is good for a linearizable read now.

        Without asking others that is only where there are none; with others it is while somebody
        is told what `when_readable` has promised.
        """
        if self.reading.is_fresh:
            return True
        node = self.replica.node
        index = node.read_index()
        return index is not None and node.log.applied >= index

    def can_read_keys(self) -> bool:
        """Tell whether ranges of keys may be read now, linearizably.

        Also while what is committed waits for its turn to be applied, or is being carried out in
        steps: they are answered as they were before it. Nobody has been told that it is done, and
        nobody else reads. What was answered before this member started has been applied by then.
        """
        if self.can_read():
            return True
        has_index = self.replica.node.read_index() is not None
        return self.is_alone and has_index and self._started.is_set()

    def when_readable(self, resume: Callable[[], None], fail: type_fail | None = None) -> None:
        """Call back once the applied state is good for a linearizable read; it is meanwhile only.

        Args:
            resume: Called then, at once or later.
            fail: Called instead when it takes too long; None to wait as long as it takes.
        """
        self.reading.add(self._now_ns(), resume, fail)
        if self.is_alone:
            # There is nobody to wait for.
            self.reading.ask()
            self.reading.confirm()
        self.drive_soon()

    @property
    def is_whole(self) -> bool:
        """Whether no command is carried out in part: the applied state is that of one moment."""
        return not self.replica.is_between

    def when_settled(self, resume: Callable[[], None]) -> None:
        """Call back once everything that was submitted by now is finished."""
        self._settled.append(resume)
        self._tell_settled()

    # --- stopping -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Refuse what comes, end the disk processes; everything acknowledged is durable already."""
        self._stopped = True
        self._started.set()
        self.timers.stop()
        self._log.close()
        self._tables.close()

    # --- what follows ---------------------------------------------------------------------------

    def drive_soon(self) -> None:
        """Do what follows, once everything that has come by now was looked at."""
        if not self._drives_soon and not self._stopped:
            self._drives_soon = True
            asyncio.get_running_loop().call_soon(self.drive)

    def drive(self) -> None:
        """Write, send, apply and answer what there is, now that consensus knows something new."""
        self._drives_soon = False
        if self._stopped:
            return
        self._persist()
        node, reading = self.replica.node, self.reading
        self.leading.look()
        if not reading.is_empty:
            reading.ask()
        if not node.is_alone:
            self.peering.speak()
        if not reading.is_empty:
            reading.confirm()
        if node.log.settled != node.log.applied:
            self._apply()
        elif self._tell_readers():
            self._on_batch()

    def _tell_settled(self) -> None:
        if self._settled and not self._pending_count:
            settled, self._settled = self._settled, []
            for resume in settled:
                resume()

    def _tell_readers(self) -> bool:
        return not self.replica.is_between and self.reading.tell(self.replica.node.log.applied)

    # --- the log --------------------------------------------------------------------------------

    def _persist(self) -> None:
        if self._frame is not None:
            return
        ready = self.replica.ready()
        if ready is None:
            return
        entries, audit = ready.entries, self._audit
        carried = audit.take_unsynced()
        self._frame = _Frame(
            APPEND.pack(ready.first, len(entries), carried is not None),
            encode_frame(ready, carried or b""),
            audit.written_head,
        )
        self._send_frame()

    def _send_frame(self) -> None:
        if self._frame is not None and not self._stopped:
            self.statistics.log_bytes += len(self._frame.text)
            self._log.send(Order.APPEND, self._frame.head, self._frame.text)

    def _on_log_report(self, kind: Report, body: bytes) -> None:
        if kind is Report.AUDIT_SYNCED and self._syncing is not None:
            self._audit.note_durable(self._syncing)
            self._syncing = None
        elif kind is Report.APPENDED and self._frame is not None:
            self.statistics.syncs.observe(APPENDED.unpack(body)[1] / 1e6)
            self._audit.note_durable(self._frame.audit_head)
            self._disk_full = False
            self._frame = None
            self.replica.persisted()
            # The disk works on the next batch while this one is applied and answered.
            self.drive()
        elif kind is Report.FAILED and self._frame is not None:
            (number,) = FAILED.unpack_from(body)
            if number not in NO_ROOM:
                self._fatal(f"the log cannot be written: {_text(body)}")
                return
            # Nothing of it is on the disk: it is written again when there is room. Until then
            # nothing new is taken, and those who wait time out without knowing the outcome.
            self._disk_full = True
            # Somebody else may have room; what this member cannot write it cannot answer either.
            self.leading.resign()
            self.drive_soon()
            self.timers.later(_RETRY_S, self._send_frame)
        else:
            self._fatal(f"the log process reports: {_text(body)}")

    def _apply(self) -> None:
        if self._awaits_turn or self._stopped:
            return
        finish, now_ns = self._on_finished, self._now_ns
        begun_ns = now_ns()
        is_more = False
        try:
            for finished in self.replica.apply_committed(begun_ns):
                if finished is not None:
                    proposal, outcome = finished
                    self._let_go(proposal)
                    if not proposal.done:
                        proposal.done = True
                        finish(proposal, outcome)
                if now_ns() - begun_ns > _APPLY_NS_MAX:
                    is_more = True
                    break
        except (DamagedEntry, DamagedRecord) as error:
            # The state is between two entries: nothing of it may be read or stored any more.
            self._fatal(_damaged(error))
            return
        if is_more or self.replica.is_between:
            self._awaits_turn = True
            self._in_turn(self._go_on)
        took_ns = now_ns() - begun_ns
        if took_ns > self._slow_apply_ns:
            self.statistics.slow_applies += 1
            self._on_slow_apply(took_ns)
        self.leading.look()
        self._tell_readers()
        self._tell_settled()
        self.membership.look()
        self.slicing.begin()
        self._on_batch()

    def _go_on(self) -> None:
        """Apply more of what waits, or the next step of a long command."""
        self._awaits_turn = False
        self._apply()

    # --- the tables -----------------------------------------------------------------------------

    def _on_table_report(self, kind: Report, body: bytes) -> None:
        if not self.flushing.take(kind, body) and not self.care.take(kind, body):
            self._fatal(f"the table process reports: {_text(body)}")

    def _on_flushed(self, through: Index) -> None:
        self.memory.flushed(through)
        self._log.send(Order.PURGE, (through + 1).to_bytes(8, "big"))

    # --- the log's segments -----------------------------------------------------------------------

    def rekey(self, term: int, log_key: Secret, table_key: Secret | None = None) -> None:
        """Have what is written from now on sealed under a data key; the log begins a segment."""
        self._log.send(Order.REKEY, encode_keys({term: log_key}))
        if table_key is not None:
            self._tables.send(Order.REKEY, encode_keys({term: table_key}))

    def cut_log(self) -> Index:
        """Have an entry put into the log, so that it goes on and what is before it can go.

        Returns:
            An index: once it is applied, everything that was sent before is in the log.

        Raises:
            Refused: Nothing can be put there now.
        """
        self.check_taking()
        node = self.replica.node
        if node.role is not Role.LEADER:
            # What the leader puts there is behind what is there now.
            index = Index(node.log.last + 1)
            self.take(clock_proposal(self._wall_ns() // _NS, self._now_ns()))
            self.end_turn()
            return index
        try:
            index = node.propose([b""])
        except Refusal as refusal:
            raise Refused(_failure(refusal)) from None
        self.drive()
        return index

    def sync_audit(self) -> None:
        """Make the audit trail durable where no append does it."""
        head = self._audit.written_head
        if self._syncing is None and head != self._audit.durable_head:
            self._syncing = head
            self._log.send(Order.SYNC_AUDIT)

    # --- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        node = self.replica.node
        node.tick()
        self.peering.hand_on()
        if not node.is_alone:
            self.leading.tick()
        # What could not begin when it was declared, for another change or another leader.
        self.membership.look()
        self.drive()

    def _sweep(self) -> None:
        """Let go of those who have waited too long; what they asked for may still happen."""
        before_ns = self._now_ns() - int(REQUEST_TIMEOUT_S * _NS)
        relay = self.peering.relay
        expired = [*self.replica.expire(before_ns), *relay.expired(before_ns)]
        for proposal in expired:
            proposal.done = True
            self.statistics.proposals_failed += 1
            self._on_finished(proposal, Refused(Failure.TIMEOUT))
        for proposal in relay.drop_done():
            self._let_go(proposal)
        self._tell_settled()
        if self.reading.expire(before_ns) or expired:
            self._on_batch()

    def _fatal(self, why: str) -> None:
        if not self._stopped:
            self.stop()
            self._on_fatal(why)


def _failure(refusal: Refusal) -> Failure:
    if isinstance(refusal, TooMuchUncommitted):
        return Failure.TOO_MANY_REQUESTS
    return Failure.NO_LEADER


def _damaged(error: Exception) -> str:
    return (
        f"{error}. Restore the data directory from a backup, or start the version of this program "
        "that wrote it"
    )


def _text(body: bytes) -> str:
    return body[FAILED.size :].decode(errors="replace")

"""The engine: runs a replica's work orders on the disk processes, and keeps its time.

Owns: group commit, applying in turns, compaction slices, ticks, and what happens when the log's
    disk is full or broken.
Never: decides what a command does or who may send it.
Follows: docs/adr/0004-disk-processes.md.
Keeps: nothing is acknowledged before the log process has said that it is durable; a sync that
    failed stops the member, because what it covered can no longer be known.

Everything happens on one event loop: `submit` collects, `end_turn` proposes what one turn collected
as one batch, and the next batch collects while that one is on its way to the disk.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, final

from kvsecure.core.entry import DamagedEntry, encode_clock
from kvsecure.core.flushing import NO_ROOM, Flushing
from kvsecure.core.link import DiskLink
from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.raft.refusals import NotLeader, Refusal, TooMuchUncommitted
from kvsecure.core.reconfiguration import Reconfiguration
from kvsecure.core.replica import Outcome, Proposal, Replica, encode_frame
from kvsecure.core.state import State
from kvsecure.core.statistics import EngineStatistics
from kvsecure.core.table_care import TableCare
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index, MemberId
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

__all__ = ["AuditMark", "Engine"]

_TICK_S: Final = 0.1
_FLUSH_EVERY_S: Final = 0.2
_RETRY_S: Final = 0.25
_SLICE_PAUSE_S: Final = 0.002
_SWEEP_S: Final = 0.25
# After so long others have their turn; an entry that was begun is finished.
_APPLY_NS_MAX: Final = 10_000_000
_NS: Final = 1_000_000_000

type_finish = Callable[[Proposal, Outcome], None]


class AuditMark(Protocol):
    """What the engine needs of the audit trail, to make it durable and to have a cut found out."""

    @property
    def written_head(self) -> tuple[int, bytes]:
        """Number and hash of the newest record that was written."""
        ...

    def note_durable(self, head: tuple[int, bytes]) -> None:
        """Take note that everything through a record is on the disk."""
        ...

    def take_unsynced(self) -> bytes | None:
        """Return what was written and is not durable yet, or None if it is too much to carry."""
        ...

    @property
    def durable_head(self) -> tuple[int, bytes]:
        """Number and hash of the newest record known to be on the disk."""
        ...


class _Frame(NamedTuple):
    """A frame on its way to the log."""

    head: bytes
    text: bytes
    entry_bytes: int
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
        """
        self.replica = replica
        self.statistics = EngineStatistics()
        self._log = log
        self._tables = tables
        self._now_ns = now_ns
        self._wall_ns = wall_ns
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
        self._pending_count = 0
        # Of the commands that were proposed and are not in the log yet.
        self._unwritten_bytes = 0
        # What is on its way to the log.
        self._frame: _Frame | None = None
        self._disk_full = False
        self._syncing: tuple[int, bytes] | None = None
        self._barriers: list[Callable[[], None]] = []
        self._scrubs: list[Callable[[], None]] = []
        self._settled: list[Callable[[], None]] = []
        self._reconfiguration = Reconfiguration(replica.node, replica.state.members)
        self._reconfigured: list[Callable[[], None]] = []
        # One for each who wants the index and the tables to go on saying the same: slices wait.
        self._holds: set[object] = set()
        self._slicing = False
        self._timers: list[asyncio.TimerHandle] = []
        self._stopped = False
        self._started = asyncio.Event()
        self.flushing = Flushing(
            replica,
            tables,
            self.statistics,
            audit_head=lambda: audit.durable_head,
            refresh=refresh,
            now_ns=now_ns,
            in_turn=in_turn,
            later=self._later,
            on_flushed=self._on_flushed,
            on_fatal=self._fatal,
        )
        self.care = TableCare(
            tables, self.statistics, refresh=refresh, reopen=reopen, on_fatal=self._fatal
        )

    async def start(self) -> None:
        """Attach the disk processes, elect, and wait until this member leads or is stopped."""
        await self._log.attach(self._on_log_report, lambda: self._fatal("the log process ended"))
        await self._tables.attach(
            self._on_table_report, lambda: self._fatal("the table process ended")
        )
        self._barriers.append(self._started.set)
        self.every(_TICK_S, self._tick)
        self.every(_FLUSH_EVERY_S, self.flushing.begin)
        self.every(_SWEEP_S, self._sweep)
        self._tick()
        await self._started.wait()
        # What was read back and replayed lived on another clock.
        now_ns = self._now_ns()
        for space in self.state.store.spaces():
            space.leases.restart(now_ns)

    @property
    def state(self) -> State:
        """The applied state; read it only when `can_read` says so, or for what may be stale."""
        return self.replica.state

    @property
    def has_leader(self) -> bool:
        """Whether anybody leads."""
        return self.replica.node.leader != 0

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
        if self.state.records.unflushed_bytes + self._unwritten_bytes > UNFLUSHED_BYTES_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)

    def take(self, proposal: Proposal) -> None:
        """Take a command on its way after `check_taking`."""
        self._collected.append(proposal)
        self._pending_count += 1

    def end_turn(self) -> None:
        """Propose what was submitted since the last call, as one batch."""
        if not self._collected:
            return
        batch, self._collected = self._collected, []
        try:
            self._stamp()
            self._unwritten_bytes += self.replica.propose(batch)
        except Refusal as refusal:
            failure = _failure(refusal)
            for proposal in batch:
                self._finish(proposal, Refused(failure))
            return
        self._persist()

    def _stamp(self) -> None:
        """Say in the log which second it is, if that is new; raise Refusal if it cannot be."""
        second = self._wall_ns() // _NS
        if second != self._stamped_s:
            entry = encode_clock(second)
            self.replica.node.propose([entry])
            self._stamped_s = second
            self._unwritten_bytes += len(entry)

    def drop_turn(self) -> list[Proposal]:
        """Give back what was submitted and not proposed; it will not be carried out."""
        dropped, self._collected = self._collected, []
        self._pending_count -= len(dropped)
        return dropped

    # --- reads ----------------------------------------------------------------------------------

    def can_read(self) -> bool:
        """Tell whether the applied state is good for a linearizable read now."""
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
        node = self.replica.node
        return node.is_alone and node.read_index() is not None and self._started.is_set()

    def when_readable(self, resume: Callable[[], None]) -> None:
        """Call back once the applied state is good for a linearizable read."""
        self._barriers.append(resume)

    def when_scrubbed(self, resume: Callable[[], None]) -> None:
        """Call back once the long work that is due now has been done."""
        if self.state.store.slices:
            self._scrubs.append(resume)
        else:
            resume()

    def when_settled(self, resume: Callable[[], None]) -> None:
        """Call back once everything that was submitted by now is finished."""
        if self._pending_count:
            self._settled.append(resume)
        else:
            resume()

    def when_reconfigured(self, resume: Callable[[], None]) -> None:
        """Call back once consensus goes by the members that are declared by then."""
        self._reconfigured.append(resume)
        self._reconfigure()

    async def move_leader(self, to: MemberId) -> None:
        """Hand over to another voter, and return when it leads.

        Raises:
            Refused: This member does not lead, the other cannot, or has not in time.
        """
        node = self.replica.node
        try:
            node.transfer(to)
        except NotLeader:
            raise Refused(Failure.NOT_LEADER) from None
        except Refusal:
            raise Refused(Failure.BAD_LEADER_TRANSFEREE) from None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                while node.leader != to:  # noqa: ASYNC110 - a node says nothing by itself
                    await asyncio.sleep(_TICK_S)
        except TimeoutError:
            raise Refused(Failure.TRANSFER_TIMEOUT) from None

    def hold_slices(self) -> Callable[[], None]:
        """Let long work wait until what is returned is called; more calls change nothing."""
        mark = object()
        self._holds.add(mark)

        def release() -> None:
            self._holds.discard(mark)

        return release

    # --- stopping -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Refuse what comes, end the disk processes; everything acknowledged is durable already."""
        self._stopped = True
        self._started.set()
        for timer in self._timers:
            timer.cancel()
        self._log.close()
        self._tables.close()

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
            sum(map(len, entries)),
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
            self._unwritten_bytes -= self._frame.entry_bytes
            self._frame = None
            self.replica.persisted()
            # The disk works on the next batch while this one is applied and answered.
            self._persist()
            self._apply()
        elif kind is Report.FAILED and self._frame is not None:
            (number,) = FAILED.unpack_from(body)
            if number not in NO_ROOM:
                self._fatal(f"the log cannot be written: {_text(body)}")
                return
            # Nothing of it is on the disk: it is written again when there is room. Until then
            # nothing new is taken, and those who wait time out without knowing the outcome.
            self._disk_full = True
            self._later(_RETRY_S, self._send_frame)
        else:
            self._fatal(f"the log process reports: {_text(body)}")

    def _apply(self) -> None:
        if self._awaits_turn or self._stopped:
            return
        finish, now_ns = self._on_finished, self._now_ns
        begun_ns = now_ns()
        is_more = False
        try:
            for proposal, outcome in self.replica.apply_committed(begun_ns):
                self._pending_count -= 1
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
            self._on_slow_apply(took_ns)
        if self._barriers and self.can_read():
            barriers, self._barriers = self._barriers, []
            for resume in barriers:
                resume()
        if self._settled and not self._pending_count:
            settled, self._settled = self._settled, []
            for resume in settled:
                resume()
        self._reconfigure()
        if self.state.store.slices and not self._slicing:
            self._slicing = True
            self._later(_SLICE_PAUSE_S, self._run_slice)
        self._on_batch()

    def _reconfigure(self) -> None:
        if self._reconfiguration.step():
            self._persist()
        if self._reconfigured and self._reconfiguration.is_settled:
            reconfigured, self._reconfigured = self._reconfigured, []
            for resume in reconfigured:
                resume()

    def _go_on(self) -> None:
        """Apply more of what waits, or the next step of a long command."""
        self._awaits_turn = False
        self._apply()

    def _finish(self, proposal: Proposal, outcome: Outcome) -> None:
        self._pending_count -= 1
        self.statistics.proposals_failed += 1
        proposal.done = True
        self._on_finished(proposal, outcome)

    # --- the tables -----------------------------------------------------------------------------

    def _on_table_report(self, kind: Report, body: bytes) -> None:
        if not self.flushing.take(kind, body) and not self.care.take(kind, body):
            self._fatal(f"the table process reports: {_text(body)}")

    def _on_flushed(self, through: Index) -> None:
        self.replica.node.log.forget(through)
        self._log.send(Order.PURGE, (through + 1).to_bytes(8, "big"))

    # --- the log's segments -----------------------------------------------------------------------

    def rekey(self, term: int, log_key: Secret, table_key: Secret | None = None) -> None:
        """Have what is written from now on sealed under a data key; the log begins a segment."""
        self._log.send(Order.REKEY, encode_keys({term: log_key}))
        if table_key is not None:
            self._tables.send(Order.REKEY, encode_keys({term: table_key}))

    def cut_log(self) -> Index:
        """Put an empty entry into the log, so that it goes on and what is before it can go.

        Returns:
            Its index: once it is applied, everything that was sent before is in the log.

        Raises:
            Refused: Nothing can be put there now.
        """
        self.check_taking()
        try:
            index = self.replica.node.propose([b""])
        except Refusal as refusal:
            raise Refused(_failure(refusal)) from None
        self._persist()
        return index

    def sync_audit(self) -> None:
        """Make the audit trail durable where no append does it."""
        head = self._audit.written_head
        if self._syncing is None and head != self._audit.durable_head:
            self._syncing = head
            self._log.send(Order.SYNC_AUDIT)

    # --- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.replica.node.tick()
        self._persist()
        # What could not begin when it was declared, for another change or another leader.
        self._reconfigure()

    def _run_slice(self) -> None:
        if self._holds or self.replica.is_between:
            self._later(_SLICE_PAUSE_S, self._run_slice)
            return
        try:
            is_more = self.state.store.run_slice()
        except DamagedRecord as error:
            self._fatal(_damaged(error))
            return
        if is_more:
            self._later(_SLICE_PAUSE_S, self._run_slice)
            return
        self._slicing = False
        scrubs, self._scrubs = self._scrubs, []
        for resume in scrubs:
            resume()

    def _sweep(self) -> None:
        """Let go of those who have waited too long; what they asked for may still happen."""
        before_ns = self._now_ns() - int(REQUEST_TIMEOUT_S * _NS)
        expired = list(self.replica.expire(before_ns))
        for proposal in expired:
            proposal.done = True
            self.statistics.proposals_failed += 1
            self._on_finished(proposal, Refused(Failure.TIMEOUT))
        if expired:
            self._on_batch()

    def every(self, period_s: float, act: Callable[[], None]) -> None:
        """Do something again and again until the engine stops."""

        def again() -> None:
            act()
            self._later(period_s, again)

        self._later(period_s, again)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if timer.when() > loop.time()]
        self._timers.append(loop.call_later(delay_s, act))

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

"""A member's storage, trail and engine in one thread, on a disk that can fail at every step.

    FaultyMember     restored, leading; told what to do; killed or closed
    StillLoop        an event loop whose clock moves when it is told to

Owns: putting the real parts together without processes, sockets or time, and what they say.
Never: replaces a part that writes; the log process's code runs here, the table process's in its
    servant.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, final

from core.engine_lab import KEK, WANTED
from faults.table_servant import TableServant
from faults.traced_disk import Faults, Killed, Trace, TracedDisk
from google.protobuf.message import Message

from kvsecure.core.engine import Engine
from kvsecure.core.entry import encode, envelope
from kvsecure.core.link import type_report
from kvsecure.core.replica import Outcome, Proposal
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Refused
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2
from kvsecure.security.audit import AuditTrail, Head
from kvsecure.security.audit_check import BrokenTrail, check_trail
from kvsecure.security.canonical import canonical
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.restore import restore
from kvsecure.server.sealing import Sealing
from kvsecure.storage.disk import Disk
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace
from kvsecure.storage.worker import LogProcess, Order, Report, carry_out, open_process

__all__ = ["SOUND", "Acknowledged", "FaultyMember", "Seen", "StillLoop", "Variant", "release"]

_SEGMENT_BYTES: Final = 3_000
_TABLES_BYTES: Final = 8 << 20
_SYSTEM: Final = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)
_STEP_S: Final = 0.01
_STEPS_MAX: Final = 4_000
_WALL_NS: Final = 1_700_000_000_000_000_000


class Acknowledged(NamedTuple):
    """What somebody was told."""

    # The number of the last command that is answered, from 1.
    command: int = 0
    # A record that must be in the trail.
    head: Head = Head(0, b"")
    # The newest data key, and how many are retired.
    term: int = 0
    retired: int = 0


class Seen(NamedTuple):
    """What is in a member."""

    revision: int
    compacted: int
    keys: tuple[bytes, ...]
    leases: tuple[int, ...]


@final
class Variant(NamedTuple):
    """A member with a mistake that is planted in it; each part makes what the real one makes."""

    open_log: Callable[[bytes, Any, Disk], LogProcess] = open_process  # type: ignore[assignment]  # of its two
    # The name of a table process with a mistake, in `faults.planted`.
    tables: str = ""
    # Goes around the disk.
    disk: Callable[[Disk], Disk] = lambda disk: disk
    directory: type[DataDirectory] = DataDirectory
    place: Callable[..., SegmentPlace] = SegmentPlace


# A member as it is.
SOUND: Final = Variant()


@final
class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when `advance` is called, and never by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._errors: list[BaseException] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return the time."""
        return self._now_s

    def advance(self, by_s: float) -> None:
        """Let time pass, and do what is due."""
        self._now_s += by_s
        for _ in range(3):
            self.call_soon(self.stop)
            self.run_forever()
        if self._errors:
            raise self._errors.pop()

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._errors.append(context.get("exception") or RuntimeError(context["message"]))


@final
class _Link:
    """What a `DiskLink` is to the engine, without a process of its own."""

    def __init__(self, member: "FaultyMember", settings: dict[str, Any]) -> None:
        self._member = member
        self._settings = {
            **settings,
            "segment_bytes_max": _SEGMENT_BYTES,
            "audit_segment_bytes_max": _SEGMENT_BYTES,
        }
        self._orders: deque[tuple[Order, bytes]] = deque()
        self._on_report: type_report | None = None
        self._on_lost: Callable[[], None] | None = None
        self.is_alive = True
        # Whether the process is busy with something for now.
        self.is_held = False
        self._process: LogProcess | None = None
        self.is_log = settings["role"] == "log"

    def wait_ready(self) -> None:
        member, body = self._member, json.dumps(self._settings).encode()
        if self.is_log:
            try:
                self._process = member.variant.open_log(body, self, member.disk)
            except (OSError, ValueError, KeyError) as error:
                raise StorageError(str(error)) from None
            return
        status = member.open_tables(body)
        if status:
            raise StorageError(status)

    async def attach(self, on_report: type_report, on_lost: Callable[[], None]) -> None:
        self._on_report, self._on_lost = on_report, on_lost

    def send(self, kind: Any, *parts: bytes) -> None:
        """Take an order from the member; or a report from the process."""
        if isinstance(kind, Report):
            if self._on_report is not None:
                # As soon as it is said: what the process does next may come too late.
                self._on_report(kind, b"".join(parts))
            return
        self._orders.append((kind, b"".join(parts)))
        self._member.loop.call_soon(self._obey)

    def close(self) -> None:
        self._on_lost = None
        self.send(Order.CLOSE)

    def make_spares(self) -> None:
        """Have spare segments made now, as a thread does at a time of its own."""
        if self._process is not None:
            self._process._spares.make()
            if self._process._audit._spares is not None:
                self._process._audit._spares.make()

    def release(self) -> None:
        """Go on after `is_held` was set: orders were waiting."""
        self.is_held = False
        for _ in self._orders:
            self._member.loop.call_soon(self._obey)

    def _obey(self) -> None:
        if not self._orders or not self.is_alive or self.is_held:
            return
        kind, body = self._orders.popleft()
        if kind is Order.CLOSE:
            self.is_alive = False
            if self._process is not None:
                with contextlib.suppress(OSError):
                    self._process.close()
            return
        if self._process is not None:
            self.is_alive = carry_out(self._process, kind, body, self)
        else:
            self.is_alive = self._member.ask_tables(kind, body, self)
            if kind is Order.DEFRAGMENT and self.is_alive:
                self._member.loop.call_soon(self._member.wait_tables, self)
        if not self.is_alive and self._on_lost is not None:
            self._member.loop.call_soon(self._on_lost)


@final
class _Mark:
    """The trail as the engine sees it, with somebody who takes note of what is durable."""

    def __init__(self, trail: AuditTrail, note: Callable[[Head], None]) -> None:
        self._trail = trail
        self._note = note

    @property
    def written_head(self) -> Head:
        return self._trail.written_head

    @property
    def durable_head(self) -> Head:
        return self._trail.durable_head

    def note_durable(self, head: tuple[int, bytes]) -> None:
        self._trail.note_durable(head)
        self._note(Head(*head))

    def take_unsynced(self) -> bytes | None:
        return self._trail.take_unsynced()


@final
class FaultyMember:
    """One life of a member."""

    def __init__(
        self,
        path: Path,
        trace: Trace,
        servant: TableServant,
        faults: Faults,
        variant: Variant = SOUND,
    ) -> None:
        """Open a data directory and lead.

        Raises:
            StorageError: It cannot be used.
            Killed: A fault.
        """
        self.trace, self.variant, self._servant, self._faults = trace, variant, servant, faults
        self._root = trace.root
        self.traced = TracedDisk(self._root, trace.take, self._next_call, faults)
        self.disk = variant.disk(self.traced)
        self.loop = StillLoop()
        self.fatal: list[str] = []
        self.refused = 0
        # Commands that were taken, by number, and the head of the trail that speaks of them.
        self.heads: dict[int, Head] = {}
        self.said = Acknowledged()
        self.directory: DataDirectory | None = None
        self.links: list[_Link] = []
        self._spawned: list[asyncio.Task[None]] = []
        self._closing: list[Callable[[], object]] = [self.loop.close]
        try:
            self._begin(path)
        except BaseException:
            self.abandon()
            raise

    def _begin(self, path: Path) -> None:
        self.directory = directory = self.variant.directory(path, WANTED, KEK, self.disk)
        self._closing.append(directory.lock.close)
        restored = restore(
            directory,
            tables_bytes_max=_TABLES_BYTES,
            now_ns=time.monotonic_ns(),
            start=self._start,  # type: ignore[arg-type]  # all that a member asks of a link
        )
        self.log, self.tables = self.links[1], self.links[0]
        self.reader = restored.reader
        self._closing.append(restored.reader.close)
        self.place = self.variant.place(
            directory.audit, Kind.AUDIT, WANTED.cluster, WANTED.member, self.disk
        )
        self.trail = AuditTrail(
            self.place,
            directory.keyring,
            known=restored.audit_head,
            on_segment=lambda path: restored.log.send(Order.AUDIT, os.fsencode(path)),
            wall_ns=lambda: _WALL_NS,
            segment_bytes_max=_SEGMENT_BYTES,
        )
        self.engine = Engine(
            restored.replica,
            restored.log,
            restored.tables,
            refresh=restored.reader.refresh,
            reopen=restored.reader.reopen,
            now_ns=lambda: int(self.loop.time() * 1e9),
            wall_ns=lambda: _WALL_NS + int(self.loop.time() * 1e9),
            on_finished=self._finished,
            on_batch=lambda: None,
            on_fatal=self.fatal.append,
            audit=_Mark(self.trail, self._durable),
            on_slow_apply=lambda _: None,
            slow_apply_ns=1 << 62,
            in_turn=self.loop.call_soon,
        )
        gate = SimpleNamespace(
            engine=self.engine,
            audit=self.trail,
            note=lambda *_, **__: None,
            schedule=lambda: None,
        )
        self.sealing = Sealing(
            directory,
            restored.reader,
            gate,  # type: ignore[arg-type]  # all that it asks of a gate
            lambda work: self._spawned.append(self.loop.create_task(work)),
        )
        self.run(self.engine.start())
        if self.fatal:
            raise StorageError(self.fatal[0])
        self.turn([])

    # --- what is done -----------------------------------------------------------------------------

    def turn(self, commands: Sequence[tuple[int, Message]]) -> int:
        """Record that these commands are asked for, and take them on their way.

        Returns:
            How many of them were taken.
        """
        taken = []
        for number, command in commands:
            told: Any = number
            entry = encode(type(command), envelope(_SYSTEM), command.SerializeToString())
            try:
                self.engine.submit(Proposal(entry, _SYSTEM, command, 0, told))
            except Refused:
                self.refused += 1
                break
            self._record("asked", number)
            taken.append(number)
        if not commands:
            self._record("note", 0)
        try:
            self.trail.end_turn()
        except Refused:
            self.refused += 1
            self.engine.drop_turn()
            return 0
        for number in taken:
            self.heads[number] = self.trail.written_head
        if taken:
            self.trace.mark(taken[-1])
        self.engine.end_turn()
        return len(taken)

    def settle(self) -> bool:
        """Wait until everything that was taken is answered, and return whether it was."""
        for _ in range(_STEPS_MAX):
            if self.fatal or not self.engine.pending_count:
                break
            self.loop.advance(_STEP_S / 10)
        return not self.fatal and not self.engine.pending_count

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(max(1, int(seconds / _STEP_S))):
            self.loop.advance(_STEP_S)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run to its end what waits for time to pass; None if the member ends before."""
        task = self.loop.create_task(work)
        for _ in range(_STEPS_MAX):
            self.loop.advance(_STEP_S)
            if task.done():
                return task.result()
            if self.fatal:
                break
        task.cancel()
        self.loop.advance(0)
        return None

    def rotate(self) -> bool:
        """Rotate the data key; return whether that was told."""
        answer = self._try(self.sealing.rotate())
        if answer is not None:
            self._say(self.said._replace(term=answer.term))
        return answer is not None

    def reencrypt_and_retire(self) -> None:
        """Seal everything anew, and retire the oldest data key."""
        if self._try(self.sealing.reencrypt(100_000)) is None:
            return
        for _ in range(_STEPS_MAX):
            if self.fatal or all(task.done() for task in self._spawned):
                break
            self.loop.advance(_STEP_S)
        assert self.directory is not None
        terms = self.directory.keyring.terms
        old = [each.term for each in terms[:-1] if not each.is_retired]
        if old and not self.fatal and self._try(self.sealing.retire(old[0])) is not None:
            self._say(self.said._replace(retired=self.said.retired + 1))

    def defragment(self) -> bool:
        """Have the tables defragmented; return whether they were."""
        done: list[OSError | None] = []
        self.engine.care.defragment(done.append)
        for _ in range(_STEPS_MAX):
            if done or self.fatal:
                break
            self.loop.advance(_STEP_S)
        return done == [None]

    def hold_tables(self) -> None:
        """Let the table process be slow, until `release_tables`."""
        self.tables.is_held = True

    def release_tables(self) -> None:
        """Let it do what has been waiting."""
        self.tables.release()
        self.wait(_STEP_S)

    def make_spares(self) -> None:
        """Have spare segments made."""
        self.log.make_spares()

    def close(self) -> None:
        """End in good order."""
        self.tables.release()
        self.engine.stop()
        for _ in range(10):
            self.loop.advance(0)
        with contextlib.suppress(OSError):
            self.trail.close()
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything, as a process does that dies; nothing more is written."""
        self.traced.is_killed = True
        for link in self.links:
            link.is_alive = False
        with contextlib.suppress(EOFError, Killed, BrokenPipeError):
            if self._servant.is_running:
                self._servant.ask("drop", 0)
                self._servant.answers(lambda _: None)
        if not self.loop.is_closed():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            with contextlib.suppress(BaseException):
                self.loop.advance(0)
        executor = getattr(self.loop, "_default_executor", None)
        if executor is not None:
            executor.shutdown()
        for close in reversed(self._closing):
            close()
        self._closing.clear()
        release(self._root / "data" / "LOCK")
        for descriptor in list(self.traced._open):
            self.traced.close(descriptor)

    # --- what is seen ---------------------------------------------------------------------------

    def seen(self) -> Seen:
        """Return what is in the member now."""
        state = self.engine.state
        space = state.store.space(DEFAULT_TENANT)
        everything = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")
        answer = kv_pb2.RangeResponse.FromString(state.store.range(space, everything))
        return Seen(
            state.store.revision,
            state.store.compacted,
            tuple(kv.SerializeToString(deterministic=True) for kv in answer.kvs),
            tuple(sorted(space.leases.by_expiry())),
        )

    def value_at(self, key: bytes, revision: int) -> bytes | None:
        """Return a key's value in the past, or None if it had none."""
        state = self.engine.state
        space = state.store.space(DEFAULT_TENANT)
        request = kv_pb2.RangeRequest(key=key, revision=revision)
        kvs = kv_pb2.RangeResponse.FromString(state.store.range(space, request)).kvs
        return kvs[0].value if kvs else None

    def check_trail(self, head: Head) -> str:
        """Return what is wrong with the trail; nothing if nothing is."""
        assert self.directory is not None
        must_hold = head if head.seq else None
        try:
            check_trail(self.place, self.directory.keyring, must_hold=must_hold)
        except (BrokenTrail, StorageError) as error:
            return str(error)
        return ""

    # --- within ---------------------------------------------------------------------------------

    def _try(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.run(work)
        except (Refused, OSError):
            self.refused += 1
            return None

    def _record(self, stage: str, number: int) -> None:
        self.trail.add(
            canonical(
                {
                    "number": number,
                    "seq": self.trail.next_seq,
                    "stage": stage,
                    "stream": self.trail.stream,
                    "ts": self.trail.time_text(),
                    "v": 1,
                }
            )
        )

    def _finished(self, proposal: Proposal, outcome: Outcome) -> None:
        number = int(proposal.context)  # type: ignore[call-overload]  # it is what `turn` gave
        if isinstance(outcome, Answer) or outcome.failure.name not in {"TIMEOUT", "NO_LEADER"}:
            self._say(self.said._replace(command=number, head=self.heads[number]))

    def _durable(self, head: Head) -> None:
        if head.seq > self.said.head.seq:
            self._say(self.said._replace(head=head))

    def _say(self, said: Acknowledged) -> None:
        self.said = said
        self.trace.mark(said)

    def _next_call(self) -> int:
        self.trace.calls += 1
        return self.trace.calls

    def _start(self, settings: dict[str, Any], _: object) -> _Link:
        link = _Link(self, settings)
        self.links.append(link)
        return link

    # --- the table process ------------------------------------------------------------------------

    def open_tables(self, body: bytes) -> str:
        """Have the tables opened; return why not."""
        try:
            self._servant.open(
                self.trace.calls, body, self._root, dict(self._faults), self.variant.tables
            )
            return self._listen(None)
        except EOFError as error:
            raise StorageError(str(error)) from None

    def ask_tables(self, kind: Order, body: bytes, link: _Link) -> bool:
        """Give the table process an order; return whether it lives."""
        try:
            self._servant.ask("order", self.trace.calls, kind, body)
            return not self._listen(link)
        except (EOFError, BrokenPipeError):
            return False

    def wait_tables(self, link: _Link) -> None:
        """Wait for what the table process does beside its orders."""
        try:
            self._servant.ask("wait", self.trace.calls)
            self._listen(link)
        except (EOFError, BrokenPipeError):
            link.is_alive = False
            if link._on_lost is not None:
                self.loop.call_soon(link._on_lost)

    def _listen(self, link: _Link | None) -> str:
        def take(message: Any) -> None:
            kind, *rest = message
            if kind == "told":
                self.trace.take(*rest)
            elif link is not None:
                link.send(*rest)

        self.trace.calls, status = self._servant.answers(take)
        if status == "killed":
            self.traced.is_killed = True
            raise Killed
        return str(status)


def release(lock: Path) -> None:
    """Close what a start that was cut short has left open, as the end of a process does."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink() == lock:
                os.close(int(entry.name))

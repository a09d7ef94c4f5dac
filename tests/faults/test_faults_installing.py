"""The power fails while another member's state is installed: the old one is there, or the new one.

    FAULT_LIVES=100 pytest -m campaign tests/faults/test_faults_installing.py

What a member had voted, what it had acknowledged, and what follows on the new state are there after
every crash, in the life that takes it up and in the next one.
"""

import os
import random
import shutil
from collections.abc import Sequence
from enum import Enum, auto
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple, final

import pytest
from core.engine_lab import KEK, WANTED
from core.stored_tables import MemoryTables, flush, reload
from faults.disk_model import DiskModel, Image, write_down
from faults.exploring import Tally, scratch
from faults.faulty_member import FaultyMember, Seen
from faults.table_servant import TableServant
from faults.traced_disk import Fault, Faults, Killed, Trace, TracedDisk
from support.seeds import seed_of

from kvsecure.core.apply import apply
from kvsecure.core.backup import pack
from kvsecure.core.entry import encode, envelope
from kvsecure.core.installer import Incoming, write_incoming
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.node import HardState, Ready
from kvsecure.core.replica import encode_frame
from kvsecure.core.scan import contents
from kvsecure.core.snapshot_stream import SnapshotHead, pieces_of
from kvsecure.core.state import State
from kvsecure.crypto.keyring import Keyring
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT, Index, MemberId, Term
from kvsecure.proto import kv_pb2, lease_pb2
from kvsecure.proto.mvcc_pb2 import KeyValue
from kvsecure.storage.files import StorageError, sync_directory
from kvsecure.storage.replacement import incoming_of, install
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, recover

_LIVES: Final = int(os.environ.get("FAULT_LIVES", "20"))
_SYSTEM: Final = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)
_ALONE: Final = Configuration((WANTED.member,))
_TABLES_BYTES: Final = 8 << 20
# The term of what was voted in last, that of the state that is sent, and of what was heard before.
_VOTED, _SENT, _HEARD = Term(9), Term(8), Term(5)
_SOMEBODY: Final = MemberId(77)


class Log(Enum):
    """What the member's log has to do with the state that it is sent."""

    # It ends before it.
    BEHIND = auto()
    # It has other entries there and behind.
    OTHER = auto()
    # It has its last entry, and entries behind.
    SAME = auto()


class _Mark(NamedTuple):
    """What there may be from some step on: what was said, and what was asked for besides."""

    states: Sequence[Seen]


@final
class _Life:
    """A member that is sent a state, takes it up and goes on, with every step of its disk."""

    def __init__(
        self,
        servant: TableServant,
        root: Path,
        log: Log,
        faults: Faults,
        *,
        is_killed: bool = False,
    ) -> None:
        """Live.

        Args:
            servant: A table process.
            root: Where.
            log: What its log has to do with the state.
            faults: What fails, from when it is sent the state.
            is_killed: Whether its process ends before it knows that the new name is durable.
        """
        self.is_killed = is_killed
        self.servant, self.root, self.kind = servant, root, log
        self.faults: Faults = {}
        self.trace = Trace(root)
        self.data = root / "data"
        # Of the last steps before anything is installed.
        self.begun = 0
        self._prepare()
        self.begun = len(self.trace.steps)
        self.trace.calls = 0
        self.faults = faults
        self._install()
        for life in range(2):
            _live(self.data, self.trace, servant, faults, b"%d" % life)

    def _prepare(self) -> None:
        """Have a past, and hear what nobody has said to be committed."""
        # The log of the first life is gone: nothing but the tables has what it wrote.
        for _ in range(2):
            member = FaultyMember(self.data, self.trace, self.servant, {})
            for number in range(1, 4):
                member.turn([(number, _put(b"old", b"%d" % number))])
                assert member.settle()
            member.wait(0.25)
            member.turn([(4, _put(b"old", b"unflushed"))])
            assert member.settle()
            self.applied = member.engine.replica.node.log.applied
            self.audit_head = member.trail.durable_head
            member.close()
        assert len(list((self.data / "wal").glob("*.wal"))) == 1
        self.sent = _sent(self.applied)
        self._hear()
        with scratch() as path:
            copy = Path(path) / "root"
            shutil.copytree(self.root, copy)
            aside = Trace(copy)
            aside.know(copy)
            member = FaultyMember(copy / "data", aside, self.servant, {})
            self.old = member.seen()
            member.close()
        self.new = self._expected()
        self.trace.mark(_Mark([self.old]))

    def _hear(self) -> None:
        disk = self._disk()
        keyring = Keyring.open((self.data / "keyring").read_bytes(), KEK)
        place = SegmentPlace(self.data / "wal", Kind.WAL, WANTED.cluster, WANTED.member, disk)
        tail = recover(place, keyring, lambda _: None)
        writer = SegmentWriter(place, tail, place.root_key(keyring, 1), term=1, bytes_max=1 << 20)
        hard_state = HardState(_VOTED, _SOMEBODY, self.applied)
        entries, term = [_entry(at) for at in range(6)], _HEARD
        if self.kind is Log.BEHIND:
            entries = []
        elif self.kind is Log.SAME:
            term = _SENT
        first = Index(self.applied + 1)
        writer.append(len(entries), encode_frame(Ready(hard_state, first, term, entries)), first)
        writer.sync()
        writer.close()

    def _expected(self) -> Seen:
        """Return what there is with the new state, and the entries that follow on it."""
        state = reload(self.sent)
        if self.kind is Log.SAME:
            for at in range(3, 6):
                apply(state, _SYSTEM, _heard(at), 0)
        return _seen(state)

    def _install(self) -> None:
        self.trace.mark(_Mark([self.old, self.new]))
        applied = contents(self.sent).applied
        keyring = Keyring.open((self.data / "keyring").read_bytes(), KEK)
        incoming = Incoming(
            directory=incoming_of(self.data),
            cluster=WANTED.cluster,
            key=keyring.data_key(1, purpose="table"),
            term=1,
            size_bytes_max=_TABLES_BYTES,
            spare_bytes=0,
            head=SnapshotHead(Index(applied.index), Term(applied.term), _ALONE),
        )
        pieces = pieces_of(text for text, _ in pack(contents(self.sent)))
        try:
            writing = self._disk("tables.incoming")
            write_incoming(incoming, pieces, lambda: self.audit_head, writing)
            writing.observe()
            disk = self._disk()
            install(self.data, disk)
            if self.is_killed:
                return
            sync_directory(self.data, disk)
        except (OSError, StorageError, Killed):
            return
        self.trace.mark(_Mark([self.new]))

    def _disk(self, tables: str = "") -> TracedDisk:
        return TracedDisk(
            self.root,
            self.trace.take,
            self._next_call,
            self.faults,
            has_tables=bool(tables),
            tables=tables,
        )

    def _next_call(self) -> int:
        self.trace.calls += 1
        return self.trace.calls


def _live(data: Path, trace: Trace, servant: TableServant, faults: Faults, values: bytes) -> None:
    """Start, look at what there is, and go on; mark what was said.

    Raises:
        AssertionError: Something is there that cannot be.
    """
    try:
        member = FaultyMember(data, trace, servant, faults)
    except (StorageError, OSError, Killed):
        if faults:
            return
        raise
    try:
        _go_on(member, values)
        member.close()
    except Killed:
        member.abandon()


def _go_on(member: FaultyMember, values: bytes) -> None:
    trace, seen = member.trace, member.seen()
    assert seen in _states(trace), f"revision {seen.revision} with {len(seen.keys)} keys"
    # It stood for election in a term of its own.
    assert member.engine.replica.node.term > _VOTED, "it has forgotten in which term it voted"
    trace.mark(_Mark([seen]))
    for number in range(2):
        value = values + b".%d" % number
        after = _after(seen, value)
        trace.mark(_Mark([seen, after]))
        if not member.turn([(10, _put(b"later", value))]) or not member.settle():
            # The disk fails: it was not taken, or nobody knows.
            return
        trace.mark(_Mark([after]))
        seen = after
        if not number:
            member.wait(0.25)
    assert member.fatal or member.seen() == seen


def _states(trace: Trace, step: int | None = None) -> Sequence[Seen]:
    """Return what there may be after so many steps, or now."""
    return next(
        mark.states
        for position, mark in reversed(trace.marks)
        if isinstance(mark, _Mark) and (step is None or position <= step)
    )


# --- states and commands --------------------------------------------------------------------------


def _put(key: bytes, value: bytes) -> kv_pb2.PutRequest:
    return kv_pb2.PutRequest(key=key, value=value)


def _heard(at: int) -> kv_pb2.PutRequest:
    """Return what the entry says so far behind what is applied."""
    return _put(b"heard/%d" % at, b"x" * 600)


def _entry(at: int) -> bytes:
    command = _heard(at)
    return encode(type(command), envelope(_SYSTEM), command.SerializeToString())


def _sent(applied: Index) -> MemoryTables:
    """Return the state that is sent: three entries ahead of what is applied."""
    tables = MemoryTables()
    state = reload(tables)
    apply(state, _SYSTEM, lease_pb2.LeaseGrantRequest(ID=7, TTL=1_000_000), 0)
    for number in range(20):
        apply(state, _SYSTEM, _put(b"sent/%d" % number, b"y" * 700), 0)
    apply(state, _SYSTEM, kv_pb2.DeleteRangeRequest(key=b"sent/3"), 0)
    apply(state, _SYSTEM, kv_pb2.CompactionRequest(revision=9), 0)
    state.index, state.term = Index(applied + 3), _SENT
    flush(state, tables)
    return tables


def _seen(state: State) -> Seen:
    space = state.store.space(DEFAULT_TENANT)
    everything = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    kvs = kv_pb2.RangeResponse.FromString(state.store.range(space, everything)).kvs
    return Seen(
        state.store.revision,
        state.store.compacted,
        tuple(kv.SerializeToString(deterministic=True) for kv in kvs),
        tuple(sorted(space.leases.by_expiry())),
    )


def _after(seen: Seen, value: bytes) -> Seen:
    """Return what there is after one more put."""
    kvs = {kv.key: kv for kv in map(KeyValue.FromString, seen.keys)}
    revision = seen.revision + 1
    before = kvs.get(b"later")
    kvs[b"later"] = KeyValue(
        key=b"later",
        value=value,
        mod_revision=revision,
        create_revision=before.create_revision if before else revision,
        version=before.version + 1 if before else 1,
    )
    keys = [kvs[key].SerializeToString(deterministic=True) for key in sorted(kvs)]
    return seen._replace(revision=revision, keys=tuple(keys))


# --- crashing -------------------------------------------------------------------------------------


def _explore(
    life: _Life, chance: random.Random, tally: Tally, points_max: int, again: float
) -> None:
    """Crash after steps of a life, and see that what was said is there, now and later."""
    trace, servant = life.trace, life.servant
    model = DiskModel(chance=random.Random(0))
    points = range(life.begun, len(trace.steps) + 1)
    chosen = {*chance.sample(points, min(points_max, len(points)))}
    tally.lives += 1
    tally.steps += len(points)
    tally.faults += len(life.faults)
    for step in range(len(trace.steps) + 1):
        if step in chosen:
            tally.crashes += 1
            try:
                image = model.crash(chance)
                _recover(image, _states(trace, step), servant, chance, tally, again)
            except AssertionError as error:
                error.add_note(f"{life.kind}, crash after {step - life.begun} of {len(points)}")
                raise
        if step < len(trace.steps):
            model.take(trace.steps[step])


def _recover(
    image: Image,
    states: Sequence[Seen],
    servant: TableServant,
    chance: random.Random,
    tally: Tally,
    again: float,
) -> None:
    with scratch() as path:
        root = Path(path) / "root"
        write_down(image, root)
        trace = Trace(root)
        trace.adopt(image)
        begun = len(trace.steps)
        trace.mark(_Mark(states))
        for life in range(2):
            _live(root / "data", trace, servant, {}, b"again %d" % life)
    if chance.random() >= again:
        return
    tally.crashes_again += 1
    model = DiskModel(chance=chance)
    stop = chance.randint(begun, len(trace.steps))
    for step in trace.steps[:stop]:
        model.take(step)
    _recover(model.crash(chance), _states(trace, stop), servant, chance, tally, 0)


# --- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", Log)
def test_no_crash_leaves_neither_state_or_loses_what_was_said(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config, log: Log
) -> None:
    """After every step of writing, installing and taking up a state; again while that is done."""
    with scratch() as path:
        # In one of them a process ends before it knows that what it has installed is durable.
        life = _Life(servant, Path(path), log, {}, is_killed=log is Log.OTHER)

        assert _states(life.trace)[0].revision == life.new.revision + 4
        _explore(life, random.Random(seed_of(pytestconfig)), tally, 60, again=0.2)


@pytest.mark.parametrize("kind", [Fault.KILL, Fault.BROKEN, Fault.SHORT])
def test_no_call_that_fails_leaves_neither_state_or_loses_what_was_said(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config, kind: Fault
) -> None:
    """Whichever call fails while a state is installed and taken up, and the power after it."""
    chance = random.Random(seed_of(pytestconfig))

    _fail(servant, chance, tally, kind, chance.sample(range(1, 60), 3), points_max=6)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_installing(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """As above, at every step and at every call, again and again."""
    first = seed_of(pytestconfig)
    for seed in range(first, first + _LIVES):
        chance = random.Random(seed)
        for log, is_killed in product(Log, (False, True)):
            with scratch() as path:
                life = _Life(servant, Path(path), log, {}, is_killed=is_killed)
                _explore(life, chance, tally, 1 << 20, again=0.5)
        for kind in (Fault.KILL, Fault.BROKEN, Fault.SHORT):
            _fail(servant, chance, tally, kind, range(1, 80), points_max=10)


def _fail(
    servant: TableServant,
    chance: random.Random,
    tally: Tally,
    kind: Fault,
    calls: Sequence[int],
    points_max: int,
) -> None:
    for call in calls:
        faults = {call: kind}
        if kind is Fault.SHORT:
            faults |= dict.fromkeys(range(call + 1, call + 4), Fault.FULL)
        with scratch() as path:
            life = _Life(servant, Path(path), chance.choice(list(Log)), faults)
            _explore(life, chance, tally, points_max, again=0.2)

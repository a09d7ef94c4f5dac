"""Lives of a member, and what a crash after each of their steps leaves.

    lived(...)      a random past on a disk that fails now and then, with everything that was said
    explore(...)    crashes after its steps, each recovered and compared; what is wrong is a text
    python -m faults.exploring FIRST COUNT [LIES]     lives by their seeds, and what was visited

Owns: what is done at random, and what must be true of a member after a crash.
Never: knows how anything is stored; shares no code with the store but its messages.
"""

import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from core.mvcc_model import DumbStore
from faults.disk_model import DiskModel, Image, write_down
from faults.faulty_member import SOUND, Acknowledged, FaultyMember, Seen, Variant
from faults.table_servant import TableServant
from faults.traced_disk import Fault, Faults, Killed, Trace
from google.protobuf.message import Message

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2, lease_pb2
from kvsecure.storage.files import StorageError

__all__ = ["Broken", "Life", "Outcome", "Tally", "explore", "faults_of", "lived", "main", "scratch"]

_KEYS: Final = [b"key/%d" % number for number in range(8)]
_TTL_S: Final = 1_000_000
_STARTS_MAX: Final = 6
# Of the lives that `main` goes through.
_LENGTH: Final = 25
_CALLS: Final = 250
_POINTS: Final = 40
_DOING: Final = {
    "turn": 10,
    "burst": 4,
    "flush": 4,
    "slow": 2,
    "wait": 2,
    "trail": 3,
    "spares": 2,
    "rotate": 1,
    "retire": 1,
    "defragment": 1,
    "restart": 1,
}


class Broken(AssertionError):
    """Something that was said is not true after a crash; the text says where to begin."""


class _Stopped(Exception):
    """The member has ended by itself."""


@final
@dataclass
class _Past:
    """What was asked so far, and what there must be after each command."""

    commands: list[Message] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    store: DumbStore = field(default_factory=DumbStore)

    def __post_init__(self) -> None:
        self.seen = [self._now()]

    def ask(self, command: Message) -> None:
        self.commands.append(command)
        self.store.run(DEFAULT_TENANT, command)
        self.seen.append(self._now())

    def until(self, count: int) -> "_Past":
        """Return what there was after so many commands."""
        past = _Past()
        for command in self.commands[:count]:
            past.ask(command)
        return past

    def _now(self) -> Seen:
        space = self.store.spaces[DEFAULT_TENANT]
        found = [space.now(key) for key in sorted(space.changes)]
        return Seen(
            self.store.revision,
            self.store.compacted,
            tuple(kv.SerializeToString(deterministic=True) for kv in found if kv is not None),
            tuple(sorted(space.leases)),
        )


class _Branch(NamedTuple):
    """From which step on which past counts."""

    start: int
    past: _Past


@final
@dataclass
class Life:
    """Everything that was done, and said."""

    seed: int
    trace: Trace
    branches: list[_Branch]
    faults: Faults
    starts: int = 0
    # Why a member stopped by itself.
    fatal: list[str] = field(default_factory=list)
    # Why it did not start, each time that it did not.
    refused: list[str] = field(default_factory=list)

    def past_at(self, step: int) -> _Past:
        """Return the past that counts after so many steps."""
        return next(b.past for b in reversed(self.branches) if b.start <= step or not b.start)

    def said_at(self, step: int) -> tuple[Acknowledged, int]:
        """Return what was acknowledged after so many steps, and how much was taken."""
        said, taken = Acknowledged(), 0
        for position, mark in self.trace.marks:
            if position > step:
                break
            if isinstance(mark, Acknowledged):
                said = mark
            else:
                taken = mark
        return said, max(taken, said.command)


@final
@dataclass
class Tally:
    """What was visited."""

    lives: int = 0
    steps: int = 0
    crashes: int = 0
    # Crashes of a member that was recovering from one.
    crashes_again: int = 0
    refused: int = 0
    lost: int = 0
    faults: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in vars(self).items())

    def add(self, other: "Tally") -> None:
        """Count what another has counted."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


class Outcome(NamedTuple):
    """What a start after a crash came to."""

    # Why it was refused; nothing if it was not.
    refused: str = ""
    # Whether something that was acknowledged is missing, in a state that there once was.
    is_loss: bool = False


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a directory in memory, where there is one."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


# --- living ---------------------------------------------------------------------------------------


def lived(
    seed: int,
    servant: TableServant,
    *,
    length: int,
    faults: Faults | None = None,
    variant: Variant = SOUND,
    doing: Mapping[str, int] = _DOING,
    keep: Path | None = None,
) -> Life:
    """Let a member live, and start it again when it ends.

    Args:
        seed: Decides everything that is random.
        servant: A table process.
        length: How many things are done.
        faults: What fails.
        variant: What it is made of.
        doing: How often each thing is done.
        keep: Where its directory is copied to in the end.

    Raises:
        Broken: It does not start, or said something wrong, without any crash of the machine.
    """
    chance = random.Random(seed)
    with scratch() as root:
        trace = Trace(Path(root))
        life = Life(seed, trace, [_Branch(0, _Past())], faults or {})
        left = length
        while left > 0:
            left -= _one_run(life, chance, left, servant, variant, doing)
        if keep is not None:
            shutil.copytree(root, keep, dirs_exist_ok=True)
    return life


def _one_run(
    life: Life,
    chance: random.Random,
    length: int,
    servant: TableServant,
    variant: Variant,
    doing: Mapping[str, int],
) -> int:
    """Start and do things until the end, or until something ends it; return how many."""
    trace, before = life.trace, life.branches[-1].past
    life.starts += 1
    try:
        member = FaultyMember(trace.root / "data", trace, servant, life.faults, variant)
    except Killed:
        return 1
    except (StorageError, OSError) as error:
        life.refused.append(str(error))
        if life.starts > _STARTS_MAX * (1 + len(life.faults)):
            raise Broken(f"seed {life.seed}: it does not start: {error}") from None
        return 1
    said, taken = life.said_at(len(trace.steps))
    past = _matching(member.seen(), before, said.command, taken)
    if past is None:
        member.abandon()
        raise Broken(
            f"seed {life.seed}: after start {life.starts} there is {_short(member.seen())}; "
            f"{said.command} to {taken} of {len(before.commands)} were expected; before that "
            f"{life.fatal} and {life.refused}"
        )
    life.branches.append(_Branch(len(trace.steps), past))
    member.said = said._replace(command=len(past.commands))
    trace.mark(member.said)
    trace.mark(len(past.commands))
    done = 0
    try:
        for done in range(1, length + 1):
            what = chance.choices(list(doing), list(doing.values()))[0]
            if what == "restart":
                member.close()
                life.fatal += member.fatal
                return done
            _do(member, past, chance, what)
            if member.fatal:
                break
        else:
            member.close()
            return done
    except Killed:
        pass
    life.fatal += member.fatal
    member.abandon()
    return max(done, 1)


def _do(member: FaultyMember, past: _Past, chance: random.Random, what: str) -> None:
    match what:
        case "turn" | "burst":
            for _ in range(1 if what == "turn" else 3):
                _turn(member, past, chance)
            member.settle()
        case "flush":
            member.wait(0.25)
        case "slow":
            _while_tables_are_slow(member, past, chance)
        case "wait":
            member.wait(0.01)
        case "trail":
            member.turn([])
            if chance.random() < 0.5:
                member.engine.sync_audit()
                member.wait(0.01)
        case "spares":
            member.make_spares()
        case "rotate":
            member.rotate()
        case "retire":
            member.reencrypt_and_retire()
        case "defragment":
            member.defragment()


def _while_tables_are_slow(member: FaultyMember, past: _Past, chance: random.Random) -> None:
    """Go on while a flush takes its time: the log is ahead of the tables."""
    member.hold_tables()
    member.wait(0.25)
    for _ in range(chance.randint(1, 6)):
        _turn(member, past, chance)
        member.settle()
    member.release_tables()


def _turn(member: FaultyMember, past: _Past, chance: random.Random) -> None:
    first = len(past.commands) + 1
    commands = [_command(past, chance) for _ in range(chance.randint(1, 3))]
    count = member.turn([(first + at, command) for at, command in enumerate(commands)])
    for command in commands[:count]:
        past.ask(command)


def _command(past: _Past, chance: random.Random) -> Message:
    space = past.store.spaces[DEFAULT_TENANT]
    leases = sorted(space.leases)
    match chance.choices(
        ("put", "delete", "txn", "grant", "revoke", "compact"), (8, 2, 3, 1, 1, 2)
    )[0]:
        case "delete":
            return kv_pb2.DeleteRangeRequest(key=chance.choice(_KEYS))
        case "txn":
            txn = kv_pb2.TxnRequest()
            for key in chance.sample(_KEYS, 2):
                put = txn.success.add().request_put
                put.key, put.value = key, _value(past, chance)
            return txn
        case "grant":
            return lease_pb2.LeaseGrantRequest(ID=chance.randint(1, 1 << 30), TTL=_TTL_S)
        case "revoke" if leases:
            return lease_pb2.LeaseRevokeRequest(ID=chance.choice(leases))
        case "compact" if past.store.revision > max(past.store.compacted, 0) + 1:
            revision = chance.randint(max(past.store.compacted, 0) + 1, past.store.revision)
            return kv_pb2.CompactionRequest(revision=revision)
        case _:
            lease = chance.choice([0, *leases])
            return kv_pb2.PutRequest(
                key=chance.choice(_KEYS), value=_value(past, chance), lease=lease
            )


def _value(past: _Past, chance: random.Random) -> bytes:
    """Return a value that no other is like, now and then of several sectors."""
    size = chance.choice((0, 10, 10, 100, 700, 2_500))
    return b"%d:" % len(past.commands) + chance.randbytes(size)


def _matching(seen: Seen, past: _Past, least: int, most: int) -> _Past | None:
    """Return the past that leads to what is seen, the longest; None if none does."""
    for count in range(min(most, len(past.commands)), least - 1, -1):
        if past.seen[count] == seen:
            return past.until(count)
    return None


# --- crashing -------------------------------------------------------------------------------------


def explore(
    life: Life,
    servant: TableServant,
    tally: Tally,
    *,
    points_max: int | None = None,
    again: float = 0.1,
    lies: float = 0.0,
    variant: Variant = SOUND,
) -> None:
    """Crash after the steps of a life, and check what is there afterwards.

    Args:
        life: From `lived`.
        servant: A table process.
        tally: Counts what is visited.
        points_max: How many steps, at random; None takes all.
        again: How often the recovery crashes as well, from 0 to 1.
        lies: Of how many syncs the disk keeps nothing.
        variant: What the member that recovers is made of.

    Raises:
        Broken: Something that was said is not true.
    """
    chance = random.Random(life.seed)
    model = DiskModel(chance=random.Random(life.seed + 1), lies=lies)
    steps = life.trace.steps
    points = range(len(steps) + 1)
    chosen = set(
        points if points_max is None else chance.sample(points, min(points_max, len(steps)))
    )
    tally.lives += 1
    tally.steps += len(steps)
    tally.faults += len(life.faults)
    for step in points:
        if step in chosen:
            tally.crashes += 1
            said, taken = life.said_at(step)
            where = f"seed {life.seed}, crash after step {step} of {len(steps)}"
            check = _Check(life.past_at(step), said, taken, where, model.lie_count > 0, variant)
            check.crash(model.crash(chance), servant, chance, tally, again=again)
        if step < len(steps):
            model.take(steps[step])


class _Check(NamedTuple):
    """What must be true after a crash."""

    past: _Past
    said: Acknowledged
    taken: int
    where: str
    # Whether the disk has lied: then what is missing may be missing, or may be refused.
    lied: bool
    variant: Variant

    def crash(
        self,
        image: Image,
        servant: TableServant,
        chance: random.Random,
        tally: Tally,
        *,
        again: float,
    ) -> None:
        """Recover, compare, go on; sometimes crash while that is done, and recover from that."""
        outcome, trace, marks = self._start(image, servant)
        tally.refused += bool(outcome.refused)
        tally.lost += outcome.is_loss
        if outcome.refused or outcome.is_loss or chance.random() >= again:
            return
        tally.crashes_again += 1
        model = DiskModel(chance=chance)
        begun = len(_adopted(image).steps)
        stop = chance.randint(begun, len(trace.steps))
        for step in trace.steps[:stop]:
            model.take(step)
        past, said, taken = self.past, self.said, self.taken
        for position, mark in marks:
            if position <= stop:
                past, said, taken = mark
        check = self._replace(
            past=past, said=said, taken=taken, where=f"{self.where}, again after {stop - begun}"
        )
        check.crash(model.crash(chance), servant, chance, tally, again=0)

    def _start(
        self, image: Image, servant: TableServant
    ) -> tuple[Outcome, Trace, list[tuple[int, tuple[_Past, Acknowledged, int]]]]:
        with scratch() as scratch_path:
            root = Path(scratch_path) / "root"
            write_down(image, root)
            trace = _adopted(image)
            trace.root = root
            marks: list[tuple[int, tuple[_Past, Acknowledged, int]]] = []
            try:
                member = FaultyMember(root / "data", trace, servant, {}, self.variant)
            except (StorageError, OSError) as error:
                if not self.lied:
                    self._complain(f"it does not start: {error}")
                return Outcome(refused=str(error)), trace, marks
            try:
                return self._look(member, marks), trace, marks
            except (DamagedRecord, _Stopped) as damage:
                if not self.lied:
                    self._complain(f"it stops: {damage}")
                return Outcome(refused=str(damage)), trace, marks
            finally:
                member.abandon()

    def _look(
        self, member: FaultyMember, marks: list[tuple[int, tuple[_Past, Acknowledged, int]]]
    ) -> Outcome:
        seen, trace, said = member.seen(), member.trace, self.said
        past = _matching(seen, self.past, said.command, self.taken)
        is_loss = past is None
        if past is None and self.lied:
            past = _matching(seen, self.past, 0, self.taken)
        if past is None:
            self._complain(f"there is {_short(seen)}; {said.command} to {self.taken} were expected")
            raise AssertionError
        self._check_history(member, past)
        wrong = member.check_trail(said.head)
        if wrong and self.lied:
            # Whoever checks it is told.
            is_loss, wrong = True, ""
        if wrong:
            self._complain(f"the trail: {wrong}")
        assert member.directory is not None
        terms = member.directory.keyring.terms
        if not self.lied:
            if terms[-1].term < said.term:
                self._complain(f"data key {said.term} is gone")
            if sum(each.is_retired for each in terms) < said.retired:
                self._complain("a data key that was destroyed is back")
        # What was recovered is answered: it must not go away any more.
        said = said._replace(command=len(past.commands))
        marks.append((len(trace.steps), (past, said, len(past.commands))))
        member.said = said
        self._go_on(member, past, marks)
        return Outcome(is_loss=is_loss)

    def _check_history(self, member: FaultyMember, past: _Past) -> None:
        """Compare the past itself, in the middle of what was not compacted."""
        space = past.store.spaces[DEFAULT_TENANT]
        first, last = max(past.store.compacted, 1), past.store.revision
        revision = (first + last) // 2
        for key in _KEYS if revision >= 1 else ():
            then = space.at(key, revision)
            wanted = None if then is None else then.value
            if member.value_at(key, revision) != wanted:
                self._complain(f"{key!r} was another at revision {revision}")

    def _go_on(self, member: FaultyMember, past: _Past, marks: list[tuple[int, Any]]) -> None:
        """Write something, and let it reach the tables: what was recovered can be gone on with."""
        chance = random.Random(len(member.trace.steps))
        past = past.until(len(past.commands))
        for _ in range(2):
            said = member.said
            past = past.until(len(past.commands))
            _turn(member, past, chance)
            marks.append((len(member.trace.steps), (past, said, len(past.commands))))
            if not member.settle():
                raise _Stopped(str(member.fatal))
            marks.append((len(member.trace.steps), (past, member.said, len(past.commands))))
        member.wait(0.25)
        if member.fatal:
            raise _Stopped(str(member.fatal))
        if member.seen() != past.seen[-1]:
            self._complain(f"after going on there is {_short(member.seen())}")

    def _complain(self, what: str) -> None:
        raise Broken(f"{self.where}: {what}")


def _adopted(image: Image) -> Trace:
    trace = Trace(Path())
    trace.adopt(image)
    return trace


def _short(seen: Seen) -> str:
    return f"revision {seen.revision} (compacted {seen.compacted}) with {len(seen.keys)} keys"


def faults_of(chance: random.Random, calls: int, count: int) -> Iterator[tuple[int, Fault]]:
    """Draw faults; a full disk stays full for a while."""
    for _ in range(count):
        at = chance.randint(1, calls)
        kind = chance.choice(list(Fault))
        if kind in (Fault.FULL, Fault.SHORT):
            yield at, Fault.SHORT
            for later in range(at + 1, at + chance.randint(1, 12)):
                yield later, Fault.FULL
        else:
            yield at, kind


def main() -> None:
    """Live and crash as the command line says, and print what was visited."""
    logging.disable()
    first, count = int(sys.argv[1]), int(sys.argv[2])
    lies = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    servant, tally = TableServant(), Tally()
    try:
        for seed in range(first, first + count):
            chance = random.Random(seed)
            faults = dict(faults_of(chance, _CALLS, chance.randint(0, 3)))
            life = lived(seed, servant, length=_LENGTH, faults=faults)
            explore(life, servant, tally, points_max=_POINTS, lies=lies)
            print(tally, flush=True)
    finally:
        servant.close()


if __name__ == "__main__":
    main()

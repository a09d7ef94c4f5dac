"""Long work through the engine: what goes on meanwhile, what waits, and what a crash leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from core.engine_lab import EngineLab, eventually, running, value_of
from google.protobuf.message import Message

from kvsecure.model.answer import Answer
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2, lease_pb2

_KEYS: Final = 25
# Of which records are packed in several pieces.
_MANY: Final = 5_000
_DELETE: Final = kv_pb2.DeleteRangeRequest(key=b"k/", range_end=b"k0")
_REVOKE: Final = lease_pb2.LeaseRevokeRequest(ID=7)


@contextlib.asynccontextmanager
async def _in_the_midst(
    path: Path, command: Message
) -> AsyncIterator[tuple[EngineLab, "asyncio.Future[object]"]]:
    """Yield a member of which a long command has been begun, and what tells of its end."""
    async with running(path) as lab:
        told = [lab.submit(lease_pb2.LeaseGrantRequest(ID=7, TTL=100))]
        told += [
            lab.submit(kv_pb2.PutRequest(key=b"k/%02d" % n, value=b"v", lease=7))
            for n in range(_KEYS)
        ]
        lab.engine.end_turn()
        await asyncio.gather(*told)
        await lab.flushed()
        lab.state.store.deleted_at_once = 4
        lab.held = []
        deleting = lab.submit(command)
        lab.engine.end_turn()
        await eventually(lambda: lab.held)
        yield lab, deleting


def _run_steps(lab: EngineLab) -> None:
    while lab.held:
        lab.held.pop()()


def _count(lab: EngineLab) -> int:
    space = lab.state.store.space(DEFAULT_TENANT)
    request = kv_pb2.RangeRequest(key=b"k/", range_end=b"k0", count_only=True)
    return kv_pb2.RangeResponse.FromString(lab.state.store.range(space, request)).count


@pytest.mark.parametrize("command", [_DELETE, _REVOKE])
def test_keys_are_read_as_before_until_the_last_step(tmp_path: Path, command: Message) -> None:
    """Ranges are answered at once, from before; what else is read waits for the end."""

    async def act() -> None:
        async with _in_the_midst(tmp_path / "state", command) as (lab, deleting):
            resumed: list[int] = []
            lab.engine.when_readable(lambda: resumed.append(_count(lab)))
            while lab.engine.replica.is_between:
                assert lab.engine.can_read_keys()
                assert not lab.engine.can_read()
                assert _count(lab) == _KEYS
                assert not deleting.done()
                lab.held.pop()()

            await deleting

            assert lab.engine.can_read()
            assert _count(lab) == 0
            assert resumed == [0]

    asyncio.run(act())


def test_commands_behind_a_long_one_wait_for_it(tmp_path: Path) -> None:
    """What is written to the log meanwhile is applied afterwards, in its order."""

    async def act() -> None:
        async with _in_the_midst(tmp_path / "state", _DELETE) as (lab, deleting):
            later = [lab.submit_put(b"k/%02d" % n, b"w") for n in range(3)]
            lab.engine.end_turn()
            log = lab.engine.replica.node.log
            await eventually(lambda: log.committed == log.applied + 4)
            assert not any(each.done() for each in later)
            # They have not made it go faster either.
            assert len(lab.held) == 1

            _run_steps(lab)
            done = [await each for each in (deleting, *later)]

            revisions = [each.revision for each in done if isinstance(each, Answer)]
            assert revisions == [_KEYS + 2, _KEYS + 3, _KEYS + 4, _KEYS + 5]
            assert _count(lab) == 3
            assert not log.committed - log.applied

    asyncio.run(act())


def test_nothing_is_flushed_in_the_midst_of_a_long_command(tmp_path: Path) -> None:
    """The tables get all of its revision or nothing."""

    async def act() -> None:
        async with _in_the_midst(tmp_path / "state", _DELETE) as (lab, deleting):
            flushed: list[bool] = []
            lab.engine.flushing.when_done(lambda: flushed.append(deleting.done()))
            for _ in range(3):
                lab.engine.flushing.begin()
                assert not lab.engine.flushing.is_under_way
                lab.held.pop()()
            assert not flushed

            _run_steps(lab)
            await eventually(lambda: flushed)

            assert flushed == [True]

    asyncio.run(act())


def test_compaction_waits_for_a_long_command(tmp_path: Path) -> None:
    """What a compaction goes over in slices is not gone over while a revision is half there."""

    async def act() -> None:
        async with _in_the_midst(tmp_path / "state", _DELETE) as (lab, deleting):
            lab.state.store.slices.append(iter([None]))
            for _ in range(3):
                lab.engine.slicing._run()
            assert lab.state.store.slices

            _run_steps(lab)
            await deleting
            lab.engine.slicing._run()
            lab.engine.slicing._run()

            assert not lab.state.store.slices

    asyncio.run(act())


@pytest.mark.parametrize("command", [_DELETE, _REVOKE])
def test_long_command_is_whole_after_a_crash(tmp_path: Path, command: Message) -> None:
    """A member that ends in the midst carries it out at its next start, in steps or at once."""

    async def act() -> None:
        async with _in_the_midst(tmp_path / "state", command) as (lab, _):
            lab.held.pop()()
        async with running(tmp_path / "state") as lab:
            assert _count(lab) == 0
            assert lab.state.store.revision == _KEYS + 2
            assert value_of(lab.state, b"k/00") is None
            await lab.put(b"k/00", b"again")
            await lab.flushed()
        async with running(tmp_path / "state") as lab:
            assert _count(lab) == 1

    asyncio.run(act())


# --- many commands, and large flushes -----------------------------------------------------------


def test_many_commands_are_applied_in_turns(tmp_path: Path) -> None:
    """A batch that takes long is answered bit by bit, and keys are read between its parts."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            lab.held = []
            lab.glance_ns = 6_000_000
            told = [lab.submit_put(b"k/%02d" % n, b"v") for n in range(_KEYS)]
            lab.engine.end_turn()
            await eventually(lambda: lab.held)
            turns = 0
            while lab.held:
                turns += 1
                done = sum(each.done() for each in told)
                assert done == _count(lab) == lab.state.store.revision - 1
                assert lab.engine.can_read_keys()
                assert not lab.engine.can_read()
                (step,) = lab.held
                lab.held.clear()
                step()

            outcomes = await asyncio.gather(*told)

            assert turns > _KEYS // 4
            assert [each.revision for each in outcomes if isinstance(each, Answer)] == list(
                range(2, _KEYS + 2)
            )
            assert lab.engine.can_read()

    asyncio.run(act())


def test_large_flush_is_packed_in_turns(tmp_path: Path) -> None:
    """What is written while a flush is packed is not in it, and all of it is there afterwards."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            await lab.flushed()
            # Nothing is flushed but where this says so.
            for timer in lab.engine.timers._timers:
                timer.cancel()
            told = [lab.submit_put(b"k/%04d" % n, b"v") for n in range(_MANY)]
            lab.engine.end_turn()
            await asyncio.gather(*told)
            lab.held, lab.glance_ns = [], 3_000_000

            lab.engine.flushing.begin()
            assert lab.held
            assert lab.state.records.unflushed_bytes
            await lab.put(b"k/0000", b"later")
            turns = 0
            while lab.held:
                turns += 1
                lab.held.pop()()
            await eventually(lambda: not lab.engine.flushing.is_under_way)

            # Records of a piece each, and the rows of the index.
            assert turns >= 3
            assert next(iter(lab.state.records.fresh.values()))[1].endswith(b"later")
            assert len(lab.state.records.fresh) == 1
        async with running(tmp_path / "state") as lab:
            assert value_of(lab.state, b"k/0000") == b"later"
            assert value_of(lab.state, b"k/%04d" % (_MANY - 1)) == b"v"
            assert _count(lab) == _MANY

    asyncio.run(act())

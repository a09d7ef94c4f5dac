"""Replica and engine with real disk processes: durable before told, full disks, dead processes."""

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path

import lmdb
import pytest
from core.engine_lab import (
    KEK,
    TABLES_BYTES_MAX,
    entries_on_disk,
    eventually,
    running,
    value_of,
    wal_of,
)
from support.disk import small_disk_at

from kvsecure.core.entry import envelope
from kvsecure.core.raft.node import HardState, Ready
from kvsecure.core.replica import encode_frame
from kvsecure.crypto.keyring import Keyring
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, Index, MemberId, Term
from kvsecure.model.limits import (
    PROPOSALS_PENDING_MAX,
    REQUEST_BYTES_MAX_DEFAULT,
    REQUEST_TIMEOUT_S,
    UNFLUSHED_BYTES_MAX,
)
from kvsecure.proto import kv_pb2, lease_pb2
from kvsecure.storage.segments import SegmentWriter, recover
from kvsecure.storage.worker import FAILED, Order, Report


def _failure(outcome: object) -> Failure:
    assert isinstance(outcome, Refused)
    return outcome.failure


# --- durable before told ------------------------------------------------------------------------


def test_engine_tells_an_outcome_only_when_it_is_on_the_disk(tmp_path: Path) -> None:
    """At the moment an answer is given, a copy of the log's files holds the command."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for number in range(20):
                value = b"value %d." % number
                told = lab.submit_put(b"k", value)
                seen: list[bool] = []
                told.add_done_callback(
                    lambda _, value=value, seen=seen: seen.append(
                        any(
                            value in entry
                            for run in entries_on_disk(tmp_path / "state")
                            for entry in run
                        )
                    )
                )
                lab.engine.end_turn()
                assert not told.done()
                assert isinstance(await told, Answer)
                await asyncio.sleep(0)
                assert seen == [True]

    asyncio.run(act())


@pytest.mark.parametrize(("number", "ends"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_engine_does_not_try_for_ever_to_write_tables(
    tmp_path: Path, number: int, *, ends: bool
) -> None:
    """A flush is tried again when there may be room; any other failure ends the member."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            await lab.put(b"k", b"v")
            lab.engine.flushing.begin()
            assert lab.engine.flushing.is_under_way

            lab.engine._on_table_report(Report.FAILED, FAILED.pack(number) + b"why")

            assert lab.fatal == (["the tables cannot be written: why"] if ends else [])

    asyncio.run(act())


def test_engine_proposes_a_turn_as_one_frame_and_collects_meanwhile(tmp_path: Path) -> None:
    """What one turn collected is one frame, and all that came during its sync is the next."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            first = [lab.submit_put(b"a%d" % n, b"v") for n in range(40)]
            lab.engine.end_turn()
            later = []
            for turn in range(5):
                later += [lab.submit_put(b"b%d-%d" % (turn, n), b"v") for n in range(10)]
                lab.engine.end_turn()
            outcomes = await asyncio.gather(*first, *later)

            frames = [len(frame) for frame in entries_on_disk(tmp_path / "state")]
            assert frames[-2:] == [40, 50]
            revisions = [outcome.revision for outcome in outcomes if isinstance(outcome, Answer)]
            assert revisions == list(range(2, 92))
            assert [proposal.context for proposal, _ in lab.told] == [*first, *later]

    asyncio.run(act())


def test_engine_has_after_a_restart_what_it_told(tmp_path: Path) -> None:
    """Flushed or not, everything that was answered is there again, in a later term."""

    async def act() -> None:
        revision, term, expected = 1, 0, {}
        for start in range(4):
            async with running(tmp_path / "state") as lab:
                assert lab.engine.can_read()
                assert lab.state.store.revision == revision
                assert lab.engine.replica.node.term > term
                assert all(value_of(lab.state, key) == value for key, value in expected.items())
                term = lab.engine.replica.node.term
                for number in range(10):
                    key, value = b"%d" % (number % 4), b"%d-%d" % (start, number)
                    revision = (await lab.put(key, value)).revision
                    expected[key] = value
                    if number == 5 and start % 2:
                        await lab.flushed()

    asyncio.run(act())


def test_engine_restarts_with_the_leases_that_it_granted(tmp_path: Path) -> None:
    """A lease with its keys is there again from the log, and again from the tables."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            told = [
                lab.submit(lease_pb2.LeaseGrantRequest(ID=5, TTL=100)),
                lab.submit(kv_pb2.PutRequest(key=b"k", value=b"v", lease=5)),
            ]
            lab.engine.end_turn()
            assert all(isinstance(outcome, Answer) for outcome in await asyncio.gather(*told))
        for _ in range(2):
            async with running(tmp_path / "state") as lab:
                space = next(s for s in lab.state.store.spaces() if 5 in s.leases)
                assert set(space.leases.keys_of(5)) == {b"k"}
                await lab.flushed()

    asyncio.run(act())


def test_engine_is_readable_only_once_it_leads(tmp_path: Path) -> None:
    """Before an entry of its own term is committed nobody reads, and whoever waited is resumed."""

    async def act() -> None:
        async with running(tmp_path / "state", leads=False) as lab:
            resumed = []
            assert not lab.engine.can_read()
            assert not lab.engine.has_leader
            lab.engine.when_readable(lambda: resumed.append(lab.engine.can_read()))

            await eventually(lab.engine.can_read)

            assert resumed == [True]

    asyncio.run(act())


# --- bounds -------------------------------------------------------------------------------------


def test_engine_takes_only_so_many_commands(tmp_path: Path) -> None:
    """More commands than the bound are refused, and those before it are carried out."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            told = [lab.submit_put(b"k", b"v") for _ in range(PROPOSALS_PENDING_MAX)]
            with pytest.raises(Refused) as caught:
                lab.submit_put(b"k", b"v")
            assert caught.value.failure is Failure.TOO_MANY_REQUESTS

            lab.engine.end_turn()
            await asyncio.gather(*told)

            assert lab.engine.pending_count == 0
            assert (await lab.put(b"k", b"v")).revision == PROPOSALS_PENDING_MAX + 2

    asyncio.run(act())


def test_engine_takes_only_so_many_bytes(tmp_path: Path) -> None:
    """Large commands are refused long before they are more than one write can hold."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            # All share one buffer here, as they would not in life.
            large = bytes(REQUEST_BYTES_MAX_DEFAULT)
            os.kill(lab.restored.log.pid, signal.SIGSTOP)
            told = [lab.submit_put(b"k", b"v")]
            lab.engine.end_turn()
            refused = None
            while refused is None and len(told) < PROPOSALS_PENDING_MAX:
                try:
                    told.append(lab.submit_entry(large))
                except Refused as error:
                    refused = error
                lab.engine.end_turn()
            assert refused is not None
            assert refused.failure is Failure.TOO_MANY_REQUESTS
            assert len(told) * len(large) <= UNFLUSHED_BYTES_MAX + 3 * len(large)
            os.kill(lab.restored.log.pid, signal.SIGKILL)

    asyncio.run(act())


def test_engine_takes_bytes_again_when_others_are_written(tmp_path: Path) -> None:
    """What has been written, or given back, does not count against the bound any more."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for _ in range(3):
                told = [lab.submit_put(b"k", bytes(100_000)) for _ in range(20)]
                lab.engine.end_turn()
                await asyncio.gather(*told)
                lab.submit_put(b"k", bytes(100_000))
                assert len(lab.engine.drop_turn()) == 1
            assert lab.engine._pending_bytes == 0
            assert lab.engine.pending_count == 0

    asyncio.run(act())


# --- full and broken disks ----------------------------------------------------------------------


def test_engine_on_a_full_disk_refuses_and_finishes_who_waits(tmp_path: Path) -> None:
    """New commands are NO_SPACE, those on their way finish once there is room, each once."""

    async def act() -> None:
        with small_disk_at(tmp_path / "state", 512 * 1024) as disk:
            async with running(disk.path) as lab:
                await lab.put(b"before", b"v")
                await lab.flushed()
                disk.fill()
                waiting = [lab.submit_put(b"w%d" % n, b"v" * 3_000) for n in range(8)]
                lab.engine.end_turn()
                await eventually(lambda: lab.engine._disk_full)
                with pytest.raises(Refused) as caught:
                    lab.submit_put(b"new", b"v")
                assert caught.value.failure is Failure.NO_SPACE
                assert not any(told.done() for told in waiting)
                assert lab.engine.can_read()
                assert value_of(lab.state, b"before") == b"v"

                disk.make_room()
                outcomes = await asyncio.gather(*waiting)
                assert [o.revision for o in outcomes if isinstance(o, Answer)] == list(range(3, 11))
                assert (await lab.put(b"after", b"v")).revision == 11
                assert not lab.fatal
            async with running(disk.path) as lab:
                assert lab.state.store.revision == 11
                assert value_of(lab.state, b"w7") == b"v" * 3_000

    asyncio.run(act())


def test_engine_tells_who_waited_too_long_and_no_more(tmp_path: Path) -> None:
    """Who waits longer than the bound is told TIMEOUT once; the command may still be done."""

    async def act() -> None:
        with small_disk_at(tmp_path / "state", 512 * 1024) as disk:
            async with running(disk.path) as lab:
                await lab.flushed()
                disk.fill()
                told = lab.submit_put(b"k", b"v" * 9_000)
                lab.engine.end_turn()
                lab.forward_ns += int((REQUEST_TIMEOUT_S + 1) * 1e9)

                assert _failure(await told) is Failure.TIMEOUT
                disk.make_room()
                await eventually(lambda: value_of(lab.state, b"k") == b"v" * 9_000)
                assert len(lab.told) == 1
                assert lab.engine.pending_count == 0

    asyncio.run(act())


def test_engine_goes_on_while_the_tables_cannot_be_written(tmp_path: Path) -> None:
    """With the tables' disk full commands are answered and survive; with room they are flushed."""

    async def act() -> None:
        state = tmp_path / "state"
        async with running(state):
            pass
        shutil.rmtree(state / "tables")
        with small_disk_at(state / "tables", 256 * 1024) as disk:
            async with running(state) as lab:
                await lab.flushed()
                disk.fill()
                for number in range(10):
                    await lab.put(b"k%d" % number, b"v" * 2_000)
                await eventually(lambda: lab.engine.flushing.is_under_way)
                await lab.put(b"more", b"v")
                assert lab.state.dirty
                assert not lab.fatal

                disk.make_room()
                await lab.flushed()
                assert value_of(lab.state, b"k9") == b"v" * 2_000
            async with running(state) as lab:
                assert lab.state.store.revision == 12

    asyncio.run(act())


@pytest.mark.parametrize("which", ["log", "tables"])
def test_engine_stops_when_a_disk_process_is_killed(tmp_path: Path, which: str) -> None:
    """Without a disk process nothing more is taken or answered, and the reason is told once."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            await lab.put(b"k", b"v")
            link = lab.restored.log if which == "log" else lab.restored.tables
            os.kill(link.pid, signal.SIGKILL)
            await eventually(lambda: lab.fatal)

            with pytest.raises(Refused) as caught:
                lab.submit_put(b"k", b"w")
            assert caught.value.failure is Failure.STOPPED
            assert lab.fatal == [f"the {'log' if which == 'log' else 'table'} process ended"]
        async with running(tmp_path / "state") as lab:
            assert value_of(lab.state, b"k") == b"v"

    asyncio.run(act())


def test_engine_answers_nothing_that_a_killed_log_process_had_not_confirmed(
    tmp_path: Path,
) -> None:
    """A command that was with the log process when it was killed is never told to be done."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            os.kill(lab.restored.log.pid, signal.SIGSTOP)
            told = [lab.submit_put(b"k%d" % n, b"v") for n in range(3)]
            lab.engine.end_turn()
            os.kill(lab.restored.log.pid, signal.SIGKILL)
            await eventually(lambda: lab.fatal)

            assert not any(one.done() for one in told)
            assert not lab.told
        async with running(tmp_path / "state") as lab:
            assert lab.state.store.revision in {1, 4}

    asyncio.run(act())


def test_engine_stops_when_a_sync_fails(tmp_path: Path) -> None:
    """After a sync that failed nobody knows what is durable: the member stops, unanswered."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            # Nothing can be made durable in a device that keeps nothing.
            lab.restored.log.send(Order.AUDIT, b"/dev/null")
            told = lab.submit_put(b"k", b"v")
            lab.engine.end_turn()
            await eventually(lambda: lab.fatal)

            assert not told.done()
            assert os.strerror(errno.EINVAL) in lab.fatal[0]

    asyncio.run(act())


def test_engine_stops_waiting_to_lead_when_it_is_stopped(tmp_path: Path) -> None:
    """A start that cannot end, on a full disk or without its log process, ends with the engine."""

    async def act() -> None:
        with small_disk_at(tmp_path / "state", 512 * 1024) as disk:
            async with running(disk.path) as lab:
                await lab.put(b"k", b"v")
            disk.fill()
            async with running(disk.path, leads=False) as lab:
                await eventually(lambda: lab.engine._disk_full)
                assert not lab.starting.done()
                lab.engine.stop()
                await asyncio.wait_for(lab.starting, 5)
            async with running(disk.path, leads=False) as lab:
                os.kill(lab.restored.log.pid, signal.SIGKILL)
                await asyncio.wait_for(lab.starting, 5)
                assert lab.fatal == ["the log process ended"]
            async with running(disk.path, leads=False) as lab:
                await eventually(lambda: lab.engine._disk_full)
                disk.make_room()
                await asyncio.wait_for(lab.starting, 5)
                assert value_of(lab.state, b"k") == b"v"

    asyncio.run(act())


# --- what cannot be read ------------------------------------------------------------------------


def test_engine_names_an_entry_that_it_cannot_read(tmp_path: Path) -> None:
    """A log with a command of another version stops the member with a text that says so."""

    async def act() -> None:
        state = tmp_path / "state"
        async with running(state) as lab:
            await lab.put(b"k", b"v")
            index, term = lab.state.index, lab.engine.replica.node.term
        caller = envelope(Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0))
        _append_entry(state, Index(index + 1), term, b"\x01\xfe" + caller)
        before = entries_on_disk(state)

        async with running(state, leads=False) as lab:
            await eventually(lambda: lab.fatal)

            assert "an entry of the log cannot be read" in lab.fatal[0]
            assert f"entry {index + 1}" in lab.fatal[0]
        assert list(entries_on_disk(state))[: len(before)] == list(before)

    asyncio.run(act())


def _append_entry(state: Path, index: Index, term: Term, entry: bytes) -> None:
    """Append one entry to a log, as a member of another version would have."""
    keyring = Keyring.open((state / "keyring").read_bytes(), KEK)
    place = wal_of(state)
    tail = recover(place, keyring, lambda _: None)
    assert tail.following == index
    writer = SegmentWriter(place, tail, place.root_key(keyring, 1), term=1, bytes_max=1 << 20)
    ready = Ready(HardState(term, MemberId(0xBEEF), index), index, term, [entry])
    writer.append(1, encode_frame(ready))
    writer.close()


def test_engine_stops_when_a_command_needs_a_row_that_is_damaged(tmp_path: Path) -> None:
    """A command that has to read a record which does not open stops the member and says why."""

    async def act() -> None:
        state = tmp_path / "state"
        async with running(state) as lab:
            await lab.put(b"k", b"v")
            await lab.flushed()
        _damage_records(state)
        async with running(state) as lab:
            told = lab.submit(kv_pb2.PutRequest(key=b"k", value=b"w", prev_kv=True))
            lab.engine.end_turn()
            await eventually(lambda: lab.fatal)

            assert not told.done()
            assert "a row of RECORDS does not open" in lab.fatal[0]
            assert "Restore" in lab.fatal[0]

    asyncio.run(act())


def _damage_records(state: Path) -> None:
    """Change a byte of every record behind the seal's back."""
    env = lmdb.open(str(state / "tables"), max_dbs=8, map_size=TABLES_BYTES_MAX)
    with env.begin(write=True) as transaction:
        db = env.open_db(b"records", txn=transaction)
        for key, row in list(transaction.cursor(db=db)):
            transaction.put(key, row[:-1] + bytes((row[-1] ^ 1,)), db=db)
    env.close()

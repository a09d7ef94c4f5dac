"""The member's end of scans, with real processes: one at a time, gone afterwards."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from core.engine_lab import TABLES_BYTES_MAX, WANTED, EngineLab, eventually, running, value_of

from kvsecure.core.scans import Place, Scans
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto import kv_pb2
from kvsecure.storage.rows import Table


def _scans(lab: EngineLab) -> Scans:
    keyring = lab.directory.keyring
    place = Place(
        directory=lab.directory.tables,
        cluster=WANTED.cluster,
        size_bytes_max=TABLES_BYTES_MAX,
        keys=lambda: {
            term: keyring.data_key(term, purpose="table") for term, _, _ in keyring.terms
        },
        backup=dict,
    )
    return Scans(lab.engine, place)


def test_survey_counts_all_that_was_applied_when_it_was_asked_for(tmp_path: Path) -> None:
    """What has not been flushed yet is flushed first, and what comes later does not count."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            scans = _scans(lab)
            for number in range(50):
                await lab.put(b"k%d" % number, b"v")
            first = asyncio.ensure_future(scans.survey())
            await asyncio.sleep(0)
            await lab.put(b"later", b"v")

            assert (await first).through == 51
            assert (await first).versions_hash == (await scans.survey(51)).versions_hash
            assert (await first).versions_hash != (await scans.survey()).versions_hash

    asyncio.run(act())


def test_survey_has_the_compaction_behind_it(tmp_path: Path) -> None:
    """A compaction that was asked for before is in the tables, and the answer says which."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for _ in range(30):
                await lab.put(b"k", b"v")
            told = lab.submit(kv_pb2.CompactionRequest(revision=25))
            lab.engine.end_turn()
            await told
            found = await _scans(lab).survey()

            assert (found.compacted, found.version_count) == (25, 7)

    asyncio.run(act())


def test_scans_wait_for_each_other_and_not_too_many(tmp_path: Path) -> None:
    """Eight may wait for their turn; whoever comes then is refused."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            scans = _scans(lab)
            await lab.put(b"k", b"v")
            waiting = [asyncio.ensure_future(scans.survey()) for _ in range(8)]
            await asyncio.sleep(0)

            with pytest.raises(Refused) as refused:
                await scans.survey()
            assert refused.value.failure is Failure.TOO_MANY_REQUESTS
            hashes = {(await each).hash for each in waiting}
            assert len(hashes) == 1

    asyncio.run(act())


def _open_and_gone(directory: Path) -> list[str]:
    """Return the files below a directory that are deleted, and that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [each for each in found if each.startswith(str(directory)) and "(deleted)" in each]


def test_engine_reads_and_flushes_the_tables_that_took_the_old_ones_place(tmp_path: Path) -> None:
    """Records from before are found after a defragmentation, and new ones reach the new file."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            scans = _scans(lab)
            for number in range(200):
                await lab.put(b"k%d" % number, b"v" * 5_000)
            await lab.flushed()
            for _ in range(3):
                await scans.defragment()
                await lab.put(b"after", b"1")
                await lab.flushed()
            assert lab.state.records.cached_bytes == 0
            await eventually(lambda: not _open_and_gone(tmp_path))

            assert value_of(lab.state, b"k7") == b"v" * 5_000
            await scans.survey()
            assert lab.fatal == []
        async with running(tmp_path / "state") as again:
            assert value_of(again.state, b"after") == b"1"
            assert value_of(again.state, b"k199") == b"v" * 5_000

    asyncio.run(act())


def test_a_scan_leaves_no_process_behind_when_it_is_given_up(tmp_path: Path) -> None:
    """Whoever goes away takes the process along, and compactions go on."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            scans = _scans(lab)
            await lab.put(b"k", b"v")
            for delay_s in (0.0, 0.001, 0.02, 0.05):
                work = asyncio.ensure_future(scans.survey())
                await asyncio.sleep(delay_s)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
                assert not lab.engine.slicing._holds
            assert (await scans.survey()).version_count == 1
            await eventually(lambda: not lab.engine.slicing._holds)

    asyncio.run(act())


def test_compactions_wait_until_a_scan_has_fixed_what_it_reads(tmp_path: Path) -> None:
    """A compaction that comes in between is applied at once, and its slices wait."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for _ in range(30):
                await lab.put(b"k", b"v")
            release, compacted = await _scans(lab)._rest()
            told = lab.submit(kv_pb2.CompactionRequest(revision=25))
            lab.engine.end_turn()
            await told
            await lab.put(b"later", b"v")
            await lab.flushed()

            assert compacted == -1
            assert lab.state.store.compacted == 25
            assert lab.state.store.slices
            assert lab.restored.reader.count(Table.RECORDS) == 31
            release()
            await eventually(lambda: not lab.state.store.slices)

    asyncio.run(act())

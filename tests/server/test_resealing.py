"""How far the tables are sealed anew: taken up where it was, or begun again if nobody can say."""

import asyncio
import json
from pathlib import Path

import pytest
from core.engine_lab import KEK, EngineLab, running
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.engine import Engine
from kvsecure.crypto.keyring import Keyring
from kvsecure.model.ids import ClusterId
from kvsecure.proto.crypto_pb2 import CryptoProgress
from kvsecure.server.resealing import Resealing
from kvsecure.storage.rows import Table
from kvsecure.storage.tables import TableReader

_NOTE = {"after": "00" * 12, "rate": 10, "rows": 5, "state": 1, "term": 2, "why": ""}


class _Note:
    """Tables of which only the note is read."""

    def __init__(self, note: bytes) -> None:
        self._note = note

    def progress(self) -> bytes:
        return self._note


def _taken_up(note: bytes) -> CryptoProgress:
    ring = Keyring.create(KEK, ClusterId(1))
    engine: Engine = object()  # type: ignore[assignment]  # it is not asked for anything
    reader: TableReader = _Note(note)  # type: ignore[assignment]  # as much of it as is used
    return Resealing(ring, engine, reader).progress


def test_note_is_taken_up() -> None:
    """A run goes on with what the one before has stored."""
    progress = _taken_up(json.dumps(_NOTE).encode())

    assert (progress.state, progress.term, progress.rows) == (CryptoProgress.RUNNING, 2, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"state": 9},
        {"state": 1e999},
        {"term": -1},
        {"rows": 1 << 70},
        {"rate": None},
        {"after": "x"},
        {"after": 5},
    ],
    ids=str,
)
def test_note_that_is_none_is_as_if_there_were_none(change: dict[str, object]) -> None:
    """A member starts with any note, and begins again when it is told to."""
    assert _taken_up(json.dumps(_NOTE | change).encode()) == CryptoProgress()


@given(note=st.binary(max_size=40) | st.just(b"[" * 50_000))
def test_any_bytes_are_no_note(note: bytes) -> None:
    """Nothing on the disk makes a start fail here."""
    assert _taken_up(note) == CryptoProgress()


async def _rotate(lab: EngineLab) -> None:
    ring = lab.directory.keyring
    ring.become(ring.rotated(KEK, now_s=0))
    term = ring.current_term
    lab.engine.rekey(term, ring.data_key(term, purpose="wal"), ring.data_key(term, purpose="table"))


def _terms(lab: EngineLab) -> set[int]:
    reader = lab.restored.reader
    return {term for table in Table for _, term in reader.terms(table, b"", 10_000)}


def test_round_that_leaves_something_is_followed_by_another(tmp_path: Path) -> None:
    """What became old while it was on its way is found by the count, and done in the next round."""

    async def act() -> tuple[bool, set[int], list[str]]:
        async with running(tmp_path / "state") as lab:
            for number in range(50):
                await lab.put(b"k%d" % number, b"v")
            await lab.flushed()
            await _rotate(lab)
            resealing = Resealing(lab.directory.keyring, lab.engine, lab.restored.reader)
            await resealing.begin(1_000_000)
            said: list[str] = []

            async def left() -> str:
                if not said:
                    # Another rotation in the midst: everything is under an old key again.
                    await _rotate(lab)
                await resealing.wait_written()
                old = _terms(lab) - {lab.directory.keyring.current_term}
                said.append(f"{sorted(old)}" if old else "")
                return said[-1]

            done = await resealing.run(left)
            assert not await resealing.run(left)
            assert resealing.progress.state == CryptoProgress.DONE
            return done, _terms(lab), said

    done, terms, said = asyncio.run(act())

    assert done
    assert terms == {3}
    assert said == ["[2]", ""]


def test_what_can_never_be_done_is_told_and_ends(tmp_path: Path) -> None:
    """After some rounds it fails with what is left, and can be begun again."""

    async def act() -> CryptoProgress:
        async with running(tmp_path / "state") as lab:
            await lab.put(b"k", b"v")
            await lab.flushed()
            resealing = Resealing(lab.directory.keyring, lab.engine, lab.restored.reader)
            await resealing.begin(1_000_000)

            async def left() -> str:
                return "7 rows of records"

            await resealing.run(left)
            failed = CryptoProgress.FromString(resealing.progress.SerializeToString())
            again = await resealing.begin(5)
            assert (again.state, again.why) == (CryptoProgress.RUNNING, "")
            return failed

    failed = asyncio.run(act())

    assert failed.state == CryptoProgress.FAILED
    assert failed.why == "there is still something under older terms: 7 rows of records"

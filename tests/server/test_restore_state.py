"""Restoring: what tables and log have to be to each other, and what is refused unchanged."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest
from core.engine_lab import TABLES_BYTES_MAX, running, value_of, wal_of
from server.restoring import LATER, SOONER, past_of, restored_from
from storage.segments_lab import contents_of

from kvsecure.storage.segment import HEADER_BYTES
from kvsecure.storage.segments import list_segments

# What opening LMDB changes, and the lock: neither holds anything.
_LOCKS = {"LOCK", "tables/lock.mdb"}


@pytest.fixture(scope="module")
def _past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("past") / "state"
    past_of(path)
    return path


@pytest.fixture
def state(_past: Path, tmp_path: Path) -> Path:
    """A copy of a data directory with a past, and beside it the copies of its parts."""
    for name in ("state", "tables-1", "tables-2", "wal-2"):
        shutil.copytree(_past.with_name(name), tmp_path / name)
    return tmp_path / "state"


def _replace(path: Path, by: str) -> None:
    shutil.rmtree(path)
    shutil.copytree(path.parent.with_name(by), path)


def _contents(path: Path) -> dict[str, bytes]:
    return {name: text for name, text in contents_of(path).items() if name not in _LOCKS}


def _refused(path: Path, *texts: str) -> None:
    """Check that a directory is refused in these words, and not changed."""
    before = _contents(path)

    found = restored_from(path)

    assert all(text in found.get("error", "") for text in texts), found
    assert _contents(path) == before


def _values(path: Path) -> dict[bytes, bytes | None]:
    async def act() -> dict[bytes, bytes | None]:
        async with running(path) as lab:
            return {key: value_of(lab.state, key) for key in [*SOONER, *LATER]}

    return asyncio.run(act())


def _everything() -> dict[bytes, bytes | None]:
    return {key: key for key in [*SOONER, *LATER]}


# --- what is accepted ---------------------------------------------------------------------------


def test_restore_of_nothing_is_a_new_member(tmp_path: Path) -> None:
    """An empty directory gives an empty state, and again until something was written to it."""
    for _ in range(2):
        found = restored_from(tmp_path / "state")
        assert found["is_new"]
        assert (found["index"], found["revision"], found["last"]) == (0, 1, 0)


def test_restore_finds_what_was_flushed(state: Path) -> None:
    """Tables that hold everything give it back, and the log has nothing to add."""
    found = restored_from(state)

    assert not found["is_new"]
    assert found["index"] == found["last"] == found["committed"]
    assert found["revision"] == 1 + len(SOONER) + len(LATER) + 3
    assert found["cut_bytes"] == 0
    assert _values(state) == _everything()


def test_restore_adds_the_log_to_tables_that_are_behind(state: Path) -> None:
    """Tables that end before the log are brought up to it."""
    _replace(state / "tables", "tables-2")

    found = restored_from(state)

    assert found["index"] < found["last"]
    assert found["sooner"]
    assert _values(state) == _everything()
    assert _values(state) == _everything()


def test_restore_without_tables_replays_a_whole_log(tmp_path: Path) -> None:
    """Tables that were never written are made from a log that begins at the beginning."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for key in SOONER:
                await lab.put(key, key)

    asyncio.run(act())
    shutil.rmtree(tmp_path / "state" / "tables")

    values = _values(tmp_path / "state")

    assert all(values[key] == key for key in SOONER)


def test_restore_cuts_a_torn_tail_and_says_how_much(state: Path) -> None:
    """The beginning of a write that never finished is cut off; everything before it is there."""
    newest = list_segments(wal_of(state))[-1].path
    with newest.open("ab") as last:
        last.write(os.urandom(17))

    found = restored_from(state)

    assert found["cut_bytes"] == 17
    assert _values(state) == _everything()


# --- what is refused ----------------------------------------------------------------------------


def test_restore_without_the_log_is_refused(state: Path) -> None:
    """Tables without any log are refused: the log may have held more."""
    for segment in list_segments(wal_of(state)):
        segment.path.unlink()

    _refused(state, "the write-ahead log is missing", "Restore the data directory from a backup")


def test_restore_of_a_log_that_ends_before_the_tables_is_refused(state: Path) -> None:
    """A log without entries that the tables have is refused: its end was cut off."""
    newest = list_segments(wal_of(state))[-1].path
    os.truncate(newest, HEADER_BYTES)

    _refused(state, "its end was cut off", "Restore the data directory from a backup")


def test_restore_of_a_torn_log_that_ends_before_the_tables_cuts_nothing(state: Path) -> None:
    """A log whose end is missing in the middle of a frame is refused as it is, tail included."""
    newest = list_segments(wal_of(state))[-1].path
    os.truncate(newest, HEADER_BYTES + 9)

    _refused(state, "its end was cut off", "Restore the data directory from a backup")


def test_restore_without_tables_from_an_empty_segment_is_refused(state: Path) -> None:
    """A newest segment that holds nothing yet does not stand for a new cluster."""
    newest = list_segments(wal_of(state))[-1].path
    os.truncate(newest, HEADER_BYTES)
    shutil.rmtree(state / "tables")
    (state / "tables").mkdir(mode=0o700)

    found = restored_from(state)

    assert "entries 1 to " in found.get("error", ""), found


def test_restore_of_an_older_log_is_refused(state: Path) -> None:
    """A log of an earlier day under the tables of today is refused."""
    _replace(state / "wal", "wal-2")

    _refused(state, "its end was cut off", "Restore the data directory from a backup")


def test_restore_of_tables_older_than_the_log_is_refused(state: Path) -> None:
    """Tables from before the oldest entry of the log are refused, with the entries that lack."""
    _replace(state / "tables", "tables-1")

    _refused(state, "entries ", " are missing", "Restore the data directory from a backup")


def test_restore_without_tables_from_a_purged_log_is_refused(state: Path) -> None:
    """A log whose beginning was purged does not stand for tables that are gone."""
    shutil.rmtree(state / "tables")
    (state / "tables").mkdir(mode=0o700)

    found = restored_from(state)

    assert "entries 1 to " in found.get("error", "")


def test_restore_of_another_directorys_log_is_refused(state: Path, tmp_path: Path) -> None:
    """A log that another directory wrote, under the same names, is refused."""
    past_of(tmp_path / "other" / "state")
    shutil.rmtree(state / "wal")
    shutil.copytree(tmp_path / "other" / "state" / "wal", state / "wal")

    _refused(state, "fails its seal", "Restore the data directory from a backup")


def test_restore_of_another_directorys_tables_is_refused(state: Path, tmp_path: Path) -> None:
    """Tables that another directory of the same ids wrote do not open."""
    past_of(tmp_path / "other" / "state")
    shutil.rmtree(state / "tables")
    shutil.copytree(tmp_path / "other" / "state" / "tables", state / "tables")

    _refused(state, "the tables are damaged", "Restore the data directory from a backup")


@pytest.mark.parametrize("table", [b"state", b"index"])
def test_restore_of_damaged_rows_is_refused(state: Path, table: bytes) -> None:
    """A row that does not open, of the state or of the index, is refused."""
    _change_rows(state, table, lambda row: row[:-1] + bytes((row[-1] ^ 1,)))

    _refused(state, "the tables are damaged", "Restore the data directory from a backup")


def test_restore_of_tables_without_their_index_row_is_refused(state: Path) -> None:
    """Tables that do not say how far the log is applied are refused."""
    _change_rows(state, b"state", lambda _: None, only=b"A")

    _refused(state, "does not say how far the log is applied")


def _change_rows(state: Path, table: bytes, change: Any, only: bytes = b"") -> None:
    env = lmdb.open(str(state / "tables"), max_dbs=8, map_size=TABLES_BYTES_MAX)
    with env.begin(write=True) as transaction:
        db = env.open_db(table, txn=transaction)
        for key, row in list(transaction.cursor(db=db)):
            if key.startswith(only):
                changed = change(row)
                if changed is None:
                    transaction.delete(key, db=db)
                else:
                    transaction.put(key, changed, db=db)
    env.close()

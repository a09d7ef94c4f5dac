"""Sealed tables: rows come back where they were put, and nowhere else."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage.segments_lab import CLUSTER, KEYS
from support.disk import small_disk_at

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import StorageError
from kvsecure.storage.rows import (
    NO_SCOPE,
    Row,
    Table,
    pack_record_deletions,
    pack_records,
    pack_rows,
    unpack_rows,
)
from kvsecure.storage.tables import TableReader, TableWriter

_BYTES_MAX = 64 * 1024 * 1024
_rows = st.lists(
    st.builds(
        Row,
        st.sampled_from(Table),
        st.binary(min_size=1, max_size=40),
        st.integers(0, 2**32 - 1),
        st.none() | st.binary(max_size=80),
    ),
    max_size=10,
)


def _writer(directory: Path, *, size_bytes_max: int = _BYTES_MAX) -> TableWriter:
    directory.mkdir(exist_ok=True)
    data_key = KEYS.data_key(1, purpose="table")
    return TableWriter(directory, CLUSTER, data_key, term=1, size_bytes_max=size_bytes_max)


def _reader(directory: Path, cluster: ClusterId = CLUSTER, keys: Keyring = KEYS) -> TableReader:
    return TableReader(directory, cluster, keys, size_bytes_max=_BYTES_MAX)


def _write(directory: Path, *rows: Row) -> None:
    writer = _writer(directory)
    writer.write(rows)
    writer.close()


def _bend(directory: Path, table: Table, act: Callable[[bytes], bytes], key: bytes = b"k") -> None:
    """Change a stored row behind the seal's back."""
    env = lmdb.open(str(directory), max_dbs=8, map_size=_BYTES_MAX)
    with env.begin(write=True) as transaction:
        db = env.open_db(table.name.lower().encode(), txn=transaction)
        transaction.put(key, act(bytes(transaction.get(key, db=db) or b"")), db=db)
    env.close()


_WRITER_PROCESS = """
import sys
from pathlib import Path
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret
from kvsecure.storage.rows import Row, Table
from kvsecure.storage.tables import TableWriter

key = Secret(bytes.fromhex(sys.stdin.readline()))
writer = TableWriter(
    Path(sys.argv[1]), ClusterId(int(sys.argv[2])), key, term=1, size_bytes_max=1 << 26
)
number = int(sys.argv[3])
while sys.argv[4] == "on" or sys.stdin.readline():
    number += 1
    text = b"%d" % number * 500
    writer.write(Row(Table.STATE, b"k%d" % part, 0, text) for part in range(20))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def _writer_process(directory: Path, newest: int, mode: str) -> subprocess.Popen[str]:
    """Start a process that writes version after version of twenty rows; "step": one a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER_PROCESS, directory, str(CLUSTER), str(newest), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    process.stdin.write(KEYS.data_key(1, purpose="table").reveal().hex() + "\n")
    process.stdin.flush()
    return process


def _written(process: subprocess.Popen[str], *, step: bool = False) -> int:
    """Wait for the next version that the process says is written; "step": ask for it first."""
    assert process.stdin is not None
    assert process.stdout is not None
    if step:
        process.stdin.write("\n")
        process.stdin.flush()
    return int(process.stdout.readline())


# --- rows on their way --------------------------------------------------------------------------


@given(rows=_rows)
def test_rows_survive_the_way_to_the_process_that_writes_them(rows: list[Row]) -> None:
    """What is packed is what is unpacked, deletions and empty values included."""
    assert list(unpack_rows(pack_rows(rows))) == rows


@given(
    records=st.dictionaries(
        st.binary(min_size=12, max_size=12),
        st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50)),
        max_size=8,
    )
)
def test_records_are_packed_as_rows_of_their_table(records: dict[bytes, tuple[int, bytes]]) -> None:
    """Records that come by the thousand are encoded as single rows are."""
    rows = [Row(Table.RECORDS, key, scope, value) for key, (scope, value) in records.items()]

    assert pack_records(records) == pack_rows(rows)


# --- round trips --------------------------------------------------------------------------------


def test_tables_give_back_what_was_written(tmp_path: Path) -> None:
    """Rows are found by table, key and scope, in key order, also by the next process."""
    _write(
        tmp_path,
        Row(Table.RECORDS, b"b", 7, b"two"),
        Row(Table.RECORDS, b"a", 7, b""),
        Row(Table.STATE, b"a", NO_SCOPE, b"state"),
    )
    _write(tmp_path, Row(Table.RECORDS, b"c", 7, b"x" * 5_000))

    reader = _reader(tmp_path)

    assert list(reader.scan(Table.RECORDS, 7)) == [
        (b"a", b""),
        (b"b", b"two"),
        (b"c", b"x" * 5_000),
    ]
    assert next(reader.scan(Table.RECORDS, 7, start=b"b")) == (b"b", b"two")
    assert reader.next(Table.RECORDS, b"aa", 7) == (b"b", b"two")
    assert reader.next(Table.RECORDS, b"d", 7) is None
    assert reader.next(Table.INDEX, b"", NO_SCOPE) is None
    assert reader.get(Table.STATE, b"a", NO_SCOPE) == b"state"
    assert reader.get(Table.STATE, b"b", NO_SCOPE) is None
    assert [reader.count(table) for table in Table] == [3, 0, 1]
    reader.close()


def test_tables_hold_the_last_write_of_a_row(tmp_path: Path) -> None:
    """Within one transaction and across several, a row is what was written to it last."""
    _write(
        tmp_path,
        Row(Table.STATE, b"a", NO_SCOPE, b"1"),
        Row(Table.STATE, b"a", NO_SCOPE, None),
        Row(Table.STATE, b"b", NO_SCOPE, b"1"),
    )
    _write(tmp_path, Row(Table.STATE, b"b", NO_SCOPE, b"2"), Row(Table.STATE, b"x", NO_SCOPE, None))

    reader = _reader(tmp_path)

    assert list(reader.scan(Table.STATE, NO_SCOPE)) == [(b"b", b"2")]
    reader.close()


def test_reader_sees_a_write_after_its_next_look(tmp_path: Path) -> None:
    """A reader stays at the transaction that it saw until it is told to refresh."""
    with _writer_process(tmp_path, 0, "step") as process:
        _written(process, step=True)
        reader = _reader(tmp_path)
        _written(process, step=True)

        before = reader.get(Table.STATE, b"k0", NO_SCOPE)
        reader.refresh()
        after = reader.get(Table.STATE, b"k0", NO_SCOPE)

        assert (before, after) == (b"1" * 500, b"2" * 500)
        assert reader.sizes().total >= reader.sizes().in_use > 0
        reader.close()


def test_opening_changes_nothing(tmp_path: Path) -> None:
    """A process that opens the tables and writes no row leaves their file as it was."""
    _write(tmp_path, Row(Table.STATE, b"k", NO_SCOPE, b"1"))
    before = (tmp_path / "data.mdb").read_bytes()

    _writer(tmp_path).close()
    _reader(tmp_path).close()

    assert (tmp_path / "data.mdb").read_bytes() == before


# --- seals --------------------------------------------------------------------------------------


def test_tables_show_nothing_of_a_row(tmp_path: Path) -> None:
    """A value is sealed, and the file is its owner's alone."""
    text = b"a password that nobody may read off the disk"

    _write(tmp_path, Row(Table.RECORDS, b"k", 7, text))

    content = (tmp_path / "data.mdb").read_bytes()
    assert not any(text[at : at + 6] in content for at in range(len(text) - 6))
    assert (tmp_path / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_row_opens_only_where_it_belongs(tmp_path: Path) -> None:
    """A row under another scope, key or table does not open."""
    _write(
        tmp_path,
        Row(Table.RECORDS, b"k", 7, b"mine"),
        Row(Table.RECORDS, b"other", 7, b"other"),
        Row(Table.STATE, b"k", 7, b"state"),
    )
    stored: list[bytes] = []
    _bend(tmp_path, Table.RECORDS, lambda row: stored.append(row) or row)
    _bend(tmp_path, Table.RECORDS, lambda _: stored[0], key=b"other")
    _bend(tmp_path, Table.STATE, lambda _: stored[0])

    reader = _reader(tmp_path)

    assert reader.get(Table.RECORDS, b"k", 7) == b"mine"
    for table, key, scope in [
        (Table.RECORDS, b"k", 8),
        (Table.RECORDS, b"other", 7),
        (Table.STATE, b"k", 7),
    ]:
        with pytest.raises(DamagedRow, match="does not open"):
            reader.get(table, key, scope)
    with pytest.raises(DamagedRow):
        list(reader.scan(Table.RECORDS, 7))
    with pytest.raises(DamagedRow):
        reader.next(Table.RECORDS, b"o", 7)
    reader.close()


def test_row_with_any_changed_byte_does_not_open(tmp_path: Path) -> None:
    """Whatever byte of a stored row is changed, reading it says so."""
    _write(tmp_path, Row(Table.STATE, b"k", NO_SCOPE, b"value"))
    stored: list[bytes] = []
    _bend(tmp_path, Table.STATE, lambda row: stored.append(row) or row)
    bent = [
        *(stored[0][:at] + bytes((stored[0][at] ^ 4,)) + stored[0][at + 1 :] for at in range(34)),
        *(stored[0][:length] for length in range(1, 34)),
        stored[0] + b"\0",
    ]
    assert len(stored[0]) == 34

    for row in bent:
        _bend(tmp_path, Table.STATE, lambda _, row=row: row)
        reader = _reader(tmp_path)
        with pytest.raises(DamagedRow):
            reader.get(Table.STATE, b"k", NO_SCOPE)
        reader.close()


def test_row_of_another_keyring_does_not_open(tmp_path: Path) -> None:
    """Tables of the right cluster under other keys are damaged, row by row."""
    _write(tmp_path, Row(Table.STATE, b"k", NO_SCOPE, b"value"))
    other = Keyring.create(KeyEncryptionKey(Secret(bytes(32)), "file"), CLUSTER)

    reader = _reader(tmp_path, keys=other)

    with pytest.raises(DamagedRow):
        reader.get(Table.STATE, b"k", NO_SCOPE)
    reader.close()


def test_writers_never_seal_twice_under_one_number(tmp_path: Path) -> None:
    """Rows of different processes and of failed transactions never share key and number."""
    seen: set[bytes] = set()
    for _ in range(3):
        writer = _writer(tmp_path)
        for number in range(3):
            writer.write([Row(Table.STATE, b"k%d" % number, NO_SCOPE, b"v")])
            with pytest.raises(OSError, match="BAD_VALSIZE"):
                # A key that LMDB refuses, after a row that was sealed for nothing.
                writer.write(
                    [Row(Table.STATE, b"x", NO_SCOPE, b"v"), Row(Table.STATE, b"", 0, b"v")]
                )
        writer.close()
        env = lmdb.open(str(tmp_path), max_dbs=8, map_size=_BYTES_MAX)
        with env.begin() as transaction:
            db = env.open_db(b"state", txn=transaction, create=False)
            heads = [bytes(value[:13]) for _, value in transaction.cursor(db=db)]
        env.close()
        assert len(heads) == 3
        assert seen.isdisjoint(heads)
        seen.update(heads)


# --- whose they are -----------------------------------------------------------------------------


def test_tables_of_another_cluster_are_refused(tmp_path: Path) -> None:
    """Writer and reader refuse tables of another cluster and name both."""
    _write(tmp_path, Row(Table.STATE, b"k", NO_SCOPE, b"value"))
    before = (tmp_path / "data.mdb").read_bytes()
    data_key = KEYS.data_key(1, purpose="table")

    for open_it in (
        lambda: _reader(tmp_path, ClusterId(5)),
        lambda: TableWriter(tmp_path, ClusterId(5), data_key, term=1, size_bytes_max=_BYTES_MAX),
    ):
        with pytest.raises(StorageError, match=f"belong to cluster {CLUSTER:x}, not to 5"):
            open_it()
    assert (tmp_path / "data.mdb").read_bytes() == before


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """A file of something else in the tables' place is refused by name."""
    (tmp_path / "data.mdb").write_bytes(b"x" * 8_192)

    with pytest.raises(StorageError, match=str(tmp_path)):
        _writer(tmp_path)
    with pytest.raises(StorageError, match=str(tmp_path)):
        _reader(tmp_path)


@pytest.mark.parametrize("pages", range(9))
def test_tables_are_made_whole_or_not_at_all(tmp_path: Path, pages: int) -> None:
    """Wherever making them runs out of room, nothing is left that the next start stumbles over."""
    with small_disk_at(tmp_path / "disk", 64 * 1024) as disk:
        disk.fill(leave_bytes=pages * 4_096)
        refusal = ""
        try:
            _writer(disk.path).close()
        except StorageError as error:
            refusal = str(error)
        assert (disk.path / "data.mdb").exists() == (not refusal)
        # LMDB calls a write that was cut short EIO.
        assert not refusal or re.search("No space|Input/output", refusal)

        disk.make_room()
        _write(disk.path, Row(Table.STATE, b"k", NO_SCOPE, b"v"))

        reader = _reader(disk.path)
        assert reader.get(Table.STATE, b"k", NO_SCOPE) == b"v"
        reader.close()
        assert {path.name for path in disk.path.iterdir()} == {"data.mdb", "lock.mdb"}


# --- full and killed ----------------------------------------------------------------------------


def test_a_full_map_refuses_and_goes_on(tmp_path: Path) -> None:
    """Rows that do not fit are ENOSPC, nothing of their transaction is there."""
    writer = _writer(tmp_path, size_bytes_max=256 * 1024)
    writer.write([Row(Table.RECORDS, b"small", 1, b"v")])

    with pytest.raises(OSError, match="size limit") as caught:
        writer.write(Row(Table.RECORDS, b"%d" % n, 1, b"x" * 9_000) for n in range(100))
    writer.write([Row(Table.RECORDS, b"more", 1, b"v")])
    writer.close()

    assert caught.value.errno == errno.ENOSPC
    reader = _reader(tmp_path)
    assert [key for key, _ in reader.scan(Table.RECORDS, 1)] == [b"more", b"small"]
    reader.close()


def test_a_full_disk_refuses_and_goes_on(tmp_path: Path) -> None:
    """On a full disk a transaction is ENOSPC and leaves nothing; with room again it succeeds."""
    with small_disk_at(tmp_path / "disk", 512 * 1024) as disk:
        writer = _writer(disk.path / "tables")
        writer.write([Row(Table.RECORDS, b"first", 1, b"v")])
        many = [Row(Table.RECORDS, b"%04d" % n, 1, b"x" * 3_000) for n in range(20)]

        disk.fill()
        for _ in range(3):
            with pytest.raises(OSError, match="space") as caught:
                writer.write(many)
            assert caught.value.errno == errno.ENOSPC
        disk.make_room()
        writer.write(many)
        writer.close()

        reader = _reader(disk.path / "tables")
        assert len(list(reader.scan(Table.RECORDS, 1))) == 21
        reader.close()


def test_a_killed_writer_leaves_whole_transactions(tmp_path: Path) -> None:
    """After kill -9 the tables hold one whole transaction, none that was confirmed is lost."""
    newest = 0

    for round_number in range(4):
        with _writer_process(tmp_path, newest, "on") as process:
            assert process.stdout is not None
            confirmed = [_written(process) for _ in range(3 + round_number)][-1]
            process.kill()
            confirmed = max([confirmed, *(int(line) for line in process.stdout)])

        reader = _reader(tmp_path)
        found = {value for _, value in reader.scan(Table.STATE, NO_SCOPE)}
        reader.close()
        assert len(found) == 1
        newest = next(
            number for number in (confirmed, confirmed + 1) if found == {b"%d" % number * 500}
        )


@given(st.lists(st.binary(min_size=12, max_size=12)))
def test_deletions_of_records_are_rows_as_any(places: list[bytes]) -> None:
    """What is packed at once for a million records is what each of them would be packed as."""
    rows = [Row(Table.RECORDS, place, NO_SCOPE, None) for place in places]

    assert pack_record_deletions(places) == pack_rows(rows)
    assert list(unpack_rows(pack_record_deletions(places))) == rows

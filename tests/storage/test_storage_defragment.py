"""Defragmentation: the file becomes smaller, and every row that was reported written is in it."""

import errno
from pathlib import Path

import pytest
from storage.disk_process import started, table_settings
from storage.segments_lab import CLUSTER, KEYS
from support.disk import small_disk_at

from kvsecure.storage.rows import NO_SCOPE, Row, Table, pack_rows
from kvsecure.storage.tables import TableReader, TableWriter
from kvsecure.storage.worker import WRITTEN, Order, Report

_BYTES_MAX = 256 << 20


def _writer(directory: Path) -> TableWriter:
    directory.mkdir(exist_ok=True)
    data_key = KEYS.data_key(1, purpose="table")
    return TableWriter(directory, CLUSTER, data_key, term=1, size_bytes_max=_BYTES_MAX)


def _reader(directory: Path) -> TableReader:
    return TableReader(directory, CLUSTER, KEYS, size_bytes_max=_BYTES_MAX)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _rows(start: int, end: int, value: bytes | None = b"v" * 900) -> list[Row]:
    return [Row(Table.STATE, b"%08d" % number, NO_SCOPE, value) for number in range(start, end)]


def _full_of_holes(directory: Path) -> TableWriter:
    writer = _writer(directory)
    writer.write(_rows(0, 4_000))
    writer.write(_rows(0, 3_900, None))
    return writer


def test_a_compact_copy_takes_the_tables_place(tmp_path: Path) -> None:
    """What was written before, meanwhile and afterwards is there, in a file of the size in use."""
    tables = tmp_path / "tables"
    writer = _full_of_holes(tables)
    before = writer.sizes()
    aside = writer.copy_aside()
    missed = [_rows(5_000, 5_100), _rows(3_900, 3_950, None)]
    for rows in missed:
        writer.write(rows)

    after = writer.go_over(aside, missed)()
    writer.write(_rows(6_000, 6_001))
    writer.close()

    assert before.total > 3_000_000
    assert after.total < 500_000
    assert (tables / "data.mdb").stat().st_size == after.total
    assert _names(tables) == ["data.mdb", "lock.mdb"]
    reader = _reader(tables)
    keys = {key for key, _ in reader.scan(Table.STATE, NO_SCOPE)}
    reader.close()
    wanted = [*range(3_950, 4_000), *range(5_000, 5_100), 6_000]
    assert keys == {b"%08d" % number for number in wanted}


def test_a_run_that_has_written_nothing_yet_can_be_defragmented(tmp_path: Path) -> None:
    """Its sealing epoch begins after the copy, and is known in it all the same."""
    _full_of_holes(tmp_path / "tables").close()
    writer = _writer(tmp_path / "tables")
    aside = writer.copy_aside()
    writer.write(_rows(1, 2))
    writer.go_over(aside, [_rows(1, 2)])()
    writer.close()

    reader = _reader(tmp_path / "tables")
    assert reader.get(Table.STATE, b"00000001", NO_SCOPE) == b"v" * 900
    reader.close()


def test_a_copy_that_cannot_be_brought_up_to_date_changes_nothing(tmp_path: Path) -> None:
    """The tables go on as they were, and nothing of the copy is left once it is discarded."""
    tables = tmp_path / "tables"
    writer = _full_of_holes(tables)
    aside = writer.copy_aside()
    (aside / "data.mdb").write_bytes(b"not an environment")

    with pytest.raises(OSError, match=r"."):
        writer.go_over(aside, [])
    writer.discard(aside)

    writer.write(_rows(8_000, 8_001))
    assert writer.sizes().total > 3_000_000
    writer.close()
    assert _names(tables) == ["data.mdb", "lock.mdb"]


def test_what_a_crash_has_left_of_a_copy_goes_at_the_next_start(tmp_path: Path) -> None:
    """A copy that was not finished is no table, and takes no room for good."""
    tables = tmp_path / "tables"
    writer = _full_of_holes(tables)
    writer.copy_aside()
    writer.close()

    _writer(tables).close()

    assert _names(tables) == ["data.mdb", "lock.mdb"]


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_crash_while_it_takes_their_place_loses_nothing(tmp_path: Path, renamed: int) -> None:
    """With the new tables beside the old lock file, or both renamed, all is there."""
    tables = tmp_path / "tables"
    writer = _full_of_holes(tables)
    aside = writer.copy_aside()
    writer.write(_rows(5_000, 5_100))
    writer.go_over(aside, [_rows(5_000, 5_100)])
    # What the last step does, as far as it comes.
    for name in ("data.mdb", "lock.mdb")[:renamed]:
        (aside / name).rename(tables / name)
    writer.close()

    again = _writer(tables)
    again.write(_rows(9_000, 9_001))
    again.close()

    reader = _reader(tables)
    assert len(list(reader.scan(Table.STATE, NO_SCOPE))) == 201
    reader.close()


def test_table_process_writes_while_it_defragments(tmp_path: Path) -> None:
    """Orders to write are answered before and after, and a later start finds all of it."""
    tables = tmp_path / "tables"
    with started(table_settings(tables, size_bytes_max=_BYTES_MAX)) as process:
        process.tell(Order.WRITE, pack_rows(_rows(0, 20_000)))
        process.tell(Order.WRITE, pack_rows(_rows(0, 19_000, None)))
        large = WRITTEN.unpack([process.listen(), process.listen()][1].body)[0]
        process.tell(Order.DEFRAGMENT)
        for number in range(20_000, 20_050):
            process.tell(Order.WRITE, pack_rows(_rows(number, number + 1)))
        told = [process.listen() for _ in range(51)]
        process.process.kill()

    kinds = [each.kind for each in told]
    assert kinds.count(Report.WRITTEN) == 50
    assert kinds.count(Report.DEFRAGMENTED) == 1
    small = WRITTEN.unpack(told[kinds.index(Report.DEFRAGMENTED)].body)[0]
    assert small < large / 5
    reader = _reader(tables)
    assert len(list(reader.scan(Table.STATE, NO_SCOPE))) == 1_050
    reader.close()


def test_table_process_ends_at_once_while_it_defragments(tmp_path: Path) -> None:
    """Told to end, or left alone, it does not wait for the copy, and nothing is lost."""
    tables = tmp_path / "tables"
    for number in range(4):
        with started(table_settings(tables, size_bytes_max=_BYTES_MAX)) as process:
            process.tell(Order.WRITE, pack_rows(_rows(number * 5_000, number * 5_000 + 5_000)))
            assert process.listen().kind is Report.WRITTEN
            process.tell(Order.DEFRAGMENT)
            assert (process.close() if number % 2 else process.hang_up()) == 0
    reader = _reader(tables)
    assert len(list(reader.scan(Table.STATE, NO_SCOPE))) == 20_000
    reader.close()


def test_table_process_says_that_there_is_no_room_for_a_copy(tmp_path: Path) -> None:
    """Where a copy would leave too little to the log, nothing is done, and it goes on."""
    with (
        small_disk_at(tmp_path / "tables", 64 << 20),
        started(table_settings(tmp_path / "tables")) as process,
    ):
        process.tell(Order.WRITE, pack_rows(_rows(0, 10)))
        process.listen()
        process.tell(Order.DEFRAGMENT)
        told = process.listen()
        process.tell(Order.WRITE, pack_rows(_rows(10, 20)))
        written = process.listen()
        process.close()

    assert (told.kind, told.errno) == (Report.NOT_DEFRAGMENTED, errno.ENOSPC)
    assert "a compact copy needs" in told.text
    assert written.kind is Report.WRITTEN

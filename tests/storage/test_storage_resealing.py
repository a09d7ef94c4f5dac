"""Another data key: what is written goes under it, what is there is sealed anew, unchanged."""

import json
from base64 import b64encode
from pathlib import Path

import lmdb
import pytest
from storage.disk_process import started, table_settings
from storage.segments_lab import CLUSTER, MEMBER

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.model.secret import Secret
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.rows import NO_SCOPE, Row, Table, pack_rows
from kvsecure.storage.segment import NO_LINK, Kind
from kvsecure.storage.segments import (
    SegmentPlace,
    SegmentWriter,
    Tail,
    list_segments,
    recover,
    terms_of,
)
from kvsecure.storage.tables import TableReader, TableWriter
from kvsecure.storage.worker import RESEAL, Order, Report, encode_keys

_KEK = KeyEncryptionKey(Secret(bytes(32)), "file")
_BYTES_MAX = 64 << 20
_ROWS = [
    *(Row(Table.RECORDS, b"r%02d" % n, 7, b"record %d" % n) for n in range(30)),
    *(Row(Table.INDEX, b"i%d" % n, NO_SCOPE, b"block %d" % n) for n in range(3)),
    Row(Table.STATE, b"s", NO_SCOPE, b"state"),
]


def _key(ring: Keyring, term: int) -> Secret:
    return ring.data_key(term, purpose="table")


@pytest.fixture
def ring() -> Keyring:
    """The keys of the cluster, with one data key."""
    return Keyring.create(_KEK, CLUSTER)


@pytest.fixture
def writer(tmp_path: Path, ring: Keyring) -> TableWriter:
    """Tables with rows under term 1; the writer goes on under term 2."""
    (tmp_path / "tables").mkdir()
    writer = TableWriter(
        tmp_path / "tables", CLUSTER, _key(ring, 1), term=1, size_bytes_max=_BYTES_MAX
    )
    writer.write(_ROWS)
    ring.become(ring.rotated(_KEK, now_s=0))
    writer.use(_key(ring, 2), 2)
    return writer


def _read(
    tmp_path: Path, ring: Keyring
) -> tuple[dict[tuple[Table, bytes], bytes | None], set[int], bytes]:
    """Return every row, the terms of all rows, and the note of progress."""
    reader = TableReader(tmp_path / "tables", CLUSTER, ring, size_bytes_max=_BYTES_MAX)
    rows = {(row.table, row.key): reader.get(row.table, row.key, row.scope) for row in _ROWS}
    terms = {term for table in Table for _, term in reader.terms(table, b"", 1_000)}
    progress = reader.progress()
    reader.close()
    return rows, terms, progress


_WANTED = {(row.table, row.key): row.value for row in _ROWS}


def test_rows_are_written_under_the_newest_key(
    tmp_path: Path, ring: Keyring, writer: TableWriter
) -> None:
    """After the change new rows are under the new key, and old ones open as before."""
    writer.write([Row(Table.STATE, b"new", NO_SCOPE, b"new")])
    writer.close()

    rows, terms, progress = _read(tmp_path, ring)

    assert rows == _WANTED
    assert terms == {1, 2}
    assert progress == b""


def test_rows_are_sealed_anew_and_read_the_same(
    tmp_path: Path, ring: Keyring, writer: TableWriter
) -> None:
    """Everything is there, nothing is under the old key, and the old key is not needed."""
    assert writer.reseal(_ROWS, {1: _key(ring, 1)}, b"note") == len(_ROWS)
    assert writer.reseal(_ROWS, {1: _key(ring, 1)}, b"note") == 0
    writer.close()

    ring.become(ring.without(1))

    assert _read(tmp_path, ring) == (_WANTED, {2}, b"note")


def test_rows_that_are_gone_stay_gone(tmp_path: Path, ring: Keyring, writer: TableWriter) -> None:
    """What was deleted meanwhile does not come back."""
    writer.write([_ROWS[0]._replace(value=None)])

    assert writer.reseal(_ROWS[:2], {1: _key(ring, 1)}, b"") == 1

    writer.close()
    rows, _, _ = _read(tmp_path, ring)
    assert rows[_ROWS[0].table, _ROWS[0].key] is None


@pytest.mark.parametrize("wrong", ["key", "scope", "no key"])
def test_row_that_does_not_open_is_not_sealed_anew(
    tmp_path: Path, ring: Keyring, writer: TableWriter, wrong: str
) -> None:
    """Nothing of the batch is written, the note neither."""
    keys = {"key": {1: Secret(bytes(32))}, "scope": {1: _key(ring, 1)}, "no key": {}}[wrong]
    bad = _ROWS[1]._replace(scope=8) if wrong == "scope" else _ROWS[1]
    with pytest.raises(DamagedRow):
        writer.reseal([bad, _ROWS[0]], keys, b"note")

    writer.close()

    assert _read(tmp_path, ring) == (_WANTED, {1}, b"")


def test_writer_goes_on_after_a_batch_that_failed(
    tmp_path: Path, ring: Keyring, writer: TableWriter
) -> None:
    """A batch that failed leaves nothing behind that would seal with a number twice."""
    for _ in range(3):
        with pytest.raises(DamagedRow):
            writer.reseal([_ROWS[0]], {1: Secret(bytes(32))}, b"")
    writer.reseal(_ROWS, {1: _key(ring, 1)}, b"")
    writer.close()

    rows, terms, _ = _read(tmp_path, ring)

    assert (rows, terms) == (_WANTED, {2})
    with lmdb.open(str(tmp_path / "tables"), max_dbs=8, readonly=True) as env, env.begin() as txn:
        heads = [
            bytes(value)[:13]
            for table in Table
            for _, value in txn.cursor(db=env.open_db(table.name.lower().encode(), txn=txn))
        ]
    assert len(heads) == len(set(heads)) == len(_ROWS)


def test_table_process_seals_anew_what_it_is_told(tmp_path: Path, ring: Keyring) -> None:
    """Over the socket: another key, old keys, rows; and a failure is told as one of this."""
    directory = tmp_path / "tables"
    settings = table_settings(directory) | {"key": b64encode(_key(ring, 1).reveal()).decode()}
    note = b'{"x":1}'
    with started(settings) as process:
        process.tell(Order.WRITE, pack_rows(_ROWS))
        assert process.listen().kind is Report.WRITTEN
        old = _key(ring, 1)
        ring.become(ring.rotated(_KEK, now_s=0))
        process.tell(Order.REKEY, encode_keys({2: _key(ring, 2)}))
        process.tell(Order.RESEAL, RESEAL.pack(len(note)), note, pack_rows(_ROWS))
        refused = process.listen()
        process.tell(Order.KEYS, json.dumps({"1": b64encode(old.reveal()).decode()}).encode())
        process.tell(Order.RESEAL, RESEAL.pack(len(note)), note, pack_rows(_ROWS))
        done = process.listen()
        process.close()

    assert refused.kind is Report.NOT_RESEALED
    assert refused.errno == 0
    assert "term 1 is not in the keyring" in refused.text
    assert done.kind is Report.RESEALED
    assert done.body == RESEAL.pack(len(_ROWS))
    assert _read(tmp_path, ring) == (_WANTED, {2}, note)


def test_segments_go_on_under_another_key(tmp_path: Path) -> None:
    """The next append begins a segment under it, and all of them are read in order."""
    (tmp_path / "wal").mkdir()
    place = SegmentPlace(tmp_path / "wal", Kind.WAL, CLUSTER, MEMBER)
    keys = Keyring.create(_KEK, CLUSTER)
    writer = SegmentWriter(
        place, Tail(0, NO_LINK, 1, 0), place.root_key(keys, 1), term=1, bytes_max=_BYTES_MAX
    )
    writer.append(1, b"before")
    keys.become(keys.rotated(_KEK, now_s=0))

    writer.use(place.root_key(keys, 2), 2)
    writer.append(1, b"after")
    writer.append(1, b"later")
    writer.close()

    frames: list[bytes] = []
    recover(place, keys, lambda frame: frames.append(frame.text))
    assert frames == [b"before", b"after", b"later"]
    assert sorted(terms_of(place)) == [1, 2]
    assert len(list_segments(place)) == 2

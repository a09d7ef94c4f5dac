"""The index of issued certificates: nothing is lost but what a crash cut off."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.pki.index import IssuedRecord, append, read
from kvsecure.pki.profiles import ProfileName


def _record(serial: int) -> IssuedRecord:
    return IssuedRecord(
        serial=serial,
        profile=ProfileName.CLIENT,
        name="alice",
        subject="spiffe://acme.c1.kvsecure/user/alice",
        not_after=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def test_index_returns_what_was_added_in_order(tmp_path: Path) -> None:
    """Records come back whole and in the order of issue."""
    records = tuple(_record(serial) for serial in (1 << 158, 3, 2))

    for record in records:
        append(tmp_path / "issued.jsonl", record)

    index = read(tmp_path / "issued.jsonl")
    assert records == index.records
    assert index.damaged_lines == ()


def test_index_is_private(tmp_path: Path) -> None:
    """Who has certificates is nobody else's business."""
    append(tmp_path / "issued.jsonl", _record(1))

    assert stat.S_IMODE((tmp_path / "issued.jsonl").stat().st_mode) == 0o600


def test_index_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """An authority that has issued nothing may have no index yet."""
    assert read(tmp_path / "issued.jsonl").records == ()


def test_index_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    """A torn last line is reported by its number and costs no record before or after it."""
    path = tmp_path / "issued.jsonl"
    append(path, _record(1))
    append(path, _record(2))
    path.write_bytes(path.read_bytes()[:-20])

    append(path, _record(3))

    index = read(path)
    assert [record.serial for record in index.records] == [1, 3]
    assert index.damaged_lines == (2,)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"format": 2}',
        b"[" * 100_000,
        b'{"format": 1, "serial": 5, "profile": "client", "name": "", "subject": ""}',
        b'{"format":1,"serial":"g","profile":"client","name":"","subject":"","not_after":"2030"}',
        b'{"format":1,"serial":"1","profile":"x","name":"","subject":"","not_after":"2030-01-01"}',
    ],
)
def test_index_reports_lines_of_another_shape(tmp_path: Path, line: bytes) -> None:
    """A line that is not a record is damaged, whatever else it is."""
    path = tmp_path / "issued.jsonl"
    path.write_bytes(line + b"\n")

    assert read(path).damaged_lines == (1,)


@given(content=st.binary())
def test_index_is_total(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any content gives records and damaged lines, never an exception."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)

    index = read(path)

    assert len([line for line in content.split(b"\n") if line]) == len(index.damaged_lines)

"""Logs that go back and ahead: what a later leader replaced, and what a snapshot has."""

import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage.segments_lab import CLUSTER, KEYS, MEMBER, ROOT, Bench

from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import HEADER_BYTES, NO_LINK, Kind
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, Tail, recover

# Two or three frames a segment.
_BYTES_MAX: Final = HEADER_BYTES + 90


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty directory of segments."""
    return Bench(tmp_path / "wal")


def _read_back(frames: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return the entries that frames of one entry each leave, as whoever reads a log does."""
    entries: dict[int, bytes] = {}
    for first, text in frames:
        entries = {number: kept for number, kept in entries.items() if number < first}
        entries[first] = text
    return entries


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    script=st.lists(
        st.tuples(
            st.sampled_from(["append", "append", "append", "back", "ahead", "restart", "purge"]),
            st.integers(0, 60),
        ),
        min_size=5,
        max_size=50,
    )
)
def test_log_that_goes_back_and_ahead_is_read_as_it_was_written(
    tmp_path: Path, script: list[tuple[str, int]]
) -> None:
    """Entries may take the place of others, or begin behind what is known; purges keep the rest."""
    directory = tmp_path / "any"
    shutil.rmtree(directory, ignore_errors=True)
    bench = Bench(directory)
    writer = bench.writer(bytes_max=_BYTES_MAX)
    written: list[tuple[int, bytes]] = []
    # Through which entry the tables hold all: nothing there is ever replaced.
    known = 0

    def read_back() -> tuple[dict[int, bytes], int]:
        frames: list[tuple[int, bytes]] = []
        tail = recover(
            bench.place,
            KEYS,
            lambda frame: frames.append((frame.first, frame.text)),
            first_known=known + 1,
        )
        return _read_back(frames), tail.following

    for act, number in script:
        text = b"%d" % len(written)
        entries = _read_back(written)
        end = max(entries, default=known)
        if act == "purge":
            known = max(known, number * end // 60)
            writer.purge(known + 1)
        elif act == "restart":
            writer.close()
            tail = recover(bench.place, KEYS, lambda _: None, first_known=known + 1)
            writer = SegmentWriter(bench.place, tail, ROOT, term=1, bytes_max=_BYTES_MAX)
        else:
            if act == "ahead":
                known = end + number
            steps_back = number % 7 if act == "back" else 0
            first = max(known, end - steps_back) + 1
            writer.append(1, text, first)
            written.append((first, text))
            assert writer.following == first + 1
    writer.close()

    entries, following = read_back()
    expected = {n: text for n, text in _read_back(written).items() if n > known}
    assert {n: text for n, text in entries.items() if n > known} == expected
    assert following == max(expected, default=max(following - 1, known)) + 1


def test_purge_leaves_the_newest_frame_behind_a_start_that_came_to_nothing(bench: Bench) -> None:
    """Where the newest segment is empty, the frame before it says what nothing else does."""
    bench.write([b"a"], [b"who was voted for"])
    # A start that ended between a segment's beginning and its first frame.
    crashed = bench.writer()
    crashed._begin(3)
    crashed.close()
    writer = bench.writer()

    writer.purge(3)
    assert bench.recover()[0][-1] == b"who was voted for"

    writer.append(1, b"more")
    writer.purge(3)
    writer.close()
    assert bench.recover()[0] == [b"more"]


def test_log_with_a_gap_behind_what_is_known_is_refused(bench: Bench) -> None:
    """Entries that nobody has are a loss, wherever the next ones begin."""
    writer = bench.writer()
    writer.append(1, b"1")
    writer.append(1, b"5", 5)
    writer.close()

    assert recover(bench.place, KEYS, lambda _: None, first_known=5).following == 6
    with pytest.raises(StorageError, match="out of order"):
        recover(bench.place, KEYS, lambda _: None, first_known=4)


def test_trail_never_goes_back(tmp_path: Path) -> None:
    """Records of the audit trail cannot take the place of others, whoever writes them."""
    place = SegmentPlace(tmp_path, Kind.AUDIT, CLUSTER, MEMBER)
    root = place.root_key(KEYS, 1)
    writer = SegmentWriter(place, Tail(0, NO_LINK, 1, 0), root, term=1, bytes_max=500)
    writer.append(1, b"first")
    writer.append(1, b"another first", 1)
    writer.close()

    with pytest.raises(StorageError, match="out of order"):
        recover(place, KEYS, lambda _: None)

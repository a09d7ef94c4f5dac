"""The timeline against a plain list of which revision was written in which second."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.mvcc.timeline import SAMPLES_PER_CHUNK, Timeline, UnreadableChunk

_FIRST_S = 1_000


def _filled(seconds: int, *, chunks_max: int = 1_000) -> Timeline:
    """Return a timeline in which revision 2 + n is written in second 1,000 + n."""
    timeline = Timeline(chunks_max)
    for number in range(seconds):
        timeline.stamp(_FIRST_S + number, 2 + number)
    return timeline


@given(
    steps=st.lists(st.tuples(st.integers(-2, 4), st.integers(0, 3)), min_size=1, max_size=300),
    asked=st.integers(0, 1_400),
)
def test_time_of_every_revision_is_found(steps: list[tuple[int, int]], asked: int) -> None:
    """Revisions and seconds are found from each other, whatever the clock did."""
    timeline, second, revision = Timeline(), 0, 1
    written: dict[int, int] = {}
    for later, revisions in steps:
        timeline.stamp(second + later, revision + 1)
        second = max(second, second + later)
        for _ in range(revisions):
            revision += 1
            written[revision] = second

    assert {each: timeline.time_of(each) for each in written} == written
    known = [each for each, when in written.items() if when]
    if known and asked >= written[known[0]]:
        assert timeline.revision_at(asked, revision) == max(
            each for each in known if written[each] <= asked
        )
    sure = timeline.surely_before(asked)
    assert all(written[each] < asked for each in range(2, sure + 1))


def test_clock_that_goes_back_changes_nothing() -> None:
    """A second that is not after the newest is taken for the newest."""
    timeline = _filled(10)

    timeline.stamp(_FIRST_S + 3, 12)
    timeline.stamp(_FIRST_S + 9, 12)

    assert timeline.now_s == _FIRST_S + 9
    assert timeline.time_of(12) == _FIRST_S + 9


def test_seconds_without_a_revision_take_no_place() -> None:
    """Seconds in which nothing is written replace each other."""
    timeline = Timeline()
    for second in range(1, 10_000):
        timeline.stamp(second, 7)

    assert [chunk.firsts.tolist() for chunk in timeline._chunks] == [[7]]
    assert timeline.time_of(7) == 9_999
    assert timeline.time_of(6) == 0


@pytest.mark.parametrize("count", [1, SAMPLES_PER_CHUNK, SAMPLES_PER_CHUNK * 5 + 3])
def test_stored_rows_make_the_same_timeline(count: int) -> None:
    """What the rows say, taken one flush after the other, is what there is in memory."""
    timeline, rows = Timeline(6), {}
    for number in range(count * 2):
        timeline.stamp(_FIRST_S + number, 2 + number)
        if number % 50 == 0:
            rows |= dict(timeline.take_rows())
    timeline.forget(2 + count // 2)
    rows |= dict(timeline.take_rows())
    again = Timeline(6)

    for key in sorted(rows):
        if (value := rows[key]) is not None:
            again.load_row(value)

    assert again._chunks == timeline._chunks
    assert again._starts == timeline._starts
    assert again._seconds == timeline._seconds
    assert timeline.take_rows() == []


def test_memory_is_bounded_and_only_the_old_becomes_coarse() -> None:
    """A timeline that is full knows the newer half to the second, and older times roughly."""
    count = SAMPLES_PER_CHUNK * 40

    timeline = _filled(count, chunks_max=8)

    assert len(timeline._chunks) <= 8
    newest = range(2 + count - SAMPLES_PER_CHUNK * 4, 2 + count)
    assert all(timeline.time_of(each) == _FIRST_S + each - 2 for each in newest)
    times = [timeline.time_of(each) for each in range(2, 2 + count)]
    assert times == sorted(times)
    assert all(time <= _FIRST_S + number for number, time in enumerate(times))
    for second in range(_FIRST_S, _FIRST_S + count, 37):
        assert timeline.surely_before(second) < 2 + second - _FIRST_S


def test_compaction_lets_go_of_whole_chunks_before_it() -> None:
    """What is about revisions from the compacted one on stays, to the second."""
    count, revision = SAMPLES_PER_CHUNK * 4, 2 + SAMPLES_PER_CHUNK * 2 + 5
    timeline = _filled(count)

    timeline.forget(revision)

    assert timeline.time_of(2) == 0
    assert len(timeline._chunks) == 2
    assert all(timeline.time_of(each) == _FIRST_S + each - 2 for each in range(revision, 2 + count))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0" * 7,
        b"\0" * 24,
        b"\0" * 16 * (SAMPLES_PER_CHUNK + 1),
        b"".join(number.to_bytes(8, "big") for number in (5, 4, 1, 2)),
    ],
)
def test_damaged_row_is_refused(value: bytes) -> None:
    """A row that no timeline has written is not taken for one."""
    with pytest.raises(UnreadableChunk):
        Timeline().load_row(value)


def test_rows_out_of_order_are_refused() -> None:
    """A row that does not follow the one before is not taken."""
    timeline = _filled(3)
    ((_, value),) = timeline.take_rows()
    assert value is not None

    with pytest.raises(UnreadableChunk):
        timeline.load_row(value)


def test_pairs_rise() -> None:
    """Seconds and revisions rise from sample to sample, also where they were thinned out."""
    timeline = _filled(SAMPLES_PER_CHUNK * 20, chunks_max=4)

    samples = [pair for chunk in timeline._chunks for pair in zip(*chunk, strict=True)]

    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(samples))

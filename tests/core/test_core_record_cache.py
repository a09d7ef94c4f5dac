"""The cache of records: its bound, and who goes first."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.mvcc.index import position
from kvsecure.core.mvcc.record_cache import RecordCache

_BYTES_MAX: Final = 1024 * 1024
_RECORD: Final = bytes(300)


def test_the_cache_takes_no_more_than_its_bound_however_small_records_are() -> None:
    """What holds a record counts too, so that tiny ones do not take several times the bound."""
    cache = RecordCache(_BYTES_MAX)

    for number in range(50_000):
        cache.add(position(number, 0), b"r")

        assert cache.size_bytes <= _BYTES_MAX

    kept = sum(cache.get(position(number, 0)) is not None for number in range(50_000))
    assert _BYTES_MAX * 3 // 4 // 256 < kept < _BYTES_MAX // 128


def test_the_cache_gives_up_what_came_first() -> None:
    """Of more records than there is room for, nearly all that are kept are the newest."""
    cache = RecordCache(_BYTES_MAX)

    for number in range(10_000):
        cache.add(position(1, number), _RECORD)

    kept = [number for number in range(10_000) if cache.get(position(1, number)) is not None]
    assert len(kept) > 1_500
    assert kept[0] > 10_000 - 2 * len(kept)
    assert kept[-1] == 9_999


def test_the_cache_does_not_hold_a_record_that_is_larger_than_its_room() -> None:
    """A record that has no room is not held, and the cache goes on."""
    cache = RecordCache(_BYTES_MAX)
    huge, small = position(1, 0), position(2, 0)

    cache.add(huge, bytes(2 * _BYTES_MAX))
    cache.add(small, _RECORD)

    assert cache.get(huge) is None
    assert cache.get(small) == _RECORD


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 9_000)), max_size=200))
def test_the_cache_is_empty_when_all_was_removed(steps: list[tuple[bool, int, int]]) -> None:
    """What it counts is what it holds, whatever was added, given up and removed in between."""
    cache = RecordCache(_BYTES_MAX // 4)
    records = {number: bytes((number,)) * size for _, number, size in steps}

    for adds, number, _ in steps:
        place = position(number, 0)
        if not adds:
            cache.remove(place)
        elif cache.get(place) is None:
            cache.add(place, records[number])
        assert cache.get(place) in (records[number], None)

    for number in range(41):
        cache.remove(position(number, 0))
    assert cache.size_bytes == 0

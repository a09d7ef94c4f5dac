"""Automatic compaction, against the same rules said slowly."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.server.autocompact import AutoCompactor
from kvsecure.server.config.model import KeepPeriod, KeepRevisions

_S = 1_000_000_000
_MINUTE = 60 * _S


def test_no_mode_never_compacts() -> None:
    """Without a mode nothing is ever due."""
    compactor = AutoCompactor(None, 0)

    assert [compactor.due(hour * 3_600 * _S, hour * 100) for hour in range(50)] == [None] * 50


def test_keeping_revisions_goes_to_a_distance_from_the_newest() -> None:
    """Every five minutes everything but the newest so many revisions may go."""
    compactor = AutoCompactor(KeepRevisions(count=1_000), 0)

    assert compactor.due(0, 900) is None
    assert compactor.due(300 * _S - 1, 5_000) is None
    assert compactor.due(300 * _S, 5_000) == 4_000
    assert compactor.due(301 * _S, 9_000) is None
    assert compactor.due(600 * _S, 5_000) is None, "nothing new since"
    assert compactor.due(900 * _S, 5_001) == 4_001


@pytest.mark.parametrize("revision", [0, 1, 2, 10, 11])
def test_keeping_revisions_never_compacts_an_empty_past(revision: int) -> None:
    """With no more revisions than are kept, or none but the first, nothing is due."""
    assert AutoCompactor(KeepRevisions(count=10), 0).due(0, revision) is None


def test_keeping_a_period_waits_for_it() -> None:
    """Nothing is due before a whole period is known, and then what it was one period ago."""
    compactor = AutoCompactor(KeepPeriod(retention_ns=10 * _MINUTE), 0)

    due = [compactor.due(minute * _MINUTE, 100 + minute) for minute in range(15)]

    assert due == [*[None] * 10, 100, 101, 102, 103, 104]


def test_keeping_a_long_period_looks_often_enough() -> None:
    """However long the retention is, what is kept is never more than six minutes longer."""
    retention = 24 * 60
    compactor = AutoCompactor(KeepPeriod(retention_ns=retention * _MINUTE), 0)

    last = 0
    for minute in range(3 * retention):
        target = compactor.due(minute * _MINUTE, 100 + minute)
        if target is not None:
            last = target
        if minute > retention + 6:
            assert retention <= 100 + minute - last <= retention + 12


def test_keeping_a_period_says_nothing_while_nothing_is_written() -> None:
    """A revision that was compacted to is not named again."""
    compactor = AutoCompactor(KeepPeriod(retention_ns=10 * _MINUTE), 0)

    due = [compactor.due(minute * _MINUTE, 50) for minute in range(60)]

    assert [target for target in due if target is not None] == [50]


@given(
    mode=st.one_of(
        st.builds(KeepRevisions, count=st.integers(1, 50)),
        st.builds(KeepPeriod, retention_ns=st.integers(1, 200).map(lambda n: n * _MINUTE)),
    ),
    steps=st.lists(
        st.tuples(st.integers(0, 40).map(lambda n: n * _MINUTE // 2), st.integers(0, 30)),
        max_size=60,
    ),
)
def test_compaction_never_forgets_too_much(mode: Any, steps: list[tuple[int, int]]) -> None:
    """What is due rises, is behind the newest revision, and leaves what the mode promises."""
    compactor = AutoCompactor(mode, 0)
    now_ns, revision, last = 0, 1, 1
    seen = [(0, 1)]

    for pause_ns, written in steps:
        now_ns += pause_ns
        revision += written
        seen.append((now_ns, revision))
        target = compactor.due(now_ns, revision)
        if target is None:
            continue
        assert last < target <= revision
        last = target
        if isinstance(mode, KeepRevisions):
            assert target == revision - mode.count
        else:
            known = [then for at_ns, then in seen if at_ns <= now_ns - mode.retention_ns]
            assert target <= known[-1]

"""History: pages of versions, and the seconds in which they were written."""

import asyncio
from pathlib import Path

import pytest
from core.engine_lab import entries_on_disk, running
from core.store_machine import carry_out
from core.stored_tables import MemoryTables, flush, reload

from kvsecure.core.entry import decode
from kvsecure.core.history import answer_history, answer_revision_at
from kvsecure.core.state import State
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import TenantId
from kvsecure.model.limits import HISTORY_BYTES_MAX, HISTORY_VERSIONS_MAX
from kvsecure.proto import kv_pb2, state_pb2, version_pb2


def _put(state: State, key: bytes, value: bytes = b"v", tenant: int = 1) -> None:
    carry_out(state, tenant, kv_pb2.PutRequest(key=key, value=value))


def _history(state: State, tenant: int = 1, **fields: object) -> version_pb2.HistoryResponse:
    request = version_pb2.HistoryRequest(key=b"k", **fields)  # type: ignore[arg-type]  # as named
    body = answer_history(state.store, state.store.space(TenantId(tenant)), request)
    return version_pb2.HistoryResponse.FromString(body)


@pytest.fixture
def state() -> State:
    """A new cluster's state."""
    return reload(MemoryTables())


def test_page_ends_where_it_is_long(state: State) -> None:
    """However many versions are asked for, a page has no more than a page."""
    count = HISTORY_VERSIONS_MAX + 40
    for _ in range(count):
        _put(state, b"k")

    first = _history(state, limit=10_000)
    rest = _history(state, before_revision=first.versions[-1].mod_revision)

    assert (len(first.versions), first.more) == (HISTORY_VERSIONS_MAX, True)
    assert (len(rest.versions), rest.more) == (40, False)
    every = [*first.versions, *rest.versions]
    assert [each.version for each in every] == list(range(count, 0, -1))


@pytest.mark.parametrize("keys_only", [False, True])
def test_page_ends_where_it_is_much(*, state: State, keys_only: bool) -> None:
    """A page ends behind the version with which it is large; values are left out if asked for."""
    for letter in b"abc":
        _put(state, b"k", bytes((letter,)) * HISTORY_BYTES_MAX)

    page = _history(state, keys_only=keys_only)

    assert (len(page.versions), page.more) == (1, True)
    assert page.versions[0].value_bytes == HISTORY_BYTES_MAX
    assert page.versions[0].value == (b"" if keys_only else b"c" * HISTORY_BYTES_MAX)


def test_tombstones_and_the_life_before_are_told(state: State) -> None:
    """A key that was deleted and made anew has both lives in its history."""
    _put(state, b"k", b"first")
    carry_out(state, 1, kv_pb2.DeleteRangeRequest(key=b"k"))
    _put(state, b"k", b"second")

    page = _history(state)

    assert [(v.mod_revision, v.create_revision, v.version, v.deleted) for v in page.versions] == [
        (4, 4, 1, False),
        (3, 0, 0, True),
        (2, 2, 1, False),
    ]
    assert [v.value for v in page.versions] == [b"second", b"", b"first"]


def test_history_is_of_the_callers_tenant(state: State) -> None:
    """The same key of another tenant has a history of its own."""
    _put(state, b"k", b"ours")

    assert len(_history(state).versions) == 1
    assert not _history(state, tenant=0).versions


def test_what_is_compacted_is_not_told_from_the_moment_on(state: State) -> None:
    """Versions that a compaction gives up are out of the history before their bytes are gone."""
    for _ in range(3):
        _put(state, b"k")
    carry_out(state, 1, kv_pb2.CompactionRequest(revision=4))
    assert state.store.slices

    page = _history(state)

    assert [v.mod_revision for v in page.versions] == [4]
    assert page.compact_revision == 4


@pytest.mark.parametrize("slices", [0, 1, 50])
def test_deletion_of_what_an_earlier_compaction_gave_up_is_not_kept(
    state: State, slices: int
) -> None:
    """A policy keeps no version of before it was set, however far the slices have come."""
    _put(state, b"k")
    carry_out(state, 1, kv_pb2.DeleteRangeRequest(key=b"k"))
    carry_out(state, 1, kv_pb2.CompactionRequest(revision=3))
    _put(state, b"other")
    carry_out(state, 1, version_pb2.RetentionSetRequest(prefix=b"", keep_versions=1))
    carry_out(state, 1, kv_pb2.CompactionRequest(revision=4))
    for _ in range(slices):
        state.store.run_slice()

    assert not _history(state).versions


def test_time_before_the_first_is_refused(state: State) -> None:
    """Nothing is guessed of a time from which no revision is known."""
    carry_out(state, 0, state_pb2.Clock(time_s=100))
    _put(state, b"k")
    request = version_pb2.RevisionAtRequest(time_s=99)

    with pytest.raises(Refused) as refused:
        answer_revision_at(state.store, request)

    assert refused.value.failure is Failure.TIME_UNKNOWN
    request.time_s = 100
    body = answer_revision_at(state.store, request)
    assert version_pb2.RevisionAtResponse.FromString(body).revision == 2


def test_old_tables_and_logs_have_versions_without_times() -> None:
    """What was written before there was a clock in the log is told, with no time."""
    tables = MemoryTables()
    state = reload(tables)
    _put(state, b"k")
    flush(state, tables)
    state = reload(tables)
    _put(state, b"k")
    carry_out(state, 0, state_pb2.Clock(time_s=7))
    _put(state, b"k")

    assert [v.time_s for v in _history(state).versions] == [7, 0, 0]


def test_second_is_said_once_and_only_with_something_to_write(tmp_path: Path) -> None:
    """The log has the second before the first command of it, and nothing while nothing happens."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for second, puts in ((5, 3), (6, 0), (8, 2), (7, 1)):
                lab.wall_ns = second * 1_000_000_000 + 999
                for _ in range(puts):
                    await lab.put(b"k", b"v")
            entries = [e for frame in entries_on_disk(tmp_path / "state") for e in frame if e]
            commands = [decode(entry).command for entry in entries]
            assert [c.time_s if isinstance(c, state_pb2.Clock) else 0 for c in commands] == [
                *(5, 0, 0, 0),
                *(8, 0, 0),
                *(7, 0),
            ]
            assert [v.time_s for v in _history(lab.state).versions] == [8, 8, 8, 5, 5, 5]
            assert lab.engine._pending_bytes == 0

    asyncio.run(act())


@pytest.mark.parametrize("flushed", [True, False])
def test_times_are_the_same_after_a_restart(*, tmp_path: Path, flushed: bool) -> None:
    """Whether tables or log bring them back, versions have the seconds that they had."""

    async def act() -> None:
        async with running(tmp_path / "state") as lab:
            for second in (5, 6, 9):
                lab.wall_ns = second * 1_000_000_000
                await lab.put(b"k", b"v")
            if flushed:
                await lab.flushed()
            before = _history(lab.state)
        async with running(tmp_path / "state") as lab:
            assert _history(lab.state) == before
            assert [v.time_s for v in before.versions] == [9, 6, 5]
            lab.wall_ns = 4_000_000_000
            await lab.put(b"k", b"v")
            assert _history(lab.state).versions[0].time_s == 9

    asyncio.run(act())

"""Destruction: what is left of a key for watchers, for the tables, and after a crash."""

import pytest
from core.store_machine import carry_out
from core.stored_tables import MemoryTables, flush, reload

from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.core.state import State
from kvsecure.core.watch import Batch, Filters, Room, Watcher
from kvsecure.model.burst import PutBurst
from kvsecure.model.ids import TenantId
from kvsecure.model.keys import Span
from kvsecure.proto import kv_pb2, version_pb2
from kvsecure.storage.rows import NO_SCOPE, Table, unpack_rows

_SECRET = b"bytes-of-the-secret"
_MANY = 1_100


@pytest.fixture
def tables() -> MemoryTables:
    """Tables that are empty."""
    return MemoryTables()


@pytest.fixture
def state(tables: MemoryTables) -> State:
    """A new cluster's state."""
    return reload(tables)


def _put(state: State, key: bytes, value: bytes = b"v") -> None:
    carry_out(state, 1, kv_pb2.PutRequest(key=key, value=value))


def _destroy(state: State, key: bytes = b"k") -> None:
    carry_out(state, 1, version_pb2.DestroyRequest(key=key))


def _watcher(state: State, start: int) -> Watcher:
    return Watcher(
        space=state.store.space(TenantId(1)),
        span=Span(b"", None),
        filters=Filters(previous=True),
        next_revision=start,
        room=Room(),
        wake=lambda _: None,
    )


def _rest(state: State, watcher: Watcher) -> list[Batch]:
    batches = []
    while (batch := state.hub.take(watcher, state.store.revision)) is not None:
        batches.append(batch)
    return batches


def _has(batches: list[Batch]) -> bool:
    return any(_SECRET in event for batch in batches for event in batch.events)


def test_live_watcher_is_told_and_not_what_it_was(state: State) -> None:
    """Who watches with the values of before gets the deletion without one."""
    _put(state, b"k", _SECRET)
    watcher = _watcher(state, state.store.revision + 1)
    assert _rest(state, watcher) == []
    assert watcher.live

    _destroy(state)

    (batch,) = _rest(state, watcher)
    assert batch.revision == state.store.revision
    assert len(batch.events) == 1
    assert not _has([batch])


@pytest.mark.parametrize("deleted", [False, True])
def test_watcher_in_the_midst_of_history_gets_nothing_of_it(
    *, state: State, tables: MemoryTables, deleted: bool
) -> None:
    """What a watcher was about to read when the key was destroyed does not come any more."""
    for number in range(_MANY):
        _put(state, b"other/%d" % number)
    _put(state, b"k", _SECRET)
    _put(state, b"k", _SECRET)
    if deleted:
        carry_out(state, 1, kv_pb2.DeleteRangeRequest(key=b"k"))
    _put(state, b"last")
    watcher = _watcher(state, 2)
    first = state.hub.take(watcher, state.store.revision)
    assert first is not None
    assert watcher.missed
    flush(state, tables)

    _destroy(state)
    batches = _rest(state, watcher)

    assert not _has(batches)
    # All other keys', and one deletion.
    assert sum(len(batch.events) for batch in [first, *batches]) == _MANY + 2


def test_what_is_not_in_the_tables_yet_never_gets_there(state: State) -> None:
    """A secret that was put a moment ago is not handed to the table process."""
    _put(state, b"k", _SECRET)
    size_bytes = state.records.fresh_bytes
    _put(state, b"other")
    other_bytes = state.records.fresh_bytes - size_bytes

    _destroy(state)
    _, pieces = state.begin_flush(0, b"", b"")
    packed = b"".join(pieces)

    assert _SECRET not in packed
    assert any(row.table is Table.RECORDS for row in unpack_rows(packed))
    assert state.records.unflushed_bytes == other_bytes


def test_what_is_on_its_way_to_the_tables_is_deleted_there(
    state: State, tables: MemoryTables
) -> None:
    """A secret that the table process has been handed goes with the next flush."""
    _put(state, b"k", _SECRET)
    _, pieces = state.begin_flush(0, b"", b"")

    _destroy(state)
    tables.write(b"".join(pieces))
    state.end_flush()
    flush(state, tables)

    assert not any(_SECRET in value for _, value in tables.scan(Table.RECORDS, NO_SCOPE))


def test_tables_name_nothing_of_it_once_the_slices_are_done(
    state: State, tables: MemoryTables
) -> None:
    """Records and rows of the index are gone but for the deletion, also after a crash."""
    for _ in range(3):
        _put(state, b"k", _SECRET)
    flush(state, tables)
    _destroy(state)
    flush(state, tables)

    state = reload(tables)
    assert state.store.space(TenantId(1)).index.at(b"k", 3) is None
    while state.store.slices or state.dirty:
        flush(state, tables)
        state.store.run_slice()

    rows = [
        (key, int.from_bytes(head[:8], "big"))
        for _, block in tables.scan(Table.INDEX, NO_SCOPE)
        for _, head, key, _ in decode_index_block(block)
    ]
    assert rows == [(b"k", 5)]
    assert not list(tables.scan(Table.RECORDS, NO_SCOPE))
    assert len(state.store.destructions) == 1


def test_very_many_versions_go_in_slices(state: State, tables: MemoryTables) -> None:
    """Nobody waits for millions of versions to be given up; a crash in between leaves none."""
    space = state.store.space(TenantId(1))
    state.store.put_each(space, PutBurst([(b"k", _SECRET)] * 9_000))
    flush(state, tables)
    _destroy(state)
    assert not state.records.obsolete
    state.store.run_slice()
    state.store.run_slice()
    assert len(state.records.obsolete) == 4_000
    flush(state, tables)
    state = reload(tables)
    _put(state, b"other")
    while state.store.slices or state.dirty:
        flush(state, tables)
        state.store.run_slice()

    assert len(tables.keys(Table.RECORDS)) == 1
    blocks = [block for _, block in tables.scan(Table.INDEX, NO_SCOPE)]
    assert sum(1 for block in blocks for _ in decode_index_block(block)) == 2
    assert not state.store.space(TenantId(1)).index.condemned


def test_row_of_the_index_stays_as_long_as_its_record(state: State, tables: MemoryTables) -> None:
    """A compaction that merges blocks meanwhile leaves no record without a row that names it."""
    space = state.store.space(TenantId(1))
    for _ in range(3):
        _put(state, b"other")
    carry_out(state, 1, kv_pb2.CompactionRequest(revision=4))
    state.store.put_each(space, PutBurst([(b"k", _SECRET)] * 5_000))
    flush(state, tables)
    state.store.run_slice()
    _destroy(state)
    while state.store.slices:
        flush(state, tables)
        state.store.run_slice()
        named = {
            head[:12]
            for _, block in tables.scan(Table.INDEX, NO_SCOPE)
            for _, head, _, _ in decode_index_block(block)
        }
        assert named >= set(tables.keys(Table.RECORDS))


def test_what_is_written_afterwards_is_a_new_key(state: State, tables: MemoryTables) -> None:
    """A key can be created anew, and a start that goes on with the destruction leaves it alone."""
    _put(state, b"k", _SECRET)
    _destroy(state)
    _put(state, b"k", b"new")
    flush(state, tables)

    state = reload(tables)

    body = state.store.range(state.store.space(TenantId(1)), kv_pb2.RangeRequest(key=b"k"))
    (kv,) = kv_pb2.RangeResponse.FromString(body).kvs
    assert (kv.value, kv.version, kv.create_revision) == (b"new", 1, 4)


def test_key_that_is_destroyed_again_is_not_done_with_the_first(state: State) -> None:
    """Bytes that were written in between are of the later destruction."""
    _put(state, b"k", _SECRET)
    _destroy(state)
    first = list(state.store.destructions.values())
    _put(state, b"k", _SECRET)
    _destroy(state)

    state.store.end_destructions(first)

    assert len(state.store.destructions) == 1
    state.store.end_destructions(list(state.store.destructions.values()))
    assert not state.store.destructions

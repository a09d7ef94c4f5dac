"""Compaction frees what it must, keeps what it must, and survives being cut in two."""

from collections.abc import Iterator

import pytest
from core.store_machine import carry_out, kept_positions
from core.stored_tables import MemoryTables, flush, reload

from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.core.state import State
from kvsecure.model.errors import Failure
from kvsecure.model.ids import TenantId
from kvsecure.proto import kv_pb2, tenant_pb2
from kvsecure.storage.rows import NO_SCOPE, Table

_MANY = 6_000


def _put(state: State, *keys: bytes, tenant: int = 1, value: bytes = b"v") -> None:
    for key in keys:
        carry_out(state, tenant, kv_pb2.PutRequest(key=key, value=value))


def _compact(state: State, revision: int) -> Failure | None:
    came = carry_out(state, 1, kv_pb2.CompactionRequest(revision=revision))[1]
    return came if isinstance(came, Failure) else None


def _slices(state: State, count: int) -> None:
    for _ in range(count):
        state.store.run_slice()


def _settle(state: State, tables: MemoryTables) -> None:
    while state.store.slices or state.dirty:
        flush(state, tables)
        _slices(state, 1)


def _index_rows(tables: MemoryTables) -> Iterator[tuple[int, bytes, int]]:
    """Yield (tenant, key, revision) of every row of the stored index."""
    for _, block in tables.scan(Table.INDEX, NO_SCOPE):
        for tenant, head, key, _ in decode_index_block(block):
            yield tenant, key, int.from_bytes(head[:8], "big")


@pytest.fixture
def tables() -> MemoryTables:
    """Tables that are empty."""
    return MemoryTables()


@pytest.fixture
def state(tables: MemoryTables) -> State:
    """A new cluster's state, in the tables."""
    state = reload(tables)
    flush(state, tables)
    return state


def test_compaction_keeps_newest_at_or_below(state: State, tables: MemoryTables) -> None:
    """Of each key the newest version at or below the revision stays, and all above it."""
    _put(state, b"a", b"a", b"b", b"a")

    _compact(state, 4)
    _settle(state, tables)

    assert [main for main, _, _ in kept_positions(state, 1)[b"a"]] == [3, 5]
    assert [main for main, _, _ in kept_positions(state, 1)[b"b"]] == [4]


@pytest.mark.parametrize(("revision", "kept"), [(3, [3]), (4, [])])
def test_compaction_keeps_deletion_only_at_its_revision(
    state: State, tables: MemoryTables, revision: int, kept: list[int]
) -> None:
    """A deletion stays exactly at the compacted revision, for a watch that begins there."""
    _put(state, b"a")
    carry_out(state, 1, kv_pb2.DeleteRangeRequest(key=b"a"))
    _put(state, b"b")

    _compact(state, revision)
    _settle(state, tables)

    assert [main for main, _, _ in kept_positions(state, 1).get(b"a", [])] == kept


@pytest.mark.parametrize(
    ("revision", "failure"),
    [
        (-2, Failure.COMPACTED),
        (-1, Failure.COMPACTED),
        (0, None),
        (3, None),
        (4, Failure.FUTURE_REVISION),
    ],
)
def test_compaction_revision_is_within_history(
    state: State, revision: int, failure: Failure | None
) -> None:
    """A revision that was compacted, or lies in the future, is refused."""
    _put(state, b"a", b"a")

    assert _compact(state, revision) is failure
    if failure is None:
        assert _compact(state, revision) is Failure.COMPACTED


def test_second_compaction_waits_for_tables(state: State, tables: MemoryTables) -> None:
    """A compaction right behind another leaves each version in one block, not in two."""
    for _ in range(3):
        _put(state, b"a", b"b", b"c")
        flush(state, tables)

    _compact(state, 6)
    _slices(state, 50)
    _compact(state, 8)
    _slices(state, 50)
    _settle(state, tables)

    again = reload(tables)
    assert kept_positions(again, 1) == kept_positions(state, 1)
    assert sorted(_index_rows(tables)) == sorted(
        (1, key, place[0]) for key, places in kept_positions(state, 1).items() for place in places
    )


def test_second_compaction_loses_no_record(state: State, tables: MemoryTables) -> None:
    """After two compactions without a flush between, a crash and a start, all is readable."""
    for _ in range(3):
        _put(state, b"a", b"b", b"c")
        flush(state, tables)
    _compact(state, 6)
    _slices(state, 50)
    _compact(state, 8)
    _slices(state, 50)
    flush(state, tables)

    again = reload(tables)
    _settle(again, tables)
    once_more = reload(tables)

    for revision in (8, 9, 10):
        request = kv_pb2.RangeRequest(key=b"a", range_end=b"d", revision=revision)
        body = once_more.store.range(once_more.store.space(TenantId(1)), request)
        found = kv_pb2.RangeResponse.FromString(body)
        assert [kv.key for kv in found.kvs] == [b"a", b"b", b"c"]


def test_compaction_of_unflushed_history_leaves_nothing(state: State, tables: MemoryTables) -> None:
    """What was written and compacted within one flush is not stored for ever after."""
    _put(state, b"a", b"a", b"a")
    _compact(state, 4)
    _slices(state, 50)

    _settle(state, tables)

    assert list(_index_rows(tables)) == [(1, b"a", 4)]
    assert len(tables.keys(Table.RECORDS)) == 1


def test_compaction_ends_when_bytes_are_gone(state: State, tables: MemoryTables) -> None:
    """The long work ends only once the tables have it: who waits for it may rely on that."""
    _put(state, b"a", b"a")
    flush(state, tables)
    _compact(state, 3)
    while len(tables.keys(Table.RECORDS)) > 1 or len(list(_index_rows(tables))) > 1:
        assert state.store.slices, "the work ended before the bytes were gone"
        _slices(state, 5)
        assert state.store.slices
        flush(state, tables)

    _slices(state, 5)

    assert not state.store.slices


def test_deleted_tenant_leaves_nothing(state: State, tables: MemoryTables) -> None:
    """Nothing of a tenant is stored after it was deleted, flushed before or not."""
    carry_out(state, 1, tenant_pb2.TenantAddRequest(name="x", root_no_password=True))
    _put(state, b"a", b"b", tenant=16)
    flush(state, tables)
    _put(state, b"c", tenant=16)
    carry_out(state, 1, tenant_pb2.TenantDeleteRequest(name="x"))
    _slices(state, 50)

    _settle(state, tables)

    assert not list(_index_rows(tables))
    assert not tables.keys(Table.RECORDS)
    assert not [key for key in tables.keys(Table.STATE) if key[1:5] == (16).to_bytes(4, "big")]


def test_deleted_tenant_leaves_nothing_after_a_crash(state: State, tables: MemoryTables) -> None:
    """A crash before the bytes of a deleted tenant are gone only puts that off."""
    _put(state, b"own", b"own")
    _compact(state, 3)
    _settle(state, tables)
    carry_out(state, 1, tenant_pb2.TenantAddRequest(name="x", root_no_password=True))
    _put(state, b"a", tenant=16)
    flush(state, tables)
    carry_out(state, 1, tenant_pb2.TenantDeleteRequest(name="x"))
    flush(state, tables)

    again = reload(tables)
    _settle(again, tables)

    assert list(_index_rows(tables)) == [(1, b"own", 3)]
    assert len(tables.keys(Table.RECORDS)) == 1


@pytest.mark.parametrize("slice_count", range(8))
def test_deleted_tenants_leave_nothing_after_a_crash_in_between(
    state: State, tables: MemoryTables, slice_count: int
) -> None:
    """Blocks that are rewritten for one tenant keep what the next one's bytes are found by."""
    for name in ("x", "y"):
        carry_out(state, 1, tenant_pb2.TenantAddRequest(name=name, root_no_password=True))
    _put(state, b"a", b"b", tenant=17)
    flush(state, tables)
    for name in ("x", "y"):
        carry_out(state, 1, tenant_pb2.TenantDeleteRequest(name=name))
    flush(state, tables)
    _slices(state, slice_count)
    flush(state, tables)

    state = reload(tables)
    _settle(state, tables)

    assert tables.keys(Table.RECORDS) == []
    assert list(_index_rows(tables)) == []


def test_blocks_are_merged_and_split_right(state: State, tables: MemoryTables) -> None:
    """Many small blocks become few, one large flush several, and the index stays the same."""
    for number in range(40):
        _put(state, b"s%d" % number, b"x")
        flush(state, tables)
    _put(state, *(b"k%d" % number for number in range(_MANY)))
    flush(state, tables)
    before = len(tables.keys(Table.INDEX))

    _compact(state, state.store.revision)
    _settle(state, tables)

    assert before > 41
    assert len(tables.keys(Table.INDEX)) < before
    assert kept_positions(reload(tables), 1) == kept_positions(state, 1)
    assert len(kept_positions(state, 1)) == _MANY + 41


def test_what_compaction_freed_is_not_kept_in_memory(state: State, tables: MemoryTables) -> None:
    """Of a key that is written and read again and again, the newest version is all that is held."""
    for number in range(20):
        _put(state, b"a", value=b"%04d" % number * 100)
        flush(state, tables)
        state.store.range(state.store.space(TenantId(1)), kv_pb2.RangeRequest(key=b"a"))
    before = state.records.cached_bytes

    assert _compact(state, state.store.revision) is None
    _settle(state, tables)

    assert before > 20 * 400
    assert 400 < state.records.cached_bytes < 2 * 440

"""Scans: the hash is of what is stored and nothing else, and what does not agree is found."""

import copy
from collections.abc import Callable

import pytest
from core.stored_tables import MemoryTables, flush, reload
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.apply import apply
from kvsecure.core.mvcc.records import decode_index_block, index_block
from kvsecure.core.scan import Damage, contents, survey
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2, mvcc_pb2, tenant_pb2
from kvsecure.storage.rows import NO_SCOPE, Row, Table, pack_rows

_SYSTEM = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)
# Writes of three keys, deletions, and flushes in between.
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([b"a", b"b", b"c"])),
        st.tuples(st.just("delete"), st.sampled_from([b"a", b"b", b"c"])),
        st.tuples(st.just("flush"), st.just(b"")),
    ),
    max_size=30,
)


def _do(state: State, kind: str, key: bytes) -> None:
    if kind == "put":
        command = kv_pb2.PutRequest(key=key, value=b"%d" % state.store.revision)
        apply(state, _SYSTEM, command, 0)
    elif kind == "delete":
        apply(state, _SYSTEM, kv_pb2.DeleteRangeRequest(key=key), 0)


def _settle(state: State, tables: MemoryTables) -> None:
    """Finish what is under way, and bring it all to the tables."""
    flush(state, tables)
    while state.store.run_slice():
        flush(state, tables)
    flush(state, tables)


def _filled() -> tuple[State, MemoryTables]:
    tables = MemoryTables()
    state = reload(tables)
    for number in range(40):
        _do(state, "put", b"key-%d" % (number % 25))
        if number % 7 == 0:
            flush(state, tables)
    _do(state, "delete", b"key-3")
    _settle(state, tables)
    return state, tables


@given(_steps, st.integers(0, 1 << 20))
def test_hash_does_not_depend_on_how_the_tables_came_to_be(
    steps: list[tuple[str, bytes]], drawn: int
) -> None:
    """The same history compacted at the same revision has one hash, however it was flushed."""
    hashes = set()
    for flushes in (True, False):
        tables = MemoryTables()
        state = reload(tables)
        for kind, key in steps:
            _do(state, kind, key)
            if kind == "flush" and flushes:
                flush(state, tables)
        compacted = 1 + drawn % state.store.revision
        apply(state, _SYSTEM, kv_pb2.CompactionRequest(revision=compacted), 0)
        _settle(state, tables)
        found = survey(tables)
        hashes.add((found.versions_hash, found.version_count, found.applied.revision))

    assert len(hashes) == 1


def test_hash_through_a_revision_ignores_what_came_later() -> None:
    """Versions behind the revision do not count, and the one at it does."""
    state, tables = _filled()
    revision = state.store.revision
    before = survey(tables)
    for number in range(5):
        _do(state, "put", b"later-%d" % number)
    _settle(state, tables)

    assert survey(tables, revision).versions_hash == before.versions_hash
    assert survey(tables, revision - 1).versions_hash != before.versions_hash
    assert survey(tables).versions_hash != before.versions_hash


def test_hash_of_everything_counts_accounts() -> None:
    """What is not a key changes the one hash and not the other."""
    state, tables = _filled()
    before = survey(tables)
    add = tenant_pb2.TenantAddRequest(name="acme", root_no_password=True)
    apply(state, _SYSTEM, add, 0)
    _settle(state, tables)

    after = survey(tables)
    assert after.hash != before.hash
    assert after.versions_hash == before.versions_hash


def test_keys_of_a_tenant_that_is_gone_do_not_count() -> None:
    """They are gone at once, though their bytes are given up in slices."""
    state, tables = _filled()
    before = survey(tables)
    add = tenant_pb2.TenantAddRequest(name="acme", root_no_password=True)
    apply(state, _SYSTEM, add, 0)
    tenant = Caller(state.accounts.tenant_named("acme").id, Origin.SYSTEM, "", 0)
    apply(state, tenant, kv_pb2.PutRequest(key=b"theirs", value=b"v"), 0)
    flush(state, tables)
    apply(state, _SYSTEM, tenant_pb2.TenantDeleteRequest(name="acme"), 0)
    flush(state, tables)

    assert survey(tables).versions_hash == before.versions_hash


def _drop_record(tables: MemoryTables) -> None:
    tables.write(pack_rows([Row(Table.RECORDS, tables.keys(Table.RECORDS)[5], NO_SCOPE, None)]))


def _add_record(tables: MemoryTables) -> None:
    key = tables.keys(Table.RECORDS)[-1]
    extra = key[:-1] + bytes((key[-1] + 1,))
    tables.write(pack_rows([Row(Table.RECORDS, extra, DEFAULT_TENANT, b"")]))


def _change_record(tables: MemoryTables) -> None:
    key = tables.keys(Table.RECORDS)[5]
    record = mvcc_pb2.KeyValue.FromString(tables.get(Table.RECORDS, key, DEFAULT_TENANT) or b"")
    record.version += 1
    row = Row(Table.RECORDS, key, DEFAULT_TENANT, record.SerializeToString())
    tables.write(pack_rows([row]))


def _rows(tables: MemoryTables) -> tuple[bytes, list[bytes]]:
    """Return the place and the rows of the largest index block."""
    blocks = dict(tables.scan(Table.INDEX, NO_SCOPE))
    place = max(blocks, key=lambda each: len(blocks[each]))
    return place, [row for _, _, _, row in decode_index_block(blocks[place])]


def _drop_row(tables: MemoryTables) -> None:
    place, rows = _rows(tables)
    changed = index_block(rows[:1] + rows[2:])
    tables.write(pack_rows([Row(Table.INDEX, place, NO_SCOPE, changed.value)]))


def _swap_rows(tables: MemoryTables) -> None:
    place, rows = _rows(tables)
    rows[1], rows[2] = rows[2], rows[1]
    tables.write(pack_rows([Row(Table.INDEX, place, NO_SCOPE, b"".join(rows))]))


def _forget_applied(tables: MemoryTables) -> None:
    tables.write(pack_rows([Row(Table.STATE, b"A", NO_SCOPE, None)]))


@pytest.mark.parametrize(
    "damage",
    [_drop_record, _add_record, _change_record, _drop_row, _swap_rows, _forget_applied],
)
def test_what_does_not_agree_is_found(damage: Callable[[MemoryTables], None]) -> None:
    """A record or a row that is missing, astray or different is damage."""
    _, tables = _filled()
    damaged = copy.deepcopy(tables)
    damage(damaged)

    survey(tables)
    with pytest.raises(Damage):
        survey(damaged)


def test_contents_are_every_version_in_order() -> None:
    """All versions come in the order they were written, deletions without a record."""
    state, tables = _filled()

    versions = list(contents(tables).versions)

    assert [each.main for each in versions] == sorted(each.main for each in versions)
    assert len(versions) == 41
    assert versions[-1].record is None
    assert all(each.record for each in versions[:-1])
    assert contents(tables).applied.revision == state.store.revision

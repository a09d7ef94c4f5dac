"""What is in a backup: the whole of the tables, and nothing that does not agree passes."""

import struct
from collections.abc import Callable

import pytest
from core.stored_tables import MemoryTables, flush, reload
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.apply import apply
from kvsecure.core.backup import BackupEnd, Row, StoredVersion, pack, unpack
from kvsecure.core.scan import Damage, contents, survey
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2, lease_pb2
from kvsecure.proto.mvcc_pb2 import KeyValue
from kvsecure.proto.state_pb2 import Applied

_SYSTEM = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)


def _filled(writes: list[tuple[bytes, bytes | None]]) -> tuple[State, MemoryTables]:
    tables = MemoryTables()
    state = reload(tables)
    apply(state, _SYSTEM, lease_pb2.LeaseGrantRequest(ID=7, TTL=60), 0)
    for key, value in writes:
        if value is None:
            apply(state, _SYSTEM, kv_pb2.DeleteRangeRequest(key=key), 0)
        else:
            apply(state, _SYSTEM, kv_pb2.PutRequest(key=key, value=value, lease=7), 0)
    flush(state, tables)
    return state, tables


def _some() -> list[tuple[bytes, bytes | None]]:
    writes: list[tuple[bytes, bytes | None]] = [(b"k%d" % n, b"v" * 3_000) for n in range(100)]
    return [*writes, (b"k3", None), (b"k4", b"again")]


_writes = st.lists(
    st.tuples(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=50)), max_size=40
)


@given(_writes)
def test_everything_that_was_written_comes_back(
    writes: list[tuple[bytes, bytes | None]],
) -> None:
    """Versions in their order, state rows, how far it is applied, and the hash of HashKV."""
    state, tables = _filled(writes)

    parts = list(unpack(text for text, _ in pack(contents(tables))))

    applied, end = parts[0], parts[-1]
    assert isinstance(applied, Applied)
    assert isinstance(end, BackupEnd)
    assert (applied.revision, applied.index) == (state.store.revision, state.index)
    assert end == (survey(tables).versions_hash, sum(isinstance(p, StoredVersion) for p in parts))
    rows = [(row.key, row.value) for row in parts if isinstance(row, Row)]
    assert rows == contents(tables).state
    model = {}
    for part in parts:
        if isinstance(part, StoredVersion):
            model[part.key] = part.record and KeyValue.FromString(part.record).value
    live = {key: value for key, value in model.items() if value is not None}
    wanted: dict[bytes, bytes] = {}
    for key, value in writes:
        wanted.pop(key, None)
        if value is not None:
            wanted[key] = value
    assert live == wanted


def _records(chunks: list[bytes]) -> list[bytes]:
    text, found = b"".join(chunks), []
    while text:
        _, length = struct.unpack_from(">BI", text)
        found.append(text[: 5 + length])
        text = text[5 + length :]
    return found


def _without_end(records: list[bytes]) -> list[bytes]:
    return records[:-1]


def _without_beginning(records: list[bytes]) -> list[bytes]:
    return records[1:]


def _without_a_version(records: list[bytes]) -> list[bytes]:
    return records[:-5] + records[-4:]


def _swapped(records: list[bytes]) -> list[bytes]:
    return [*records[:-5], records[-4], records[-5], *records[-3:]]


def _twice(records: list[bytes]) -> list[bytes]:
    return [*records, records[-1]]


def _state_behind_versions(records: list[bytes]) -> list[bytes]:
    return [*records[:-1], records[1], records[-1]]


def _of_no_kind(records: list[bytes]) -> list[bytes]:
    return [*records[:-1], struct.pack(">BI", 99, 0), records[-1]]


def _cut(records: list[bytes]) -> list[bytes]:
    return [*records[:-1], records[-1][:-3]]


def _changed(records: list[bytes]) -> list[bytes]:
    at = len(records) - 10
    changed = records[at].replace(b"vvv", b"vvw", 1)
    assert changed != records[at]
    return [*records[:at], changed, *records[at + 1 :]]


@pytest.mark.parametrize(
    "damage",
    [
        _without_end,
        _without_beginning,
        _without_a_version,
        _swapped,
        _twice,
        _state_behind_versions,
        _of_no_kind,
        _cut,
        _changed,
    ],
)
def test_what_pack_does_not_write_is_damage(damage: Callable[[list[bytes]], list[bytes]]) -> None:
    """Records that are missing, out of place, cut or changed are found, sealed or not."""
    _, tables = _filled(_some())
    chunks = [text for text, _ in pack(contents(tables))]
    assert len(chunks) > 3
    list(unpack(chunks))

    with pytest.raises(Damage):
        list(unpack([b"".join(damage(_records(chunks)))]))


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_damage_and_nothing_else(chunks: list[bytes]) -> None:
    """What comes out of a seal is still not trusted to be in form."""
    with pytest.raises(Damage):
        list(unpack(chunks))

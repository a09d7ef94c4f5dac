"""A scan: everything that the tables hold, read in order, checked against itself, and hashed.

    contents(tables)     the versions of all keys in the order they were written, and the state
    survey(tables, ...)  their hashes; what etcd calls HashKV and Hash

Owns: what has to agree in tables that are whole: every version that the index names has its record,
    says the same as it, and no record is without one.
Never: changes anything, or looks at memory: what is checked is what a restart would find.
Follows: etcd's HashKV: every version that is retained, of all tenants, through a revision.
Keeps: two members with the same history that are compacted to the same revision have equal hashes,
    however their tables came to be.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, final

from google.protobuf.message import DecodeError

from kvsecure.core.mvcc.index import HEAD, POSITION_BYTES, TOMBSTONE, main_of
from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.model.ids import TenantId
from kvsecure.proto.mvcc_pb2 import KeyValue
from kvsecure.proto.state_pb2 import Applied
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.rows import NO_SCOPE, Table

__all__ = [
    "Contents",
    "Damage",
    "SealedTables",
    "Survey",
    "Version",
    "VersionsHash",
    "check_record",
    "contents",
    "survey",
]

_APPLIED_KEY: Final = b"A"
_TENANT_KEY: Final = b"T"
_SUB_BITS: Final = 32
_NO_ROW: Final = (b"", b"")
_HASHED_AT_ONCE: Final = 512


@final
class Damage(Exception):
    """The tables are not whole; the text says where, and names no key."""


class SealedTables(Protocol):
    """Tables at one moment; `kvsecure.storage.tables.TableReader` is one."""

    def scan(self, table: Table, scope: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order, for tables whose rows all have this scope."""
        ...

    def scan_sealed(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, sealed row) in key order."""
        ...

    def open(self, table: Table, key: bytes, scope: int, sealed: bytes) -> bytes:
        """Return the value of a row of `scan_sealed`."""
        ...


class Version(NamedTuple):
    """One version of one key."""

    tenant: TenantId
    main: int
    # As the index table has it: tenant, place, what the version is, key.
    row: bytes
    # Encoded mvccpb.KeyValue; None for a deletion.
    record: bytes | None


class Contents(NamedTuple):
    """What the tables hold."""

    applied: Applied
    # The state table without `applied`, in key order.
    state: list[tuple[bytes, bytes]]
    # In the order they were written. Running it to its end is what checks the tables.
    versions: Iterator[Version]


class Survey(NamedTuple):
    """What came of hashing everything."""

    applied: Applied
    # Of the versions through a revision, and of everything.
    versions_hash: bytes
    hash: bytes
    version_count: int


def contents(tables: SealedTables) -> Contents:
    """Read the state, and begin to read the versions.

    Raises:
        Damage: The state cannot be read. Also raised by the iterator of the versions.
    """
    try:
        rows = dict(tables.scan(Table.STATE, NO_SCOPE))
    except DamagedRow as error:
        raise Damage(str(error)) from None
    stored = rows.pop(_APPLIED_KEY, None)
    if stored is None:
        raise Damage("the state table does not say how far the log is applied")
    try:
        applied = Applied.FromString(stored)
    except DecodeError:
        raise Damage("how far the log is applied cannot be read") from None
    tenants = {int.from_bytes(key[1:5], "big") for key in rows if key[:1] == _TENANT_KEY}
    return Contents(applied, list(rows.items()), _versions(tables, tenants, applied.revision))


def survey(tables: SealedTables, through: int | None = None) -> Survey:
    """Hash everything.

    Args:
        tables: At one moment.
        through: The revision through which versions count for their hash; None for all.

    Raises:
        Damage: The tables are not whole.
    """
    found = contents(tables)
    counted, later = VersionsHash(), VersionsHash()
    last = found.applied.revision if through is None else through
    for _, main, row, record in found.versions:
        (counted if main <= last else later).add(row, record)
    whole = hashlib.sha256(counted.digest() + later.digest())
    for key, value in found.state:
        for part in (key, value):
            whole.update(len(part).to_bytes(4, "big") + part)
    count = counted.count + later.count
    return Survey(found.applied, counted.digest(), whole.digest(), count)


@final
class VersionsHash:
    """The hash of versions in the order they were written."""

    __slots__ = ("_hash", "_waiting", "count")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []
        self.count = 0

    def add(self, row: bytes, record: bytes | None) -> None:
        """Take in a version."""
        self.count += 1
        waiting = self._waiting
        # The row says how long it is, and the record's length stands before it.
        waiting.append(row)
        if record is not None:
            waiting.append(len(record).to_bytes(4, "big"))
            waiting.append(record)
        if len(waiting) > _HASHED_AT_ONCE:
            self._hash.update(b"".join(waiting))
            waiting.clear()

    def digest(self) -> bytes:
        """Return the hash of what was taken in."""
        self._hash.update(b"".join(self._waiting))
        self._waiting.clear()
        return self._hash.digest()


def _versions(tables: SealedTables, tenants: set[int], revision: int) -> Iterator[Version]:
    """Go through index and records side by side: both are in the order of places."""
    records = tables.scan_sealed(Table.RECORDS)
    before = -1
    try:
        for _, block in tables.scan(Table.INDEX, NO_SCOPE):
            for tenant, head, key, row in decode_index_block(block):
                main, sub, _, _, _ = stands_for = HEAD.unpack(head)
                order = main << _SUB_BITS | sub & ~TOMBSTONE
                if order <= before or main > revision:
                    raise Damage(f"the index is out of order at revision {main}")
                before = order
                record = None
                if not sub & TOMBSTONE:
                    place = head[:POSITION_BYTES]
                    found, sealed = next(records, _NO_ROW)
                    if found != place:
                        raise Damage(f"a record of revision {main} is missing or astray")
                    record = tables.open(Table.RECORDS, place, tenant, sealed)
                    check_record(stands_for, key, record)
                if tenant in tenants:
                    yield Version(tenant, main, row, record)
    except DamagedRow as error:
        raise Damage(str(error)) from None
    stored = next(records, None)
    if stored is not None:
        raise Damage(f"the index does not name a record of revision {main_of(stored[0])}")


def check_record(stands_for: tuple[int, ...], key: bytes, record: bytes) -> None:
    """Check that a record is the version that the index says.

    Args:
        stands_for: The unpacked head of the version.
        key: Whose it is.
        record: Encoded mvccpb.KeyValue.

    Raises:
        Damage: It is not.
    """
    main, _, create, version, lease = stands_for
    try:
        kv = KeyValue.FromString(record)
    except DecodeError:
        raise Damage(f"a record of revision {main} cannot be read") from None
    if (
        kv.key != key
        or kv.mod_revision != main
        or kv.create_revision != create
        or kv.version != version
        or kv.lease != lease
    ):
        raise Damage(f"index and record of revision {main} differ")

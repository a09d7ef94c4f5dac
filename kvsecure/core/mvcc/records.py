"""Records: what a key was at a position, in memory until it is in the tables.

    fresh      written since the last flush began        reads look here first,
    flushing   handed to the table process, not confirmed   then here,
    cache      read from the tables lately                  then here,
    tables     everything older                             then there

Owns: the overlay over the tables, and the flush batches.
Never: decides which records there are; the index does.
Keeps: a record never changes, so nothing here is ever stale; a record is in one of the overlays
    until the transaction that holds it is durable.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol, final

from kvsecure.core.mvcc.record_cache import RecordCache
from kvsecure.model.errors import invariant
from kvsecure.model.ids import TenantId
from kvsecure.model.limits import RECORD_CACHE_BYTES_MAX
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.rows import (
    NO_SCOPE,
    Row,
    Table,
    pack_record_deletions,
    pack_records,
    pack_rows,
)

__all__ = [
    "DamagedRecord",
    "Records",
    "TableSource",
    "decode_index_block",
    "encode_index_row",
    "index_block",
]

_INDEX_BLOCK_ROWS_MAX: Final = 4_096
# Some milliseconds of packing each.
_RECORDS_PER_PIECE: Final = 1_000
_POSITIONS_PER_PIECE: Final = 10_000
_TENANT_BYTES: Final = 4
# What stands in front of a key: whose, its head, its length.
_ROW: Final = struct.Struct(">I36sI")
_KEY_LENGTH_BYTES: Final = 4


@final
class DamagedRecord(Exception):
    """What the tables must hold is not there, or was changed."""


class TableSource(Protocol):
    """Where flushed rows are read: the sealed tables, or a plain dictionary in simulation."""

    def get(self, table: Table, key: bytes, scope: int) -> bytes | None:
        """Return a row's value, or None if there is no such row."""
        ...

    def next(self, table: Table, start: bytes, scope: int) -> tuple[bytes, bytes] | None:
        """Return the first row at or after a key, or None behind the last."""
        ...


def encode_index_row(tenant_prefix: bytes, head: bytes, key: bytes) -> bytes:
    """Encode what the index needs to know of one version: whose, where, what, and its key."""
    return tenant_prefix + head + len(key).to_bytes(_KEY_LENGTH_BYTES, "big") + key


def decode_index_block(block: bytes) -> Iterable[tuple[TenantId, bytes, bytes, bytes]]:
    """Yield (tenant, head, key, the encoded row) of each row of a block, in order."""
    offset, size = 0, len(block)
    row_at, key_bytes_at = _ROW.unpack_from, _ROW.size
    while offset < size:
        tenant, head, length = row_at(block, offset)
        key_at = offset + key_bytes_at
        end = key_at + length
        yield tenant, head, block[key_at:end], block[offset:end]
        offset = end


@final
class Records:
    """The records of all tenants."""

    __slots__ = (
        "_cache",
        "_flushing",
        "_flushing_bytes",
        "_source",
        "flushes_begun",
        "flushes_ended",
        "fresh",
        "fresh_bytes",
        "fresh_rows",
        "obsolete",
    )

    def __init__(self, source: TableSource) -> None:
        """Make an empty overlay over the tables."""
        self._source = source
        # Position -> (tenant, encoded mvccpb.KeyValue).
        self.fresh: dict[bytes, tuple[TenantId, bytes]] = {}
        self.fresh_rows: list[bytes] = []
        self.fresh_bytes = 0
        # Positions that compaction freed and that are still in the tables.
        self.obsolete: list[bytes] = []
        # They differ by one while a flush is on its way.
        self.flushes_begun = 0
        self.flushes_ended = 0
        self._flushing: dict[bytes, tuple[TenantId, bytes]] = {}
        self._flushing_bytes = 0
        self._cache = RecordCache(RECORD_CACHE_BYTES_MAX)

    def get(self, place: bytes, tenant: TenantId) -> bytes:
        """Return the record at a position that the index holds.

        Raises:
            DamagedRecord: It is missing, or does not open.
        """
        record = self.find(place, tenant)
        if record is None:
            raise DamagedRecord("a record that the index names is missing")
        return record

    def find(self, place: bytes, tenant: TenantId) -> bytes | None:
        """Return the record at a position, or None if compaction has freed it.

        Raises:
            DamagedRecord: It does not open.
        """
        found = self.fresh.get(place) or self._flushing.get(place)
        if found is not None:
            return found[1]
        cached = self._cache.get(place)
        if cached is not None:
            return cached
        try:
            record = self._source.get(Table.RECORDS, place, tenant)
        except DamagedRow as damage:
            raise DamagedRecord(str(damage)) from None
        if record is not None:
            self._cache.add(place, record)
        return record

    def destroy(self, places: Iterable[bytes]) -> None:
        """Give up records for good: those that are not in the tables yet do not get there.

        What is on its way to them is deleted there by the next flush.
        """
        for place in places:
            fresh = self.fresh.pop(place, None)
            if fresh is not None:
                self.fresh_bytes -= len(fresh[1])
            self._cache.remove(place)
            self.obsolete.append(place)

    def begin_flush(self) -> Iterator[bytes]:
        """Hand over what has to be written; reads find it here until `end_flush`.

        Returns:
            It, packed piece by piece, each a millisecond or two of work; what is written meanwhile
            is none of it.
        """
        invariant(self.flushes_begun == self.flushes_ended, "one flush at a time")
        self.flushes_begun += 1
        self._flushing, self.fresh = self.fresh, {}
        self._flushing_bytes, self.fresh_bytes = self.fresh_bytes, 0
        rows, self.fresh_rows = self.fresh_rows, []
        obsolete, self.obsolete = self.obsolete, []
        return self._packed(self._flushing, rows, obsolete)

    def _packed(
        self,
        records: Mapping[bytes, tuple[TenantId, bytes]],
        rows: list[bytes],
        obsolete: list[bytes],
    ) -> Iterator[bytes]:
        left = iter(records.items())
        while some := dict(islice(left, _RECORDS_PER_PIECE)):
            yield pack_records(some)
        for start in range(0, len(rows), _INDEX_BLOCK_ROWS_MAX):
            yield pack_rows([index_block(rows[start : start + _INDEX_BLOCK_ROWS_MAX])])
        for start in range(0, len(obsolete), _POSITIONS_PER_PIECE):
            places = obsolete[start : start + _POSITIONS_PER_PIECE]
            # Nobody will ask for them again: what the cache holds is what may be asked for.
            for place in places:
                self._cache.remove(place)
            yield pack_record_deletions(places)

    def end_flush(self) -> None:
        """Take note that what was handed over is durable."""
        self._flushing = {}
        self._flushing_bytes = 0
        self.flushes_ended += 1

    def next_block(self, start: bytes) -> tuple[bytes, bytes] | None:
        """Return the first flushed index block at or after a place, with its place.

        Raises:
            DamagedRecord: It does not open.
        """
        try:
            return self._source.next(Table.INDEX, start, NO_SCOPE)
        except DamagedRow as damage:
            raise DamagedRecord(str(damage)) from None

    @property
    def cached_bytes(self) -> int:
        """How much of the tables is held in memory."""
        return self._cache.size_bytes

    @property
    def unflushed_bytes(self) -> int:
        """How much is only in memory and in the log."""
        return self.fresh_bytes + self._flushing_bytes


def index_block(rows: list[bytes]) -> Row:
    """Return the index block of rows that follow each other, under the position of the first."""
    first = rows[0]
    place = first[_TENANT_BYTES : _TENANT_BYTES + 12]
    # The mark of a deletion is not part of the order.
    key = place[:8] + bytes((place[8] & 0x7F,)) + place[9:]
    return Row(Table.INDEX, key, NO_SCOPE, b"".join(rows))

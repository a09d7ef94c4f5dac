"""Rows of the tables, and how they travel to the process that writes them.

    row := table, scope, length of the key, length of the value or none, key, value

Owns: which tables there are, and packing rows, of which there are many.
Never: seals, or knows what a row means.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from kvsecure.model.errors import invariant

__all__ = [
    "NO_SCOPE",
    "Row",
    "Table",
    "pack_record_deletions",
    "pack_records",
    "pack_rows",
    "unpack_rows",
]

_PACKED: Final = struct.Struct(">BIHI")
# Of the keys of the record table.
_POSITION_BYTES: Final = 12
_NO_VALUE: Final = 0xFFFF_FFFF

# Rows that belong to no tenant.
NO_SCOPE: Final = 0


class Table(IntEnum):
    """The tables, by the byte that stands for them between processes."""

    RECORDS = 1
    INDEX = 2
    STATE = 3


class Row(NamedTuple):
    """A row to write; a value of None deletes it."""

    table: Table
    key: bytes
    scope: int
    value: bytes | None


# What `Row(...)` does, without the Python frame of a NamedTuple's constructor.
_row: Callable[[tuple[Table, bytes, int, bytes | None]], Row] = partial(tuple.__new__, Row)


def pack_rows(rows: Iterable[Row]) -> bytes:
    """Encode rows for the way to the process that writes them."""
    parts = []
    for table, key, scope, value in rows:
        length = _NO_VALUE if value is None else len(value)
        parts.append(_PACKED.pack(table, scope, len(key), length))
        parts.append(key)
        if value is not None:
            parts.append(value)
    return b"".join(parts)


def pack_records(records: Mapping[bytes, tuple[int, bytes]]) -> bytes:
    """Encode rows of the record table: position -> (scope, value). Records come by the thousand."""
    pack, table = _PACKED.pack, Table.RECORDS
    return b"".join(
        [
            pack(table, scope, len(key), len(value)) + key + value
            for key, (scope, value) in records.items()
        ]
    )


def pack_record_deletions(keys: Iterable[bytes]) -> bytes:
    """Encode that rows of the record table are to go; their keys have 12 bytes. A million may."""
    head = _PACKED.pack(Table.RECORDS.value, NO_SCOPE, _POSITION_BYTES, _NO_VALUE)
    packed = head.join((b"", *keys))
    # Nothing in Python looks at each of them.
    invariant(len(packed) % (len(head) + _POSITION_BYTES) == 0, "a position has 12 bytes")
    return packed


def unpack_rows(packed: bytes) -> Iterator[Row]:
    """Decode what `pack_rows` encoded."""
    # Rows come by the thousand, and an enum looks its members up in Python.
    tables = {int(table): table for table in Table}
    offset = 0
    while offset < len(packed):
        table, scope, key_bytes, length = _PACKED.unpack_from(packed, offset)
        offset += _PACKED.size
        key = packed[offset : offset + key_bytes]
        offset += key_bytes
        value = None
        if length != _NO_VALUE:
            value = packed[offset : offset + length]
            offset += length
        yield _row((tables[table], key, scope, value))

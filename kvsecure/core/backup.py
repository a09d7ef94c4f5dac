"""What is in a backup: everything that the tables hold at one moment, in one order.

    how far it is applied   the state's rows   every version, as written   the end, with its hash

Owns: the records in the chunks, and what must be true of them all before any is used.
Never: seals, signs or touches a file.
Follows: docs/adr/0016-backups.md.
Keeps: whatever `unpack` has yielded to its end is whole: in order, in agreement, and of the hash
    that was worked out when it was made.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, final

from google.protobuf.message import DecodeError

from kvsecure.core.mvcc.index import HEAD, POSITION_BYTES, is_tombstone, main_of
from kvsecure.core.mvcc.records import decode_index_block, encode_index_row
from kvsecure.core.scan import Contents, Damage, VersionsHash, check_record
from kvsecure.model.ids import TenantId
from kvsecure.proto.state_pb2 import Applied

__all__ = ["BackupEnd", "Row", "StoredVersion", "pack", "unpack"]

_CHUNK_BYTES: Final = 64 * 1024
_HEAD: Final = struct.Struct(">BI")
_LENGTH: Final = struct.Struct(">I")
_SUB_MASK: Final = 0x7F


class _Kind(IntEnum):
    APPLIED = 1
    STATE = 2
    VERSION = 3
    DELETION = 4
    END = 5


class Row(NamedTuple):
    """A row of the state table."""

    key: bytes
    value: bytes


class StoredVersion(NamedTuple):
    """One version of one key."""

    tenant: TenantId
    # Main and sub revision, with the mark of a deletion.
    place: bytes
    key: bytes
    # As the index has it.
    row: bytes
    record: bytes | None


class BackupEnd(NamedTuple):
    """What a backup says at its end."""

    versions_hash: bytes
    version_count: int


def pack(contents: Contents) -> Iterator[tuple[bytes, bool]]:
    """Yield the chunks of a backup, and whether each is the last one.

    Raises:
        Damage: The tables are not whole.
    """
    chunk = [_record(_Kind.APPLIED, contents.applied.SerializeToString())]
    size_bytes = 0
    for key, value in contents.state:
        chunk.append(_record(_Kind.STATE, _LENGTH.pack(len(key)) + key + value))
        size_bytes += len(chunk[-1])
        if size_bytes >= _CHUNK_BYTES:
            yield b"".join(chunk), False
            chunk, size_bytes = [], 0
    hashing = VersionsHash()
    for _, _, row, record in contents.versions:
        hashing.add(row, record)
        if record is None:
            chunk.append(_record(_Kind.DELETION, row))
        else:
            chunk.append(_record(_Kind.VERSION, _LENGTH.pack(len(row)) + row + record))
        size_bytes += len(chunk[-1])
        if size_bytes >= _CHUNK_BYTES:
            yield b"".join(chunk), False
            chunk, size_bytes = [], 0
    end = {"versions_hash": hashing.digest().hex(), "version_count": hashing.count}
    chunk.append(_record(_Kind.END, json.dumps(end).encode()))
    yield b"".join(chunk), True


def unpack(chunks: Iterable[bytes]) -> Iterator[Applied | Row | StoredVersion | BackupEnd]:
    """Yield what is in a backup, checked, in the order of `pack`.

    Raises:
        Damage: Something in it is not what `pack` writes.
    """
    return _Unpacking().run(chunks)


@final
class _Unpacking:
    """One pass over a backup."""

    def __init__(self) -> None:
        self._revision = 0
        self._before = b""
        self._hash = VersionsHash()

    def run(self, chunks: Iterable[bytes]) -> Iterator[Applied | Row | StoredVersion | BackupEnd]:
        """Yield all of it."""
        is_first = True
        ended = False
        for chunk in chunks:
            for kind, body in _records(chunk):
                if ended or is_first != (kind is _Kind.APPLIED):
                    raise Damage("a record of the backup is out of place")
                is_first = False
                ended = kind is _Kind.END
                try:
                    yield self._read(kind, body)
                except (DecodeError, struct.error, ValueError, KeyError, TypeError, RecursionError):
                    raise Damage("a record of the backup cannot be read") from None
        if not ended:
            raise Damage("the backup has no end")

    def _read(self, kind: _Kind, body: bytes) -> Applied | Row | StoredVersion | BackupEnd:
        match kind:
            case _Kind.APPLIED:
                applied = Applied.FromString(body)
                self._revision = applied.revision
                return applied
            case _Kind.STATE:
                key, value = _split(body)
                if self._before:
                    raise Damage("a row of the backup's state is out of place")
                return Row(key, value)
            case _Kind.END:
                return self._end(body)
        row, record = (body, None) if kind is _Kind.DELETION else _split(body)
        return self._version(row, record)

    def _version(self, row: bytes, record: bytes | None) -> StoredVersion:
        decoded = list(decode_index_block(row))
        if len(decoded) != 1:
            raise Damage("a version of the backup cannot be read")
        tenant, head, key, _ = decoded[0]
        # Cut off, it would run into whatever stands behind it in the tables.
        if len(head) != HEAD.size or encode_index_row(tenant.to_bytes(4, "big"), head, key) != row:
            raise Damage("a version of the backup cannot be read")
        place = head[:POSITION_BYTES]
        order = place[:8] + bytes((place[8] & _SUB_MASK,)) + place[9:]
        if order <= self._before or main_of(place) > self._revision:
            raise Damage(f"the backup is out of order at revision {main_of(place)}")
        self._before = order
        if is_tombstone(place) != (record is None):
            raise Damage(f"a deletion of the backup's revision {main_of(place)} is none")
        if record is not None:
            check_record(HEAD.unpack(head), key, record)
        self._hash.add(row, record)
        return StoredVersion(tenant, place, key, row, record)

    def _end(self, body: bytes) -> BackupEnd:
        fields = json.loads(body)
        end = BackupEnd(bytes.fromhex(fields["versions_hash"]), int(fields["version_count"]))
        if end != (self._hash.digest(), self._hash.count):
            raise Damage("the backup's versions do not have the hash that it was made with")
        return end


def _record(kind: _Kind, body: bytes) -> bytes:
    return _HEAD.pack(kind, len(body)) + body


def _records(chunk: bytes) -> Iterator[tuple[_Kind, bytes]]:
    offset = 0
    while offset < len(chunk):
        try:
            number, length = _HEAD.unpack_from(chunk, offset)
            kind = _Kind(number)
        except (struct.error, ValueError):
            raise Damage("a record of the backup is of a kind not known here") from None
        offset += _HEAD.size
        body = chunk[offset : offset + length]
        if len(body) != length:
            raise Damage("a record of the backup is cut off")
        yield kind, body
        offset += length


def _split(body: bytes) -> tuple[bytes, bytes]:
    (length,) = _LENGTH.unpack_from(body)
    first = body[_LENGTH.size : _LENGTH.size + length]
    if len(first) != length:
        raise Damage("a record of the backup is cut off")
    return first, body[_LENGTH.size + length :]

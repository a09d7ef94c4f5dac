"""Sealed append-only segments: the write-ahead log and the audit trail are both made of them.

    segment := header frame*
    header  := magic "KVSG", version, kind, cluster, member, number, first, term, salt, link, crc32
    frame   := length, count, first, crc32 of the three | sealed text with tag | zeros | crc32

The zeros make a frame's length a multiple of 8 (in version 1 there are none); the last crc32 is of
the sealed text and the zeros.
Zeros behind the last frame are room that was made ahead; they are the end.

Owns: the format, and telling a torn tail from damage.
Never: opens files or decides what to do about damage; never knows what a text means.
Follows: etcd's WAL for the torn-write rule (server/storage/wal/decoder.go); ours is sealed.
Keeps: every segment has a key of its own (its salt is fresh), so frame numbers can be nonces; a
    frame is bound to its header, its place and the tag of the frame before it, and a header to the
    last tag of the segment before, so that nothing can be swapped, dropped from the middle,
    repeated or brought in from elsewhere.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Self, final

from kvsecure.crypto.sealing import SALT_BYTES, TAG_BYTES, Opener, Sealer, Tampered
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret

__all__ = [
    "HEADER_BYTES",
    "NO_LINK",
    "Damage",
    "DamagedSegment",
    "Frame",
    "Header",
    "Kind",
    "SegmentEncoder",
    "read_frames",
    "read_header",
    "written_bytes",
]

_MAGIC: Final = b"KVSG"
# What the length of a frame is a multiple of, by version. A part of a frame of fewer than 8 bytes,
# alone in a sector, may be zeros although it was written.
_ALIGNMENT: Final = {1: 1, 2: 8}
_VERSION: Final = 2
_HEADER: Final = struct.Struct(f">4sHHQQQQI{SALT_BYTES}s{TAG_BYTES}s")
_CRC: Final = struct.Struct(">I")
_FRAME: Final = struct.Struct(">IIQ")
_FRAME_HEADER_BYTES: Final = _FRAME.size + _CRC.size
_BINDING: Final = struct.Struct(f">16sQQI{TAG_BYTES}s")
# Disks write whole sectors; a sector that never arrived reads as zeros.
_SECTOR_BYTES: Final = 512
# A frame reaches into its first and last sector with no less. This many zeros cannot be sound, nor
# one flipped bit away from it: a header begins with length and count, and what ends a frame is a
# checksum.
_PIECE_BYTES_MIN: Final = 8

HEADER_BYTES: Final = _HEADER.size + _CRC.size
# What the first segment of all links to.
NO_LINK: Final = bytes(TAG_BYTES)


class Kind(IntEnum):
    """What a segment is part of."""

    WAL = 1
    AUDIT = 2


class Damage(IntEnum):
    """How a segment is wrong."""

    # The end of a write that never finished: nothing behind it was ever acknowledged.
    TORN = 1
    # Bytes that were once right are not any more.
    CHANGED = 2
    # Right in itself, and not of this cluster, member or place.
    FOREIGN = 3


@final
class DamagedSegment(Exception):
    """Reading stopped at a place that is not right."""

    def __init__(self, damage: Damage, offset: int, why: str, first: int | None = None) -> None:
        super().__init__(f"{why} at byte {offset}")
        self.damage = damage
        # Everything before this byte is whole and authentic.
        self.offset = offset
        # The number of the first entry or record in the frame that is wrong, where it can be told.
        self.first = first


class Header(NamedTuple):
    """What a segment is."""

    kind: Kind
    cluster: ClusterId
    member: MemberId
    # Counts segments from 1; a missing one is a gap.
    number: int
    # The number of the first entry or record that may be in it.
    first: int
    # The data key that its key is derived from.
    term: int
    salt: bytes
    # The tag of the last frame before this segment.
    link: bytes
    version: int = _VERSION

    def encode(self) -> bytes:
        """Return the header's bytes, HEADER_BYTES long."""
        packed = _HEADER.pack(
            _MAGIC,
            self.version,
            self.kind,
            self.cluster,
            self.member,
            self.number,
            self.first,
            self.term,
            self.salt,
            self.link,
        )
        return packed + _CRC.pack(zlib.crc32(packed))

    def digest(self) -> bytes:
        """Return what frames are bound to."""
        return hashlib.sha256(self.encode()).digest()[:16]

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read a header.

        Raises:
            DamagedSegment: It is cut off (TORN), changed, or of a format not known here.
        """
        if len(content) < HEADER_BYTES:
            raise DamagedSegment(Damage.TORN, 0, "the header is cut off")
        packed = content[: _HEADER.size]
        (crc,) = _CRC.unpack_from(content, _HEADER.size)
        if crc != zlib.crc32(packed):
            damage = Damage.CHANGED if any(content[:HEADER_BYTES]) else Damage.TORN
            raise DamagedSegment(damage, 0, "the header is damaged")
        magic, version, kind, *rest = _HEADER.unpack(packed)
        if magic != _MAGIC or version not in _ALIGNMENT or kind not in tuple(Kind):
            raise DamagedSegment(Damage.FOREIGN, 0, "not a segment of a format known here")
        return cls(Kind(kind), *rest)._replace(version=version)


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """One batch as it was appended."""

    # The number of its first entry or record, and how many it holds.
    first: int
    count: int
    text: bytes
    # Where it begins and ends in the segment, and the tag the next one links to.
    offset: int
    end: int
    tag: bytes


@final
class SegmentEncoder:
    """Turns batches into the frames of one new segment."""

    __slots__ = ("_digest", "_sealer", "header", "tag")

    def __init__(self, header: Header, key: Secret) -> None:
        self.header = header
        self.tag = header.link
        self._digest = header.digest()
        self._sealer = Sealer(key)

    def frame(self, first: int, count: int, text: bytes) -> bytes:
        """Return the next frame; it must be written before the next call."""
        bound_to = _BINDING.pack(self._digest, self._sealer.count, first, count, self.tag)
        sealed = self._sealer.seal(text, bound_to)
        self.tag = sealed[-TAG_BYTES:]
        head = _FRAME.pack(len(sealed), count, first)
        sealed += bytes(_padding_bytes(self.header, len(sealed)))
        return b"".join((head, _CRC.pack(zlib.crc32(head)), sealed, _CRC.pack(zlib.crc32(sealed))))


def read_header(content: bytes, kind: Kind, cluster: ClusterId, member: MemberId) -> Header:
    """Read a segment's header and check whose it is.

    Raises:
        DamagedSegment: It is damaged, or belongs to another cluster or member (FOREIGN).
    """
    header = Header.decode(content)
    if header.kind != kind:
        raise DamagedSegment(Damage.FOREIGN, 0, "a segment of another kind")
    if header.cluster != cluster or header.member != member:
        whose = f"cluster {header.cluster:x}, member {header.member:x}"
        raise DamagedSegment(Damage.FOREIGN, 0, f"a segment of {whose}")
    return header


def _padding_bytes(header: Header, length: int) -> int:
    """Return how many zeros follow on a sealed text of this length."""
    return -(_FRAME_HEADER_BYTES + length + _CRC.size) % _ALIGNMENT[header.version]


def written_bytes(content: bytes) -> int:
    """Return how much of a segment may have been written; behind it is room that was made ahead."""
    return len(content.rstrip(b"\0"))


def read_frames(
    content: bytes,
    header: Header,
    key: Secret,
    *,
    on_tampered: Callable[[Frame], None] | None = None,
) -> Iterator[Frame]:
    """Yield a segment's frames, each opened and checked.

    Args:
        content: The whole segment.
        header: Its header, as `read_header` gave it.
        key: The segment's key.
        on_tampered: Called with the still sealed frame that fails to open, before the error.

    Raises:
        DamagedSegment: At the first place that is not right; TORN only if it is part of a write
            that never finished: of the last frame, or in the audit trail, where several frames are
            made durable at once, of any frame from which a sector is missing.
    """
    opener, digest, tag = Opener(key), header.digest(), header.link
    offset, ordinal = HEADER_BYTES, 0
    written = written_bytes(content)
    only_last_is_torn = header.kind is Kind.WAL
    while offset < written:
        length, count, first = _frame_header(content, offset, only_last=only_last_is_torn)
        body = offset + _FRAME_HEADER_BYTES
        padded = length + _padding_bytes(header, length)
        end = body + padded + _CRC.size
        if end > len(content):
            raise DamagedSegment(Damage.TORN, offset, "the last frame is cut off", first)
        sealed = content[body : body + length]
        if _CRC.unpack_from(content, end - _CRC.size)[0] != zlib.crc32(
            content[body : body + padded]
        ):
            may_be_torn = end >= written or not only_last_is_torn
            torn = may_be_torn and _has_missing_sector(content, offset, end)
            frame = Frame(first, count, sealed, offset, end, tag)
            if not torn and on_tampered:
                on_tampered(frame)
            damage = Damage.TORN if torn else Damage.CHANGED
            raise DamagedSegment(damage, offset, "a frame fails its checksum", first)
        try:
            text = opener.open(ordinal, sealed, _BINDING.pack(digest, ordinal, first, count, tag))
        except Tampered:
            if on_tampered:
                on_tampered(Frame(first, count, sealed, offset, end, tag))
            raise DamagedSegment(
                Damage.CHANGED, offset, "a frame fails its seal: it was changed on purpose", first
            ) from None
        tag = sealed[-TAG_BYTES:]
        yield Frame(first, count, text, offset, end, tag)
        offset, ordinal = end, ordinal + 1


def _frame_header(content: bytes, offset: int, *, only_last: bool) -> tuple[int, int, int]:
    if len(content) - offset < _FRAME_HEADER_BYTES:
        raise DamagedSegment(Damage.TORN, offset, "the last frame is cut off")
    head = content[offset : offset + _FRAME.size]
    (crc,) = _CRC.unpack_from(content, offset + _FRAME.size)
    if crc != zlib.crc32(head):
        # What is missing must be a sector that the header itself lies in.
        end = min(len(content), _sector_end(offset + _FRAME_HEADER_BYTES - 1))
        torn = _has_missing_sector(content, offset, end) and not (
            only_last and _frame_follows(content, offset)
        )
        raise DamagedSegment(
            Damage.TORN if torn else Damage.CHANGED, offset, "a frame header is damaged"
        )
    length, count, first = _FRAME.unpack(head)
    return length, count, first


def _sector_end(position: int) -> int:
    """Return where the sector ends that a byte lies in."""
    return (position // _SECTOR_BYTES + 1) * _SECTOR_BYTES


def _has_missing_sector(content: bytes, start: int, end: int) -> bool:
    """Tell whether a sector of the stretch, or its part in the stretch, never reached the disk."""
    position = start
    while position < end:
        boundary = min(end, _sector_end(position))
        if boundary - position >= _PIECE_BYTES_MIN and not any(content[position:boundary]):
            return True
        position = boundary
    return False


def _frame_follows(content: bytes, offset: int) -> bool:
    """Tell whether a whole frame header stands anywhere behind the place: then it is no tail."""
    # The upper half of a frame's `first` is zero until 2**32 entries are written.
    found = content.find(bytes(4), offset + 1)
    while found != -1:
        start = found - 8
        if start > offset and len(content) - start >= _FRAME_HEADER_BYTES:
            (crc,) = _CRC.unpack_from(content, start + _FRAME.size)
            head = content[start : start + _FRAME.size]
            if any(head) and crc == zlib.crc32(head):
                return True
        found = content.find(bytes(4), found + 1)
    return False

"""A snapshot on its way to another member: which state it is, and its form as a stream of bytes.

    SnapshotHead       what is said before the first byte
    stream  := chunk ..., 0, SHA-256 of all before it        chunk := length, what `pack` gives

Owns: the head, how chunks are found again in pieces of any size, and the hash of all of it.
Never: knows what is in a chunk; `kvsecure.core.backup` does.
Keeps: whatever `chunks_of` has yielded to its end is what went in, whole; no more of it is
    held than a chunk and a piece.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self, final

from kvsecure.core.raft.configuration import Configuration, DamagedConfiguration
from kvsecure.core.scan import Damage
from kvsecure.model.ids import Index, Term
from kvsecure.model.limits import WAL_SEGMENT_BYTES_MAX

__all__ = ["SnapshotHead", "chunks_of", "pieces_of"]

_MAGIC: Final = b"kvsecure snapshot"
_FORMAT: Final = 1
# Format, index and term.
_HEAD: Final = struct.Struct(f">{len(_MAGIC)}sBQQ")
_LENGTH: Final = struct.Struct(">I")
# What is in a chunk came through the log, or has been made of less.
_CHUNK_BYTES_MAX: Final = 2 * WAL_SEGMENT_BYTES_MAX


@final
@dataclass(frozen=True, slots=True)
class SnapshotHead:
    """Which state a stream is."""

    index: Index
    # Of the entry at the index.
    term: Term
    # In force there.
    configuration: Configuration

    def encode(self) -> bytes:
        """Return the subject of the stream."""
        head = _HEAD.pack(_MAGIC, _FORMAT, self.index, self.term)
        return head + self.configuration.encode()

    @classmethod
    def decode(cls, subject: bytes) -> Self:
        """Read a subject.

        Raises:
            Damage: It is none of a snapshot, or of a format that is not known here.
        """
        try:
            magic, number, index, term = _HEAD.unpack_from(subject)
            if magic != _MAGIC:
                raise Damage("the stream is no snapshot")
            if number != _FORMAT:
                raise Damage(f"snapshot format {number} is not known here")
            configuration = Configuration.decode(subject[_HEAD.size :])
        except (struct.error, DamagedConfiguration):
            raise Damage("what the snapshot is of cannot be read") from None
        if not index or not term:
            raise Damage("the snapshot is of nothing")
        return cls(Index(index), Term(term), configuration)


def pieces_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the stream of these chunks, none of which is empty."""
    digest = hashlib.sha256()
    for chunk in chunks:
        piece = _LENGTH.pack(len(chunk)) + chunk
        digest.update(piece)
        yield piece
    yield _LENGTH.pack(0) + digest.digest()


def chunks_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a stream that comes in pieces of any size.

    Raises:
        Damage: It is not whole, or not what went in.
    """
    digest = hashlib.sha256()
    waiting = bytearray()
    has_ended = False
    for piece in pieces:
        waiting += piece
        while not has_ended and len(waiting) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(waiting)
            end = _LENGTH.size + length
            if length > _CHUNK_BYTES_MAX:
                raise Damage("a chunk of the snapshot is too long")
            has_ended = not length
            if has_ended or len(waiting) < end:
                break
            whole = bytes(waiting[:end])
            # This moves nothing: a bytearray remembers where it begins.
            del waiting[:end]
            digest.update(whole)
            yield whole[_LENGTH.size :]
        if has_ended and len(waiting) > _LENGTH.size + digest.digest_size:
            raise Damage("something follows on the end of the snapshot")
    if waiting != _LENGTH.pack(0) + digest.digest():
        raise Damage("the snapshot does not end with the hash of what came")

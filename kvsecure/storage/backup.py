"""A backup's file: sealed in chunks that are chained, signed, with the digest that etcd expects.

    magic   length and header (JSON, nothing secret)   chunks   zeros   signature   SHA-256

Owns: the form of the file, and that no byte of it can be changed, dropped or moved unnoticed.
Never: knows what is in a chunk.
Follows: docs/adr/0016-backups.md. etcdctl takes a file whose length is 32 more than a multiple of
    512 and whose last 32 bytes are the SHA-256 of what is before them.
Keeps: a chunk is bound to the header, to its number, to the chunk before it, and to whether it is
    the last one; whoever has only the public key can check the signature without opening anything.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, final

from kvsecure.crypto.sealing import TAG_BYTES, Opener, Sealer, Tampered
from kvsecure.crypto.signing import SigningKey, VerifyingKey
from kvsecure.model.secret import Secret
from kvsecure.storage.files import write_all

__all__ = [
    "BackupWriter",
    "DamagedBackup",
    "Outline",
    "check_outline",
    "check_signature",
    "open_chunks",
]

_MAGIC: Final = b"kvsecure backup 1\n"
_LENGTH: Final = struct.Struct(">I")
_LAST: Final = 0x8000_0000
_HEADER_BYTES_MAX: Final = 64 * 1024
_SIGNATURE_BYTES: Final = 64
_DIGEST_BYTES: Final = 32
_BLOCK_BYTES: Final = 512
_SIGNED: Final = b"kvsecure/backup/v1\0"
_READ_BYTES: Final = 1024 * 1024


@final
class DamagedBackup(Exception):
    """A file is no backup, or not the one that was made; the text says what is wrong."""


class Outline(NamedTuple):
    """What a file says of itself, after digest and signature have been checked."""

    path: Path
    header: bytes
    # Where the chunks begin and where they and the zeros end.
    start: int
    end: int
    size_bytes: int
    digest: bytes
    signature: bytes
    signed: bytes


@final
class BackupWriter:
    """Writes one backup."""

    def __init__(self, descriptor: int, header: bytes, key: Secret, signing: SigningKey) -> None:
        """Begin.

        Args:
            descriptor: An empty file.
            header: JSON; it is not sealed.
            key: Used for this file alone.
            signing: Signs it.
        """
        self._descriptor = descriptor
        self._sealer = Sealer(key)
        self._signing = signing
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._write(_MAGIC + _LENGTH.pack(len(header)) + header)
        self._bound = self._digest.digest()
        self._tag = bytes(TAG_BYTES)

    def add(self, text: bytes, *, is_last: bool = False) -> None:
        """Seal a chunk; the last one is marked."""
        bound = _binding(self._bound, self._sealer.count, self._tag, is_last=is_last)
        sealed = self._sealer.seal(text, bound)
        self._tag = sealed[-TAG_BYTES:]
        self._write(_LENGTH.pack(len(sealed) | (_LAST if is_last else 0)) + sealed)

    def finish(self) -> int:
        """Sign what was written; return the file's size in bytes."""
        self._write(bytes(-(self._size_bytes + _SIGNATURE_BYTES) % _BLOCK_BYTES))
        self._write(self._signing.sign(_SIGNED + self._digest.digest()))
        self._write(self._digest.digest())
        return self._size_bytes

    def _write(self, content: bytes) -> None:
        write_all(self._descriptor, content)
        self._digest.update(content)
        self._size_bytes += len(content)


def check_outline(path: Path) -> Outline:
    """Read a file once, and check its form and its digest.

    Raises:
        DamagedBackup: It is no backup, or was cut off or changed.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        least = len(_MAGIC) + _LENGTH.size + _SIGNATURE_BYTES + _DIGEST_BYTES
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DamagedBackup(f"{path} is no backup of kvsecure")
        if size < least or size % _BLOCK_BYTES != _DIGEST_BYTES:
            raise DamagedBackup(f"{path} was cut off: it has {size} bytes")
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        start = file.tell() + length
        if length > _HEADER_BYTES_MAX or start > size - _SIGNATURE_BYTES - _DIGEST_BYTES:
            raise DamagedBackup(f"{path} is damaged in its header")
        header = file.read(length)
        end = size - _SIGNATURE_BYTES - _DIGEST_BYTES
        file.seek(0)
        digest = hashlib.sha256()
        _feed(file, end, digest.update)
        signed = _SIGNED + digest.digest()
        signature = file.read(_SIGNATURE_BYTES)
        digest.update(signature)
        if file.read() != digest.digest():
            raise DamagedBackup(f"{path} is damaged: its content does not have its digest")
    return Outline(path, header, start, end, size, digest.digest(), signature, signed)


def check_signature(outline: Outline, key: VerifyingKey) -> None:
    """Check who signed.

    Raises:
        DamagedBackup: Somebody else did.
    """
    try:
        key.verify(outline.signature, outline.signed)
    except Tampered:
        raise DamagedBackup(
            f"{outline.path} was not signed by key {key.raw.hex()}: it is not what was saved"
        ) from None


def open_chunks(outline: Outline, key: Secret) -> Iterator[bytes]:
    """Yield the chunks of a file whose outline was checked.

    Raises:
        DamagedBackup: One does not open, or there are fewer or more.
        OSError: The file cannot be read.
    """
    opener = Opener(key)
    tag = bytes(TAG_BYTES)
    number = 0
    with outline.path.open("rb") as file:
        head = hashlib.sha256(file.read(outline.start)).digest()
        is_last = False
        while not is_last:
            length = int.from_bytes(file.read(_LENGTH.size), "big")
            is_last = bool(length & _LAST)
            length &= ~_LAST
            if length < TAG_BYTES or file.tell() + length > outline.end:
                raise DamagedBackup(f"{outline.path} is damaged at chunk {number}")
            sealed = file.read(length)
            try:
                text = opener.open(number, sealed, _binding(head, number, tag, is_last=is_last))
            except Tampered:
                raise DamagedBackup(
                    f"{outline.path} is damaged: chunk {number} does not open"
                ) from None
            tag = sealed[-TAG_BYTES:]
            number += 1
            yield text
        if file.read(outline.end - file.tell()).strip(b"\0"):
            raise DamagedBackup(f"{outline.path} has something behind its last chunk")


def _binding(head: bytes, number: int, tag: bytes, *, is_last: bool) -> bytes:
    return head + number.to_bytes(8, "big") + bytes((is_last,)) + tag


def _feed(file: BinaryIO, length: int, take: Callable[[bytes], None]) -> None:
    while length:
        piece = file.read(min(length, _READ_BYTES))
        if not piece:
            return
        take(piece)
        length -= len(piece)

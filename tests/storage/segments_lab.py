"""Segments on the bench: made, cut, bent and looked at from outside.

    Bench                 a directory of segments, its keys, writers, what is in it
    file_size_limit       lets writes stop after any byte, as a full disk does

Owns: the ids and keys of the storage tests, and the ways to damage a directory of segments.
Never: decides what damage is; that is what is tested.
"""

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.crypto.sealing import fresh_salt
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
from kvsecure.storage.segment import (
    NO_LINK,
    DamagedSegment,
    Frame,
    Header,
    Kind,
    SegmentEncoder,
    read_frames,
    read_header,
)
from kvsecure.storage.segments import (
    SegmentPlace,
    SegmentWriter,
    Tail,
    list_segments,
    recover,
    segment_key,
)

__all__ = [
    "CLUSTER",
    "KEYS",
    "MEMBER",
    "ROOT",
    "SEGMENT_BYTES_MAX",
    "Bench",
    "contents_of",
    "dirty_pages",
    "encode_segment",
    "file_size_limit",
    "frame_bytes",
    "frames_until_damage",
]

CLUSTER: Final = ClusterId(0xC0FFEE)
MEMBER: Final = MemberId(0xBEEF)
KEYS: Final = Keyring.create(KeyEncryptionKey(Secret(bytes(32)), "file"), CLUSTER)
# What the keys of write-ahead log segments are derived from.
ROOT: Final = KEYS.data_key(1, purpose="wal")
SEGMENT_BYTES_MAX: Final = 1 << 20
_SYS_CACHESTAT: Final = 451


def encode_segment(
    texts: list[bytes], *, first: int = 1, kind: Kind = Kind.WAL, version: int = 2
) -> tuple[Header, Secret, bytes]:
    """Return a segment of one frame each, one entry in each, with its header and key."""
    salt = fresh_salt()
    header = Header(kind, CLUSTER, MEMBER, 1, first, 1, salt, NO_LINK, version)
    encoder = SegmentEncoder(header, segment_key(ROOT, salt))
    frames = [encoder.frame(first + number, 1, text) for number, text in enumerate(texts)]
    return header, segment_key(ROOT, salt), b"".join((header.encode(), *frames))


def frame_bytes(text_bytes: int) -> int:
    """Return how long the frame of a text is: its head, text, tag, checksum, and zeros to 8."""
    return -(-(20 + text_bytes + 16 + 4) // 8) * 8


def frames_until_damage(
    content: bytes, *, kind: Kind = Kind.WAL
) -> tuple[list[Frame], DamagedSegment | None]:
    """Return the frames of a segment up to the first place that is not right, and what is there."""
    frames: list[Frame] = []
    try:
        header = read_header(content, kind, CLUSTER, MEMBER)
        for frame in read_frames(content, header, segment_key(ROOT, header.salt)):
            frames.append(frame)  # noqa: PERF402 - what came before the error counts
    except DamagedSegment as damage:
        return frames, damage
    return frames, None


def contents_of(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let writes of this process stop at a file size: the last one is partial, the next fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def dirty_pages(path: Path) -> int | None:
    """Return how many pages of a file are not on the disk; None where nobody can tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    span = (ctypes.c_uint64 * 2)(0, 0)
    counts = (ctypes.c_uint64 * 5)()
    with path.open("rb") as source:
        if libc.syscall(_SYS_CACHESTAT, source.fileno(), span, counts, 0):
            return None
    return int(counts[1]) + int(counts[2])


@final
class Bench:
    """A directory of write-ahead log segments."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.place = SegmentPlace(directory, Kind.WAL, CLUSTER, MEMBER)

    def recover(self) -> tuple[list[bytes], Tail]:
        """Return the texts that are there, and where to go on."""
        texts: list[bytes] = []
        tail = recover(self.place, KEYS, lambda frame: texts.append(frame.text))
        return texts, tail

    def writer(self, *, bytes_max: int = SEGMENT_BYTES_MAX) -> SegmentWriter:
        """Return a writer that goes on where the directory ends, as a new process does."""
        return SegmentWriter(self.place, self.recover()[1], ROOT, term=1, bytes_max=bytes_max)

    def write(self, *runs: list[bytes]) -> None:
        """Write runs of frames, each by a writer of its own and so into a segment of its own."""
        for run in runs:
            writer = self.writer()
            for text in run:
                writer.append(1, text)
            writer.close()

    def paths(self) -> list[Path]:
        """Return the segments, oldest first."""
        return [segment.path for segment in list_segments(self.place)]

    def salts(self) -> list[bytes]:
        """Return the salt of every segment."""
        return [Header.decode(path.read_bytes()).salt for path in self.paths()]

    def contents(self) -> dict[str, bytes]:
        """Return every file with its content."""
        return contents_of(self.place.directory)

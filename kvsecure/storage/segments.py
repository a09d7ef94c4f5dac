"""A directory of sealed segments: appended at the end, read from the start, purged from the front.

Owns: file names, rotation, recovery of a directory, what to do when a write fails.
Never: knows what is in a frame.
Follows: etcd's WAL directory (a torn tail is cut, everything else refuses to start).
Keeps: a process that opens a directory for writing begins a new segment, so a key never outlives
    the process that drew its salt; a segment whose write failed is never written again.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple, final

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.crypto.sealing import derive_key, fresh_salt
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.files import StorageError, sync_directory, write_all
from kvsecure.storage.segment import (
    HEADER_BYTES,
    NO_LINK,
    Damage,
    DamagedSegment,
    Frame,
    Header,
    Kind,
    SegmentEncoder,
    read_frames,
    read_header,
    written_bytes,
)
from kvsecure.storage.spares import SPARE_AFTER_BYTES, discard_spares, spare_of

__all__ = [
    "SegmentFile",
    "SegmentPlace",
    "SegmentWriter",
    "Tail",
    "Written",
    "frames_of",
    "list_segments",
    "recover",
    "segment_key",
    "terms_of",
]

_SUFFIX: Final = {Kind.WAL: ".wal", Kind.AUDIT: ".audit"}
_PURPOSE: Final = {Kind.WAL: "wal", Kind.AUDIT: "audit"}
_ITEM: Final = {Kind.WAL: "entry", Kind.AUDIT: "record"}


class SegmentPlace(NamedTuple):
    """Which segments these are, and what their keys are derived from."""

    directory: Path
    kind: Kind
    cluster: ClusterId
    member: MemberId
    # What they are written through.
    disk: Disk = SYSTEM_DISK

    def root_key(self, keyring: Keyring, term: int) -> Secret:
        """Return what the keys of segments of this kind are derived from, and nothing else is.

        Raises:
            KeyringError: The data key is not in the keyring.
        """
        return keyring.data_key(term, purpose=_PURPOSE[self.kind])

    def key_of(self, keyring: Keyring, header: Header) -> Secret:
        """Return a segment's key.

        Raises:
            KeyringError: Its data key is not in the keyring.
        """
        return segment_key(self.root_key(keyring, header.term), header.salt)


def segment_key(root: Secret, salt: bytes) -> Secret:
    """Return the key of the one segment with this salt."""
    return derive_key(root, purpose="segment", salt=salt)


class SegmentFile(NamedTuple):
    """A segment by its name."""

    path: Path
    number: int
    first: int


class Tail(NamedTuple):
    """Where the next segment joins on."""

    number: int
    link: bytes
    # The number that the next entry or record gets.
    following: int
    # Bytes of an unfinished write that were cut off.
    cut_bytes: int


class Written(NamedTuple):
    """A frame that was appended."""

    # The number of its first entry or record.
    first: int
    # Which segment it is in, where, and its bytes.
    segment: int
    offset: int
    frame: bytes


def list_segments(place: SegmentPlace) -> list[SegmentFile]:
    """Return the directory's segments, oldest first.

    Raises:
        StorageError: A segment is missing between two others, or a name is not a segment's.
    """
    suffix = _SUFFIX[place.kind]
    found = []
    for path in place.directory.iterdir():
        if path.suffix != suffix:
            continue
        number, _, first = path.stem.partition("-")
        try:
            found.append(SegmentFile(path, int(number, 16), int(first, 16)))
        except ValueError:
            raise StorageError(f"{path} is not named like a segment: move it away") from None
    found.sort(key=lambda segment: segment.number)
    for before, after in pairwise(found):
        if after.number != before.number + 1:
            raise StorageError(
                f"{place.directory}: segment {before.number + 1:016x} is missing; restore the data "
                "directory from a backup, or remove it and let the member start anew"
            )
    return found


def recover(
    place: SegmentPlace,
    keyring: Keyring,
    use: Callable[[Frame], None],
    *,
    first_known: int = 0,
    is_reached: bool = True,
    newest: int | None = None,
) -> Tail:
    """Read every frame in order, cut a torn tail, and say where to go on.

    Args:
        place: The directory.
        keyring: The cluster's keys.
        use: Called with each frame, oldest first.
        first_known: The number that follows on what is known without the segments: they must not
            end before it, and where there is none at all the next entry or record gets it, at
            least 1.
        is_reached: Whether what is known came out of the segments; if not, they may end before it,
            and it proves nothing of them.
        newest: Read only so many segments, the newest ones, and not counting those before the last
            one that are empty; None reads all.

    Raises:
        StorageError: Anything but a torn tail is wrong. Nothing was changed on disk.
    """
    following, link, number, cut_bytes = max(first_known, 1), NO_LINK, 0, 0
    # What nobody has said of that it was on the disk: it may be in the page cache alone.
    unproven: list[_Stretch] = []
    # Where the newest segment ends: behind it are zeros written ahead, or a torn write.
    end = 0
    segments = list_segments(place)
    if newest is not None:
        segments = _newest_of(segments, newest)
    for position, segment in enumerate(segments):
        content = segment.path.read_bytes()
        last = position == len(segments) - 1
        end = HEADER_BYTES
        try:
            proven = HEADER_BYTES
            header = read_header(content, place.kind, place.cluster, place.member)
            _check_joins(header, segment, link if position else None)
            link, following = header.link, header.first
            key = place.key_of(keyring, header)
            for frame in read_frames(content, header, key):
                _check_order(place.kind, frame, following, first_known)
                use(frame)
                link, following = frame.tag, frame.first + frame.count
                # A frame may hold nothing, and be the first behind what is known.
                if is_reached and proven == end and frame.first < first_known >= following:
                    proven = frame.end
                end = frame.end
        except KeyringError as error:
            raise StorageError(f"{segment.path}: {error}") from None
        except DamagedSegment as damage:
            if not last or damage.damage is not Damage.TORN:
                raise StorageError(_advice(segment.path, damage)) from None
            end = damage.offset
            cut_bytes = max(written_bytes(content) - end, 0)
            if end < HEADER_BYTES:
                break
        if end > proven:
            start = 0 if proven == HEADER_BYTES else proven
            unproven.append(_Stretch(segment.path, start, content[start:end]))
        number = segment.number
    if is_reached and following < first_known:
        raise StorageError(
            f"{place.directory}: it ends with {_ITEM[place.kind]} {following - 1}, and "
            f"{_ITEM[place.kind]} {first_known - 1} was on the disk: its end was cut off. Restore "
            "the data directory from a backup"
        )
    for stretch in unproven:
        stretch.write_again(place.disk)
    if segments:
        _settle(segments[-1].path, end, place.disk)
    return Tail(number, link, following, cut_bytes)


class _Stretch(NamedTuple):
    """Part of a segment."""

    path: Path
    start: int
    content: bytes

    def write_again(self, disk: Disk) -> None:
        """Write what is there once more, and make it durable.

        After a sync that failed the system takes for written what never was, and the next sync has
        nothing to do; whoever reads the file sees no difference until the machine stops.
        """
        descriptor = disk.open(self.path, os.O_WRONLY)
        try:
            done = 0
            while done < len(self.content):
                done += disk.write_at(descriptor, self.content[done:], self.start + done)
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)


def _newest_of(segments: list[SegmentFile], count: int) -> list[SegmentFile]:
    """Return the newest segments; empty ones, of starts that came to nothing, do not count."""
    start, left = len(segments) - 1, count - 1
    while start > 0 and left:
        start -= 1
        with segments[start].path.open("rb") as source:
            left -= written_bytes(source.read(2 * HEADER_BYTES)) > HEADER_BYTES
    return segments[start:]


def _check_joins(header: Header, segment: SegmentFile, link: bytes | None) -> None:
    if header.number != segment.number or header.first != segment.first:
        raise DamagedSegment(Damage.FOREIGN, 0, "the header is not of the segment of this name")
    if link is not None and header.link != link:
        raise DamagedSegment(Damage.FOREIGN, 0, "the segment does not follow on the one before")


def _check_order(kind: Kind, frame: Frame, following: int, first_known: int) -> None:
    """Check that a frame is where it may be: in the log it may begin anew behind what is whole."""
    is_right = frame.first == following
    if kind is Kind.WAL and not is_right:
        is_right = 1 <= frame.first <= max(following, first_known)
    if not is_right:
        raise DamagedSegment(Damage.FOREIGN, frame.offset, "a frame is out of order")


def _advice(path: Path, damage: DamagedSegment) -> str:
    return (
        f"{path}: {damage}. Data that was acknowledged may be behind this place, so the member "
        "does not start. Restore the data directory from a backup; keep the damaged one for inquiry"
    )


def _settle(path: Path, end: int, disk: Disk) -> None:
    """Cut what lies behind the end, and make the rest durable: a killed process may not have.

    What was read goes to clients and is built upon; a power cut later must not take it back.
    """
    if end < HEADER_BYTES:
        disk.unlink(path)
        sync_directory(path.parent, disk)
        return
    descriptor = disk.open(path, os.O_WRONLY)
    try:
        if os.fstat(descriptor).st_size > end:
            disk.resize(descriptor, end)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    sync_directory(path.parent, disk)


@final
class SegmentWriter:
    """Appends frames to the newest segment and rotates; one writer a directory."""

    __slots__ = (
        "_bytes_max",
        "_descriptor",
        "_disk",
        "_encoder",
        "_is_prepared",
        "_is_used_up",
        "_link",
        "_number",
        "_place",
        "_root",
        "_size",
        "_term",
        "_torn_at",
        "following",
        "path",
    )

    def __init__(
        self,
        place: SegmentPlace,
        tail: Tail,
        root: Secret,
        *,
        term: int,
        bytes_max: int,
    ) -> None:
        """Make a writer; the first append begins a new segment.

        Args:
            place: The directory.
            tail: Where `recover` ended.
            root: What the keys of its segments are derived from.
            term: The data key that `root` is derived from.
            bytes_max: A segment that has reached this size is followed by a new one.
        """
        self._place = place
        self._disk = place.disk
        self._number = tail.number
        self._link = tail.link
        self.following = tail.following
        self._root = root
        self._term = term
        self._bytes_max = bytes_max
        self._encoder: SegmentEncoder | None = None
        self._descriptor = -1
        self._size = 0
        # Where a write failed that could not be cut off yet.
        self._torn_at: int | None = None
        # Whether the segment was a spare, and whether the next append begins another one.
        self._is_prepared = False
        self._is_used_up = False
        discard_spares(place.directory, place.disk)
        # The newest segment's path; empty before the first append.
        self.path = Path()

    def append(self, count: int, text: bytes, first: int | None = None) -> Written:
        """Write one frame of `count` entries or records.

        Args:
            count: How many.
            text: All of them.
            first: The number of the first one, where it may be another than the next. Before that,
                they take the place of what was appended from there on; behind it, what is between
                is known without the segments.

        Raises:
            OSError: Nothing was appended, and nothing of it will be read back. The next append
                begins a new segment.
        """
        first = self.following if first is None else first
        encoder = self._encoder
        if encoder is None or self._is_used_up:
            encoder = self._begin(first)
        frame = encoder.frame(first, count, text)
        try:
            write_all(self._descriptor, frame, self._disk)
        except OSError:
            self._give_up()
            raise
        written = Written(first, self._number, self._size, frame)
        self._size += len(frame)
        self._is_used_up = self._size >= self._bytes_max or self._is_worth_changing()
        self._link = encoder.tag
        self.following = first + count
        return written

    def use(self, root: Secret, term: int) -> None:
        """Seal under another data key: the next append begins a new segment."""
        self._root, self._term = root, term
        self._is_used_up = True

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises:
            OSError: It may be lost; the caller must not acknowledge it.
        """
        if self._descriptor >= 0:
            self._disk.sync_content(self._descriptor)

    @property
    def is_full(self) -> bool:
        """Whether the next append begins a new segment."""
        return self._encoder is None or self._is_used_up

    @property
    def tail(self) -> Tail:
        """Where another writer goes on, once this one is closed."""
        return Tail(self._number, self._link, self.following, 0)

    @property
    def size_bytes(self) -> int:
        """How much of the open segment is written."""
        return self._size

    def is_in_place(self) -> bool:
        """Tell whether the open segment is still the file of its name."""
        if self._descriptor < 0:
            return True
        try:
            return self.path.stat().st_ino == os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Make everything durable and close the segment."""
        if self._descriptor >= 0:
            if self._is_prepared:
                self._disk.resize(self._descriptor, self._size)
            self._disk.sync(self._descriptor)
            self._disk.close(self._descriptor)
            self._descriptor = -1
            self._encoder = None

    def purge(self, below: int, prepare: Callable[[], None] = lambda: None) -> None:
        """Delete the segments that hold only entries before this number; never the newest frame.

        It may say what no entry does: in the log, for whom a member has voted.

        Args:
            below: The number of the first entry that is needed.
            prepare: Called before the first one is deleted, if any is.

        Raises:
            OSError: Some are left.
            StorageError: A segment is missing.
        """
        if self._size <= HEADER_BYTES:
            # The newest frame is not this writer's, and nobody knows which segment has it.
            return
        segments = list_segments(self._place)
        # A later segment may begin before an earlier one, and then takes its place.
        followed_from = [*accumulate((after.first for after in reversed(segments[1:])), min)]
        purged = [
            segment.path
            for segment, first in zip(segments[:-1], reversed(followed_from), strict=True)
            if first <= below
        ]
        if purged:
            prepare()
        for path in purged:
            self._disk.unlink(path)
            # Names may go in any order in a crash, and a gap would look like a loss.
            sync_directory(self._place.directory, self._disk)

    def _begin(self, first: int) -> SegmentEncoder:
        self._cut()
        self.close()
        salt = fresh_salt()
        key = segment_key(self._root, salt)
        header = Header(
            kind=self._place.kind,
            cluster=self._place.cluster,
            member=self._place.member,
            number=self._number + 1,
            first=first,
            term=self._term,
            salt=salt,
            link=self._link,
        )
        name = f"{header.number:016x}-{header.first:016x}{_SUFFIX[header.kind]}"
        path = self._place.directory / name
        self._descriptor, self._is_prepared = _create(path, header.encode(), self._disk)
        self._is_used_up = False
        self._number = header.number
        self._size = HEADER_BYTES
        self._encoder = SegmentEncoder(header, key)
        self.path = path
        return self._encoder

    def _is_worth_changing(self) -> bool:
        """Tell whether a spare waits while the open segment has grown from nothing."""
        if self._is_prepared or self._size < SPARE_AFTER_BYTES:
            return False
        return spare_of(self._place.directory).exists()

    def _give_up(self) -> None:
        """Leave a segment whose write failed: its next nonce may be on the disk."""
        descriptor, self._descriptor, self._encoder = self._descriptor, -1, None
        self._disk.close(descriptor)
        self._torn_at = self._size if self._size > HEADER_BYTES else 0
        # If it fails, the next append tries again, and fails with it.
        with contextlib.suppress(OSError):
            self._cut()

    def _cut(self) -> None:
        """Cut what a failed write left; before that nothing may follow on it."""
        if self._torn_at is not None:
            _settle(self.path, self._torn_at, self._disk)
            self._number -= not self._torn_at
            self._torn_at = None


def _create(path: Path, header: bytes, disk: Disk) -> tuple[int, bool]:
    """Begin a segment, in a spare if there is one; return its descriptor and whether there was.

    Raises:
        OSError: There is no such segment.
    """
    spare = spare_of(path.parent)
    try:
        descriptor = disk.open(spare, os.O_WRONLY | os.O_NOFOLLOW)
        begun, is_prepared = spare, True
    except FileNotFoundError:
        descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        begun, is_prepared = path, False
    try:
        write_all(descriptor, header, disk)
        if is_prepared:
            disk.rename(spare, path)
            begun = path
        sync_directory(path.parent, disk)
    except OSError:
        disk.close(descriptor)
        disk.unlink(begun)
        raise
    return descriptor, is_prepared


def frames_of(place: SegmentPlace, keyring: Keyring, segment: SegmentFile) -> Iterator[Frame]:
    """Yield one segment's frames without changing anything.

    Raises:
        DamagedSegment: At the first place that is not right.
        KeyringError: Its data key is not in the keyring.
    """
    content = segment.path.read_bytes()
    header = read_header(content, place.kind, place.cluster, place.member)
    yield from read_frames(content, header, place.key_of(keyring, header))


def terms_of(place: SegmentPlace) -> Iterator[int]:
    """Yield the data key that each segment is sealed under; nothing is opened.

    A segment that goes away meanwhile is left out, and so is one whose beginning was never written.
    """
    for path in place.directory.glob("*" + _SUFFIX[place.kind]):
        with contextlib.suppress(FileNotFoundError, DamagedSegment):
            with path.open("rb") as source:
                content = source.read(HEADER_BYTES)
            yield read_header(content, place.kind, place.cluster, place.member).term

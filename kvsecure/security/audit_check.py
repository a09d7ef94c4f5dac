"""Checking an audit trail from its files, without the member that wrote it.

Owns: following the chain from segment to segment, and naming the first record that is not right.
Never: changes anything, or takes a trail for whole only because nothing in it is wrong: what is
    missing at the end can only be seen by somebody who knows a later head.
Follows: docs/audit.md; RFC 6962's warning about split and cut logs.
"""

import json
from typing import NamedTuple, NoReturn, final

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.crypto.sealing import Tampered, read_unverified
from kvsecure.crypto.signing import VerifyingKey
from kvsecure.model.secret import Secret
from kvsecure.security.audit import (
    GENESIS,
    MARK_BYTES,
    Head,
    chain,
    checkpoint_text,
    linked_hash,
    signing_key,
    split_records,
    stream_of,
)
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import (
    Damage,
    DamagedSegment,
    Frame,
    Header,
    read_frames,
    read_header,
    written_bytes,
)
from kvsecure.storage.segments import SegmentFile, SegmentPlace

__all__ = ["BrokenTrail", "Report", "check_trail"]


class Report(NamedTuple):
    """A trail in which nothing is wrong."""

    stream: str
    # The number of the first record that is there; before it segments may have been archived.
    first_seq: int
    record_count: int
    checkpoint_count: int
    head: Head
    # Bytes at the end that are of a write that is going on or was cut off by a crash.
    unfinished_bytes: int


@final
class BrokenTrail(Exception):
    """A record is not what was written, or not where it was written."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"record {seq}: {why}")
        self.seq = seq
        self.why = why


@final
class _Follower:
    """Follows the chain."""

    def __init__(self, stream: str, key: VerifyingKey) -> None:
        self.stream = stream
        self.seq = 0
        self.hash = GENESIS
        self.first_seq = 0
        self.checkpoints = 0
        # The seal of the newest frame, which the next segment has to name; None before the first.
        self.link: bytes | None = None
        self.heads: dict[int, bytes] = {}
        self._key = key

    def take(self, mark: bytes, record: bytes) -> None:
        """Check the next record.

        Raises:
            BrokenTrail: It does not follow.
        """
        seq = self.seq + 1
        digest = chain(self.hash, record)
        if digest[:MARK_BYTES] != mark:
            raise BrokenTrail(seq, "its content is not what was recorded")
        try:
            fields = json.loads(record)
            said, stream, stage = fields["seq"], fields["stream"], fields["stage"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BrokenTrail(seq, "it is not a record") from None
        if said != seq or stream != self.stream:
            raise BrokenTrail(seq, f"it says that it is record {said} of {stream}")
        if stage == "checkpoint":
            self._check_checkpoint(seq, fields)
        self.seq, self.hash = seq, digest

    def join(self, first: int, record: bytes) -> None:
        """Begin at the first record that is there, which says what it links to.

        Raises:
            BrokenTrail: It does not.
        """
        if first > 1:
            try:
                self.hash = linked_hash(record)
            except StorageError:
                raise BrokenTrail(first, "it does not say what it links to") from None
        self.seq = first - 1
        self.first_seq = first
        self.heads[self.seq] = self.hash

    def _check_checkpoint(self, seq: int, fields: dict[str, object]) -> None:
        checkpoint = fields.get("checkpoint")
        try:
            assert isinstance(checkpoint, dict)  # noqa: S101 - caught below as a broken record
            head = Head(int(checkpoint["seq"]), bytes.fromhex(checkpoint["hash"]))
            signature = bytes.fromhex(checkpoint["sig"])
            self._key.verify(signature, checkpoint_text(self.stream, head))
        except (AssertionError, KeyError, ValueError, TypeError, Tampered):
            raise BrokenTrail(seq, "its checkpoint is not signed by this cluster") from None
        if head != (self.seq, self.hash):
            raise BrokenTrail(seq, "its checkpoint does not pin the record before it")
        self.checkpoints += 1


def check_trail(
    place: SegmentPlace,
    keyring: Keyring,
    *,
    must_hold: Head | None = None,
    key: VerifyingKey | None = None,
) -> Report:
    """Check everything that is there, in order.

    Args:
        place: The trail's directory.
        keyring: The cluster's keys.
        must_hold: A head that is known from elsewhere; the trail has to pass through it.
        key: The public key of checkpoints; None takes the cluster's own.

    Raises:
        BrokenTrail: At the first record that is not right, or is missing.
        StorageError: The directory cannot be read, or a key is not in the keyring.
    """
    follower = _Follower(stream_of(place.member), key or signing_key(keyring).public)
    unfinished = 0
    met = must_hold is None
    try:
        segments = _segments_of(place)
        for position, segment in enumerate(segments):
            last = position == len(segments) - 1
            unfinished = _follow_segment(follower, place, keyring, segment, last=last)
            if must_hold is not None and must_hold.seq in follower.heads:
                met = True
                if follower.heads[must_hold.seq] != must_hold.hash:
                    raise BrokenTrail(
                        must_hold.seq, "it is not the record that was known to be there"
                    )
            follower.heads.clear()
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}") from None
    if not follower.first_seq:
        # A member that has ever started has written that it did.
        raise BrokenTrail(1, "it is missing, and so are all others")
    if must_hold is not None and not met:
        _complain_of_missing(follower, must_hold)
    return Report(
        follower.stream,
        follower.first_seq,
        follower.seq - follower.first_seq + 1,
        follower.checkpoints,
        Head(follower.seq, follower.hash),
        unfinished,
    )


def _segments_of(place: SegmentPlace) -> list[SegmentFile]:
    """Return the segments that are there, oldest first; a gap shows in their records' numbers.

    Raises:
        StorageError: A name is not a segment's.
    """
    found = []
    for path in place.directory.glob("*.audit"):
        number, _, first = path.stem.partition("-")
        try:
            found.append(SegmentFile(path, int(number, 16), int(first, 16)))
        except ValueError:
            raise StorageError(f"{path} is not named like a segment: move it away") from None
    return sorted(found, key=lambda segment: (segment.number, segment.first))


def _complain_of_missing(follower: _Follower, must_hold: Head) -> NoReturn:
    """Say where a known record is missing."""
    if must_hold.seq > follower.seq:
        raise BrokenTrail(
            follower.seq + 1, f"it is missing: record {must_hold.seq} was known to be there"
        )
    raise StorageError(
        f"record {must_hold.seq}, which is to be there, is older than the oldest one that is: "
        f"{follower.first_seq}. Bring the segments before it back, or check against a newer head"
    )


def _follow_segment(
    follower: _Follower,
    place: SegmentPlace,
    keyring: Keyring,
    segment: SegmentFile,
    *,
    last: bool,
) -> int:
    """Follow the chain through a segment; return how many bytes at its end are unfinished."""
    content = segment.path.read_bytes()
    if not follower.first_seq:
        # What is broken here is named by what the file says it begins with.
        follower.seq = max(segment.first, 1) - 1
    try:
        header = read_header(content, place.kind, place.cluster, place.member)
        key = place.key_of(keyring, header)
        _check_follows(follower, segment, header)

        def locate(frame: Frame) -> None:
            _locate(follower, frame, header, key, content)

        for frame in read_frames(content, header, key, on_tampered=locate):
            _follow_frame(follower, frame)
            follower.link = frame.tag
    except DamagedSegment as damage:
        if last and damage.damage is Damage.TORN:
            return max(written_bytes(content) - damage.offset, 0)
        raise BrokenTrail(follower.seq + 1, f"{segment.path.name}: {damage}") from None
    except KeyringError as error:
        raise StorageError(f"{segment.path}: {error}") from None
    return 0


def _check_follows(follower: _Follower, segment: SegmentFile, header: Header) -> None:
    """Check that a segment is the one of its name, and was begun behind the one before."""
    if (header.number, header.first) != (segment.number, segment.first):
        raise BrokenTrail(follower.seq + 1, f"{segment.path.name} is another segment by its header")
    if follower.link is not None and header.link != follower.link:
        raise BrokenTrail(
            follower.seq + 1, f"{segment.path.name} was not begun behind the segment before it"
        )
    follower.link = header.link


def _follow_frame(follower: _Follower, frame: Frame) -> None:
    records = split_records(frame.text)
    if not follower.first_seq and records:
        follower.join(frame.first, records[0][1])
    if frame.first != follower.seq + 1:
        raise BrokenTrail(follower.seq + 1, f"it is missing; record {frame.first} comes next")
    for mark, record in records:
        follower.take(mark, record)
        follower.heads[follower.seq] = follower.hash
    if len(records) != frame.count:
        raise BrokenTrail(follower.seq + 1, "its batch does not hold as many records as it says")


def _locate(follower: _Follower, frame: Frame, header: Header, key: Secret, content: bytes) -> None:
    """Say which record of a batch that does not open was changed.

    Raises:
        BrokenTrail: Always.
    """
    first = follower.seq + 1
    ordinal = _ordinal_of(frame, header, key, content)
    records = split_records(read_unverified(key, ordinal, frame.text))
    if not follower.first_seq and records:
        follower.join(first, records[0][1])
    for mark, record in records:
        follower.take(mark, record)
    # Whoever knows what stood there can change it without the key, marks and all; not the seal.
    raise BrokenTrail(first, "the batch that it begins is not sealed as it was")


def _ordinal_of(frame: Frame, header: Header, key: Secret, content: bytes) -> int:
    """Return how many frames stand before one, which is its number under the seal."""
    before = read_frames(content[: frame.offset], header, key)
    return sum(1 for _ in before)

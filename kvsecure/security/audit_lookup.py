"""Looking one record up in a trail: whether it is there, with the hash that somebody knows.

    holds(place, keyring, head, newest)     HELD, MISSING, or UNKNOWN where nobody can say

Owns: finding the one segment that has the record, and following the chain through it.
Never: reads more than one segment, or changes anything; runs on the event loop: it reads megabytes,
    beside the member that writes the trail.
Follows: docs/adr/0029-audit-heads.md.
Keeps: MISSING is said only of a trail that ends before the record, or has another one in its place;
    what was archived, or cannot be read, proves nothing.
"""

import time
from enum import Enum
from typing import Final, NamedTuple

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.security.audit import Head, chain, linked_hash, split_records
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Damage, DamagedSegment
from kvsecure.storage.segments import SegmentFile, SegmentPlace, frames_of, list_segments

__all__ = ["Finding", "Standing", "holds"]

# So many records are followed before others have their turn: a millisecond or two.
_RECORDS_AT_ONCE: Final = 1_000


class Standing(Enum):
    """What a trail has of a record."""

    # The record, and so everything before it.
    HELD = "held"
    # It ends before it, or has another record in its place.
    MISSING = "missing"
    # Its file was moved away, as it may be.
    ARCHIVED = "archived"
    # It cannot be read now.
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """What came of looking a record up, and why."""

    standing: Standing
    why: str


def holds(place: SegmentPlace, keyring: Keyring, head: Head, newest: Head) -> Finding:
    """Look whether a trail holds a record with this hash.

    Args:
        place: The trail's directory.
        keyring: The member's keys.
        head: Number, at least 1, and hash of a record that was there once.
        newest: The newest record that is written.
    """
    if head.seq > newest.seq:
        return Finding(Standing.MISSING, f"it ends with record {newest.seq}")
    if head.seq == newest.seq:
        return _compared(head, newest.hash)
    try:
        return _look_up(place, keyring, head)
    except DamagedSegment as damage:
        if damage.damage is Damage.TORN:
            return Finding(Standing.MISSING, "its file ends before it")
        return Finding(Standing.MISSING, f"its file is damaged: {damage}")
    except (KeyringError, StorageError) as error:
        return Finding(Standing.UNKNOWN, str(error))
    except OSError as error:
        return Finding(Standing.UNKNOWN, error.strerror or str(error))


def _compared(head: Head, there: bytes) -> Finding:
    if there == head.hash:
        return Finding(Standing.HELD, "")
    return Finding(Standing.MISSING, "another record stands in its place")


def _look_up(place: SegmentPlace, keyring: Keyring, head: Head) -> Finding:
    segments = list_segments(place)
    # What is before the first record of a file is what that links to.
    within = [segment for segment in segments if segment.first <= head.seq]
    if within:
        return _follow(place, keyring, within[-1], head)
    if segments and segments[0].first == head.seq + 1:
        return _follow(place, keyring, segments[0], head)
    return Finding(Standing.ARCHIVED, "its file is not there any more")


def _follow(place: SegmentPlace, keyring: Keyring, segment: SegmentFile, head: Head) -> Finding:
    """Follow the chain from the beginning of a segment to a record."""
    seq, digest, left = segment.first - 1, b"", _RECORDS_AT_ONCE
    for frame in frames_of(place, keyring, segment):
        for _, record in split_records(frame.text):
            digest = digest or (linked_hash(record) if seq else bytes(len(head.hash)))
            if seq == head.seq:
                return _compared(head, digest)
            seq, digest = seq + 1, chain(digest, record)
            if seq == head.seq:
                return _compared(head, digest)
        left -= frame.count
        if left < 0:
            left = _RECORDS_AT_ONCE
            # Without it a thread keeps the interpreter for five milliseconds at a time.
            time.sleep(0)
    return Finding(Standing.MISSING, f"its file ends with record {seq}")

"""The audit trail: a hash-chained record of everything that was asked, allowed, refused and done.

    record := canonical JSON (RFC 8785);  hash(n) = SHA-256(hash(n - 1) || record(n))
    frame  := (length, first bytes of its hash, record)*

Owns: numbering, chaining, signing checkpoints, sealing and writing the records of one turn at once,
    and failing closed when that cannot be done.
Never: sees a value, password or token; `security.describe` emits fields from an allow list.
Follows: docs/audit.md; RFC 8785 for the form of a record.
Keeps: numbers have no gaps, across segments and restarts; a record is on its way to the disk
    before the answer it speaks of leaves; the first record of a segment links to the last one of
    the segment before.
"""

import errno
import hashlib
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, final

from kvsecure.crypto.keyring import Keyring
from kvsecure.crypto.signing import SigningKey, VerifyingKey
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import AUDIT_SEGMENT_BYTES_MAX, AUDIT_TAIL_RECORDS_MAX
from kvsecure.model.secret import Secret
from kvsecure.proto.tenant_pb2 import AuditHeadResponse
from kvsecure.security.canonical import canonical, text_of
from kvsecure.storage.carried import Gatherer
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Frame
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, Tail, recover

__all__ = [
    "GENESIS",
    "MARK_BYTES",
    "AuditTrail",
    "Head",
    "chain",
    "checkpoint_text",
    "linked_hash",
    "signing_key",
    "split_records",
    "stream_of",
]

# What the first record of all links to.
GENESIS: Final = bytes(32)
_LENGTH_BYTES: Final = 4
# Stored with each record, to tell which one of a batch was changed.
MARK_BYTES: Final = 8
_sha256: Final = hashlib.sha256
_CHECKPOINT_EVERY: Final = 10_000
# What is kept in memory of the newest records, which are as long as the requests they are of.
_RECENT_BYTES_MAX: Final = 16 * 1024 * 1024
_SIGNING_PURPOSE: Final = "audit-checkpoint/1"


class Head(NamedTuple):
    """The newest record: its number, and the hash that pins everything before it."""

    seq: int
    hash: bytes


def stream_of(member: int) -> str:
    """Return what a member's trail is called."""
    return f"node/{member:x}"


def signing_key(keyring: Keyring) -> SigningKey:
    """Return the key that checkpoints are signed with."""
    return SigningKey(keyring.root_key(purpose=_SIGNING_PURPOSE))


def checkpoint_text(stream: str, head: Head) -> bytes:
    """Return what a checkpoint's signature is over."""
    return f"kvsecure/audit/v1\n{stream}\n{head.seq}\n{head.hash.hex()}\n".encode()


def split_records(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a frame, each behind its mark; what is cut off is left out."""
    records = []
    offset = 0
    while len(text) - offset >= _LENGTH_BYTES + MARK_BYTES:
        start = offset + _LENGTH_BYTES + MARK_BYTES
        end = start + int.from_bytes(text[offset : offset + _LENGTH_BYTES], "big")
        if end > len(text):
            break
        records.append((text[start - MARK_BYTES : start], text[start:end]))
        offset = end
    return records


def chain(before: bytes, record: bytes) -> bytes:
    """Return the hash of a record that follows on a record with this hash."""
    return hashlib.sha256(before + record).digest()


@final
class AuditTrail:
    """One member's audit trail, open for writing."""

    def __init__(
        self,
        place: SegmentPlace,
        keyring: Keyring,
        *,
        known: Head,
        on_segment: Callable[[Path], None],
        wall_ns: Callable[[], int],
        segment_bytes_max: int = AUDIT_SEGMENT_BYTES_MAX,
    ) -> None:
        """Recover the trail and go on where it ended.

        Args:
            place: Its directory.
            keyring: The cluster's keys.
            known: The newest record that the applied state knows was on the disk.
            on_segment: Told of each new segment, so that it is made durable with the log.
            wall_ns: Time of day in nanoseconds since 1970, UTC.
            segment_bytes_max: A segment that has reached this size is followed by a new one.

        Raises:
            StorageError: The trail is damaged, or ends before a record that was on the disk.
        """
        self.stream = stream_of(place.member)
        # Turns that could not be recorded, and why the last one could not.
        self.failures = 0
        self.last_failure = ""
        self._seq, self._hash = 0, GENESIS
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._in_place = True
        self._wall_ns = wall_ns
        self._place = place
        self._on_segment = on_segment
        # Length, mark, record; length, mark, record; ...
        self._turn: list[bytes] = []
        self._followers: list[Callable[[list[bytes]], None]] = []
        self._segment = Path()
        self._unsynced = Gatherer()
        self._second = 0
        self._second_text = ""
        self._time = b""
        self._signing = signing_key(keyring)
        tail = self._recover(place, keyring, known)
        self._turn_first = Head(self._seq, self._hash)
        self._durable = known
        self._checkpoint_at = self._seq + _CHECKPOINT_EVERY
        term = keyring.current_term
        # The data key that the trail goes over to when the turn ends.
        self._new_key: tuple[Secret, int] | None = None
        self._writer = SegmentWriter(
            place,
            tail,
            place.root_key(keyring, term),
            term=term,
            bytes_max=segment_bytes_max,
        )
        self._add_segment("start", cut_bytes=tail.cut_bytes)

    # --- turns ----------------------------------------------------------------------------------

    def time_bytes(self) -> bytes:
        """Return the time that the records of this turn carry; one turn has one time."""
        if not self._time:
            second, rest_ns = divmod(self._wall_ns(), 1_000_000_000)
            if second != self._second:
                self._second = second
                self._second_text = text_of(second)
            self._time = f"{self._second_text}.{rest_ns:09d}Z".encode()
        return self._time

    def time_text(self) -> str:
        """Return the same time as text."""
        return self.time_bytes().decode()

    def add(self, record: bytes) -> None:
        """Chain a record whose `seq` is `next_seq`; it is written when the turn ends."""
        self._seq += 1
        self._hash = digest = _sha256(self._hash + record).digest()
        self._turn += (len(record).to_bytes(_LENGTH_BYTES, "big"), digest[:MARK_BYTES], record)

    @property
    def next_seq(self) -> int:
        """The number of the next record."""
        return self._seq + 1

    def end_turn(self) -> None:
        """Write the turn's records in one write.

        Raises:
            Refused: They could not be written (AUDIT_UNAVAILABLE); none of them is in the trail,
                and nothing they speak of may be answered or begun.
        """
        self._time = b""
        if not self._turn:
            return
        turn, self._turn = self._turn, []
        try:
            self._write(turn)
        except OSError as error:
            self.failures += 1
            self.last_failure = error.strerror or type(error).__name__
            self._seq, self._hash = self._turn_first
            if self._writer.is_full:
                self._add_segment("failure")
            raise Refused(Failure.AUDIT_UNAVAILABLE) from error
        self._turn_first = Head(self._seq, self._hash)
        records = turn[2::3]
        self._remember(records)
        for follower in list(self._followers):
            follower(records)
        if self._new_key is not None:
            self._writer.use(*self._new_key)
            self._new_key = None
            self._add_segment("key")
        elif self._writer.is_full:
            self._add_segment("size")
        if self._seq >= self._checkpoint_at:
            self._add_checkpoint()

    def use(self, keyring: Keyring) -> None:
        """Seal under the keyring's current data key from the next segment on.

        That begins once the turn that is going on is written: a segment begins with its link.
        """
        term = keyring.current_term
        self._new_key = (self._place.root_key(keyring, term), term)

    def check_in_place(self) -> bool:
        """Look whether the trail's file is still where it was; return what came of it.

        While it is not, every turn fails; when it is back, the trail goes on where it was.
        """
        try:
            self._in_place = self._writer.is_in_place()
        except OSError:
            # Whoever may not even look does not know.
            self._in_place = False
        return self._in_place

    # --- heads ----------------------------------------------------------------------------------

    def note_durable(self, head: tuple[int, bytes]) -> None:
        """Take note that everything through this record is on the disk."""
        if head[0] > self._durable.seq:
            self._durable = Head(*head)

    def take_unsynced(self) -> bytes | None:
        """Return what was written and is not durable yet, for the next frame of the log to carry.

        Returns:
            None if it is too much, or in a new segment: then the trail has to be synced.
        """
        return self._unsynced.take()

    @property
    def written_head(self) -> Head:
        """The newest record that was written."""
        return self._turn_first

    @property
    def durable_head(self) -> Head:
        """The newest record known to be on the disk."""
        return self._durable

    def signed_head(self) -> tuple[Head, bytes, VerifyingKey]:
        """Return the newest written record and a signature of its checkpoint text."""
        head = self._turn_first
        return head, self.sign(head), self._signing.public

    def sign(self, head: Head) -> bytes:
        """Return a signature of the checkpoint text of a record of this trail."""
        return self._signing.sign(checkpoint_text(self.stream, head))

    def head_body(self) -> bytes:
        """Return an AuditHeadResponse without its header."""
        head, signature, key = self.signed_head()
        return AuditHeadResponse(
            stream=self.stream,
            seq=head.seq,
            hash=head.hash,
            signature=signature,
            public_key=key.raw,
        ).SerializeToString()

    def recent(self, count: int) -> list[bytes]:
        """Return the newest written records, oldest first, as far as they are in memory."""
        return list(self._recent)[-count:] if count else []

    def follow(self, follower: Callable[[list[bytes]], None]) -> Callable[[], None]:
        """Hand each turn's records to a follower; return what ends that."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def close(self) -> None:
        """Make everything durable and close."""
        self._writer.close()

    # --- within ---------------------------------------------------------------------------------

    def _recover(self, place: SegmentPlace, keyring: Keyring, known: Head) -> Tail:
        """Follow the chain over the newest segments, and check that it holds what it must."""
        found = known.seq == 0

        def follow(frame: Frame) -> None:
            nonlocal found
            for _, record in split_records(frame.text):
                if self._seq + 1 != frame.first and self._seq < frame.first:
                    # The first one that is read; it says itself what it links to.
                    self._seq, self._hash = frame.first - 1, linked_hash(record)
                    found = found or known.seq < frame.first - 1
                found = found or (self._seq, self._hash) == known
                self.add(record)
            found = found or (self._seq, self._hash) == known

        tail = recover(place, keyring, follow, first_known=known.seq + 1, newest=2)
        self._remember(self._turn[2::3])
        self._turn = []
        if not found:
            raise StorageError(
                f"{place.directory}: the audit trail does not hold record {known.seq}, which was "
                "on the disk: it was cut or replaced. Restore the missing segments"
            )
        return tail

    def _remember(self, records: list[bytes]) -> None:
        """Keep the newest records for whoever asks for them, within bounds of count and bytes."""
        recent = self._recent
        recent.extend(records)
        self._recent_bytes += sum(map(len, records))
        while len(recent) > AUDIT_TAIL_RECORDS_MAX or self._recent_bytes > _RECENT_BYTES_MAX:
            self._recent_bytes -= len(recent.popleft())

    def _write(self, turn: list[bytes]) -> None:
        if not self._in_place:
            # Nobody would find what is written into a file that is gone.
            raise FileNotFoundError(errno.ENOENT, "its file is not where it was")
        _, segment, offset, frame = self._writer.append(len(turn) // 3, b"".join(turn))
        self._unsynced.add(segment, offset, frame)
        if self._writer.path != self._segment:
            self._segment = self._writer.path
            self._on_segment(self._segment)

    def _add_segment(self, reason: str, cut_bytes: int = 0) -> None:
        """Begin a segment with a record of what it links to, so that it can be read alone."""
        self.add(
            canonical(
                {
                    "segment": {
                        "cut_bytes": cut_bytes,
                        "prev": self._hash.hex(),
                        "reason": reason,
                    },
                    "seq": self.next_seq,
                    "stage": "segment",
                    "stream": self.stream,
                    "ts": self.time_text(),
                    "v": 1,
                }
            )
        )
        self._time = b""

    def _add_checkpoint(self) -> None:
        """Sign the chain so far, inside the chain: whoever holds the public key can check it."""
        self._checkpoint_at = self._seq + _CHECKPOINT_EVERY
        signature = self._signing.sign(checkpoint_text(self.stream, Head(self._seq, self._hash)))
        self.add(
            canonical(
                {
                    "checkpoint": {
                        "hash": self._hash.hex(),
                        "kid": self._signing.public.key_id,
                        "seq": self._seq,
                        "sig": signature.hex(),
                    },
                    "seq": self.next_seq,
                    "stage": "checkpoint",
                    "stream": self.stream,
                    "ts": self.time_text(),
                    "v": 1,
                }
            )
        )


def linked_hash(record: bytes) -> bytes:
    """Return the hash that the first record of a segment links to.

    Raises:
        StorageError: It is not the first record of a segment.
    """
    try:
        return bytes.fromhex(json.loads(record)["segment"]["prev"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StorageError("an audit segment does not begin with its link") from None

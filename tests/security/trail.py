"""Audit trails on the bench: written turn by turn, read back frame by frame, and damaged.

Owns: making trails, finding where which record lies in which file, and the ways to damage them.
Never: decides what is wrong with a trail; that is what is tested.
"""

import hashlib
import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, final

from security.lab import MEMBER, place_of

from kvsecure.crypto.keyring import Keyring
from kvsecure.model.ids import MemberId
from kvsecure.security.audit import GENESIS, AuditTrail, Head, split_records
from kvsecure.security.audit_check import Report, check_trail
from kvsecure.security.canonical import canonical
from kvsecure.storage.segment import HEADER_BYTES, SegmentEncoder, read_frames, read_header
from kvsecure.storage.segments import SegmentPlace

__all__ = ["Piece", "Trail", "pieces_of"]

_S: Final = 1_000_000_000


class Piece(NamedTuple):
    """One frame of a segment: where it lies, and which records are in it."""

    path: Path
    start: int
    end: int
    first: int
    count: int


@final
class Trail:
    """A trail in a directory, that may be opened, written, closed and opened again."""

    def __init__(
        self, directory: Path, keys: Keyring, *, member: MemberId = MEMBER, turns: int = 0
    ) -> None:
        self.directory = directory
        self.keys = keys
        self.place: SegmentPlace = place_of(directory, member)
        self.segments: list[Path] = []
        self._time = itertools.count(1_800_000_000 * _S, _S)
        self._open: AuditTrail | None = None
        if turns:
            self.write(turns)

    @property
    def open(self) -> AuditTrail:
        """The trail, opened if it is not."""
        if self._open is None:
            self._open = AuditTrail(
                self.place,
                self.keys,
                known=Head(0, GENESIS),
                on_segment=self.segments.append,
                wall_ns=self._time.__next__,
            )
        return self._open

    def write(self, turns: int, records: int = 3, size: int = 20) -> None:
        """Write some turns of some records each."""
        for turn in range(turns):
            for number in range(1 + (turn + records) % records):
                self.add(f"turn {turn} record {number} " + "x" * size)
            self.open.end_turn()

    def add(self, text: str) -> None:
        """Add one record to the turn that is going on."""
        trail = self.open
        fields = {"op": text, "seq": trail.next_seq, "stage": "read", "stream": trail.stream}
        trail.add(canonical(fields | {"ts": trail.time_text(), "v": 1}))

    def rotate(self) -> None:
        """Begin a new segment, as a restart does."""
        self.close()
        self.open.end_turn()

    def close(self) -> None:
        """Close the trail."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def drop(self) -> None:
        """Let go of the trail as a killed process does: nothing is flushed or closed in order."""
        self._open = None

    def check(self, must_hold: Head | None = None) -> Report:
        """Check what lies in the directory."""
        return check_trail(self.place, self.keys, must_hold=must_hold)

    def files(self) -> list[Path]:
        """Return the segments, oldest first."""
        return sorted(self.directory.glob("*.audit"))

    def copy(self, directory: Path) -> "Trail":
        """Return a copy of the files elsewhere, to be damaged."""
        if directory.exists():
            shutil.rmtree(directory)
        shutil.copytree(self.directory, directory)
        return Trail(directory, self.keys)

    def pieces(self) -> list[Piece]:
        """Return the frames of all segments, in order."""
        return pieces_of(self.place, self.keys, self.files())

    def reseal(self, batches: list[list[tuple[bytes, bytes]]]) -> None:
        """Write one segment with these batches of marks and records, as only a key holder can."""
        path = self.files()[0]
        header = read_header(
            path.read_bytes(), self.place.kind, self.place.cluster, self.place.member
        )
        encoder = SegmentEncoder(header, self.place.key_of(self.keys, header))
        content, first = header.encode(), 1
        for batch in batches:
            text = b"".join(
                len(record).to_bytes(4, "big") + mark + record for mark, record in batch
            )
            content += encoder.frame(first, len(batch), text)
            first += len(batch)
        path.write_bytes(content)

    def batches(self) -> list[list[tuple[bytes, bytes]]]:
        """Return the marks and records of all frames."""
        found = []
        for path in self.files():
            content = path.read_bytes()
            header = read_header(content, self.place.kind, self.place.cluster, self.place.member)
            frames = read_frames(content, header, self.place.key_of(self.keys, header))
            found += [split_records(frame.text) for frame in frames]
        return found

    def heads(self) -> dict[int, bytes]:
        """Return the hash of every record, by number."""
        heads, running = {}, GENESIS
        for record in self.records():
            running = hashlib.sha256(running + record).digest()
            heads[len(heads) + 1] = running
        return heads

    def records(self) -> list[bytes]:
        """Return all records, oldest first."""
        return [record for batch in self.batches() for _, record in batch]


def pieces_of(place: SegmentPlace, keys: Keyring, files: Iterable[Path]) -> list[Piece]:
    """Return where the frames of segments lie."""
    pieces: list[Piece] = []
    for path in files:
        content = path.read_bytes()
        header = read_header(content, place.kind, place.cluster, place.member)
        pieces.extend(
            Piece(path, frame.offset, frame.end, frame.first, frame.count)
            for frame in read_frames(content, header, place.key_of(keys, header))
        )
    assert all(piece.start >= HEADER_BYTES for piece in pieces)
    return pieces

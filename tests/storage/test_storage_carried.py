"""What the log carries of the audit trail: gathered whole, written where a power cut took it."""

import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage.segments_lab import CLUSTER, KEYS, MEMBER

from kvsecure.storage.carried import CARRIED_BYTES_MAX, Carried, Gatherer, Piece
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, list_segments, recover

_SECTOR_BYTES: Final = 512
_PAGE_BYTES: Final = 4096


class _Trail:
    """A trail that is written by turns, and what the log was given to carry of it."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.place = SegmentPlace(directory, Kind.AUDIT, CLUSTER, MEMBER)
        self.gatherer = Gatherer()
        self.carried = Carried()
        self.texts: list[bytes] = []
        # What the file held when it was last synced; what was acknowledged of it since.
        self.synced = b""
        self.acknowledged = 0
        tail = recover(self.place, KEYS, lambda _: None)
        root = self.place.root_key(KEYS, 1)
        self.writer = SegmentWriter(self.place, tail, root, term=1, bytes_max=1 << 20)

    @property
    def path(self) -> Path:
        """The newest segment."""
        return list_segments(self.place)[-1].path

    def turn(self, text: bytes) -> None:
        """Write the records of a turn."""
        _, segment, offset, frame = self.writer.append(1, text)
        self.gatherer.add(segment, offset, frame)
        self.texts.append(text)

    def append_to_log(self) -> None:
        """Let a frame of the log carry it, or sync it, as the log process does."""
        content = self.gatherer.take()
        if content is None:
            self.synced = self.path.read_bytes()
        else:
            self.carried.add(content)
        self.acknowledged = len(self.texts)

    def read(self) -> list[bytes]:
        """Recover the trail as the next start does."""
        texts: list[bytes] = []
        recover(self.place, KEYS, lambda frame: texts.append(frame.text))
        return texts


_turns = st.lists(st.integers(1, 3_000), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(batches=st.lists(_turns, min_size=1, max_size=8), is_cut=st.booleans(), data=st.data())
def test_no_acknowledged_record_is_lost_whatever_a_power_cut_takes(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[int]],
    is_cut: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    """Whichever pages written since the last sync are gone, what was acknowledged is read back."""
    trail = _Trail(tmp_path_factory.getbasetemp() / "carried" / "audit")
    for number, sizes in enumerate(batches):
        for size in sizes:
            trail.turn(bytes([number + 1]) * size)
        trail.append_to_log()
    for size in data.draw(_turns):
        trail.turn(b"r" * size)
    content = bytearray(trail.path.read_bytes())
    if is_cut:
        del content[data.draw(st.integers(len(trail.synced), len(content))) :]
    for start in range(0, len(content), _PAGE_BYTES):
        kept = data.draw(st.sampled_from(("new", "old")))
        if kept == "old":
            old = trail.synced[start : start + _PAGE_BYTES]
            page = content[start : start + _PAGE_BYTES]
            content[start : start + _PAGE_BYTES] = old.ljust(len(page), b"\0")
    trail.path.write_bytes(content)

    trail.carried.write_missing(trail.place)
    found = trail.read()

    assert found[: trail.acknowledged] == trail.texts[: trail.acknowledged]
    assert found == trail.texts[: len(found)]


def test_a_whole_trail_is_left_alone(tmp_path: Path) -> None:
    """After a start without a power cut before it the trail is what it was."""
    trail = _Trail(tmp_path / "audit")
    for _ in range(3):
        trail.turn(b"x" * 700)
        trail.append_to_log()
    before = trail.path.read_bytes()

    assert trail.carried.write_missing(trail.place) == 0

    assert trail.path.read_bytes() == before


def test_what_was_changed_in_the_trail_is_not_made_good(tmp_path: Path) -> None:
    """A flipped bit is no missing sector: it stays, and the start refuses the trail."""
    trail = _Trail(tmp_path / "audit")
    for _ in range(3):
        trail.turn(b"x" * 700)
        trail.append_to_log()
    content = bytearray(trail.path.read_bytes())
    content[-300] ^= 1
    trail.path.write_bytes(content)

    assert trail.carried.write_missing(trail.place) == 0

    assert trail.path.read_bytes() == content
    with pytest.raises(StorageError, match="fails its checksum"):
        trail.read()


def test_a_segment_that_the_log_knows_must_be_there(tmp_path: Path) -> None:
    """Pieces of a segment that is gone are no reason to make one: the start refuses."""
    trail = _Trail(tmp_path / "audit")
    for _ in range(2):
        trail.turn(b"x")
        trail.append_to_log()
    trail.path.unlink()

    with pytest.raises(StorageError, match="audit segment 0000000000000001 is missing"):
        trail.carried.write_missing(trail.place)


def test_pieces_of_an_older_segment_are_not_needed(tmp_path: Path) -> None:
    """Going over to another segment synced the one before, so that it is not touched."""
    trail = _Trail(tmp_path / "audit")
    for _ in range(2):
        trail.turn(b"x")
        trail.append_to_log()
    first = trail.path
    trail.writer.use(trail.place.root_key(KEYS, 1), 1)
    trail.turn(b"in the next one")
    first.write_bytes(first.read_bytes()[:-5])
    before = first.read_bytes()

    assert trail.carried.write_missing(trail.place) == 0
    assert first.read_bytes() == before


def test_a_new_segment_has_to_be_synced(tmp_path: Path) -> None:
    """The name and the length of a segment are in no piece, so its first frames are synced."""
    trail = _Trail(tmp_path / "audit")
    answers = []
    for turn in range(4):
        if turn == 2:
            trail.writer.use(trail.place.root_key(KEYS, 1), 1)
        trail.turn(b"x")
        answers.append(trail.gatherer.take() is None)

    assert answers == [True, False, True, False]


def test_what_is_too_much_to_carry_is_synced(tmp_path: Path) -> None:
    """The log carries at most CARRIED_BYTES_MAX; after a sync it carries again."""
    trail = _Trail(tmp_path / "audit")
    trail.turn(b"x")
    trail.gatherer.take()
    for _ in range(3):
        trail.turn(bytes(CARRIED_BYTES_MAX // 2))

    assert trail.gatherer.take() is None

    trail.turn(b"y")
    assert trail.gatherer.take()
    assert trail.gatherer.take() == b""


def test_what_is_no_piece_is_refused() -> None:
    """Bytes that are too short to say where they belong stop the start with a clear error."""
    with pytest.raises(StorageError, match="what the log carries"):
        Carried().add(b"short")
    assert Piece.decode(Piece(3, 7, b"abc").encode()) == (3, 7, b"abc")

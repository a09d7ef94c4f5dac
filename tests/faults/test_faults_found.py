"""Each mistake that crashes and faults have brought to light, alone, as it was found."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from core.engine_lab import KEK, WANTED
from faults.disk_model import DiskModel, Write, write_down
from faults.faulty_member import release
from faults.traced_disk import Fault, Faults, Killed, Trace, TracedDisk
from storage.segments_lab import CLUSTER, KEYS, MEMBER, ROOT, SEGMENT_BYTES_MAX, frame_bytes

from kvsecure.security.audit import GENESIS, AuditTrail, Head
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.files import make_directory
from kvsecure.storage.segment import HEADER_BYTES, Kind
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, recover
from kvsecure.storage.tables import TableWriter

_CRASHES = 20


class _World:
    """A directory on a disk that is crashed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._trace = Trace(path)

    def disk(self, faults: Faults | None = None) -> TracedDisk:
        """Return the disk as a process sees it; faults count from its first call."""
        calls = iter(range(1, 1 << 30))
        take = self._trace.take
        return TracedDisk(self.path, take, lambda: next(calls), faults or {}, has_tables=True)

    def written_again(self) -> list[tuple[int, int]]:
        """Return where and how long the writes are that lie before what was written earlier."""
        ends: dict[int, int] = {}
        again = []
        for step in self._trace.steps:
            if isinstance(step, Write):
                if step.offset < ends.get(step.node, 0):
                    again.append((step.offset, len(step.content)))
                ends[step.node] = max(ends.get(step.node, 0), step.offset + len(step.content))
        return again

    def crash(self, check: Callable[[Path], None]) -> None:
        """Check what a crash may leave of it now, many times."""
        for seed in range(_CRASHES):
            model = DiskModel(chance=random.Random(seed))
            for step in self._trace.steps:
                model.take(step)
            left = self.path.with_name(f"left{seed}")
            write_down(model.crash(random.Random(seed)), left)
            check(left)


@pytest.fixture
def world(tmp_path: Path) -> _World:
    """An empty disk."""
    return _World(tmp_path / "root")


def _writer(place: SegmentPlace, *, bytes_max: int = SEGMENT_BYTES_MAX) -> SegmentWriter:
    return SegmentWriter(
        place, recover(place, KEYS, lambda _: None), ROOT, term=1, bytes_max=bytes_max
    )


def _texts(directory: Path) -> list[bytes]:
    texts: list[bytes] = []
    place = SegmentPlace(directory, Kind.WAL, CLUSTER, MEMBER)
    recover(place, KEYS, lambda frame: texts.append(frame.text))
    return texts


def test_purge_that_a_crash_cuts_short_leaves_no_gap(world: _World) -> None:
    """Of the segments that are purged the older ones go first, also when the power fails."""
    disk = world.disk()
    make_directory(world.path / "wal", disk)
    place = SegmentPlace(world.path / "wal", Kind.WAL, CLUSTER, MEMBER, disk)
    writer = _writer(place, bytes_max=HEADER_BYTES + 1)
    for number in range(6):
        writer.append(1, b"%d" % number)
        writer.sync()

    writer.purge(below=5)

    def check(left: Path) -> None:
        texts = _texts(left / "wal")
        assert texts == [b"%d" % number for number in range(6)][-len(texts) :]

    world.crash(check)


def test_what_a_failed_sync_left_is_not_built_upon_after_a_start(world: _World) -> None:
    """What a start reads is on the disk afterwards, though the system took it for written."""
    disk = world.disk({11: Fault.BROKEN})
    make_directory(world.path / "wal", disk)
    writer = _writer(SegmentPlace(world.path / "wal", Kind.WAL, CLUSTER, MEMBER, disk))
    writer.append(1, b"acknowledged")
    writer.sync()
    writer.append(1, b"x" * 2_000)
    with pytest.raises(OSError, match="Input/output"):
        writer.sync()

    place = SegmentPlace(world.path / "wal", Kind.WAL, CLUSTER, MEMBER, world.disk())
    found: list[bytes] = []
    recover(place, KEYS, lambda frame: found.append(frame.text))

    assert found == [b"acknowledged", b"x" * 2_000]

    def check(left: Path) -> None:
        assert _texts(left / "wal") == found

    world.crash(check)


def test_a_frame_without_entries_is_not_taken_for_known(world: _World) -> None:
    """Behind the last entry that is known nothing is, whether it has entries or not."""
    make_directory(world.path / "wal", world.disk())
    place = SegmentPlace(world.path / "wal", Kind.WAL, CLUSTER, MEMBER, world.disk())
    writer = _writer(place)
    for count in (1, 0, 1, 0):
        writer.append(count, b"x" * 100)
    writer.close()

    recover(place, KEYS, lambda _: None, first_known=3)

    assert [length for _, length in world.written_again()] == [frame_bytes(100)]


def test_what_is_on_the_disk_is_not_written_again_by_a_start(world: _World) -> None:
    """A start writes again what the tables do not hold, and nothing else."""
    make_directory(world.path / "wal", world.disk())
    place = SegmentPlace(world.path / "wal", Kind.WAL, CLUSTER, MEMBER, world.disk())
    writer = _writer(place)
    for number in range(20):
        writer.append(1, b"%d" % number * 100)
    writer.close()
    size = writer.path.stat().st_size

    recover(place, KEYS, lambda _: None, first_known=19)
    once = world.written_again()
    recover(place, KEYS, lambda _: None, first_known=21)

    assert [offset + length for offset, length in once] == [size]
    assert once[0][1] == 2 * frame_bytes(200)
    assert world.written_again() == once


def test_a_trail_with_starts_that_came_to_nothing_is_recovered(tmp_path: Path) -> None:
    """Empty segments between the last record and the end are passed over."""
    place = SegmentPlace(tmp_path / "audit", Kind.AUDIT, CLUSTER, MEMBER)
    make_directory(place.directory)
    trail = _trail(place, Head(0, GENESIS))
    trail.end_turn()
    head = trail.written_head
    trail.close()
    for _ in range(3):
        tail = recover(place, KEYS, lambda _: None)
        writer = SegmentWriter(place, tail, ROOT, term=1, bytes_max=SEGMENT_BYTES_MAX)
        writer._begin(writer.following)
        writer.close()

    trail = _trail(place, head)

    trail.end_turn()
    assert trail.written_head.seq == head.seq + 1
    trail.close()


@pytest.mark.parametrize("call", range(1, 20))
def test_a_start_makes_durable_what_one_before_it_had_begun(world: _World, call: int) -> None:
    """Killed between a name and its sync, and started again: then the name is there for good."""
    path = world.path / "srv" / "data"
    with pytest.raises(Killed):
        _open(path, world.disk({call: Fault.KILL}))

    _open(path, world.disk())

    def check(left: Path) -> None:
        found = {str(each.relative_to(left)) for each in left.rglob("*")}
        assert {f"srv/data/{name}" for name in _NAMES} <= found

    world.crash(check)


_NAMES = ("keyring", "member.json", "wal", "tables", "audit", "tables/data.mdb")


def _open(path: Path, disk: TracedDisk) -> None:
    """Open a data directory and its tables, and end without another word."""
    try:
        directory = DataDirectory(path, WANTED, KEK, disk)
        TableWriter(
            directory.tables,
            WANTED.cluster,
            directory.keyring.data_key(1, purpose="table"),
            term=1,
            size_bytes_max=1 << 20,
            disk=disk,
        ).close()
    finally:
        release(path / "LOCK")


def _trail(place: SegmentPlace, known: Head) -> AuditTrail:
    return AuditTrail(
        place, KEYS, known=known, on_segment=lambda _: None, wall_ns=lambda: 1_700_000_000 * 10**9
    )

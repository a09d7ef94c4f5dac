"""A member's disk: a sealed log in segments, and tables that are replaced whole.

    SimulatedDisk       writes and syncs in virtual time; a crash takes what was not synced
    Recovered           what a start finds

Owns: which file holds what, how long a sync takes, and when one fails.
Never: knows what an entry means. What a crash may take is decided by `faults.disk_model`, and the
    bytes are those of `kvsecure.storage.segment`.
Keeps: the newest segment with a frame is never purged: the newest vote is in it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from faults.disk_model import (
    ROOT,
    Create,
    DiskModel,
    Image,
    Lost,
    Rename,
    Resize,
    Sync,
    Unlink,
    Write,
)
from simulation.kernel import MS, Kernel

from kvsecure.crypto.sealing import SALT_BYTES
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
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
)
from kvsecure.storage.segments import segment_key

__all__ = ["CLUSTER", "Pace", "Recovered", "SimulatedDisk"]

CLUSTER: Final = ClusterId(0x51)
_ROOT_KEY: Final = Secret(bytes(range(32)))
_TABLES: Final = "tables"
_SUFFIX: Final = ".wal"
_SLOW_FACTOR: Final = 30
_KEY_TERM: Final = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take."""

    sync_us_min: int = 100
    sync_us_max: int = 3 * MS
    # Of how many syncs it takes ten times as long.
    slow: float = 0.0
    segment_bytes: int = 8_192


class Recovered(NamedTuple):
    """What a start finds."""

    tables: bytes | None
    frames: list[Frame]


@dataclass(slots=True)
class _Segment:
    name: str
    node: int
    # None after a restart: a key never outlives the process that drew its salt.
    encoder: SegmentEncoder | None
    size: int = 0
    # The highest index in it, of entries that are durable.
    last: int = 0


@final
class SimulatedDisk:
    """What one member has written."""

    def __init__(
        self, kernel: Kernel, member: MemberId, pace: Pace, on_broken: Callable[[], None]
    ) -> None:
        """Take an empty disk.

        Args:
            kernel: Time and chance.
            member: Whose it is.
            pace: How long things take.
            on_broken: Called when a sync has failed; the member must not go on.
        """
        self.pace = pace
        # The next sync fails.
        self.is_failing = False
        self.counts: Counter[str] = Counter()
        self._kernel = kernel
        self._member = member
        self._on_broken = on_broken
        # What was started in an earlier life does not report to this one.
        self._life = 0
        self._model = DiskModel(chance=kernel.chance)
        self._nodes = ROOT
        self._segments: list[_Segment] = []
        self._number = 0
        self._link = NO_LINK
        self._names: dict[str, int] = {}
        self._files: dict[str, bytes] = {}

    # --- living -----------------------------------------------------------------------------------

    def append(self, first: int, count: int, text: bytes, done: Callable[[], None]) -> None:
        """Append a frame to the log; `done` is called when it is durable."""
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.encoder is None or segment.size >= self.pace.segment_bytes:
            segment = self._begin(first)
        assert segment.encoder is not None
        self._put(segment, segment.encoder.frame(first, count, text))
        last = first + count - 1

        def appended() -> None:
            segment.last = max(segment.last, last)
            done()

        self._sync_later(segment.node, appended)

    def replace_tables(self, text: bytes, done: Callable[[], None]) -> None:
        """Replace the tables whole; `done` is called when they are durable."""
        node = self._create(_TABLES + ".new")
        self._model.take(Write(node, 0, text))

        def written() -> None:
            self._model.take(Rename(ROOT, _TABLES + ".new", ROOT, _TABLES, node))
            self._sync_later(ROOT, done)

        self._sync_later(node, written)

    def purge(self, through: int) -> None:
        """Remove segments whose entries are all at or below an index."""
        while len(self._segments) > 1 and self._segments[0].last <= through:
            if not self._segments[1].last:
                return
            self._remove(self._segments[0])

    def begin_anew(self, first: int, text: bytes) -> None:
        """Begin the log with this frame, and remove everything before it, at once."""
        old = list(self._segments)
        segment = self._begin(first)
        assert segment.encoder is not None
        self._put(segment, segment.encoder.frame(first, 0, text))
        segment.last = first - 1
        self._model.take(Sync(segment.node))
        for each in old:
            self._remove(each)

    # --- dying ------------------------------------------------------------------------------------

    def crash(self, *, is_power_lost: bool) -> None:
        """End; what was not synced is lost or not if the power is, and stays if it is not."""
        if not is_power_lost:
            for node in (ROOT, *range(1, self._nodes + 1)):
                self._model.take(Sync(node))
        self._adopt(self._model.crash(self._kernel.chance))

    def recover(self) -> Recovered:
        """Read everything back, and cut off what was never finished.

        Raises:
            DamagedSegment: Something else is wrong than the end of a write.
        """
        frames: list[Frame] = []
        self._segments.clear()
        self._link = NO_LINK
        logs = sorted(name for name in self._files if name.endswith(_SUFFIX))
        for name in logs:
            segment = self._read(name, frames, is_newest=name == logs[-1])
            self._segments.append(segment)
        self._number = int(logs[-1].removesuffix(_SUFFIX)) if logs else 0
        return Recovered(self._files.get(_TABLES), frames)

    def _read(self, name: str, frames: list[Frame], *, is_newest: bool) -> _Segment:
        """Take up a segment's frames."""
        content = self._files[name]
        segment = _Segment(name, self._names[name], None)
        header = read_header(content, Kind.WAL, CLUSTER, self._member)
        if frames and header.link != self._link:
            raise DamagedSegment(Damage.FOREIGN, 0, f"{name} does not follow on the one before it")
        self._link = header.link
        try:
            for frame in read_frames(content, header, segment_key(_ROOT_KEY, header.salt)):
                frames.append(frame)
                self._link = frame.tag
                segment.last = max(segment.last, frame.first + frame.count - 1)
        except DamagedSegment as error:
            if error.damage is not Damage.TORN or not is_newest:
                raise
            self.counts["torn ends"] += 1
            self._model.take(Resize(segment.node, error.offset))
            self._model.take(Sync(segment.node))
        return segment

    # --- files ------------------------------------------------------------------------------------

    def _begin(self, first: int) -> _Segment:
        """Begin a segment; its header is durable before a frame is."""
        self._number += 1
        salt = self._kernel.chance.randbytes(SALT_BYTES)
        header = Header(
            Kind.WAL, CLUSTER, self._member, self._number, first, _KEY_TERM, salt, self._link
        )
        name = f"{self._number:08d}{_SUFFIX}"
        encoder = SegmentEncoder(header, segment_key(_ROOT_KEY, salt))
        segment = _Segment(name, self._create(name), encoder, HEADER_BYTES)
        self._model.take(Write(segment.node, 0, header.encode()))
        self._model.take(Sync(segment.node))
        self._model.take(Sync(ROOT))
        self._segments.append(segment)
        return segment

    def _put(self, segment: _Segment, frame: bytes) -> None:
        assert segment.encoder is not None
        self._link = segment.encoder.tag
        self._model.take(Write(segment.node, segment.size, frame))
        segment.size += len(frame)

    def _remove(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        self._model.take(Unlink(ROOT, segment.name, segment.node))
        self._model.take(Sync(ROOT))
        self.counts["segments removed"] += 1

    def _create(self, name: str) -> int:
        self._nodes += 1
        self._model.take(Create(ROOT, name, self._nodes, is_directory=False))
        return self._nodes

    def _adopt(self, image: Image) -> None:
        """Begin anew with what is there."""
        self._life += 1
        self._model = DiskModel(chance=self._kernel.chance)
        self._nodes = ROOT
        self._names, self._files = {}, {}
        self._segments.clear()
        for name, content in image.items():
            assert isinstance(content, bytes)
            node = self._names[name] = self._create(name)
            self._files[name] = content
            self._model.take(Write(node, 0, content))
            self._model.take(Sync(node))
        self._model.take(Sync(ROOT))

    def _sync_later(self, node: int, done: Callable[[], None]) -> None:
        kernel, pace = self._kernel, self.pace
        spread = pace.sync_us_max - pace.sync_us_min
        delay_us = pace.sync_us_min + int(kernel.chance.random() * spread)
        if pace.slow and kernel.chance.random() < pace.slow:
            self.counts["slow syncs"] += 1
            delay_us *= _SLOW_FACTOR
        kernel.after(delay_us, self._synced, self._life, node, done)

    def _synced(self, life: int, node: int, done: Callable[[], None]) -> None:
        if life != self._life:
            return
        if self.is_failing:
            self.is_failing = False
            self.counts["failed syncs"] += 1
            self._model.take(Lost(node) if node != ROOT else Sync(ROOT))
            self._on_broken()
            return
        self._model.take(Sync(node))
        done()

"""Automatic compaction: when to forget how much of the past.

Owns: the two modes, by time and by count.
Never: compacts; it says up to which revision.
Follows: etcd's compactors (server/etcdserver/api/v3compactor): the periodic one keeps a history of
    revisions and goes to the one of a retention ago, the other goes to a distance from the newest.
"""

from collections import deque
from typing import Final, final

from kvsecure.server.config.model import Compaction, KeepPeriod, KeepRevisions

__all__ = ["AutoCompactor"]

_NS: Final = 1_000_000_000
_PERIOD_NS_MAX: Final = 3_600 * _NS
_REVISIONS_EVERY_NS: Final = 300 * _NS
_SAMPLES_PER_PERIOD: Final = 10


@final
class AutoCompactor:
    """Says when a compaction is due."""

    __slots__ = ("_compacted", "_mode", "_next_ns", "_samples")

    def __init__(self, mode: Compaction, now_ns: int) -> None:
        self._mode = mode
        # (when, revision), oldest first.
        self._samples: deque[tuple[int, int]] = deque()
        self._next_ns = now_ns
        self._compacted = 0

    def due(self, now_ns: int, revision: int) -> int | None:
        """Return the revision to compact to, or None if nothing is due.

        Args:
            now_ns: Monotonic time in nanoseconds.
            revision: The store's revision.
        """
        if self._mode is None or now_ns < self._next_ns:
            return None
        match self._mode:
            case KeepRevisions(count=count):
                self._next_ns = now_ns + _REVISIONS_EVERY_NS
                target = revision - count
            case KeepPeriod(retention_ns=retention_ns):
                target = self._oldest(now_ns, revision, retention_ns)
        if target <= max(self._compacted, 1):
            return None
        self._compacted = target
        return target

    def _oldest(self, now_ns: int, revision: int, retention_ns: int) -> int:
        """Return the revision of one retention ago, 0 if that is not known yet."""
        period_ns = min(retention_ns, _PERIOD_NS_MAX)
        self._next_ns = now_ns + max(period_ns // _SAMPLES_PER_PERIOD, 1)
        self._samples.append((now_ns, revision))
        target = 0
        while self._samples and self._samples[0][0] <= now_ns - retention_ns:
            target = self._samples.popleft()[1]
        return target

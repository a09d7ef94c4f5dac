"""Changes: what happened to the keys of a span since a revision, read from the index in slices.

    live keys  a b   d e   g ...      walked together in the order of the keys, a few thousand at a
    dead keys      c     f            time; what happened to them goes into buckets by revision

Owns: walking a span while it changes, handing out the changes in the order they were made, and
    taking note of those that are made meanwhile.
Never: reads a record, waits, or takes more than a bounded memory, unless one bucket has more: then
    it hands out the oldest, and whoever wants the rest walks again.
Keeps: through `through`, every retained change of the span is handed out once; a key lies in the
    part that was walked or in the part that was not, whatever becomes of it meanwhile.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple, final

from sortedcontainers import SortedDict, SortedList

from kvsecure.core.mvcc.index import POSITION_BYTES, KeyIndex, is_tombstone, main_of
from kvsecure.model.keys import Span
from kvsecure.model.limits import WATCH_KEYS_PER_SLICE, WATCH_MISSED_BYTES_MAX

__all__ = ["Change", "MissedChanges", "pack_change"]

# Changes of so many revisions are sorted at once, in two or three milliseconds where each has a
# hundred in no order (256: 11 ms, 2,048: 80 ms). Larger ones do not make for fewer walks.
_BUCKET_REVISIONS: Final = 64
# What a change takes besides its bytes.
_CHANGE_COST_BYTES: Final = 48
_NO_PLACE: Final = bytes(POSITION_BYTES)


class Change(NamedTuple):
    """One change of one key."""

    key: bytes
    place: bytes
    # Where the version that it replaced is, or None if there was none.
    previous: bytes | None

    @property
    def revision(self) -> int:
        """The revision that made it."""
        return main_of(self.place)

    @property
    def is_deletion(self) -> bool:
        """Whether it deleted its key."""
        return is_tombstone(self.place)


def pack_change(place: bytes, key: bytes, previous: bytes | None) -> bytes:
    """Return a change as it is held: bytes are nothing for the cyclic collector to walk.

    They are in the order of the changes: by revision, then by the order of the revision's changes.
    """
    # The mark of a deletion is not part of the order.
    return b"%b%c%b%b%b%b" % (
        place[:8],
        place[8] & 0x7F,
        place[9:],
        place[8:9],
        previous or _NO_PLACE,
        key,
    )


def _unpack_change(packed: bytes) -> Change:
    previous = packed[13:25]
    return Change(
        packed[25:],
        packed[:8] + packed[12:13] + packed[9:12],
        None if previous == _NO_PLACE else previous,
    )


@final
class MissedChanges:
    """What one watcher has missed."""

    __slots__ = (
        "_buckets",
        "_bytes_max",
        "_changes",
        "_from",
        "_held_bytes",
        "_includes_from",
        "_index",
        "_is_walked",
        "_later",
        "_later_bytes",
        "_oldest",
        "_slice",
        "_span",
        "_walk_through",
        "is_following",
        "through",
    )

    def __init__(
        self,
        index: KeyIndex,
        span: Span,
        start_revision: int,
        through: int,
        *,
        keys_per_slice: int = WATCH_KEYS_PER_SLICE,
        bytes_max: int = WATCH_MISSED_BYTES_MAX,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            index: Whose keys.
            span: Which of them.
            start_revision: The first revision whose changes are wanted.
            through: The last one.
            keys_per_slice: How many keys are looked at in one slice.
            bytes_max: How much the changes that are held may take, unless one bucket has more.
        """
        self._index = index
        self._span = span
        self._oldest = start_revision.to_bytes(8, "big")
        self._walk_through = through
        # What this reaches to: more where it follows, less where there is too much to hold.
        self.through = through
        # Whether it has all that was made since.
        self.is_following = True
        self._slice = keys_per_slice
        self._bytes_max = bytes_max
        self._from = span.start
        self._includes_from = True
        self._is_walked = span.empty
        self._buckets: SortedDict[int, list[bytes]] = SortedDict()
        self._held_bytes = 0
        self._changes: deque[bytes] = deque()
        # What was made since.
        self._later: deque[bytes] = deque()
        self._later_bytes = 0

    def walk(self) -> bool:
        """Look at a few more keys, if any are left; return whether all have been looked at."""
        if self._is_walked:
            return True
        live, more_live = self._next(self._index.live)
        dead, more_dead = self._next(self._index.dead)
        if more_live or more_dead:
            # As far as both have been read.
            self._from = min([*live[-1:]] * more_live + [*dead[-1:]] * more_dead)
            self._includes_from = False
        else:
            self._is_walked = True
        for keys in (live, dead):
            self._collect(keys)
        while self._held_bytes > self._bytes_max and len(self._buckets) > 1:
            newest, dropped = self._buckets.popitem()
            self._held_bytes -= _cost_bytes(dropped)
            self.through = self._walk_through = newest * _BUCKET_REVISIONS - 1
            self.is_following = False
            self._later.clear()
            self._later_bytes = 0
        return self._is_walked

    def follow(self, revision: int, changes: Iterable[bytes]) -> None:
        """Take note of what a newer revision has changed, as long as there is room for it.

        Args:
            revision: Which.
            changes: As `pack_change` gives them, in order.
        """
        if not self.is_following:
            return
        if self._later_bytes >= self._bytes_max:
            self.is_following = False
            return
        made = [*changes]
        self._later.extend(made)
        self._later_bytes += _cost_bytes(made)
        self.through = revision

    def stop_following(self) -> None:
        """Take note that newer changes are not told; they have to be read."""
        self.is_following = False

    def first(self) -> Change | None:
        """Return the oldest change that is left, once all keys have been looked at, or None."""
        if not self._changes and self._buckets:
            _, bucket = self._buckets.popitem(0)
            bucket.sort()
            self._changes.extend(bucket)
        elif not self._changes:
            self._changes, self._later = self._later, self._changes
            self._later_bytes = 0
        return _unpack_change(self._changes[0]) if self._changes else None

    def drop_first(self) -> None:
        """Forget what `first` returns."""
        self._changes.popleft()

    def _next(self, keys: "SortedList[bytes]") -> tuple[list[bytes], bool]:
        """Return the keys that come next, and whether there may be more."""
        found = list(
            islice(
                keys.irange(self._from, self._span.end, (self._includes_from, False)), self._slice
            )
        )
        return found, len(found) == self._slice

    def _collect(self, keys: list[bytes]) -> None:
        """Put what happened to some keys into its buckets, as far as this walk has come."""
        heads, past = self._index.heads, self._index.past
        oldest, newest = self._oldest, self._walk_through.to_bytes(8, "big")
        for key in keys:
            if not self._is_walked and key > self._from:
                return
            head = heads[key]
            # Of very many keys most end here or there: not changed since, or later than this walk
            # reaches.
            if head[:8] < oldest:
                continue
            if key in past:
                for place, previous in self._index.changes(key, oldest, newest):
                    self._hold(place, key, previous)
            elif head[:8] <= newest:
                self._hold(head[:POSITION_BYTES], key, None)

    def _hold(self, place: bytes, key: bytes, previous: bytes | None) -> None:
        packed = pack_change(place, key, previous)
        number = main_of(place) // _BUCKET_REVISIONS
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = []
        bucket.append(packed)
        self._held_bytes += len(packed) + _CHANGE_COST_BYTES


def _cost_bytes(changes: list[bytes]) -> int:
    return sum(map(len, changes)) + _CHANGE_COST_BYTES * len(changes)

"""The key index of one tenant: which revisions every key has.

    heads   key -> newest version: where it is, when the key was created, its version and lease
    past    key -> older versions that are still retained, as a run of 12-byte positions
    live    keys that exist now, in order;   dead   keys that exist only in the past, in order

Owns: looking up a key at a revision, counting, and which positions compaction frees.
Never: sees a value; a position says where a record is.
Follows: etcd's treeIndex and keyIndex (server/storage/mvcc) for what is visible when.
Keeps: heads and past hold nothing but bytes, so a million keys are nothing for the cyclic collector
    to walk; a key is in exactly one of live and dead.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from sortedcontainers import SortedList

from kvsecure.core.mvcc.retention import Keep
from kvsecure.model.keys import Span

__all__ = [
    "HEAD",
    "POSITION_BYTES",
    "TOMBSTONE",
    "Head",
    "KeyIndex",
    "is_tombstone",
    "main_of",
    "position",
    "split",
]

# Newest version of a key: main and sub revision, create revision, version (0: deleted), lease.
HEAD: Final = struct.Struct(">QIQQq")
# A position: main revision, then sub revision whose top bit marks a deletion.
_POSITION: Final = struct.Struct(">QI")
POSITION_BYTES: Final = _POSITION.size
TOMBSTONE: Final = 0x8000_0000

# Where a head says which lease it has.
_LEASE_AT: Final = HEAD.size - 8
_NO_LEASE: Final = bytes(8)
# The bit of a deletion within the byte that has it.
_MARK: Final = 0x80

_NOTHING: Final = bytearray()
_MARKS: Final = bytes(byte >> 7 for byte in range(256))

_head_of = HEAD.unpack
_pack_head = HEAD.pack


class Head(NamedTuple):
    """The newest version of a key, decoded."""

    main: int
    sub: int
    create: int
    version: int
    lease: int


def position(main: int, sub: int) -> bytes:
    """Return the position of the `sub`-th change of a revision."""
    return _POSITION.pack(main, sub)


def main_of(place: bytes) -> int:
    """Return the revision of a position."""
    return int.from_bytes(place[:8], "big")


def is_tombstone(place: bytes) -> bool:
    """Tell whether a position is that of a deletion."""
    return bool(place[8] & 0x80)


@final
class KeyIndex:
    """One tenant's keys."""

    __slots__ = ("condemned", "dead", "destroyed_count", "heads", "live", "past")

    def __init__(self) -> None:
        self.heads: dict[bytes, bytes] = {}
        self.past: dict[bytes, bytearray] = {}
        self.live: SortedList[bytes] = SortedList()
        self.dead: SortedList[bytes] = SortedList()
        # Keys of which there are records that nobody may read any more.
        self.condemned: set[bytes] = set()
        # Whoever reads the past in steps can tell by it that some of it is gone.
        self.destroyed_count = 0

    def head(self, key: bytes) -> Head | None:
        """Return the newest version of a key that exists, otherwise None."""
        packed = self.heads.get(key)
        if packed is None:
            return None
        head = Head(*_head_of(packed))
        return head if head.version else None

    def put(
        self, key: bytes, main: int, sub: int, lease: int
    ) -> tuple[bytes, int, int, bytes | None]:
        """Give a key a new version.

        Returns:
            Its packed head, create revision and version, and the packed head that it replaced,
            which may be that of a deletion.
        """
        old = self.heads.get(key)
        if old is None:
            create, version = main, 1
            self.live.add(key)
        else:
            _, _, create, version, _ = _head_of(old)
            self._retain(key, old)
            if version:
                version += 1
            else:
                create, version = main, 1
                self.dead.remove(key)
                self.live.add(key)
        head = _pack_head(main, sub, create, version, lease)
        self.heads[key] = head
        return head, create, version, old

    def delete(self, key: bytes, main: int, sub: int) -> tuple[bytes, bytes]:
        """Mark a key that exists as deleted; return its packed head and the one it replaced."""
        old = self.heads[key]
        self._retain(key, old)
        head = _pack_head(main, sub | TOMBSTONE, 0, 0, 0)
        self.heads[key] = head
        self.live.remove(key)
        self.dead.add(key)
        return head, old

    def load(self, key: bytes, head: bytes) -> None:
        """Take in a version as it was stored; versions of a key come in order.

        The index is not to be used before `end_load`.
        """
        old = self.heads.get(key)
        if old is not None:
            self._retain(key, old)
        self.heads[key] = head

    def end_load(self) -> Iterator[tuple[bytes, int]]:
        """Put the keys in order, all at once, and yield those with a lease, and which it is."""
        heads = self.heads
        # Mostly in order already: the rest of the work is to compare each with the next.
        keys = sorted(heads)
        self.live = SortedList(key for key in keys if heads[key][8] < _MARK)
        self.dead = SortedList(key for key in keys if heads[key][8] >= _MARK)
        for key in self.live:
            if heads[key][_LEASE_AT:] != _NO_LEASE:
                yield key, _head_of(heads[key])[-1]

    def at(self, key: bytes, revision: int) -> bytes | None:
        """Return the position of what a key was at a revision, or None if it did not exist then."""
        head = self.heads.get(key)
        if head is None:
            return None
        newest = revision.to_bytes(8, "big")
        if head[:8] <= newest:
            place = head[:POSITION_BYTES]
        else:
            run = self.past.get(key)
            if run is None:
                return None
            found = _last_through(run, newest)
            if found < 0:
                return None
            place = bytes(run[found * POSITION_BYTES : (found + 1) * POSITION_BYTES])
        return None if place[8] & 0x80 else place

    def positions(self, key: bytes) -> list[bytes]:
        """Return every retained position of a key, in the order they were written."""
        head = self.heads.get(key)
        if head is None:
            return []
        run = self.past.get(key, b"")
        older = [bytes(run[i : i + POSITION_BYTES]) for i in range(0, len(run), POSITION_BYTES)]
        return [*older, head[:POSITION_BYTES]]

    def positions_before(
        self, key: bytes, revision: int, *, doomed: int, count_max: int
    ) -> list[bytes]:
        """Return the newest positions of a key before a revision, newest first.

        Args:
            key: Whose.
            revision: All of them are older.
            doomed: How many, from the oldest on, are not to be seen any more.
            count_max: How many at most.
        """
        head = self.heads.get(key)
        if head is None:
            return []
        run = self.past.get(key, _NOTHING)
        newest = (revision - 1).to_bytes(8, "big")
        end = (_last_through(run, newest) + 1) * POSITION_BYTES
        start = max(doomed * POSITION_BYTES, end - count_max * POSITION_BYTES)
        found = split(run[start:end])
        if head[:8] <= newest and doomed * POSITION_BYTES <= len(run):
            found.append(head[:POSITION_BYTES])
        return found[: -count_max - 1 : -1]

    def changes(self, key: bytes, oldest: bytes, newest: bytes) -> list[tuple[bytes, bytes | None]]:
        """Return the retained positions of a key from one revision through another.

        Returns:
            Each with the position of the version it replaced, None if there was none, in the order
            they were written.
        """
        run = self.past.get(key, b"")
        begin, end = _last_through(run, _before(oldest)) + 1, _last_through(run, newest) + 1
        places = split(run[begin * POSITION_BYTES : end * POSITION_BYTES])
        head = self.heads[key][:POSITION_BYTES]
        if oldest <= head[:8] <= newest:
            places.append(head)
        previous: bytes | None = None
        if begin:
            previous = bytes(run[(begin - 1) * POSITION_BYTES : begin * POSITION_BYTES])
        found = []
        for place in places:
            found.append((place, None if previous is None or is_tombstone(previous) else previous))
            previous = place
        return found

    def holds(self, key: bytes, place: bytes) -> bool:
        """Tell whether a position of a key is still retained."""
        head = self.heads.get(key)
        if head is None:
            return False
        if head[:POSITION_BYTES] == place:
            return True
        run = self.past.get(key)
        if run is None:
            return False
        found = _last_through(run, place[:8])
        while found >= 0:
            at = found * POSITION_BYTES
            if run[at : at + 8] != place[:8]:
                return False
            if run[at : at + POSITION_BYTES] == place:
                return True
            found -= 1
        return False

    def keys_now(self, span: Span) -> Iterator[bytes]:
        """Yield the keys that exist now, in order."""
        if span.empty:
            return iter(())
        keys: Iterator[bytes] = self.live.irange(span.start, span.end, (True, False))
        return keys

    def count_now(self, span: Span) -> int:
        """Return how many keys of the span exist now, without walking them."""
        if span.empty:
            return 0
        end = len(self.live) if span.end is None else self.live.bisect_left(span.end)
        return int(end) - int(self.live.bisect_left(span.start))

    def count_ever(self, span: Span) -> int:
        """Return how many keys of the span have any retained version, without walking them."""
        if span.empty:
            return 0
        end = len(self.dead) if span.end is None else self.dead.bisect_left(span.end)
        return self.count_now(span) + int(end) - int(self.dead.bisect_left(span.start))

    def keys_ever(self, span: Span) -> list[bytes]:
        """Return the keys of the span that have any retained version, in order."""
        if span.empty:
            return []
        live = list(self.live.irange(span.start, span.end, (True, False)))
        dead = list(self.dead.irange(span.start, span.end, (True, False)))
        return sorted(live + dead) if dead else live

    def keys_with_past(self) -> list[bytes]:
        """Return the keys that compaction could free something of."""
        return [*self.past.keys(), *(key for key in self.dead if key not in self.past)]

    def doomed(self, key: bytes, revision: int, keep: Keep | None, before: int = 0) -> int:
        """Return how many of a key's positions, from the oldest on, a compaction gives up.

        The newest version at or below the revision stays, unless it is a deletion: that stays only
        if it lies exactly at the revision, for a watch that starts there (etcd's keep set), or
        behind a version that is kept.

        Args:
            key: Whose.
            revision: Where it is compacted.
            keep: What else is kept.
            before: How many earlier compactions give up, which are nothing to keep any more.
        """
        head = self.heads.get(key)
        if head is None:
            return 0
        newest = revision.to_bytes(8, "big")
        run = self.past.get(key, _NOTHING)
        if head[:8] <= newest:
            count = len(run) // POSITION_BYTES
            count += bool(head[8] & 0x80 and head[:8] != newest)
        else:
            count = _last_through(run, newest)
            if count < 0:
                return before
            at = count * POSITION_BYTES
            count += bool(run[at + 8] & 0x80 and run[at : at + 8] != newest)
        if keep is None or count <= before:
            return max(count, before)
        chain = (run + head[:POSITION_BYTES])[before * POSITION_BYTES :]
        return min(count, before + _oldest_kept(chain, keep))

    def compact(self, key: bytes, revision: int, keep: Keep | None = None) -> list[bytes]:
        """Forget what is `doomed` of a key; return the positions that are free now."""
        count = self.doomed(key, revision, keep)
        if not count:
            return []
        run = self.past.get(key, _NOTHING)
        end = count * POSITION_BYTES
        freed = split(run[:end])
        if end >= len(run):
            self.past.pop(key, None)
        else:
            del run[:end]
        if len(freed) < count:
            freed.append(self.heads.pop(key)[:POSITION_BYTES])
            self.dead.remove(key)
        return freed

    def destroy(self, key: bytes, revision: int, compacted: int) -> bytes:
        """Forget every version of a key through a revision; return the run of its positions.

        A deletion that is the last of them stays, for watches that catch up, unless it lies before
        the compacted revision: there it was kept for what is destroyed now.
        """
        self.destroyed_count += 1
        head = self.heads.get(key)
        if head is None:
            return b""
        run = self.past.get(key, _NOTHING)
        chain = run + head[:POSITION_BYTES]
        count = _last_through(chain, revision.to_bytes(8, "big")) + 1
        last = chain[(count - 1) * POSITION_BYTES : count * POSITION_BYTES]
        if count and last[8] & 0x80 and int.from_bytes(last[:8], "big") >= compacted:
            count -= 1
        freed = bytes(chain[: count * POSITION_BYTES])
        if count * POSITION_BYTES >= len(run):
            self.past.pop(key, None)
        else:
            del run[: count * POSITION_BYTES]
        if count * POSITION_BYTES == len(chain):
            del self.heads[key]
            (self.dead if head[8] & 0x80 else self.live).remove(key)
        return freed

    def _retain(self, key: bytes, old: bytes) -> None:
        run = self.past.get(key)
        if run is None:
            self.past[key] = bytearray(old[:POSITION_BYTES])
        else:
            run += old[:POSITION_BYTES]


def _before(revision: bytes) -> bytes:
    return max(int.from_bytes(revision, "big") - 1, 0).to_bytes(8, "big")


def _last_through(run: bytes | bytearray, newest: bytes) -> int:
    """Return the number of the last position whose revision is at most this one, or -1."""
    low, high = 0, len(run) // POSITION_BYTES
    while low < high:
        middle = (low + high) // 2
        at = middle * POSITION_BYTES
        if run[at : at + 8] <= newest:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _oldest_kept(chain: bytearray, keep: Keep) -> int:
    """Return the number of the oldest version that is kept; what is before it is not.

    Going back, versions are older and were superseded earlier: behind the first one that is not
    kept, none is. A key may have very many; nothing here goes over them one by one.
    """
    # Each byte tells whether that position is a deletion.
    marks = chain[8::POSITION_BYTES].translate(_MARKS)
    # What comes before the first one that was superseded late enough.
    expired = _last_through(chain, keep.superseded_after.to_bytes(8, "big"))
    kept = max(expired, 0)
    if keep.versions:
        end = _last_through(chain, keep.through.to_bytes(8, "big")) + 1
        wanted, found = keep.versions, 0
        while found < wanted <= end:
            found, wanted = wanted, keep.versions + marks.count(1, end - wanted, end)
        kept = min(kept, max(end - wanted, 0))
    # A deletion alone is nothing to keep.
    return kept + (kept < len(marks) and marks[kept])


def split(run: bytes | bytearray) -> list[bytes]:
    """Return the positions of a run."""
    return [bytes(run[i : i + POSITION_BYTES]) for i in range(0, len(run), POSITION_BYTES)]

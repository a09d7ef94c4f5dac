"""Watches: events in as they are written, batches out to whoever asked for their keys.

    live          gets every revision as it is written, from the hub
    catching up   reads bounded pieces of history from the index until it is at the head

Owns: who watches which keys, what each watcher has been sent, and falling back to history when a
    watcher, or the client that several belong to, is slow.
Never: checks rights, knows streams' transport, or keeps more than a bounded queue for a watcher and
    for a client.
Follows: etcd's watchableStore (server/storage/mvcc/watchable_store.go): synced and unsynced
    watchers; differs: a slow watcher has no queue of its own to drain, it reads history again.
Keeps: a watcher gets each revision it asked for once, whole and in order; `next_revision` is the
    first one it has not been handed.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from kvsecure.core.changes import MissedChanges, pack_change
from kvsecure.core.mvcc.deletion import Deleted
from kvsecure.core.mvcc.index import TOMBSTONE, position
from kvsecure.core.mvcc.records import Records
from kvsecure.core.mvcc.space import Event, Space
from kvsecure.core.spans import SpanMap
from kvsecure.model.ids import TenantId
from kvsecure.model.keys import Span
from kvsecure.model.limits import (
    WATCH_KEYS_PER_SLICE,
    WATCH_MISSED_BYTES_MAX,
    WATCH_QUEUE_BYTES_MAX,
    WATCH_ROOM_BYTES_MAX,
)
from kvsecure.proto.encode import bytes_field
from kvsecure.proto.mvcc_pb2 import KeyValue

__all__ = ["Batch", "Filters", "Hub", "Room", "Watcher"]

# Field keys of mvccpb.Event.
_TYPE_DELETE: Final = b"\x08\x01"
_KV: Final = b"\x12"
_PREVIOUS: Final = b"\x1a"
# Field key of the events of etcdserverpb.WatchResponse.
_EVENTS: Final = b"\x5a"
# How much one batch holds of history, or of what has piled up, unless one revision is larger.
_BATCH_EVENTS_MAX: Final = 1_000
_BATCH_BYTES_MAX: Final = 1024 * 1024
# How much is read of one large revision before others have their turn.
_SLICE_BYTES_MAX: Final = 2 * _BATCH_BYTES_MAX
# What a batch costs in a queue besides its events, which other queues hold too.
_BATCH_COST_BYTES: Final = 128


class Filters(NamedTuple):
    """Which events a watcher does not want, and whether it wants what was there before."""

    no_put: bool = False
    no_delete: bool = False
    previous: bool = False


class Batch(NamedTuple):
    """Events of whole revisions, oldest first, each as a field of a WatchResponse."""

    # The watcher has everything through this revision.
    revision: int
    events: tuple[bytes, ...]
    size_bytes: int


@final
class Room:
    """How much is queued for all watchers of one client together."""

    __slots__ = ("queued_bytes",)

    def __init__(self) -> None:
        self.queued_bytes = 0


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Watcher:
    """One watch: what it wants and how far it got."""

    space: Space
    span: Span
    filters: Filters
    next_revision: int
    # What it shares with the other watchers of its client.
    room: Room
    # Called when there is something to take, at most once until it is taken.
    wake: Callable[["Watcher"], None]
    # Live watchers are fed by the hub; the others read history, and note what happens meanwhile.
    live: bool = False
    enlisted: bool = False
    closed: bool = False
    queue: deque[Batch] = field(default_factory=deque)
    queue_bytes: int = 0
    # What it has missed and is being handed.
    missed: MissedChanges | None = None
    # What was read of a revision that is too large for one slice.
    begun: list[bytes] = field(default_factory=list)


# The live watchers of one span, by identity.
type_crowd = dict[int, Watcher]
# Batches that were made for a revision already, by which of its events they hold.
type_made = dict[Filters, Batch | None]


@final
class Hub:
    """All watchers of all tenants."""

    __slots__ = (
        "_exact",
        "_ranges",
        "_records",
        "compacted",
        "event_count",
        "keys_per_slice",
        "missed_bytes_max",
    )

    def __init__(self, records: Records) -> None:
        self._records = records
        # By tenant, then by key or span: an event finds those that want it, however many there are.
        self._exact: dict[TenantId, dict[bytes, type_crowd]] = {}
        self._ranges: dict[TenantId, SpanMap[type_crowd]] = {}
        self.event_count = 0
        # How much of what it has missed is held for a watcher, and how many keys are looked at in
        # one slice.
        self.missed_bytes_max = WATCH_MISSED_BYTES_MAX
        self.keys_per_slice = WATCH_KEYS_PER_SLICE
        # The newest compacted revision; whoever compacts says so.
        self.compacted = -1

    # --- registration ---------------------------------------------------------------------------

    def go_live(self, watcher: Watcher) -> None:
        """Feed a watcher with what is written from now on."""
        watcher.live = True
        watcher.missed = None
        self._enlist(watcher)

    def _enlist(self, watcher: Watcher) -> None:
        if watcher.enlisted:
            return
        watcher.enlisted = True
        tenant, span = watcher.space.tenant, watcher.span
        if _is_exact(span):
            crowds = self._exact.setdefault(tenant, {})
            crowds.setdefault(span.start, {})[id(watcher)] = watcher
            return
        ranges = self._ranges.setdefault(tenant, SpanMap())
        crowd = ranges.get(span)
        if crowd is None:
            ranges.add(span, crowd := {})
        crowd[id(watcher)] = watcher

    def close(self, watcher: Watcher) -> None:
        """Forget a watcher; nothing comes out of it any more."""
        watcher.closed = True
        watcher.queue.clear()
        watcher.room.queued_bytes -= watcher.queue_bytes
        watcher.queue_bytes = 0
        watcher.missed = None
        watcher.begun = []
        self._leave(watcher)

    def watchers_of(self, space: Space) -> list[Watcher]:
        """Return the watchers of a space that hear of what is written."""
        exact, ranges = self._exact.get(space.tenant, {}), self._ranges.get(space.tenant)
        crowds = [*exact.values(), *(ranges.values() if ranges is not None else ())]
        return [watcher for crowd in crowds for watcher in crowd.values()]

    # --- live -----------------------------------------------------------------------------------

    def publish_each(self, space: Space, first: int, events: list[Event]) -> None:
        """Hand out events that are the only ones of their revisions, which follow on each other."""
        if self._exact.get(space.tenant) or self._ranges.get(space.tenant):
            for revision, event in enumerate(events, first):
                self.publish(space, revision, [event])

    def publish_many(self, space: Space, revision: int, deleted: Deleted) -> None:
        """Let the live watchers of any of very many deleted keys read the revision as history."""
        watchers = self.watchers_of(space)
        if not watchers:
            return
        self.event_count += deleted.key_count
        for watcher in watchers:
            start, end = watcher.span
            if start > deleted.last or (end is not None and end <= deleted.first):
                continue
            if watcher.next_revision > revision:
                continue
            if watcher.missed is not None:
                watcher.missed.stop_following()
            else:
                self._fall_back(watcher, revision)

    def publish(self, space: Space, revision: int, events: list[Event]) -> None:
        """Hand a revision's events to the live watchers that want them."""
        exact = self._exact.get(space.tenant)
        ranges = self._ranges.get(space.tenant)
        if not exact and not ranges:
            return
        self.event_count += len(events)
        # Whoever wants the same events of a revision gets the same bytes, whatever the spans are.
        wanted: dict[int, tuple[type_crowd, list[int]]] = {}
        for number, event in enumerate(events):
            crowds = ranges.holding(event.key) if ranges else []
            if exact and (only := exact.get(event.key)) is not None:
                crowds.append(only)
            for crowd in crowds:
                wanted.setdefault(id(crowd), (crowd, []))[1].append(number)
        made: dict[tuple[int, ...], type_made] = {}
        parts: dict[tuple[int, Filters], bytes | None] = {}
        for crowd, numbers in wanted.values():
            batches = made.setdefault(tuple(numbers), {})
            self._feed(crowd, space, revision, events, numbers, batches, parts)

    def _feed(
        self,
        crowd: type_crowd,
        space: Space,
        revision: int,
        events: list[Event],
        numbers: list[int],
        batches: type_made,
        parts: dict[tuple[int, Filters], bytes | None],
    ) -> None:
        for watcher in list(crowd.values()):
            if watcher.next_revision > revision:
                continue
            if watcher.missed is not None:
                watcher.missed.follow(revision, _changes(revision, events, numbers))
                continue
            if len(numbers) > _BATCH_EVENTS_MAX:
                # In slices: what takes long here holds up everybody.
                self._fall_back(watcher, revision)
                continue
            filters = watcher.filters
            if filters not in batches:
                batches[filters] = self._encode(space, revision, events, numbers, filters, parts)
            batch = batches[filters]
            watcher.next_revision = revision + 1
            if batch is None:
                continue
            cost_bytes = batch.size_bytes + _BATCH_COST_BYTES
            room = watcher.room
            if watcher.queue and (
                watcher.queue_bytes + cost_bytes > WATCH_QUEUE_BYTES_MAX
                or room.queued_bytes + cost_bytes > WATCH_ROOM_BYTES_MAX
            ):
                self._fall_back(watcher, revision)
                continue
            is_first = not watcher.queue
            watcher.queue.append(batch)
            watcher.queue_bytes += cost_bytes
            room.queued_bytes += cost_bytes
            if is_first:
                watcher.wake(watcher)

    def _fall_back(self, watcher: Watcher, revision: int) -> None:
        """Let a slow watcher read history from here on, after what is queued."""
        self._leave(watcher)
        watcher.live = False
        watcher.next_revision = revision
        watcher.wake(watcher)

    # --- history --------------------------------------------------------------------------------

    def take(self, watcher: Watcher, current: int) -> Batch | None:
        """Return the next batch for a watcher, or None if it has everything there is.

        A watcher that is catching up reads one slice of history; it may get batches without events,
        which say how far it got.

        Args:
            watcher: Not closed, and not waiting for a compacted revision.
            current: The store's revision.
        """
        if watcher.queue:
            return _taken(watcher)
        if watcher.live:
            return None
        missed = watcher.missed
        if missed is None:
            if watcher.next_revision > current:
                # Nothing has happened yet that it wants; `next_revision` keeps it from being early.
                self.go_live(watcher)
                return None
            missed = watcher.missed = MissedChanges(
                watcher.space.index,
                watcher.span,
                watcher.next_revision,
                current,
                keys_per_slice=self.keys_per_slice,
                bytes_max=self.missed_bytes_max,
            )
            self._enlist(watcher)
        if not missed.walk():
            return Batch(watcher.next_revision - 1, (), 0)
        batch = self._read_missed(watcher, missed)
        watcher.next_revision = batch.revision + 1
        if batch.revision == missed.through:
            watcher.missed = None
            if missed.is_following:
                watcher.live = True
            else:
                # There was too much to note: what is left is read as history again.
                self._leave(watcher)
        return batch

    def _read_missed(self, watcher: Watcher, missed: MissedChanges) -> Batch:
        """Encode some of what a watcher has missed; what comes out are whole revisions."""
        events: list[bytes] = []
        # Of the revision that is being read: a slice before may have begun it.
        begun = watcher.begun
        change = missed.first()
        revision = change.revision if begun and change is not None else watcher.next_revision - 1
        size_bytes = read = 0
        while change is not None:
            if change.revision != revision:
                # What was begun is whole.
                events += begun
                begun.clear()
                if len(events) >= _BATCH_EVENTS_MAX or size_bytes >= _BATCH_BYTES_MAX:
                    return _batch(change.revision - 1, events)
                revision = change.revision
            if read >= _BATCH_EVENTS_MAX or size_bytes >= _SLICE_BYTES_MAX:
                # There is more of this revision.
                return _batch(revision - 1, events)
            missed.drop_first()
            read += 1
            record = None
            holds = watcher.space.index.holds
            if not holds(change.key, change.place):
                # It has been destroyed since this history was read.
                change = missed.first()
                continue
            previous = change.previous
            if previous is not None and not holds(change.key, previous):
                previous = None
            if not change.is_deletion:
                record = self._records.get(change.place, watcher.space.tenant)
            event = Event(change.key, record, previous)
            encoded = self._encode_event(watcher.space, revision, event, watcher.filters)
            if encoded is not None:
                begun.append(encoded)
                size_bytes += len(encoded)
            change = missed.first()
        events += begun
        begun.clear()
        return _batch(missed.through, events)

    # --- encoding -------------------------------------------------------------------------------

    def _encode(
        self,
        space: Space,
        revision: int,
        events: list[Event],
        numbers: list[int],
        filters: Filters,
        parts: dict[tuple[int, Filters], bytes | None],
    ) -> Batch | None:
        """Encode some of a revision's events, each once for all batches that it is in."""
        encoded = []
        for number in numbers:
            place = (number, filters)
            if place not in parts:
                parts[place] = self._encode_event(space, revision, events[number], filters)
            part = parts[place]
            if part is not None:
                encoded.append(part)
        if not encoded:
            return None
        return Batch(revision, tuple(encoded), sum(map(len, encoded)))

    def _encode_event(
        self, space: Space, revision: int, event: Event, filters: Filters
    ) -> bytes | None:
        """Encode an event as a watcher wants it, or return None if it does not want it."""
        if event.record is None:
            if filters.no_delete:
                return None
            # A deletion carries the key and its revision and nothing else (etcd).
            kv = KeyValue(key=event.key, mod_revision=revision).SerializeToString()
            encoded = _TYPE_DELETE + bytes_field(_KV, kv)
        else:
            if filters.no_put:
                return None
            encoded = bytes_field(_KV, event.record)
        if filters.previous and event.previous is not None and revision > self.compacted:
            # etcd reads the revision before, and leaves it out where that has been compacted.
            previous = self._records.find(event.previous, space.tenant)
            if previous is not None:
                encoded += bytes_field(_PREVIOUS, previous)
        return bytes_field(_EVENTS, encoded)

    # --- within ---------------------------------------------------------------------------------

    def _leave(self, watcher: Watcher) -> None:
        if not watcher.enlisted:
            return
        watcher.enlisted = False
        tenant, span = watcher.space.tenant, watcher.span
        if _is_exact(span):
            crowds = self._exact[tenant]
            crowd = crowds[span.start]
            del crowd[id(watcher)]
            if not crowd:
                del crowds[span.start]
            return
        ranges = self._ranges[tenant]
        within = ranges.get(span)
        assert within is not None  # noqa: S101 - whoever is live is in the crowd of its span
        del within[id(watcher)]
        if not within:
            ranges.remove(span)


def _is_exact(span: Span) -> bool:
    return span.end == span.start + b"\0"


def _taken(watcher: Watcher) -> Batch:
    """Take what has piled up for a watcher out of its queue, as far as one batch goes."""
    queue = watcher.queue
    revision, events, size_bytes = first = queue.popleft()
    merged = [*events] if queue else []
    taken = 1
    while queue and len(merged) < _BATCH_EVENTS_MAX and size_bytes < _BATCH_BYTES_MAX:
        revision, events, more_bytes = queue.popleft()
        merged += events
        size_bytes += more_bytes
        taken += 1
    cost_bytes = size_bytes + taken * _BATCH_COST_BYTES
    watcher.queue_bytes -= cost_bytes
    watcher.room.queued_bytes -= cost_bytes
    return first if taken == 1 else Batch(revision, tuple(merged), size_bytes)


def _changes(revision: int, events: list[Event], numbers: list[int]) -> Iterator[bytes]:
    """Yield some of a revision's events as history has them."""
    for number in numbers:
        event = events[number]
        place = position(revision, number if event.record is not None else number | TOMBSTONE)
        yield pack_change(place, event.key, event.previous)


def _batch(revision: int, events: list[bytes]) -> Batch:
    return Batch(revision, tuple(events), sum(map(len, events)))

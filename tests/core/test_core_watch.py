"""Watches against the list of all that ever happened: each revision once, whole, in order."""

from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from core import requests
from core.mvcc_model import in_span
from core.store_machine import carry_out
from core.stored_tables import MemoryTables, flush, reload
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kvsecure.core.state import State
from kvsecure.core.watch import Batch, Filters, Room, Watcher
from kvsecure.model.ids import TenantId
from kvsecure.model.keys import Span
from kvsecure.model.limits import WATCH_QUEUE_BYTES_MAX, WATCH_ROOM_BYTES_MAX
from kvsecure.proto import kv_pb2, mvcc_pb2, tenant_pb2, watch_pb2
from kvsecure.security.feeds import Compacted, Feed, Feeds

# What a change of a short key counts as.
_CHANGE_BYTES: Final = 75
_BIG: Final = bytes(WATCH_QUEUE_BYTES_MAX * 2 // 5)
_Create = watch_pb2.WatchCreateRequest


@dataclass
class _OpenGate:
    """A gate that lets everybody watch, and never changes its mind."""

    state: State
    tenant: int = 1

    @property
    def engine(self) -> Any:
        """The engine, of which feeds want the state only."""
        return self

    @property
    def space(self) -> Any:
        """The space of the session, which is the gate itself."""
        return self.state.store.space(TenantId(self.tenant))

    def admit_stream(self, asking: Any, request: Any) -> Any:
        """Let a stream in."""
        return _OpenGate(self.state, asking.tenant)

    def still_allowed(self, peer: Any, session: Any, request: Any) -> Any:
        """Let a stream go on."""
        return session


@dataclass
class _Peer:
    """The other end of a connection, of which a feed wants what its watchers share."""

    watching: Room = field(default_factory=Room)


@dataclass
class _Asking:
    """Somebody who asks, and where they come from."""

    tenant: int
    peer: Any


@dataclass(eq=False)
class _Seen:
    """One watcher, what it asked for, and what it has been handed."""

    tenant: int
    request: _Create
    start: int
    feed: Feed
    events: list[mvcc_pb2.Event] = field(default_factory=list)
    through: int = 0
    drained: bool = False
    woken: bool = False

    def wants(self, tenant: int, event: mvcc_pb2.Event) -> bool:
        """Tell whether an event is one that was asked for."""
        unwanted = _Create.NODELETE if event.type == mvcc_pb2.Event.DELETE else _Create.NOPUT
        key, end = self.request.key or b"\0", self.request.range_end
        return (
            tenant == self.tenant
            and event.kv.mod_revision >= self.start
            and in_span(event.kv.key, key, end)
            and unwanted not in self.request.filters
        )


class _WatchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tables = MemoryTables()
        self.state = reload(self.tables)
        # Little of either, so that history is read in many slices and walked more than once.
        self.state.hub.keys_per_slice = 2
        self.state.hub.missed_bytes_max = 3 * _CHANGE_BYTES
        self.state.store.deleted_at_once = 1
        carry_out(self.state, 1, tenant_pb2.TenantAddRequest(name="x", root_no_password=True))
        self.feeds = Feeds(_OpenGate(self.state))  # type: ignore[arg-type]  # stands in for it
        # Everything that happened: whose, and the event with what was there before.
        self.history: list[tuple[int, mvcc_pb2.Event]] = []
        self.newest: dict[tuple[int, bytes], mvcc_pb2.KeyValue] = {}
        self.seen: list[_Seen] = []
        self.peer = _Peer()

    # --- what happens ---------------------------------------------------------------------------

    @rule(
        tenant=st.sampled_from((1, 1, 16)),
        command=st.one_of(requests.puts(), requests.deletes(), requests.txns()),
    )
    def write(self, tenant: int, command: Any) -> None:
        """Put, delete or transact."""
        before = self.state.store.revision
        carry_out(self.state, tenant, command, self._take_some)
        if self.state.store.revision > before:
            self._note(tenant)

    @rule(key=st.sampled_from((b"a", b"b")), count=st.integers(1, 4))
    def write_much(self, key: bytes, count: int) -> None:
        """Put large values: few of them fill a watcher's queue."""
        for _ in range(count):
            carry_out(self.state, 1, kv_pb2.PutRequest(key=key, value=_BIG))
            self._note(1)

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        """Compact, and let the bytes go."""
        command = kv_pb2.CompactionRequest(revision=self.state.store.revision - back)
        carry_out(self.state, 1, command)
        for _ in range(30):
            flush(self.state, self.tables)
            self.state.store.run_slice()

    # --- who watches ----------------------------------------------------------------------------

    @rule(
        tenant=st.sampled_from((1, 1, 16)),
        span=st.one_of(requests.spans, st.just((b"", b"\0"))),
        back=st.integers(-4, 10),
        filters=st.sets(st.sampled_from((_Create.NOPUT, _Create.NODELETE)), max_size=1),
        previous=st.booleans(),
    )
    def open(self, tenant: int, span: Any, back: int, filters: set[Any], *, previous: bool) -> None:
        """Watch from now on (when nothing else is asked), from the past, or from the future."""
        start = max(0, self.state.store.revision + 1 - back) if back else 0
        request = _Create(
            key=span[0],
            range_end=span[1],
            start_revision=start,
            filters=filters,
            prev_kv=previous,
        )

        def wake(_: Any) -> None:
            seen.woken = True

        feed = self.feeds.open(_Asking(tenant, self.peer), request, wake)  # type: ignore[arg-type]  # as above
        assert feed is not None
        seen = _Seen(tenant, request, start or self.state.store.revision + 1, feed)
        self.seen.append(seen)

    @rule(data=st.data(), count=st.integers(1, 5))
    def take(self, data: st.DataObject, count: int) -> None:
        """Hand a watcher what it can have."""
        if self.seen:
            seen = data.draw(st.sampled_from(self.seen))
            for _ in range(count):
                if not self._take(seen):
                    break

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """End a watch."""
        if self.seen:
            seen = data.draw(st.sampled_from(self.seen))
            seen.feed.close()
            seen.woken = False
            seen.feed.watcher.wake = _must_not_wake
            self.seen.remove(seen)

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def whoever_has_something_was_woken(self) -> None:
        """Compare who was told with who has something to take."""
        for seen in self.seen:
            watcher = seen.feed.watcher
            if seen.drained and (watcher.queue or not watcher.live):
                assert seen.woken

    @invariant()
    def what_is_queued_is_counted(self) -> None:
        """Compare what the watchers of a client hold together with what each of them holds."""
        queued_bytes = sum(seen.feed.watcher.queue_bytes for seen in self.seen)
        assert self.peer.watching.queued_bytes == queued_bytes <= WATCH_ROOM_BYTES_MAX

    def teardown(self) -> None:
        """Hand everybody everything."""
        for seen in list(self.seen):
            while self._take(seen):
                pass

    def _take_some(self) -> None:
        """Hand something to every other watcher."""
        for seen in self.seen[::2]:
            self._take(seen)

    def _take(self, seen: _Seen) -> bool:
        """Hand over one batch; return whether there may be more."""
        came = seen.feed.take()
        seen.drained = came is None
        if came is None:
            seen.woken = False
            self._assert_has_all_through(seen, self.state.store.revision)
            assert seen.feed.is_current == (seen.start <= self.state.store.revision + 1)
            return False
        if isinstance(came, Compacted):
            assert came.revision == self.state.store.compacted
            missing = self._wanted(seen)[len(seen.events) :]
            assert seen.through + 1 < came.revision or seen.start < came.revision
            assert not missing or missing[0].kv.mod_revision > seen.through
            seen.feed.close()
            self.seen.remove(seen)
            return False
        assert isinstance(came, Batch)
        assert came.size_bytes == sum(map(len, came.events))
        seen.events += watch_pb2.WatchResponse.FromString(b"".join(came.events)).events
        seen.through = came.revision
        self._assert_has_all_through(seen, came.revision)
        return True

    def _assert_has_all_through(self, seen: _Seen, revision: int) -> None:
        """Check that exactly what was asked for has come, as far as it was told."""
        expected = [e for e in self._wanted(seen) if e.kv.mod_revision <= revision]
        assert len(seen.events) == len(expected)
        for came, event in zip(seen.events, expected, strict=True):
            wanted = mvcc_pb2.Event(type=event.type, kv=event.kv)
            if seen.request.prev_kv and came.HasField("prev_kv"):
                wanted.prev_kv.CopyFrom(event.prev_kv)
            assert came == wanted
            if seen.request.prev_kv and event.HasField("prev_kv"):
                # It may be left out where it was compacted before it could be sent.
                assert came.HasField("prev_kv") or came.kv.mod_revision <= (
                    self.state.store.compacted
                )

    def _wanted(self, seen: _Seen) -> list[mvcc_pb2.Event]:
        return [event for tenant, event in self.history if seen.wants(tenant, event)]

    def _note(self, tenant: int) -> None:
        """Write down what the newest revision changed, as the index has it."""
        revision = self.state.store.revision
        space = self.state.store.space(TenantId(tenant))
        changes = []
        for key, head in space.index.heads.items():
            if int.from_bytes(head[:8], "big") == revision:
                changes.append((int.from_bytes(head[8:12], "big") & 0x7FFF_FFFF, key, head))
        for _, key, head in sorted(changes):
            event = mvcc_pb2.Event(kv=mvcc_pb2.KeyValue(key=key, mod_revision=revision))
            before = self.newest.pop((tenant, key), None)
            if before is not None:
                event.prev_kv.CopyFrom(before)
            if head[8] & 0x80:
                event.type = mvcc_pb2.Event.DELETE
            else:
                record = self.state.records.get(head[:12], TenantId(tenant))
                event.kv.CopyFrom(mvcc_pb2.KeyValue.FromString(record))
                self.newest[tenant, key] = event.kv
            self.history.append((tenant, event))


def _must_not_wake(_: Any) -> None:
    raise AssertionError("a closed watcher was woken")


_QUICK = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},
)


def test_watchers_get_each_revision_once_whole_and_in_order() -> None:
    """Live, catching up or fallen back: a watcher has what happened, up to what it knows."""
    run_state_machine_as_test(_WatchMachine, settings=_QUICK)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_watchers_get_each_revision_once_for_long() -> None:
    """Live, catching up or fallen back: a watcher has what happened, up to what it knows."""
    run_state_machine_as_test(_WatchMachine, settings=settings(_QUICK, max_examples=10_000))


# --- many watchers ------------------------------------------------------------------------------


def _watching(state: State, span: Span, room: Room, woken: list[Watcher]) -> Watcher:
    """Return a live watcher of a span, which says when it has something."""
    watcher = Watcher(
        space=state.store.space(TenantId(1)),
        span=span,
        filters=Filters(),
        next_revision=state.store.revision + 1,
        room=room,
        wake=woken.append,
    )
    state.hub.go_live(watcher)
    return watcher


def test_overlapping_watchers_are_handed_the_same_bytes() -> None:
    """An event is encoded once, whatever the spans of those who want it are."""
    state = reload(MemoryTables())
    woken: list[Watcher] = []
    for number in range(100):
        _watching(state, Span(b"a%03d" % number, b"c"), Room(), woken)
    _watching(state, Span(b"b", b"b\0"), Room(), woken)

    puts = [kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key)) for key in (b"a05", b"b")]
    carry_out(state, 1, kv_pb2.TxnRequest(success=puts))

    assert len(woken) == 101
    assert {len(watcher.queue[0].events) for watcher in woken} == {1, 2}
    assert len({id(watcher.queue[0].events[-1]) for watcher in woken}) == 1


def test_large_revision_of_the_past_comes_whole() -> None:
    """A revision that takes several slices to read is one batch, and nothing else is in between."""
    state = reload(MemoryTables())
    puts = [
        kv_pb2.TxnRequest(
            success=[
                kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"k%06d" % number))
                for number in range(first, first + 500)
            ]
        )
        for first in range(0, 3_500, 500)
    ]
    for txn in puts:
        carry_out(state, 1, txn)
    before = state.store.revision
    live = _watching(state, Span(b"k", b"l"), Room(), [])
    carry_out(state, 1, kv_pb2.DeleteRangeRequest(key=b"k", range_end=b"l"))
    watcher = Watcher(
        space=state.store.space(TenantId(1)),
        span=Span(b"k", b"l"),
        filters=Filters(),
        next_revision=before,
        room=Room(),
        wake=lambda _: None,
    )

    batches = []
    while (batch := state.hub.take(watcher, state.store.revision)) is not None:
        batches.append(batch)

    told = [(batch.revision, len(batch.events)) for batch in batches if batch.events]
    assert told == [(before, 500), (before + 1, 3_500)]
    assert len(batches) > 4
    assert max(batch.revision for batch in batches[:-1]) == before
    assert watcher.live
    # Who was live when it was written is no exception: nobody waits for its bytes.
    assert (live.live, len(live.queue)) == (False, 0)


def test_watchers_of_one_client_hold_no_more_than_its_room() -> None:
    """A client that reads nothing holds a bounded queue, however many watchers it has."""
    state = reload(MemoryTables())
    slow, woken = Room(), list[Watcher]()
    watchers = [_watching(state, Span(b"a", b"z%d" % number), slow, woken) for number in range(300)]
    other = _watching(state, Span(b"a", b"zz"), Room(), woken)

    for _ in range(20):
        carry_out(state, 1, kv_pb2.PutRequest(key=b"b", value=bytes(20_000)))

    assert slow.queued_bytes <= WATCH_ROOM_BYTES_MAX
    assert not any(watcher.live for watcher in watchers)
    assert (other.live, len(other.queue)) == (True, 20)


def test_what_was_too_much_to_note_is_read_as_history() -> None:
    """A watcher that reads history while more happens than it can note misses nothing of it."""
    state = reload(MemoryTables())
    state.hub.keys_per_slice, state.hub.missed_bytes_max = 1, 3 * _CHANGE_BYTES
    for number in range(5):
        carry_out(state, 1, kv_pb2.PutRequest(key=b"k%d" % number))
    watcher = Watcher(
        space=state.store.space(TenantId(1)),
        span=Span(b"k", b"l"),
        filters=Filters(),
        next_revision=2,
        room=Room(),
        wake=lambda _: None,
    )

    events: list[bytes] = []
    for number in range(40):
        if number < 10:
            carry_out(state, 1, kv_pb2.PutRequest(key=b"k%d" % number))
        batch = state.hub.take(watcher, state.store.revision)
        events += batch.events if batch is not None else ()

    told = watch_pb2.WatchResponse.FromString(b"".join(events)).events
    assert [event.kv.mod_revision for event in told] == list(range(2, 17))
    assert watcher.live

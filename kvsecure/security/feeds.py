"""Feeds: watches behind the gate, allowed when they are opened and again whenever accounts move.

Owns: opening a watch for a session, what comes out of it, cutting it when its right is gone, and
    which watches can share one feed.
Never: knows streams or messages' wire form beyond the request.
Follows: etcd-surface section 1.4; differs: etcd checks a watch once and never again.
Keeps: nothing is handed out that the session could not read when it is handed out.
"""

from collections.abc import Callable
from typing import NamedTuple, final

from google.protobuf.message import Message

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.watch import Batch, Filters, Watcher
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import FROM_KEY, Span, span_of
from kvsecure.proto.watch_pb2 import WatchCreateRequest
from kvsecure.security.asking import Asking
from kvsecure.security.gate import Gate
from kvsecure.security.session import Peer, Session

__all__ = ["Compacted", "Ended", "Feed", "Feeds"]


class Compacted(NamedTuple):
    """What the watch wants next has been compacted; it is over."""

    revision: int


class Ended(NamedTuple):
    """The session may not watch this any more, or what it wants cannot be read; it is over."""

    refused: Refused


@final
class Feed:
    """One open watch, or several of one peer that want the same and have been handed the same."""

    __slots__ = ("_feeds", "_gate", "_peer", "_requests", "_session", "watcher")

    def __init__(
        self,
        feeds: "Feeds",
        gate: Gate,
        peer: Peer,
        session: Session,
        request: Message,
        watcher: Watcher,
    ) -> None:
        self._feeds = feeds
        self._gate = gate
        self._peer = peer
        self._session = session
        # Of every watch, by identity; each was decided and recorded when it was opened.
        self._requests = {id(request): request}
        self.watcher = watcher

    def take(self) -> Batch | Compacted | Ended | None:
        """Return what comes next, or None when there is nothing now."""
        ended = self.decide_again()
        if ended is not None:
            return ended
        engine, watcher = self._gate.engine, self.watcher
        store = engine.state.store
        if not watcher.live and not watcher.queue and watcher.next_revision < store.compacted:
            return Compacted(store.compacted)
        try:
            return engine.state.hub.take(watcher, store.revision)
        except DamagedRecord as damage:
            return Ended(self._gate.corrupt(damage))

    def decide_again(self) -> Ended | None:
        """Return that it is over, with a record for every watch, if accounts moved against it."""
        requests = iter(self._requests.values())
        session = self._gate.still_allowed(self._peer, self._session, next(requests))
        if session is not None:
            self._session = session
            return None
        for request in requests:
            self._gate.still_allowed(self._peer, self._session, request)
        return Ended(Refused(Failure.PERMISSION_DENIED))

    # --- sharing --------------------------------------------------------------------------------

    @property
    def wants(self) -> tuple[object, ...]:
        """What it hands out: feeds that differ in this can never be shared."""
        return (self.watcher.space.tenant, self.watcher.span, self.watcher.filters)

    @property
    def reader(self) -> tuple[object, ...]:
        """For whom it is decided and recorded: feeds that differ in this can never be shared."""
        return (id(self._peer), self._session.caller, self._session.via)

    @property
    def watch_count(self) -> int:
        """How many watches it is the feed of."""
        return len(self._requests)

    def join(self, other: "Feed") -> bool:
        """Let the watches of this feed go on with another one, if nobody could tell them apart.

        Returns:
            Whether they do: then this feed is closed.
        """
        if not (
            other.wants == self.wants
            and other.reader == self.reader
            and self.is_current
            and other.is_current
        ):
            return False
        other.take_in(self._requests)
        self.close()
        return True

    def take_in(self, requests: dict[int, Message]) -> None:
        """Serve more watches, which have been handed what this feed has been."""
        self._requests.update(requests)

    def leave(self, request: Message) -> None:
        """End one watch, and the feed with the last one."""
        del self._requests[id(request)]
        if not self._requests:
            self.close()

    @property
    def has_more(self) -> bool:
        """Whether there may be more to take at once."""
        return bool(self.watcher.queue) or not self.watcher.live

    @property
    def is_behind(self) -> bool:
        """Whether taking the next batch means reading history, which takes its time."""
        watcher = self.watcher
        return not (watcher.live or watcher.queue or watcher.next_revision > self._feeds.revision)

    @property
    def is_current(self) -> bool:
        """Whether all that was written so far is handed out, and the watch has begun (etcd)."""
        watcher = self.watcher
        has_begun = watcher.next_revision <= self._feeds.revision + 1
        return has_begun and watcher.live and not watcher.queue

    @property
    def is_stale(self) -> bool:
        """Whether accounts have moved since it was last decided."""
        return self._session.law_revision != self._session.tenant.law_revision

    def close(self) -> None:
        """End it for every watch."""
        self._gate.engine.state.hub.close(self.watcher)
        self._feeds.forget(self)


@final
class Feeds:
    """All open watches of a member."""

    __slots__ = ("_gate", "_open")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: set[Feed] = set()

    def __len__(self) -> int:
        return sum(feed.watch_count for feed in self._open)

    @property
    def slow_count(self) -> int:
        """How many watches are catching up."""
        return sum(feed.watch_count for feed in self._open if not feed.watcher.live)

    @property
    def pending_count(self) -> int:
        """How many batches wait for slow clients."""
        return sum(len(feed.watcher.queue) * feed.watch_count for feed in self._open)

    @property
    def revision(self) -> int:
        """The store's revision."""
        return self._gate.engine.state.store.revision

    def open(
        self, asking: Asking, request: WatchCreateRequest, wake: Callable[[Watcher], None]
    ) -> Feed | None:
        """Open a watch, or refuse through `asking` and return None.

        Args:
            asking: Who asks.
            request: As it came: it is decided on the range that was sent.
            wake: Called when there is something to take.
        """
        session = self._gate.admit_stream(asking, request)
        if session is None:
            return None
        return self.follow(
            asking.peer,
            session,
            request,
            span=span_of(request.key or FROM_KEY, request.range_end),
            filters=Filters(
                no_put=WatchCreateRequest.NOPUT in request.filters,
                no_delete=WatchCreateRequest.NODELETE in request.filters,
                previous=request.prev_kv,
            ),
            next_revision=request.start_revision or self.revision + 1,
            wake=wake,
        )

    def follow(
        self,
        peer: Peer,
        session: Session,
        request: Message,
        *,
        span: Span,
        filters: Filters,
        next_revision: int,
        wake: Callable[[Watcher], None],
    ) -> Feed:
        """Open a watch for a session that may make the request.

        Args:
            peer: Whose connection it is of.
            session: Whose it is.
            request: What was allowed, and is decided again whenever accounts move.
            span: Which keys are watched.
            filters: Which of their events.
            next_revision: From which revision on.
            wake: Called when there is something to take.
        """
        watcher = Watcher(
            space=session.space,
            span=span,
            filters=filters,
            next_revision=next_revision,
            room=peer.watching,
            wake=wake,
        )
        feed = Feed(self, self._gate, peer, session, request, watcher)
        self._open.add(feed)
        return feed

    def forget(self, feed: Feed) -> None:
        """Take a closed feed out."""
        self._open.discard(feed)

    def wake_stale(self) -> None:
        """Make every feed whose rights may have changed look again."""
        for feed in [feed for feed in self._open if feed.is_stale]:
            feed.watcher.wake(feed.watcher)

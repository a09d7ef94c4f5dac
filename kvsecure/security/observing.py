"""Observations behind the gate: who leads, and each change of that.

Owns: following the leader of one election, cut when the right to it is gone.
Never: knows streams.
Follows: etcd's Election.Observe: the leader that there is, each of its proclamations, and the next
    one when it has gone; what happens between two leaders may be left out.
Keeps: nothing is handed out that the session could not read when it is handed out.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, final

from kvsecure.access.queues import queue_span
from kvsecure.core.queues import Search
from kvsecure.core.watch import Filters, Watcher
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import Span, span_of
from kvsecure.proto.election_pb2 import LeaderRequest
from kvsecure.proto.mvcc_pb2 import Event
from kvsecure.proto.watch_pb2 import WatchResponse
from kvsecure.security.asking import Asking
from kvsecure.security.feeds import Compacted, Ended, Feed, Feeds
from kvsecure.security.gate import Gate
from kvsecure.security.queues import Queues, record_found
from kvsecure.security.session import Session

__all__ = ["Leadership", "Observation", "observe"]


class Leadership(NamedTuple):
    """Who leads, as of a revision."""

    revision: int
    # An encoded KeyValue.
    kv: bytes


@final
class Observation:
    """One caller's view of one election."""

    __slots__ = (
        "_asking",
        "_events",
        "_feed",
        "_feeds",
        "_gate",
        "_is_over",
        "_leads",
        "_queues",
        "_ready",
        "_request",
        "_session",
        "_wake",
    )

    def __init__(
        self,
        gate: Gate,
        feeds: Feeds,
        queues: Queues,
        asking: Asking,
        session: Session,
        request: LeaderRequest,
        wake: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._feeds = feeds
        self._queues = queues
        self._asking = asking
        self._session = session
        self._request = request
        self._wake = wake
        # What comes next, what has come of the feed and was not looked at, and whether that is the
        # leader's or of the whole queue.
        self._ready: Leadership | Ended | None = None
        self._events: deque[Event] = deque()
        self._feed: Feed | None = None
        self._leads = False
        self._is_over = False

    def take(self) -> Leadership | Ended | None:
        """Return what comes next, or None when there is nothing now."""
        while self._ready is None and self._feed is not None:
            if self._events:
                self._see(self._events.popleft())
                continue
            came = self._feed.take()
            if came is None:
                return None
            if isinstance(came, Ended):
                self.close()
                return came
            if isinstance(came, Compacted):
                # It was so far behind that it begins anew.
                self.look()
            else:
                self._events.extend(WatchResponse.FromString(b"".join(came.events)).events)
                if not came.events and self._feed.is_behind:
                    # It reads history, in steps.
                    self._wake()
                    return None
        # Whatever came before accounts moved.
        ended = self._feed.decide_again() if self._feed is not None else None
        if ended is not None:
            self.close()
            return ended
        ready, self._ready = self._ready, None
        return ready

    def look(self) -> None:
        """Find out who leads."""
        self._close_feed()
        engine = self._gate.engine
        if self._is_over:
            return
        if not engine.can_read():
            engine.when_readable(self.look)
            return
        span = queue_span(self._request.name)
        search = Search(self._session.space.index, span, engine.state.store.revision)
        self._queues.search(search, lambda: self._found(search))

    def close(self) -> None:
        """End it."""
        self._is_over = True
        self._close_feed()

    def _found(self, search: Search) -> None:
        if self._is_over:
            return
        session = self._gate.still_allowed(self._asking.peer, self._session, self._request)
        if session is None:
            self._ready = Ended(Refused(Failure.PERMISSION_DENIED))
            self._wake()
            return
        self._session = session
        if not search.is_settled or not self._gate.engine.is_whole:
            self.look()
            return
        revision = self._gate.engine.state.store.revision
        if search.found is None:
            self._follow(queue_span(self._request.name), revision, leads=False)
            return
        try:
            record = record_found(self._gate, session, search.found)
        except Refused as refused:
            self._ready = Ended(refused)
            self._wake()
            return
        self._ready = Leadership(revision, record)
        self._follow(span_of(search.found.key, b""), revision, leads=True)

    def _follow(self, span: Span, revision: int, *, leads: bool) -> None:
        """Watch what comes after a revision."""
        self._close_feed()
        self._leads = leads
        self._feed = self._feeds.follow(
            self._asking.peer,
            self._session,
            self._request,
            span=span,
            filters=Filters(no_delete=not leads),
            next_revision=revision + 1,
            wake=self._woken,
        )
        # It goes live when it is taken from.
        self._wake()

    def _see(self, event: Event) -> None:
        """Look at one event: of the leader's key, or of the first to enter an empty queue."""
        if event.type == Event.DELETE:
            self.look()
            return
        kv = event.kv
        self._ready = Leadership(kv.mod_revision, kv.SerializeToString())
        if not self._leads:
            self._follow(span_of(kv.key, b""), kv.mod_revision, leads=True)

    def _woken(self, _: Watcher) -> None:
        self._wake()

    def _close_feed(self) -> None:
        self._events.clear()
        if self._feed is not None:
            self._feed.close()
            self._feed = None


def observe(
    gate: Gate,
    feeds: Feeds,
    queues: Queues,
    asking: Asking,
    request: LeaderRequest,
    wake: Callable[[], None],
) -> Observation | None:
    """Begin to observe an election, or refuse through `asking` and return None.

    Args:
        gate: Decides.
        feeds: Watches.
        queues: Searches.
        asking: Who asks.
        request: Which election.
        wake: Called when there is something to take.
    """
    session = gate.admit_stream(asking, request, b'"code":"OK","part":"begin"')
    if session is None:
        return None
    observation = Observation(gate, feeds, queues, asking, session, request, wake)
    observation.look()
    return observation

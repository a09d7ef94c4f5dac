"""etcdserverpb.Watch: one stream, many watchers.

Owns: ids of watchers on a stream, the order of messages, progress, fragments, and taking turns when
    the client is slow.
Never: decides or reads the store; feeds do.
Follows: etcd-surface section 1.4. The client resumes at header.revision + 1, so a header never
    tells more than its watcher has been sent.
Keeps: `created` goes out before any event of its watcher, and nothing after `canceled`; a refused
    watcher is refused in band and leaves the stream and its other watchers alone.
"""

from collections.abc import Callable, Iterable
from typing import Final, final

from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import FROM_KEY
from kvsecure.model.limits import WATCHES_PER_STREAM_MAX
from kvsecure.proto.encode import bytes_field, varint_field
from kvsecure.proto.watch_pb2 import WatchCreateRequest, WatchRequest
from kvsecure.security.feeds import Compacted, Ended, Feed
from kvsecure.security.session import Peer

__all__ = ["watch"]

# Field keys of etcdserverpb.WatchResponse.
_WATCH_ID: Final = b"\x10"
_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_COMPACT_REVISION: Final = b"\x28"
_CANCEL_REASON: Final = b"\x32"
_FRAGMENT: Final = b"\x38\x01"

# What etcd answers for a watcher that was not made.
_NO_ID: Final = -1
_EMPTY_RANGE: Final = "mvcc: watcher range is empty"
_DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
_TOO_MANY: Final = "kvsecure: too many watchers on one stream"
# How a refused status looks as a reason (Go's text for a gRPC error).
_STATUS_REASON: Final = "rpc error: code = {code} desc = {text}"
_GO_CODES: Final = {
    "PERMISSION_DENIED": "PermissionDenied",
    "UNAUTHENTICATED": "Unauthenticated",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DATA_LOSS": "DataLoss",
}


def watch(services: Services, call: StreamCall) -> Receiver:
    """Serve one watch stream."""
    return _WatchStream(services, call)


@final
class _Opening:
    """Asks for one watcher, and keeps a refusal for the answer in band."""

    __slots__ = ("peer", "refused", "token")

    def __init__(self, peer: Peer, token: bytes) -> None:
        self.peer = peer
        self.token = token
        self.refused: Refused | None = None

    def succeed(self, answer: Answer) -> None:
        """A feed has no answer of its own."""

    def fail(self, refused: Refused) -> None:
        """Keep the refusal."""
        self.refused = refused


@final
class _Watch:
    """One watcher of the stream."""

    __slots__ = ("feed", "fragment", "id", "id_field", "progress", "quiet")

    def __init__(self, watch_id: int, request: WatchCreateRequest) -> None:
        self.id = watch_id
        self.id_field = varint_field(_WATCH_ID, watch_id)
        self.fragment = request.fragment
        self.progress = request.progress_notify
        # Whether no events were sent to it since the last progress notice was due.
        self.quiet = True
        self.feed: Feed


@final
class _WatchStream:
    """All watchers of one stream."""

    __slots__ = (
        "_by_watcher",
        "_call",
        "_closed",
        "_next_id",
        "_ready",
        "_scheduled",
        "_services",
        "_stop_progress",
        "_watches",
    )

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._watches: dict[int, _Watch] = {}
        self._by_watcher: dict[int, _Watch] = {}
        # Those that may have something to take, in the order they said so.
        self._ready: dict[int, _Watch] = {}
        self._next_id = 0
        self._scheduled = False
        self._closed = False
        self._stop_progress: Callable[[], None] | None = None

    # --- requests -------------------------------------------------------------------------------

    def received(self, message: WatchRequest) -> None:
        """Carry out one request; one without content is ignored (etcd)."""
        match message.WhichOneof("request_union"):
            case "create_request":
                self._create(message.create_request)
            case "cancel_request":
                self._cancel(message.cancel_request.watch_id)
            case "progress_request":
                self._progress()

    def half_closed(self) -> None:
        """Go on: a client may ask for all it wants and send no more (etcd)."""

    def closed(self) -> None:
        """End every watcher."""
        self._closed = True
        for each in list(self._watches.values()):
            each.feed.close()
        self._watches.clear()
        self._by_watcher.clear()
        self._ready.clear()
        if self._stop_progress is not None:
            self._stop_progress()

    def drained(self) -> None:
        """Go on where the client was too slow."""
        self._pump()

    # --- create and cancel ----------------------------------------------------------------------

    def _create(self, request: WatchCreateRequest) -> None:
        reason = self._misshapen(request)
        if reason is not None:
            self._refuse(reason)
            return
        opening = _Opening(self._call.peer, self._call.token)
        feed = self._services.feeds.open(opening, request, self._wake)
        if feed is None:
            self._refuse(_reason_of(opening.refused or Refused(Failure.PERMISSION_DENIED)))
            return
        each = _Watch(self._id_for(request), request)
        each.feed = feed
        self._watches[each.id] = each
        self._by_watcher[id(feed.watcher)] = each
        self._send(self._services.feeds.revision, each.id, _CREATED)
        if each.progress and self._stop_progress is None:
            self._schedule_progress()
        self._mark(each)

    def _misshapen(self, request: WatchCreateRequest) -> str | None:
        """Return why a watcher cannot be made from what it says itself, or None."""
        key = request.key or FROM_KEY
        if request.range_end and request.range_end != FROM_KEY and request.range_end <= key:
            return _EMPTY_RANGE
        if request.start_revision < 0:
            return Failure.COMPACTED.text
        if request.watch_id and request.watch_id in self._watches:
            return _DUPLICATE_ID
        if len(self._watches) >= WATCHES_PER_STREAM_MAX:
            return _TOO_MANY
        return None

    def _id_for(self, request: WatchCreateRequest) -> int:
        if request.watch_id:
            return request.watch_id
        while self._next_id in self._watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _refuse(self, reason: str) -> None:
        parts = (_CREATED, _CANCELED, bytes_field(_CANCEL_REASON, reason.encode()))
        self._send(self._services.feeds.revision, _NO_ID, *parts)

    def _cancel(self, watch_id: int) -> None:
        each = self._watches.get(watch_id)
        if each is not None:
            self._drop(each)
            self._send(self._services.feeds.revision, watch_id, _CANCELED)

    def _drop(self, each: _Watch) -> None:
        each.feed.close()
        self._watches.pop(each.id, None)
        self._by_watcher.pop(id(each.feed.watcher), None)
        self._ready.pop(each.id, None)

    # --- events ---------------------------------------------------------------------------------

    def _wake(self, watcher: object) -> None:
        each = self._by_watcher.get(id(watcher))
        if each is not None:
            self._mark(each)

    def _mark(self, each: _Watch) -> None:
        self._ready[each.id] = each
        if not self._scheduled:
            self._scheduled = True
            self._services.at_turn_end(self._pump)

    def _pump(self) -> None:
        """Hand out what is ready, one batch of each watcher in turn, until the client is slow."""
        self._scheduled = False
        while self._ready and not self._closed and not self._call.is_full:
            each = next(iter(self._ready.values()))
            del self._ready[each.id]
            self._hand_out(each)

    def _hand_out(self, each: _Watch) -> None:
        came = each.feed.take()
        match came:
            case None:
                return
            case Compacted(revision=revision):
                self._drop(each)
                # Without a reason and a revision: so clients tell this cancel from others (etcd).
                part = varint_field(_COMPACT_REVISION, revision)
                self._send(0, each.id, _CANCELED, part)
            case Ended(refused=refused):
                self._drop(each)
                self._send(
                    self._services.feeds.revision,
                    each.id,
                    _CANCELED,
                    bytes_field(_CANCEL_REASON, _reason_of(refused).encode()),
                )
            case batch:
                if batch.events:
                    each.quiet = False
                    self._send_events(each, batch.revision, batch.events)
                if each.feed.has_more:
                    self._ready[each.id] = each

    def _send_events(self, each: _Watch, revision: int, events: tuple[bytes, ...]) -> None:
        if not each.fragment:
            header = self._services.header(revision)
            self._call.send(b"".join((header, each.id_field, *events)))
            return
        fragments = list(_fragments(events, self._services.request_bytes_max))
        for number, fragment in enumerate(fragments, 1):
            last = number == len(fragments)
            # Fields in any order are one message; the mark stands in front of the events.
            self._send(revision, each.id, *(() if last else (_FRAGMENT,)), *fragment)

    # --- progress -------------------------------------------------------------------------------

    def _progress(self) -> None:
        """Answer a progress request, if every watcher has everything; otherwise stay silent."""
        revision = self._services.feeds.revision
        self._pump()
        if all(each.feed.is_current for each in self._watches.values()):
            self._send(revision, _NO_ID)

    def _schedule_progress(self) -> None:
        interval_s = self._services.progress_interval_s
        # A fixed part of the interval for each stream, so that not all speak at once.
        jitter = self._services.random_bytes(1)[0] / 255 / 10
        self._stop_progress = self._services.later(interval_s * (1 + jitter), self._notify)

    def _notify(self) -> None:
        revision = self._services.feeds.revision
        for each in self._watches.values():
            if each.progress and each.quiet and each.feed.is_current:
                self._send(revision, each.id)
            each.quiet = True
        self._schedule_progress()

    # --- sending --------------------------------------------------------------------------------

    def _send(self, revision: int, watch_id: int, *parts: bytes) -> None:
        header = self._services.header(revision)
        self._call.send(b"".join((header, varint_field(_WATCH_ID, watch_id), *parts)))


def _reason_of(refused: Refused) -> str:
    code = _GO_CODES.get(refused.code.name, "Unknown")
    return _STATUS_REASON.format(code=code, text=refused.text)


def _fragments(events: Iterable[bytes], size_bytes_max: int) -> Iterable[list[bytes]]:
    """Split events so that each piece is below a size where it can be; an event is never split."""
    piece: list[bytes] = []
    size_bytes = 0
    for event in events:
        if piece and size_bytes + len(event) > size_bytes_max:
            yield piece
            piece, size_bytes = [], 0
        piece.append(event)
        size_bytes += len(event)
    yield piece

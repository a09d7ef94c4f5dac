"""etcdserverpb.Watch: one stream, many watchers.

Owns: ids of watchers on a stream, the order of messages, progress, fragments, taking turns when
    the client is slow, and which watchers are served as one.
Never: decides or reads the store; feeds do.
Follows: etcd-surface section 1.4. The client resumes at header.revision + 1, so a header never
    tells more than its watcher has been sent.
Keeps: `created` goes out before any event of its watcher, and nothing after `canceled`; a refused
    watcher is refused in band and leaves the stream and its other watchers alone. Watchers that
    want the same and have been sent the same are a cohort: what they get differs in the id alone,
    so it is made once for all of them.
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

# What is sent to a cohort before others of the stream have their turn, unless one message is more.
_PART_BYTES_MAX: Final = 256 * 1024

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

    __slots__ = ("cohort", "id", "mark", "quiet", "request")

    def __init__(self, watch_id: int, request: WatchCreateRequest) -> None:
        self.id = watch_id
        self.request = request
        # What tells its events from those of others.
        self.mark = varint_field(_WATCH_ID, watch_id)
        # Whether no events were sent to it since the last progress notice was due.
        self.quiet = True
        self.cohort: _Cohort


@final
class _Cohort:
    """Watchers of the stream that share a feed; most have one member."""

    __slots__ = (
        "_marks",
        "feed",
        "fragment",
        "is_joined",
        "members",
        "tail",
        "through",
        "unsent",
    )

    def __init__(self, first: _Watch, feed: Feed) -> None:
        self.members = {first.id: first}
        self.feed = feed
        self.fragment = first.request.fragment
        # Whether others of the stream that want the same come to this one.
        self.is_joined = False
        # What the feed gave last, for those who have not been sent it yet: their marks, together
        # where they are of one length.
        self.unsent: list[list[bytes]] = []
        self.tail = b""
        self.through = 0
        self._marks: list[list[bytes]] = []
        first.cohort = self

    @property
    def is_current(self) -> bool:
        """Whether every member has been sent all that there is."""
        return not self.unsent and self.feed.is_current

    def begin(self, revision: int, events: tuple[bytes, ...]) -> None:
        """Take what every member is to be sent."""
        if not self._marks:
            by_length: dict[int, list[bytes]] = {}
            for each in self.members.values():
                by_length.setdefault(len(each.mark), []).append(each.mark)
            self._marks = [*by_length.values()]
        self.unsent = [*self._marks]
        self.tail = b"".join(events)
        self.through = revision

    def next_marks(self, bytes_max: int) -> list[bytes]:
        """Return whom the next messages are for: of one length, at least one, not too much."""
        count = max(1, bytes_max // (len(self.tail) + 1))
        marks = self.unsent[0]
        if count >= len(marks):
            return self.unsent.pop(0)
        self.unsent[0] = marks[count:]
        return marks[:count]

    def join(self, other: "_Cohort") -> bool:
        """Let the members go on with another cohort, if they are as far; return whether they do."""
        if not self.feed.join(other.feed):
            return False
        other.take_in(self.members)
        return True

    def take_in(self, members: "dict[int, _Watch]") -> None:
        """Let more members go on with this cohort."""
        for each in members.values():
            each.cohort = self
        self.members.update(members)
        self._marks = []

    def leave(self, each: _Watch) -> None:
        """Let a member go."""
        del self.members[each.id]
        self.feed.leave(each.request)
        self._marks = []
        self.unsent = [
            left for marks in self.unsent if (left := [m for m in marks if m != each.mark])
        ]


@final
class _WatchStream:
    """All watchers of one stream."""

    __slots__ = (
        "_behind",
        "_by_watcher",
        "_call",
        "_closed",
        "_cohorts",
        "_in_line",
        "_next_id",
        "_progress_due",
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
        self._by_watcher: dict[int, _Cohort] = {}
        # By what they want: those that others can join.
        self._cohorts: dict[tuple[object, ...], _Cohort] = {}
        # Those that may have something to take, in the order they said so; and those that have to
        # read history for it.
        self._ready: dict[_Cohort, None] = {}
        self._behind: dict[_Cohort, None] = {}
        # Whether the stream waits for its turn to read history.
        self._in_line = False
        # Progress requests that wait for what is read of history.
        self._progress_due = 0
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
        for cohort in list(self._by_watcher.values()):
            cohort.feed.close()
        self._watches.clear()
        self._by_watcher.clear()
        self._cohorts.clear()
        self._ready.clear()
        self._behind.clear()
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
        cohort = _Cohort(each, feed)
        self._watches[each.id] = each
        self._by_watcher[id(feed.watcher)] = cohort
        self._send(self._services.feeds.revision, each.id, _CREATED)
        if request.progress_notify and self._stop_progress is None:
            self._schedule_progress()
        self._mark(cohort)

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
        each = self._watches.pop(watch_id, None)
        if each is not None:
            cohort = each.cohort
            cohort.leave(each)
            if not cohort.members:
                self._forget(cohort)
            self._send(self._services.feeds.revision, watch_id, _CANCELED)

    def _drop(self, cohort: _Cohort, revision: int, *parts: bytes) -> None:
        """End every watcher of a cohort, and say why."""
        cohort.feed.close()
        self._forget(cohort)
        for each in cohort.members.values():
            del self._watches[each.id]
            self._send(revision, each.id, _CANCELED, *parts)

    def _forget(self, cohort: _Cohort) -> None:
        self._by_watcher.pop(id(cohort.feed.watcher), None)
        self._ready.pop(cohort, None)
        self._behind.pop(cohort, None)
        if cohort.is_joined:
            del self._cohorts[cohort.feed.wants]

    # --- events ---------------------------------------------------------------------------------

    def _wake(self, watcher: object) -> None:
        cohort = self._by_watcher.get(id(watcher))
        if cohort is not None:
            self._mark(cohort)

    def _mark(self, cohort: _Cohort) -> None:
        self._ready[cohort] = None
        if not self._scheduled:
            self._scheduled = True
            self._services.at_turn_end(self._pump)

    def _pump(self) -> None:
        """Hand out what is ready, a part of each cohort in turn, until the client is slow."""
        self._scheduled = False
        while self._ready and not self._closed and not self._call.is_full:
            cohort = next(iter(self._ready))
            del self._ready[cohort]
            if cohort.unsent:
                self._go_on(cohort)
            elif cohort.feed.is_behind:
                self._behind[cohort] = None
            else:
                self._hand_out(cohort)
        if self._behind and not self._in_line and not self._closed and not self._call.is_full:
            self._in_line = True
            self._services.in_turn(self._read_history)

    def _read_history(self) -> None:
        """Let one cohort read a piece of history, if the client still takes any."""
        self._in_line = False
        if self._behind and not self._closed and not self._call.is_full:
            cohort = next(iter(self._behind))
            del self._behind[cohort]
            self._hand_out(cohort)
            self._pump()
            if self._progress_due:
                self._tell_progress()

    def _hand_out(self, cohort: _Cohort) -> None:
        """Send what a feed has to the first of its cohort."""
        came = cohort.feed.take()
        match came:
            case None:
                self._gather(cohort)
            case Compacted(revision=revision):
                # Without a reason and a revision: so clients tell this cancel from others (etcd).
                self._drop(cohort, 0, varint_field(_COMPACT_REVISION, revision))
            case Ended():
                self._end(cohort, came)
            case batch:
                if batch.events and cohort.fragment:
                    self._send_fragments(cohort, batch.revision, batch.events)
                elif batch.events:
                    cohort.begin(batch.revision, batch.events)
                    self._send_some(cohort)
                self._line_up(cohort)

    def _go_on(self, cohort: _Cohort) -> None:
        """Send what a feed had to more of its cohort."""
        ended = cohort.feed.decide_again()
        if ended is not None:
            self._end(cohort, ended)
            return
        self._send_some(cohort)
        self._line_up(cohort)

    def _line_up(self, cohort: _Cohort) -> None:
        """Let a cohort have its turn again if it needs one."""
        if cohort.unsent or cohort.feed.has_more:
            self._ready[cohort] = None
        else:
            self._gather(cohort)

    def _gather(self, cohort: _Cohort) -> None:
        """Let a cohort that has all there is go on with one that wants the same, if it can."""
        if cohort.is_joined or cohort.fragment:
            return
        other = self._cohorts.setdefault(cohort.feed.wants, cohort)
        if other is cohort:
            cohort.is_joined = True
        elif cohort.join(other):
            self._forget(cohort)

    def _end(self, cohort: _Cohort, ended: Ended) -> None:
        reason = bytes_field(_CANCEL_REASON, _reason_of(ended.refused).encode())
        self._drop(cohort, self._services.feeds.revision, reason)

    def _send_some(self, cohort: _Cohort) -> None:
        header = self._services.header(cohort.through)
        left_bytes = _PART_BYTES_MAX
        while cohort.unsent and left_bytes > 0:
            marks = cohort.next_marks(left_bytes)
            self._call.send_each(header, marks, cohort.tail)
            left_bytes -= len(marks) * len(cohort.tail)
        if not cohort.unsent:
            cohort.tail = b""
        self._take_note(cohort)

    def _send_fragments(self, cohort: _Cohort, revision: int, events: tuple[bytes, ...]) -> None:
        """Send events in pieces to the one member of a cohort that is never joined."""
        fragments = list(_fragments(events, self._services.request_bytes_max))
        (each,) = cohort.members.values()
        for number, fragment in enumerate(fragments, 1):
            last = number == len(fragments)
            # Fields in any order are one message; the mark stands in front of the events.
            self._send(revision, each.id, *(() if last else (_FRAGMENT,)), *fragment)
        self._take_note(cohort)

    def _take_note(self, cohort: _Cohort) -> None:
        """Note that events were sent, if anybody wants to hear when there are none."""
        if self._stop_progress is not None:
            for each in cohort.members.values():
                each.quiet = False

    # --- progress -------------------------------------------------------------------------------

    def _progress(self) -> None:
        """Answer a progress request, if every watcher has everything; otherwise stay silent.

        What is read of history comes in steps: it is waited for.
        """
        self._pump()
        self._progress_due += 1
        self._tell_progress()

    def _tell_progress(self) -> None:
        """Say how far all watchers are, now or when those that read history have come there."""
        waiting = [each for each in self._by_watcher.values() if not each.is_current]
        if waiting and all(each.feed.is_behind for each in waiting):
            return
        due, self._progress_due = self._progress_due, 0
        for _ in range(0 if waiting else due):
            self._send(self._services.feeds.revision, _NO_ID)

    def _schedule_progress(self) -> None:
        interval_s = self._services.progress_interval_s
        # A fixed part of the interval for each stream, so that not all speak at once.
        jitter = self._services.random_bytes(1)[0] / 255 / 10
        self._stop_progress = self._services.later(interval_s * (1 + jitter), self._notify)

    def _notify(self) -> None:
        revision = self._services.feeds.revision
        for each in self._watches.values():
            if each.request.progress_notify and each.quiet and each.cohort.is_current:
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

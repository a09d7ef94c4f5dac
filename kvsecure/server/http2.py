"""One HTTP/2 connection of the server: events of the wire to calls, and back.

Owns: routing requests to methods, the calls that are open on the connection, their deadlines, and
    how much is done for a peer before it has read what it was answered.
Never: touches a socket; it is given bytes and a place to write them.
Follows: gRPC's PROTOCOL-HTTP2; RFC 9113 for everything below it.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, final

from kvsecure.api.gateway import Endpoint, find_endpoint
from kvsecure.api.methods import METHODS, SERVICES, Method, Shape
from kvsecure.api.services import Services
from kvsecure.model.burst import BURST_MAX
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import (
    GRPC_OVERHEAD_BYTES,
    HEADER_LIST_BYTES_MAX,
    UNSENT_BYTES_MAX,
)
from kvsecure.security.session import Peer
from kvsecure.server.backlog import Backlog
from kvsecure.server.bursts import BURSTS, BurstOf, Gathered
from kvsecure.server.calls import (
    AssemblingCall,
    CallCounts,
    StreamedCall,
    UnaryCall,
    Waiting,
    parse,
)
from kvsecure.server.gateway import Gateway
from kvsecure.server.gateway_http2 import Http2Exchange
from kvsecure.server.observatory import NOT_FOUND, Observatory, Page
from kvsecure.server.turn import Turn
from kvsecure.wire.grpc import Call, MessageReader, NotGrpc, encode_http, encode_refusal, read_call
from kvsecure.wire.h2.connection import DATA, REQUEST, RESET, Connection
from kvsecure.wire.h2.head import Head
from kvsecure.wire.h2.limits import Limits
from kvsecure.wire.h2.pings import ANY_PINGS, PingLimits

__all__ = ["Http2Session", "Shared"]

_PREFIX_BYTES: Final = 5
_prefix_of: Final = struct.Struct(">BI").unpack_from
# Messages that are dealt with for one connection before the others have their turn.
_TURN_WORK_MAX: Final = 1_000
# Bytes of answers that are made for one connection before the others have their turn.
_TURN_ANSWER_BYTES_MAX: Final = 512 * 1024
# A page takes as long as so many messages.
_PAGE_WORK: Final = 50
# What says that it is what its type says.
_PAGE_FIELDS: Final = ((b"x-content-type-options", b"nosniff"),)
# How a request that is not gRPC's is told from one of gRPC that is wrong.
_NOT_GRPC: Final = 415
# What is repeated of a path that is not known.
_NAME_CHARACTERS_MAX: Final = 128


@final
class Shared:
    """What all connections of a server have in common."""

    __slots__ = (
        "counts",
        "gateway",
        "limits",
        "message_bytes_max",
        "now_ns",
        "observatory",
        "serves_calls",
        "serves_pages",
        "services",
        "turn",
        "unsent_bytes_max",
    )

    def __init__(
        self,
        *,
        services: Services,
        turn: Turn,
        counts: Mapping[str, CallCounts],
        observatory: Observatory,
        now_ns: Callable[[], int],
        streams_max: int,
        request_bytes_max: int,
        serves_calls: bool,
        serves_pages: bool,
        pings: PingLimits = ANY_PINGS,
        gateway: Gateway | None = None,
    ) -> None:
        """Put together what connections need.

        Args:
            services: What serves their calls.
            turn: Where answers wait.
            counts: How calls began and ended, by path.
            observatory: What is told about the member over plain HTTP.
            now_ns: Monotonic time in nanoseconds.
            streams_max: How many calls may be open on one connection.
            request_bytes_max: How large a request may be.
            serves_calls: Whether gRPC is spoken on these listeners.
            serves_pages: Whether the observatory's pages are served on them.
            pings: How often clients may ping, and when they are pinged; without it, no limits.
            gateway: What serves calls in JSON, if they are served on these listeners.
        """
        self.gateway = gateway
        self.services = services
        self.turn = turn
        self.now_ns = now_ns
        self.counts = counts
        self.observatory = observatory
        self.serves_calls = serves_calls
        self.serves_pages = serves_pages
        self.limits = Limits(
            streams_max=streams_max, header_list_bytes_max=HEADER_LIST_BYTES_MAX, pings=pings
        )
        self.message_bytes_max = request_bytes_max + GRPC_OVERHEAD_BYTES
        # What one peer may leave unread now; less, while all of them together leave too much.
        self.unsent_bytes_max = UNSENT_BYTES_MAX

    def page(self, target: str) -> Page:
        """Return what a plain request is answered with."""
        return self.observatory.page(target) if self.serves_pages else NOT_FOUND


class _Route(NamedTuple):
    """What a request's head leads to; remembered with the head."""

    method: Method | None
    call: Call | None
    counts: CallCounts
    # The header block that refuses it, where it leads nowhere.
    refusal: bytes
    # Where it leads in JSON.
    endpoint: Endpoint | None = None
    # How such requests go together, if they do.
    burst: BurstOf | None = None


@final
class Http2Session:
    """A connection."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_deadlines",
        "_holding",
        "_open",
        "_shared",
        "_waking",
        "_writable",
        "_write",
        "header",
        "now_ns",
        "outgoing",
        "owed_bytes",
        "peer",
        "turn",
        "work",
    )

    def __init__(self, shared: Shared, peer: Peer, write: Callable[[bytes], None]) -> None:
        self._shared = shared
        self._write = write
        self._connection = Connection(shared.limits, shared.now_ns)
        self._open: dict[int, AssemblingCall | StreamedCall | Http2Exchange | UnaryCall] = {}
        # Stream -> (when, what to tell); calls without a deadline are not in it.
        self._deadlines: dict[int, tuple[int, Callable[[], None]]] = {}
        # What has to wait, and whether anything does.
        self._backlog = Backlog()
        self._holding = False
        # Producers that wait until the connection is not clogged any more, in order.
        self._waking: dict[Waiting, None] = {}
        self._writable = True
        self.owed_bytes = 0
        self.work = 0
        self.peer = peer
        self.outgoing = self._connection.outgoing
        self.turn = shared.turn
        self.header = shared.services.header
        self.now_ns = shared.now_ns
        self.turn.mark(self)

    # --- from the socket ------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take in bytes."""
        events = self._connection.receive(data)
        if events:
            self.turn.schedule()
        at, count = 0, len(events)
        while at < count:
            event = events[at]
            kind = event[0]
            if kind == REQUEST and event[4] and not self._must_wait:
                at += self._burst(events, at)
                continue
            at += 1
            if kind == REQUEST:
                self._take(event)
            elif kind == DATA:
                if self._must_wait:
                    self._hold().add(event[1], event[2], ended=event[3])
                else:
                    self._data(event[1], event[2], ended=event[3])
            else:
                self._other(kind, event)
        self._go_on()
        if self.outgoing.out:
            self.turn.mark(self)

    def flush(self) -> None:
        """Write what there is to write, in one write."""
        out = self.outgoing.out
        if out:
            self._write(b"".join(out))
            out.clear()
        self.work = 0
        self._go_on()

    def set_writable(self, *, writable: bool) -> None:
        """Take note that the socket takes more, or does not."""
        self._writable = writable
        if writable:
            # While it was not, nothing was read of what the peer may have said.
            self._connection.heard = True
        self._go_on()

    # --- not too much at once -------------------------------------------------------------------

    @property
    def is_clogged(self) -> bool:
        """Whether the peer has so much to read that nothing more is made for it."""
        unread_bytes = self.owed_bytes + self.outgoing.crowd_bytes
        return unread_bytes > self._shared.unsent_bytes_max or not self._writable

    @property
    def unread_bytes(self) -> int:
        """How much is made for the peer and not handed to the socket."""
        return self.owed_bytes + self.outgoing.unsent_bytes

    @property
    def _must_wait(self) -> bool:
        """Whether what comes now is kept for later."""
        return (
            self._holding
            or self.work >= _TURN_WORK_MAX
            or self.owed_bytes >= _TURN_ANSWER_BYTES_MAX
            or self.owed_bytes + self.outgoing.crowd_bytes > self._shared.unsent_bytes_max
            or not self._writable
        )

    def _hold(self) -> Backlog:
        """Begin to keep what comes."""
        if not self._holding:
            self._holding = True
            self._connection.hold()
        return self._backlog

    def wake_when_clear(self, call: Waiting) -> None:
        """Let a producer go on once the connection is not clogged any more."""
        self._waking[call] = None

    def _go_on(self) -> None:
        """Deal with what has waited, as far as it goes."""
        if self._holding:
            backlog = self._backlog
            while (
                backlog
                and self.work < _TURN_WORK_MAX
                and self.owed_bytes < _TURN_ANSWER_BYTES_MAX
                and not self.is_clogged
            ):
                stream_id, head, content, ended = backlog.take()
                if head is not None:
                    self._request(stream_id, head, content, ended=ended)
                else:
                    self._data(stream_id, content, ended=ended)
            if not backlog:
                self._holding = False
                self._connection.release()
            if self.outgoing.out or (
                backlog
                and (self.work >= _TURN_WORK_MAX or self.owed_bytes >= _TURN_ANSWER_BYTES_MAX)
            ):
                # The end of the turn writes, and begins to count anew.
                self.turn.mark(self)
        while self._waking and not self.is_clogged:
            call = next(iter(self._waking))
            del self._waking[call]
            call.drained()

    def lost(self) -> None:
        """Let go of everything: the peer is gone."""
        for call in list(self._open.values()):
            call.lost()
        self._open.clear()
        self._backlog.clear()
        self._waking.clear()
        self._deadlines.clear()
        self.outgoing.streams.clear()
        # Writing to a socket that is gone would fail the turn of everybody else.
        self.outgoing.out.clear()

    def tick(self, now_ns: int) -> None:
        """Take note that time has passed: end what is overdue."""
        overdue = [expire for when_ns, expire in self._deadlines.values() if when_ns <= now_ns]
        for expire in overdue:
            expire()

    def second(self) -> None:
        """Take note that a second has passed; what may wait unread may have changed."""
        self._connection.tick()
        self._go_on()
        if self.outgoing.out:
            self.turn.mark(self)

    def go_away(self) -> None:
        """Take no new calls, and end those that would not end by themselves."""
        self._connection.go_away()
        for call in list(self._open.values()):
            call.stop()
        self.turn.mark(self)

    @property
    def has_begun(self) -> bool:
        """Whether the peer has sent what a client sends first."""
        return self._connection.has_begun

    @property
    def is_silent(self) -> bool:
        """Whether the peer did not even answer our ping: it is to be dropped without a word."""
        return self._connection.silent

    @property
    def is_over(self) -> bool:
        """Whether the connection may be closed: it has failed, or is closing and empty."""
        connection = self._connection
        return connection.failed is not None or (connection.closing and not self.outgoing.streams)

    # --- requests -------------------------------------------------------------------------------

    def _take(self, event: tuple[Any, ...]) -> None:
        """Serve a request by itself, or keep it for later."""
        _, stream_id, head, data, ended = event
        if self._must_wait:
            self._hold().add_request(stream_id, head, data, ended=ended)
        else:
            self._request(stream_id, head, data, ended=ended)

    def _request(self, stream_id: int, head: Head, data: bytes, *, ended: bool) -> None:
        route: _Route = head.route or self._route(head)
        method, call = route.method, route.call
        if method is None or call is None:
            if route.refusal:
                self.outgoing.refuse(stream_id, route.refusal)
            elif route.endpoint is not None:
                self._json(stream_id, head, route.endpoint, data, ended=ended)
            else:
                self._plain(stream_id, head)
            return
        counts = route.counts
        counts.started += 1
        self.work += 1
        if method.shape is not Shape.UNARY:
            self._begin_stream(stream_id, method, call, counts).data(data, ended=ended)
            return
        unary = UnaryCall(self, stream_id, method.header, call.token, counts, call.encoding)
        if call.timeout_ns is not None:
            if not call.timeout_ns:
                unary.expire()
                return
            self._deadlines[stream_id] = (self.now_ns() + call.timeout_ns, unary.expire)
        if (
            ended
            and len(data) >= _PREFIX_BYTES
            and _prefix_of(data) == (0, len(data) - _PREFIX_BYTES)
            and len(data) - _PREFIX_BYTES <= self._shared.message_bytes_max
        ):
            self._serve(method, unary, data[_PREFIX_BYTES:])
            return
        reader = MessageReader(call.encoding, self._shared.message_bytes_max)
        assembling = AssemblingCall(
            unary, reader, lambda whole, content: self._serve(method, whole, content)
        )
        if not assembling.data(data, ended=ended):
            self._open[stream_id] = assembling

    def _burst(self, events: Sequence[tuple[Any, ...]], at: int) -> int:
        """Serve the request at this place, with those behind it that go together with it.

        Returns:
            How many were dealt with.
        """
        gathered = self._gather(events, at)
        if gathered is None:
            self._take(events[at])
            return 1
        route: _Route = events[at][2].route
        assert route.burst is not None  # noqa: S101 - it was gathered by it
        bytes_max = min(self._shared.unsent_bytes_max, _TURN_ANSWER_BYTES_MAX)
        taken = route.burst.serve(self._shared.services, self, gathered, bytes_max)
        gathered.counts.started += taken
        self.work += taken
        count = len(gathered.streams)
        for event in events[at + taken : at + count]:
            self._take(event)
        return count

    def _gather(self, events: Sequence[tuple[Any, ...]], at: int) -> Gathered | None:
        """Return the plain requests of one method and token that follow each other here."""
        first: Head = events[at][2]
        route: _Route = first.route or self._route(first)
        burst, call = route.burst, route.call
        if burst is None or call is None:
            return None
        read, token = burst.read, call.token
        gathered = Gathered(token, [], [], [], [], route.counts)
        _, streams, items, contents, timeouts_ns, _ = gathered
        count_max = max(1, min(BURST_MAX, _TURN_WORK_MAX - self.work))
        for event in islice(events, at, at + count_max):
            if event[0] != REQUEST:
                break
            _, stream_id, head, data, ended = event
            if head is not first:
                other: _Route = head.route or self._route(head)
                if other.burst is not burst or other.call is None or other.call.token != token:
                    break
                call = other.call
            if not ended or len(data) < _PREFIX_BYTES or call.timeout_ns == 0:
                break
            if _prefix_of(data) != (0, len(data) - _PREFIX_BYTES):
                break
            content = data[_PREFIX_BYTES:]
            item = read(content)
            if item is None:
                break
            if call.timeout_ns is not None:
                timeouts_ns.append((len(streams), call.timeout_ns))
            streams.append(stream_id)
            items.append(item)
            contents.append(content)
        return gathered if streams else None

    def _plain(self, stream_id: int, head: Head) -> None:
        """Answer a request that is not gRPC: health, version, metrics."""
        self.work += _PAGE_WORK
        page = self._shared.page(head.path.decode("latin-1"))
        headers = encode_http(page.status, page.content_type, len(page.body), _PAGE_FIELDS)
        self.outgoing.send_headers(stream_id, headers)
        if head.method == b"GET":
            self.outgoing.send_data(stream_id, page.body)
        self.outgoing.end(stream_id, b"")

    def _json(
        self, stream_id: int, head: Head, endpoint: Endpoint, data: bytes, *, ended: bool
    ) -> None:
        """Begin a call in JSON."""
        assert self._shared.gateway is not None  # noqa: S101 - it led here
        self.work += _PAGE_WORK
        exchange = Http2Exchange(self, stream_id)
        self._open[stream_id] = exchange
        overdue_ns = exchange.start(self._shared.gateway, endpoint, head)
        self._deadlines[stream_id] = (overdue_ns, exchange.expire)
        exchange.data(data, ended=ended)

    def _serve(self, method: Method, call: UnaryCall, content: bytes) -> None:
        assert method.unary is not None  # noqa: S101 - the shape says so
        try:
            request = parse(method, content)
        except Refused as refused:
            call.fail(refused)
            return
        try:
            method.unary(self._shared.services, call, request, content)
        except Refused as refused:
            self._shared.services.gate.reject(call, request, refused)

    def _begin_stream(
        self, stream_id: int, method: Method, call: Call, counts: CallCounts
    ) -> StreamedCall:
        assert method.stream is not None  # noqa: S101 - the shape says so
        reader = MessageReader(call.encoding, self._shared.message_bytes_max)
        streamed = StreamedCall(self, stream_id, method, call.token, reader, counts, call.encoding)
        streamed.attach(method.stream(self._shared.services, streamed))
        self._open[stream_id] = streamed
        if call.timeout_ns is not None:
            self._deadlines[stream_id] = (self.now_ns() + call.timeout_ns, streamed.expire)
        return streamed

    def _data(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        self.work += 1
        call = self._open.get(stream_id)
        if call is not None and call.data(data, ended=ended) and self._open.get(stream_id) is call:
            # Otherwise it is kept as one whose answer is long in coming.
            del self._open[stream_id]

    def _other(self, kind: int, event: tuple[Any, ...]) -> None:
        stream_id: int = event[1]
        call = self._open.get(stream_id)
        if kind == RESET:
            self._backlog.forget(stream_id)
            self._deadlines.pop(stream_id, None)
            if call is not None:
                del self._open[stream_id]
                call.lost()
        elif call is not None:
            call.drained()

    def _route(self, head: Head) -> _Route:
        """Find what a head leads to, and remember it with the head."""
        route = self._find(head)
        head.route = route
        return route

    def _find(self, head: Head) -> _Route:
        try:
            call = read_call(head)
        except NotGrpc as other:
            return self._find_plain(head, other.status)
        if not self._shared.serves_calls:
            return _leads_nowhere(encode_http(404))
        method = METHODS.get(call.path)
        if method is None:
            return _leads_nowhere(_unknown(call.path))
        counts = self._shared.counts[call.path]
        burst = BURSTS.get(call.path) if call.encoding == b"identity" else None
        return _Route(method, call, counts, b"", burst=burst)

    def _find_plain(self, head: Head, status: int) -> _Route:
        """Find what a head leads to that is no call of gRPC."""
        endpoint = None
        if self._shared.gateway is not None and status == _NOT_GRPC:
            endpoint = find_endpoint(head.path.decode("latin-1"))
        if endpoint is None:
            plain = head.method in (b"GET", b"HEAD")
            return _leads_nowhere(b"" if plain else encode_http(status))
        if head.method != b"POST":
            return _leads_nowhere(encode_http(405, fields=((b"allow", b"POST"),)))
        if any(name == b"content-encoding" and value != b"identity" for name, value in head.fields):
            return _leads_nowhere(encode_http(415))
        return _Route(None, None, CallCounts(), b"", endpoint)

    # --- for calls ------------------------------------------------------------------------------

    def keep(self, stream_id: int, call: UnaryCall) -> None:
        """Tell a call what becomes of its stream, until it is answered."""
        self._open[stream_id] = call

    def ended(self, stream_id: int) -> None:
        """Take note that a call is over."""
        self._open.pop(stream_id, None)
        if self._deadlines:
            self._deadlines.pop(stream_id, None)
        self.turn.mark(self)

    def ended_each(self, streams: Sequence[int]) -> None:
        """Take note that the calls of a burst are over."""
        if self._deadlines:
            for stream_id in streams:
                self._deadlines.pop(stream_id, None)
        self.turn.mark(self)

    def expire_at(self, stream_id: int, timeout_ns: int, expire: Callable[[], None]) -> None:
        """Do this once a call has taken too long."""
        self._deadlines[stream_id] = (self.now_ns() + timeout_ns, expire)

    def serve_alone(self, call: UnaryCall, stream_id: int, method: Method, content: bytes) -> None:
        """Serve a request of a burst by itself, under the deadline that it has."""
        deadline = self._deadlines.get(stream_id)
        if deadline is not None:
            self._deadlines[stream_id] = (deadline[0], call.expire)
        self._serve(method, call, content)


def _leads_nowhere(refusal: bytes) -> _Route:
    return _Route(None, None, CallCounts(), refusal)


def _unknown(path: str) -> bytes:
    """Return the refusal of a path that is no method's, in the words of Go's gRPC."""
    service, _, name = path.removeprefix("/").rpartition("/")
    if service in SERVICES:
        failure = Failure.UNKNOWN_METHOD
        detail = f"{name[:_NAME_CHARACTERS_MAX]} for service {service}"
    else:
        failure = Failure.UNKNOWN_SERVICE
        detail = (service or path)[:_NAME_CHARACTERS_MAX]
    return encode_refusal(failure.code, f"{failure.text} {detail}")

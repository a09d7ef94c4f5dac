"""One HTTP/1.1 connection of the server: the pages of the observatory, and the JSON gateway.

Owns: HTTP/1.1 by way of h11, one request at a time, and how long each part of one may take.
Never: touches a socket; it is given bytes, a place to write them, and two ways to slow the peer.
Follows: RFC 9112; a body is wanted by the gateway alone, any other ends the connection.
Keeps: a connection on which nothing was answered for a while ends, whatever drips in, and so does
    one whose peer does not read; what comes while a call is served waits in a bounded place.
"""

from collections.abc import Callable, Iterable
from typing import Final, final

import h11

from kvsecure.api.gateway import Endpoint, error_text, find_endpoint, http_status
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import REQUEST_BODY_S_MAX, UNSENT_BYTES_MAX
from kvsecure.security.session import Peer
from kvsecure.server.gateway import Gateway
from kvsecure.server.gateway_calls import StreamedJsonCall, UnaryJsonCall, begin_call
from kvsecure.server.observatory import Page

__all__ = ["Http1Session", "Line"]

_EVENT_BYTES_MAX: Final = 16 * 1024
# A request that takes longer to come is not one; those who ask again do so more often.
_IDLE_S_MAX: Final = REQUEST_BODY_S_MAX
# Requests of one read that are answered; a page is larger than its request by far, and the peer has
# not read any of them yet.
_REQUESTS_PER_READ_MAX: Final = 16
# What a peer may send ahead of an answer before nothing more is read from it.
_AHEAD_BYTES_MAX: Final = 64 * 1024
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_METHOD_NOT_ALLOWED: Final = Page(405, _TEXT, b"Method Not Allowed\n", "GET, HEAD")
_POST_ONLY: Final = _METHOD_NOT_ALLOWED._replace(allow="POST")
_BAD_REQUEST: Final = Page(400, _TEXT, b"Bad Request\n")
_NO_SUCH_CALL: Final = Page(404, _TEXT, b"Not Found\n")
_FOREIGN_CONTENT: Final = Page(415, _TEXT, b"Unsupported Media Type\n")
_GATEWAY_PREFIX: Final = "/v3"
_FIRST_WORDS_BYTES: Final = 64
_METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")


@final
class Line:
    """What a session can do to its connection."""

    __slots__ = ("close", "set_reading", "write")

    def __init__(
        self,
        *,
        write: Callable[[bytes], None],
        set_reading: Callable[[bool], None],
        close: Callable[[], None],
    ) -> None:
        """Put the three together.

        Args:
            write: Sends bytes.
            set_reading: Stops reading from the peer, or goes on.
            close: Ends the connection after what was written.
        """
        self.write = write
        self.set_reading = set_reading
        self.close = close


@final
class Http1Session:
    """A connection; towards the call that is served on it, it is its exchange."""

    __slots__ = (
        "_ahead_bytes",
        "_body_ended",
        "_call",
        "_connection",
        "_first_words",
        "_gateway",
        "_idle_s",
        "_left_count",
        "_line",
        "_owed_bytes",
        "_page",
        "_stopping",
        "_unwanted_bytes",
        "_writable",
        "is_over",
        "peer",
    )

    def __init__(
        self,
        page: Callable[[str], Page],
        line: Line,
        peer: Peer,
        gateway: Gateway | None = None,
    ) -> None:
        """Begin a connection.

        Args:
            page: Returns the page of a target.
            line: Its connection.
            peer: The other end.
            gateway: What serves JSON calls, if they are served here.
        """
        self._page = page
        self._line = line
        self._gateway = gateway
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_EVENT_BYTES_MAX)
        # The call that is open, and whether its request has come whole.
        self._call: UnaryJsonCall | StreamedJsonCall | None = None
        self._body_ended = True
        # Bytes that came while nothing more could be done.
        self._ahead_bytes = 0
        # Bytes that this turn's end will write.
        self._owed_bytes = 0
        # Seconds since the last answer, the head of a call, or what a peer has read.
        self._idle_s = 0
        # How many requests of this read may still be answered.
        self._left_count = 0
        # How the connection began, as far as it takes to see what it speaks.
        self._first_words = b""
        self._writable = True
        # Whether the answer that comes is the last.
        self._stopping = False
        # How much of a request that was answered before it was whole is still taken.
        self._unwanted_bytes = 0
        # Whether the connection is to be closed.
        self.is_over = False
        self.peer = peer

    # --- from the socket ------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take in bytes."""
        if self.is_over:
            return
        self._left_count = _REQUESTS_PER_READ_MAX
        if len(self._first_words) < _FIRST_WORDS_BYTES:
            self._first_words = (self._first_words + data)[:_FIRST_WORDS_BYTES]
        try:
            self._connection.receive_data(data)
        except h11.RemoteProtocolError:
            self.is_over = True
            return
        self._go_on()
        if self._must_wait:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > _AHEAD_BYTES_MAX:
                self._line.set_reading(False)

    def set_writable(self, *, writable: bool) -> None:
        """Take note that the socket takes more, or does not."""
        self._writable = writable
        self._idle_s = 0
        if not writable:
            return
        if self._call is not None:
            self._call.drained()
        self._go_on()
        if self._ahead_bytes > _AHEAD_BYTES_MAX:
            self._line.set_reading(False)

    def second(self, *, was_read: bool) -> None:
        """Take note that a second has passed.

        Args:
            was_read: Whether the peer has read some of what it was sent.
        """
        if self._waits_for_us or (was_read and (self.is_over or not self._writable)):
            self._idle_s = 0
            return
        self._idle_s += 1
        if self._idle_s >= _IDLE_S_MAX:
            self.is_over = True

    def tick(self, now_ns: int) -> None:
        """End a call that is overdue."""
        call = self._call
        if call is not None and call.deadline_ns is not None and call.deadline_ns <= now_ns:
            call.expire()

    def go_away(self) -> None:
        """End once the call that is served has its answer, or at once."""
        self._stopping = True
        if self._call is None:
            self.is_over = True
        else:
            self._call.stop()

    def lost(self) -> None:
        """Let go of everything: the peer is gone."""
        call, self._call = self._call, None
        self.is_over = True
        if call is not None:
            call.lost()

    # --- what comes in --------------------------------------------------------------------------

    @property
    def is_stalled(self) -> bool:
        """Whether the connection is over and the peer reads nothing of what it was sent."""
        return self.is_over and self._idle_s >= _IDLE_S_MAX

    @property
    def _waits_for_us(self) -> bool:
        """Whether it is not the peer that has to do something."""
        call = self._call
        if call is None or not self._writable:
            return False
        return self._body_ended or call.has_heard

    @property
    def _must_wait(self) -> bool:
        """Whether what comes now cannot be dealt with yet."""
        if self._call is None:
            return not self._writable
        return self._body_ended or not self._writable or self._owed_bytes > UNSENT_BYTES_MAX

    def _go_on(self) -> None:
        """Deal with what has come, as far as it goes."""
        try:
            while not self.is_over and not self._must_wait and self._step():
                pass
        except h11.RemoteProtocolError:
            self._break_off()
        if not self._must_wait and self._ahead_bytes:
            self._ahead_bytes = 0
            self._line.set_reading(True)

    def _break_off(self) -> None:
        self.is_over = True
        if not (b" HTTP/1" in self._first_words or self._first_words.startswith(_METHODS)):
            # A broken preface of HTTP/2, for one: an answer in HTTP/1.1 would make no sense to it.
            return
        if self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            call, self._call = self._call, None
            if call is not None:
                call.lost()
            self._answer(_BAD_REQUEST, with_body=True)

    def _resume(self) -> None:
        """Begin what came behind the call that was answered."""
        self._left_count = _REQUESTS_PER_READ_MAX
        self._go_on()
        if self.is_over:
            self._line.close()

    def _step(self) -> bool:
        event = self._connection.next_event()
        match event:
            case h11.Request():
                self._request(event)
                return True
            case h11.Data() if self._call is not None:
                self._call.data(bytes(event.data), ended=False)
                return True
            case h11.Data() if self._unwanted_bytes > 0:
                self._unwanted_bytes -= len(event.data)
                return True
            case h11.EndOfMessage():
                if self._call is not None:
                    self._body_ended = True
                    self._call.data(b"", ended=True)
                else:
                    self._next_cycle()
                return True
            case h11.NEED_DATA:
                return False
            case h11.PAUSED:
                return self._next_cycle()
            case _:
                # A body that nobody wants, or the end of the connection.
                self.is_over = True
                return False

    def _next_cycle(self) -> bool:
        """Begin to wait for another request; return whether there may be one."""
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
            return True
        if self._connection.our_state is h11.MUST_CLOSE:
            # The peer asked for it, or speaks HTTP/1.0, and waits for the end.
            self.is_over = True
        return False

    def _request(self, request: h11.Request) -> None:
        self._left_count -= 1
        if not self._left_count:
            # Who sends more at once may come again.
            self.is_over = True
        target = request.target.decode("latin-1")
        gateway = self._gateway
        if gateway is not None and target.startswith(_GATEWAY_PREFIX):
            endpoint = find_endpoint(target)
            if endpoint is not None and request.method == b"POST":
                self._begin_call(gateway, endpoint, request)
                return
            if endpoint is not None or request.method not in (b"GET", b"HEAD"):
                self._refuse(request, _POST_ONLY if endpoint else _NO_SUCH_CALL)
                return
        if request.method not in (b"GET", b"HEAD"):
            self.is_over = True
            self._answer(_METHOD_NOT_ALLOWED, with_body=True)
            return
        self._refuse(request, self._page(target))

    def _refuse(self, request: h11.Request, page: Page) -> None:
        """Answer with a page; what follows it may be a body or a request, as others see it."""
        if any(_announces_body(name, value) for name, value in request.headers):
            # RFC 9112 section 6.3: it is neither here.
            self.is_over = True
        self._answer(page, with_body=request.method != b"HEAD")

    def _answer(self, page: Page, *, with_body: bool) -> None:
        self._idle_s = 0
        parts = [self._head(page.status, page.content_type, len(page.body), page.allow)]
        if with_body:
            parts.append(self._connection.send(h11.Data(data=page.body)))
        parts.append(self._connection.send(h11.EndOfMessage()))
        self._line.write(b"".join(part or b"" for part in parts))

    def _head(self, status: int, content_type: str, length: int | None, allow: str = "") -> bytes:
        headers = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff")]
        if length is not None:
            headers.append(("Content-Length", str(length)))
        if allow:
            headers.append(("Allow", allow))
        if content_type == _JSON:
            headers.append(("Cache-Control", "no-store"))
        if self.is_over or self._stopping:
            headers.append(("Connection", "close"))
        return self._connection.send(h11.Response(status_code=status, headers=headers)) or b""

    # --- calls ----------------------------------------------------------------------------------

    def _begin_call(self, gateway: Gateway, endpoint: Endpoint, request: h11.Request) -> None:
        if not _is_plain_body(request):
            self.is_over = True
            self._answer(_FOREIGN_CONTENT, with_body=True)
            return
        self._idle_s = 0
        self._body_ended = False
        fields = [(bytes(name), bytes(value)) for name, value in request.headers]
        try:
            self._call = begin_call(gateway, endpoint, fields, self)
        except Refused as refused:
            self.respond(http_status(refused.code), error_text(refused))
            return
        if _length_of(fields) > gateway.body_bytes_max:
            # Said before it is sent, it need not be sent.
            self._call.fail(Refused(Failure.MESSAGE_TOO_LARGE))
        elif self._connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._line.write(self._connection.send(go_on) or b"")

    def owe(self, size_bytes: int) -> None:
        """Take note that so much more (or, negative, less) will be handed over this turn."""
        self._owed_bytes += size_bytes

    def respond(self, status: int, body: bytes) -> None:
        """Answer whole; the connection ends with it if there is more of the request to come.

        Many a client reads only when it has sent everything: that much is taken, and thrown away.
        """
        if not self._body_ended and self._gateway is not None:
            self._stopping = True
            if self._connection.they_are_waiting_for_100_continue:
                self.is_over = True
            else:
                self._unwanted_bytes = self._gateway.unwanted_bytes_max
        self._call = None
        self._answer(Page(status, _JSON, body), with_body=True)
        self._after_answer()

    def begin(self) -> None:
        """Begin an answer that has no length."""
        self._line.write(self._head(200, _JSON, None))

    def send(self, piece: bytes) -> None:
        """Send a piece of it."""
        self._line.write(self._connection.send(h11.Data(data=piece)) or b"")

    def end(self) -> None:
        """End it."""
        self._call = None
        self._idle_s = 0
        if not self._body_ended or self._stopping:
            self.is_over = True
        self._line.write(self._connection.send(h11.EndOfMessage()) or b"")
        self._after_answer()

    @property
    def is_full(self) -> bool:
        """Whether the peer has so much to read that the call has to wait for `drained`."""
        return not self._writable

    def _after_answer(self) -> None:
        assert self._gateway is not None  # noqa: S101 - there was a call
        if self._body_ended and self._connection.our_state is h11.MUST_CLOSE:
            # The peer asked for it, or speaks HTTP/1.0, or we have said so.
            self.is_over = True
        self._body_ended = True
        # Not at once: the turn that hands out answers is no time to begin something.
        self._gateway.turn.at_end(self._resume)


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")


def _length_of(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how long a body says it is, which h11 has seen to be a number."""
    return next((int(value) for name, value in fields if name == b"content-length"), 0)


def _is_plain_body(request: h11.Request) -> bool:
    """Tell whether a body is text whose end is clear to everybody: not compressed, not gRPC."""
    fields = [(bytes(name), bytes(value)) for name, value in request.headers]
    names = {name for name, _ in fields}
    if b"transfer-encoding" in names and b"content-length" in names:
        return False
    return not any(
        (name == b"content-encoding" and value != b"identity")
        or (name == b"content-type" and value.startswith(b"application/grpc"))
        for name, value in fields
    )

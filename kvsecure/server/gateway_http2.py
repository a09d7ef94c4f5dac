"""Exchanges of the JSON gateway over HTTP/2.

Owns: one stream's request and answer in JSON.
Never: frames; the connection's queue does.
Follows: RFC 9113 section 8.1.
"""

from typing import Final, final

from kvsecure.api.gateway import Endpoint, error_text, http_status
from kvsecure.model.errors import Refused
from kvsecure.model.limits import REQUEST_BODY_S_MAX, STREAM_UNSENT_BYTES_MAX
from kvsecure.server.calls import Link
from kvsecure.server.gateway import Gateway
from kvsecure.server.gateway_calls import StreamedJsonCall, UnaryJsonCall, begin_call
from kvsecure.wire.grpc import encode_http
from kvsecure.wire.h2.head import Head

__all__ = ["Http2Exchange", "encode_json_head"]

_NS: Final = 1_000_000_000
_JSON: Final = "application/json"
_FIELDS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


def encode_json_head(status: int, length: int | None) -> bytes:
    """Return the header block of an answer in JSON."""
    return encode_http(status, _JSON, length, _FIELDS)


@final
class Http2Exchange:
    """A stream."""

    __slots__ = (
        "_answer",
        "_body_until_ns",
        "_call",
        "_ended",
        "_link",
        "_stream_id",
        "_unwanted_bytes",
        "peer",
    )

    def __init__(self, link: Link, stream_id: int) -> None:
        self._link = link
        self._stream_id = stream_id
        self._call: UnaryJsonCall | StreamedJsonCall | None = None
        # Whether the request is whole; what it is answered, while it is not; and how much of it is
        # still taken after that.
        self._ended = False
        self._answer: tuple[int, bytes] | None = None
        self._unwanted_bytes = 0
        self._body_until_ns = 0
        self.peer = link.peer

    def start(self, gateway: Gateway, endpoint: Endpoint, head: Head) -> int:
        """Begin the call; return from when on it is to be looked at whether it is overdue.

        A call whose head is refused has its answer already.
        """
        self._body_until_ns = self._link.now_ns() + REQUEST_BODY_S_MAX * _NS
        self._unwanted_bytes = gateway.unwanted_bytes_max
        try:
            self._call = begin_call(gateway, endpoint, head.fields, self)
        except Refused as refused:
            self.respond(http_status(refused.code), error_text(refused))
            return self._body_until_ns
        return min(self._call.deadline_ns or self._body_until_ns, self._body_until_ns)

    # --- from the connection --------------------------------------------------------------------

    def data(self, data: bytes, *, ended: bool) -> bool:
        """Take in data; the connection keeps the exchange until it has ended."""
        self._ended = ended
        if self._call is not None:
            self._call.data(data, ended=ended)
        elif self._answer is not None:
            self._unwanted_bytes -= len(data)
            if ended or self._unwanted_bytes < 0:
                self._send_whole(*self._answer)
        return False

    def drained(self) -> None:
        """Let the producer go on."""
        if self._call is not None:
            self._call.drained()

    def expire(self) -> None:
        """End if the caller's deadline has passed, or if the request does not come."""
        call, now_ns = self._call, self._link.now_ns()
        if call is not None:
            is_late = call.deadline_ns is not None and call.deadline_ns <= now_ns
            is_waited_for = not (self._ended or call.has_heard)
            if is_late or (is_waited_for and self._body_until_ns <= now_ns):
                call.expire()
        elif self._answer is not None:
            self._send_whole(*self._answer)

    def stop(self) -> None:
        """End because the member stops."""
        if self._call is not None:
            self._call.stop()

    def lost(self) -> None:
        """Let go: the stream was reset, or the peer is gone."""
        call, self._call = self._call, None
        if call is not None:
            call.lost()

    # --- for the call ---------------------------------------------------------------------------

    def owe(self, size_bytes: int) -> None:
        """Take note that so much more (or, negative, less) will be handed over this turn."""
        self._link.owed_bytes += size_bytes

    def respond(self, status: int, body: bytes) -> None:
        """Answer whole.

        Many a client forgets an answer that comes before it has sent everything: that much is
        taken, and thrown away.
        """
        if self._ended:
            self._send_whole(status, body)
        else:
            self._answer = (status, body)
            self._call = None

    def _send_whole(self, status: int, body: bytes) -> None:
        self._answer = None
        self._link.outgoing.send_headers(self._stream_id, encode_json_head(status, len(body)))
        self.send(body)
        self.end()

    def begin(self) -> None:
        """Begin an answer that has no length."""
        self._link.outgoing.send_headers(self._stream_id, encode_json_head(200, None))

    def send(self, piece: bytes) -> None:
        """Send a piece of it."""
        self._link.outgoing.send_data(self._stream_id, piece)
        self._link.turn.mark(self._link)

    def end(self) -> None:
        """End it."""
        self._call = None
        self._link.outgoing.end(self._stream_id, b"")
        self._link.ended(self._stream_id)

    @property
    def is_full(self) -> bool:
        """Whether the peer has so much to read that the call has to wait for `drained`."""
        if self._link.is_clogged:
            self._link.wake_when_clear(self)
            return True
        return self._link.outgoing.is_full(self._stream_id, STREAM_UNSENT_BYTES_MAX)

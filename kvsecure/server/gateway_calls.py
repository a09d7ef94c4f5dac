"""Calls of the JSON gateway: between a connection's exchanges and the services.

    begin_call                           a request's head -> a call, which is given the body
    UnaryJsonCall, StreamedJsonCall      the same to services, gate and audit as calls of gRPC

Owns: putting JSON requests together, and handing answers to the exchange they belong to.
Never: decides anything about a request; knows sockets, HTTP/1.1 or HTTP/2.
Follows: docs/compatibility.md, "JSON gateway".
Keeps: a call is answered once; what comes after that is dropped.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

from kvsecure.api.gateway import (
    Endpoint,
    answer_text,
    error_text,
    http_status,
    large_answer_text,
    read_request,
    stream_error_line,
    stream_line,
)
from kvsecure.api.json_form import JsonSplitter, Misshapen
from kvsecure.api.methods import Header, Shape
from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.limits import STREAM_UNSENT_BYTES_MAX
from kvsecure.server.calls import CallCounts, parse
from kvsecure.server.gateway import Exchange, Gateway
from kvsecure.wire.grpc import read_timeout

__all__ = ["StreamedJsonCall", "UnaryJsonCall", "begin_call"]


# What is text within a few milliseconds.
_QUICK_BYTES_MAX: Final = 32 * 1024


@final
class UnaryJsonCall:
    """One request, one answer."""

    __slots__ = (
        "_begun_ns",
        "_body",
        "_counts",
        "_done",
        "_endpoint",
        "_exchange",
        "_gateway",
        "_gone",
        "_lost",
        "_owed_bytes",
        "_served",
        "_text",
        "deadline_ns",
        "peer",
        "token",
    )

    def __init__(
        self,
        gateway: Gateway,
        endpoint: Endpoint,
        exchange: Exchange,
        counts: CallCounts,
        token: bytes,
        deadline_ns: int | None,
    ) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._exchange = exchange
        self._counts = counts
        self._body = bytearray()
        self._owed_bytes = 0
        # What is answered, where making it was left to a thread.
        self._text: bytes | None = None
        # Whether it was handed to its service, and whether there is an answer.
        self._served = False
        self._done = False
        self._lost = False
        # Told how it ended, if that was not by an answer; there where the answer may be long in
        # coming.
        self._gone: Callable[[Code], None] | None = None
        self._begun_ns = gateway.now_ns()
        self.deadline_ns = deadline_ns
        self.peer = exchange.peer
        self.token = token

    # --- from the exchange ----------------------------------------------------------------------

    def data(self, data: bytes, *, ended: bool) -> None:
        """Take in more of the body."""
        if self._done:
            return
        try:
            _check_size(len(self._body) + len(data), self._gateway.body_bytes_max)
            self._gateway.hold(len(data))
            self._body += data
            if ended:
                self._serve()
        except Refused as refused:
            self.fail(refused)

    @property
    def has_heard(self) -> bool:
        """Whether the request has come."""
        return self._served

    def drained(self) -> None:
        """Nothing waits for it."""

    def expire(self) -> None:
        """Refuse because the caller's deadline has passed; what was asked may still happen."""
        self._give_up(Refused(Failure.DEADLINE_EXCEEDED))

    def stop(self) -> None:
        """Refuse because the member stops, unless the answer is on its way."""
        if not self._served or self._gone is not None:
            self._give_up(Refused(Failure.STOPPED))

    def _give_up(self, refused: Refused) -> None:
        was_done = self._done
        self.fail(refused)
        if self._gone is not None and not was_done:
            self._gone(refused.code)

    def lost(self) -> None:
        """Let go: nobody waits for the answer, if it comes."""
        self._lost = True
        self._forget_body()
        if not self._done:
            self._done = True
            self._counts.refuse(Code.CANCELLED)
            if self._gone is not None:
                self._gone(Code.CANCELLED)

    def _forget_body(self) -> None:
        self._gateway.let_go(len(self._body))
        self._body = bytearray()

    def _serve(self) -> None:
        self._served = True
        text = bytes(self._body)
        self._forget_body()
        gateway, method = self._gateway, self._endpoint.method
        assert method.unary is not None  # noqa: S101 - the shape says so
        content = read_request(self._endpoint, text, gateway.services.txn_ops_max)
        _check_size(len(content), gateway.message_bytes_max)
        request = parse(method, content)
        gateway.turn.schedule()
        try:
            method.unary(gateway.services, self, request, content)
        except Refused as refused:
            gateway.services.gate.reject(self, request, refused)

    # --- for the service ------------------------------------------------------------------------

    def when_gone(self, act: Callable[[Code], None]) -> None:
        """Have this called if the call ends before it is answered."""
        self._gone = act

    def succeed(self, answer: Answer) -> None:
        """Answer at the end of this turn."""
        if self._done:
            return
        self._done = True
        message = answer.body
        header = self._gateway.services.header
        if self._endpoint.method.header is Header.FULL:
            message = header(answer.revision) + message
        elif self._endpoint.method.header is Header.NO_REVISION:
            message = header(0) + message
        self._owe(len(message))
        self._gateway.turn.answer(self, message, None)

    def fail(self, refused: Refused) -> None:
        """Refuse at the end of this turn."""
        self._forget_body()
        if not self._done:
            self._done = True
            self._gateway.turn.answer(self, None, refused)

    def _owe(self, size_bytes: int) -> None:
        self._owed_bytes += size_bytes
        self._exchange.owe(size_bytes)

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Hand the answer to the exchange."""
        if message is not None and len(message) > _QUICK_BYTES_MAX and not self._lost:
            self._gateway.services.spawn(self._write_down(message))
            return
        self._owe(-self._owed_bytes)
        self._owed_bytes = 0
        if message is not None:
            self._counts.done += 1
            if not self._lost:
                text = self._text
                if text is None:
                    text = answer_text(self._endpoint, message)
                self._exchange.respond(200, text)
        elif refused is not None:
            self._counts.refuse(refused.code)
            if not self._lost:
                self._exchange.respond(http_status(refused.code), error_text(refused))
        if self._counts.times is not None:
            self._counts.times.observe((self._gateway.now_ns() - self._begun_ns) / 1e9)

    async def _write_down(self, message: bytes) -> None:
        """Make the text of a large answer beside everything else, and answer with it."""
        # Python lets the event loop have its turn every few milliseconds.
        self._text = b"".join(await asyncio.to_thread(large_answer_text, self._endpoint, message))
        self._gateway.turn.answer(self, b"", None)


@final
class StreamedJsonCall:
    """A call with several messages; as an `Asking` it refuses by ending."""

    __slots__ = (
        "_begun",
        "_closed",
        "_counts",
        "_endpoint",
        "_exchange",
        "_finished",
        "_gateway",
        "_pending_bytes",
        "_receiver",
        "_splitter",
        "_splitter_bytes",
        "_waits_for_turn",
        "deadline_ns",
        "has_heard",
        "peer",
        "token",
    )

    def __init__(
        self,
        gateway: Gateway,
        endpoint: Endpoint,
        exchange: Exchange,
        counts: CallCounts,
        token: bytes,
        deadline_ns: int | None,
    ) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._exchange = exchange
        self._counts = counts
        self._splitter = JsonSplitter(gateway.body_bytes_max)
        self._splitter_bytes = 0
        self._begun = False
        self._finished = False
        self._closed = False
        # Bytes that this turn's end will hand over, and whether the producer waits for that.
        self._pending_bytes = 0
        self._waits_for_turn = False
        # Whether any message has come.
        self.has_heard = False
        self.deadline_ns = deadline_ns
        self.peer = exchange.peer
        self.token = token
        assert endpoint.method.stream is not None  # noqa: S101 - the shape says so
        self._receiver: Receiver = endpoint.method.stream(gateway.services, self)

    # --- from the exchange ----------------------------------------------------------------------

    def data(self, data: bytes, *, ended: bool) -> None:
        """Take in more of the body."""
        if self._finished:
            return
        self._gateway.turn.schedule()
        try:
            self._gateway.hold(len(data))
            self._splitter_bytes += len(data)
            for text in self._splitter.feed(data):
                self._receive(text)
            self._hold_rest()
            if ended and not self._finished:
                self._half_close()
        except Misshapen as error:
            self.finish(Refused(Failure.MALFORMED_JSON, str(error)))
        except Refused as refused:
            self.finish(refused)

    def _receive(self, text: bytes) -> None:
        method, services = self._endpoint.method, self._gateway.services
        if self._finished or (self.has_heard and method.shape is Shape.SERVER_STREAM):
            return
        content = read_request(self._endpoint, text, services.txn_ops_max)
        _check_size(len(content), self._gateway.message_bytes_max)
        self.has_heard = True
        self._receiver.received(parse(method, content))

    def _hold_rest(self) -> None:
        """Count what is kept of an object that is not whole, and no more."""
        rest_bytes = 0 if self._finished else self._splitter.rest_bytes
        self._gateway.let_go(self._splitter_bytes - rest_bytes)
        self._splitter_bytes = rest_bytes

    def _half_close(self) -> None:
        if not self._splitter.is_empty:
            raise Refused(Failure.MALFORMED_JSON, "it ends within an object")
        if not self.has_heard and self._endpoint.method.shape is Shape.SERVER_STREAM:
            # A body that is empty is an empty message (etcd).
            self._receive(b"{}")
        self._receiver.half_closed()

    def drained(self) -> None:
        """Let the producer go on."""
        if not self._finished:
            self._receiver.drained()

    def expire(self) -> None:
        """End because the caller's deadline has passed."""
        self.finish(Refused(Failure.DEADLINE_EXCEEDED))

    def stop(self) -> None:
        """End because the member stops."""
        self.finish(Refused(Failure.STOPPED))

    def lost(self) -> None:
        """Let go: the peer is gone."""
        if not self._closed:
            self._counts.refuse(Code.CANCELLED)
        self._close()

    def _close(self) -> None:
        self._finished = True
        if not self._closed:
            self._closed = True
            self._exchange.owe(-self._pending_bytes)
            self._pending_bytes = 0
            self._hold_rest()
            self._receiver.closed()

    # --- for the service ------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Send one message at the end of this turn."""
        if not self._finished:
            self._pending_bytes += len(message)
            self._exchange.owe(len(message))
            self._gateway.turn.answer(self, message, None)

    def send_each(self, header: bytes, marks: Sequence[bytes], tail: bytes) -> None:
        """Send for each of the marks one message with it in the middle."""
        for mark in marks:
            self.send(header + mark + tail)

    def succeed(self, answer: Answer) -> None:
        """Send one answer with its header."""
        self.send(self._gateway.services.header(answer.revision) + answer.body)

    def fail(self, refused: Refused) -> None:
        """End the call with a refusal."""
        self.finish(refused)

    def finish(self, refused: Refused | None = None) -> None:
        """End the call at the end of this turn, after what was sent."""
        if not self._finished:
            self._finished = True
            self._gateway.turn.answer(self, None, refused)

    @property
    def is_full(self) -> bool:
        """Whether so much is queued that the producer has to wait for `drained`."""
        if self._pending_bytes > STREAM_UNSENT_BYTES_MAX:
            self._waits_for_turn = True
            return True
        return self._exchange.is_full

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Hand a message or the end to the exchange."""
        if self._closed:
            return
        if message is None:
            self._end(refused)
            return
        self._pending_bytes -= len(message)
        self._exchange.owe(-len(message))
        if not self._begun:
            self._begun = True
            self._exchange.begin()
        self._exchange.send(stream_line(self._endpoint, message))
        if self._waits_for_turn and not self._pending_bytes:
            self._waits_for_turn = False
            self._gateway.turn.at_end(self.drained)

    def _end(self, refused: Refused | None) -> None:
        if refused is not None:
            self._counts.refuse(refused.code)
        else:
            self._counts.done += 1
        exchange = self._exchange
        self._close()
        if not self._begun and refused is not None:
            exchange.respond(http_status(refused.code), error_text(refused))
            return
        if not self._begun:
            exchange.begin()
        if refused is not None:
            exchange.send(stream_error_line(refused))
        exchange.end()


def begin_call(
    gateway: Gateway, endpoint: Endpoint, fields: Iterable[tuple[bytes, bytes]], exchange: Exchange
) -> UnaryJsonCall | StreamedJsonCall:
    """Begin a call.

    Args:
        gateway: What all calls have in common.
        endpoint: What is called.
        fields: The request's header fields, names in lower case.
        exchange: Where the answer goes.

    Raises:
        Refused: The head of the request says why there is none.
    """
    counts = gateway.counts[endpoint.path]
    counts.started += 1
    try:
        token, timeout_ns = _read_fields(fields)
    except Refused as refused:
        counts.refuse(refused.code)
        raise
    deadline_ns = None if timeout_ns is None else gateway.now_ns() + timeout_ns
    if endpoint.method.shape is Shape.UNARY:
        return UnaryJsonCall(gateway, endpoint, exchange, counts, token, deadline_ns)
    return StreamedJsonCall(gateway, endpoint, exchange, counts, token, deadline_ns)


def _read_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None]:
    """Return the token and the timeout in nanoseconds that a request's head states.

    Raises:
        Refused: It is a web page's, or states a timeout that is none.
    """
    tokens: list[bytes] = []
    timeout_ns = None
    for name, value in fields:
        if name == b"authorization":
            tokens.append(value.removeprefix(b"Bearer "))
        elif name == b"grpc-timeout":
            timeout_ns = read_timeout(value)
            if timeout_ns is None:
                raise Refused(Failure.MALFORMED_JSON, "Grpc-Timeout is none")
        elif name == b"origin":
            # A browser sends the user's client certificate along with whatever a page asks for.
            raise Refused(Failure.CROSS_ORIGIN)
    # Two of them are one that nobody minted.
    return b",".join(tokens), timeout_ns


def _check_size(size_bytes: int, bytes_max: int) -> None:
    """Refuse what is larger than it may be."""
    if size_bytes > bytes_max:
        raise Refused(Failure.MESSAGE_TOO_LARGE, f"{size_bytes} vs. {bytes_max}")

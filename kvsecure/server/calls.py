"""Calls: one gRPC request each, between a connection's streams and the services.

Owns: putting messages together, and turning answers into frames.
Never: decides anything about a request; knows sockets.
Follows: gRPC's PROTOCOL-HTTP2.
Keeps: a call is answered once; what comes after that is dropped.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from google.protobuf.message import DecodeError, Message

from kvsecure.api.methods import Header, Method, Shape
from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.limits import STREAM_UNSENT_BYTES_MAX
from kvsecure.security.session import Peer
from kvsecure.server.turn import Turn
from kvsecure.telemetry.histogram import Histogram
from kvsecure.wire.grpc import (
    OK_TRAILERS,
    FramingError,
    MessageReader,
    encode_refusal,
    encode_trailers,
    packing_for,
    prefix_of,
)
from kvsecure.wire.h2.outgoing import Outgoing

__all__ = ["AssemblingCall", "CallCounts", "Link", "StreamedCall", "UnaryCall", "Waiting", "parse"]

_FRAMING: Final = {
    "large": Failure.MESSAGE_TOO_LARGE,
    "encoding": Failure.UNKNOWN_ENCODING,
    "malformed": Failure.MALFORMED_MESSAGE,
}


@final
class CallCounts:
    """How many calls of one method began, and how they ended."""

    __slots__ = ("done", "refused", "started", "times")

    def __init__(self, times: Histogram | None = None) -> None:
        """Begin at zero.

        Args:
            times: Where the time that each call takes is counted, if it is counted at all.
        """
        self.times = times
        self.started = 0
        # Ended well.
        self.done = 0
        # By code.
        self.refused: dict[int, int] = {}

    def refuse(self, code: int) -> None:
        """Count a call that did not end well."""
        self.refused[code] = self.refused.get(code, 0) + 1

    @property
    def open_count(self) -> int:
        """How many have begun and not ended."""
        return self.started - self.done - sum(self.refused.values())


class Waiting(Protocol):
    """A call, or what carries one, that waits until its peer has read more."""

    def drained(self) -> None:
        """Let the producer go on."""
        ...


class Link(Protocol):
    """What a call needs of its connection."""

    peer: Peer
    outgoing: Outgoing
    turn: Turn
    header: Callable[[int], bytes]
    now_ns: Callable[[], int]
    # Bytes that were answered in this turn and not handed over yet.
    owed_bytes: int
    # Messages that were dealt with in this turn.
    work: int

    @property
    def is_clogged(self) -> bool:
        """Whether the peer has so much to read that nothing more is made for it."""
        ...

    def wake_when_clear(self, call: Waiting) -> None:
        """Let a producer go on once the connection is not clogged any more."""
        ...

    def keep(self, stream_id: int, call: "UnaryCall") -> None:
        """Tell a call whose answer may be long in coming what becomes of its stream."""
        ...

    def ended(self, stream_id: int) -> None:
        """Take note that a call is over; what it answered is to be written."""
        ...

    def flush(self) -> None:
        """Write what there is to write."""
        ...


def parse(method: Method, content: bytes) -> Message:
    """Return the request that a message's bytes are.

    Raises:
        Refused: They are none.
    """
    try:
        return method.request.FromString(content)
    except DecodeError:
        raise Refused(Failure.MALFORMED_MESSAGE) from None


def _read_messages(reader: MessageReader, data: bytes) -> list[bytes]:
    """Feed a reader.

    Raises:
        Refused: The data is not what gRPC frames.
    """
    try:
        return reader.feed(data)
    except FramingError as error:
        raise Refused(_FRAMING[error.kind], str(error)) from None


@final
class UnaryCall:
    """One request, one answer."""

    __slots__ = (
        "_begun_ns",
        "_counts",
        "_done",
        "_gone",
        "_header",
        "_link",
        "_owed_bytes",
        "_packing",
        "_stream_id",
        "peer",
        "token",
    )

    def __init__(
        self,
        link: Link,
        stream_id: int,
        header: Header,
        token: bytes,
        counts: CallCounts,
        encoding: bytes = b"identity",
    ) -> None:
        self._link = link
        self._stream_id = stream_id
        self._counts = counts
        self._header = header
        self._packing = packing_for(encoding)
        self._owed_bytes = 0
        self._done = False
        # Told how it ended, if that was not by an answer.
        self._gone: Callable[[Code], None] | None = None
        self._begun_ns = link.now_ns() if counts.times is not None else 0
        self.peer = link.peer
        self.token = token

    def succeed(self, answer: Answer) -> None:
        """Answer at the end of this turn."""
        if self._done:
            return
        self._done = True
        link = self._link
        if self._header is Header.FULL:
            message = link.header(answer.revision) + answer.body
        elif self._header is Header.NO_REVISION:
            message = link.header(0) + answer.body
        else:
            message = answer.body
        self._owed_bytes = len(message)
        link.owed_bytes += self._owed_bytes
        link.turn.answer(self, message, None)

    def fail(self, refused: Refused) -> None:
        """Refuse at the end of this turn."""
        if not self._done:
            self._done = True
            self._link.turn.answer(self, None, refused)

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Hand the answer to the connection."""
        link = self._link
        link.owed_bytes -= self._owed_bytes
        if message is not None:
            headers, pack, _ = self._packing
            link.outgoing.respond(self._stream_id, headers, *pack(message), OK_TRAILERS)
            self._counts.done += 1
        elif refused is not None:
            link.outgoing.refuse(self._stream_id, encode_refusal(refused.code, refused.text))
            self._counts.refuse(refused.code)
        if self._counts.times is not None:
            self._counts.times.observe((link.now_ns() - self._begun_ns) / 1e9)
        link.ended(self._stream_id)

    # --- an answer that is long in coming --------------------------------------------------------

    def when_gone(self, act: Callable[[Code], None]) -> None:
        """Have this called if the call ends before it is answered."""
        self._gone = act
        self._link.keep(self._stream_id, self)

    def data(self, _: bytes, *, ended: bool) -> bool:  # noqa: ARG002 - as the other calls have it
        """Ignore what comes behind the request; return that nothing of it is waited for."""
        return False

    def drained(self) -> None:
        """Nothing waits for it."""

    def expire(self) -> None:
        """Refuse because the caller's deadline has passed; what was asked may still happen."""
        self._give_up(Refused(Failure.DEADLINE_EXCEEDED))

    def stop(self) -> None:
        """Refuse because the member stops."""
        self._give_up(Refused(Failure.STOPPED))

    def _give_up(self, refused: Refused) -> None:
        if not self._done:
            self.fail(refused)
            self._tell_gone(refused.code)

    def lost(self) -> None:
        """Let go: the request will not come whole, or nobody waits for the answer."""
        if not self._done:
            self._done = True
            self._counts.refuse(Code.CANCELLED)
            self._tell_gone(Code.CANCELLED)

    def _tell_gone(self, code: Code) -> None:
        if self._gone is not None:
            self._gone(code)


@final
class AssemblingCall:
    """A request of one message that has not come whole yet."""

    __slots__ = ("_begin", "_call", "_messages", "_reader")

    def __init__(
        self, call: UnaryCall, reader: MessageReader, begin: Callable[[UnaryCall, bytes], None]
    ) -> None:
        self._call = call
        self._reader = reader
        self._begin = begin
        self._messages: list[bytes] = []

    def data(self, data: bytes, *, ended: bool) -> bool:
        """Take in data; return whether the request has been dealt with."""
        try:
            self._messages += _read_messages(self._reader, data)
            if not ended and len(self._messages) <= 1:
                return False
        except Refused as refused:
            self._call.fail(refused)
            return True
        if len(self._messages) != 1 or not self._reader.is_empty:
            self._call.fail(Refused(Failure.MALFORMED_MESSAGE, "one message is expected"))
            return True
        self._begin(self._call, self._messages[0])
        return True

    def drained(self) -> None:
        """Nothing is queued before it is answered."""

    def lost(self) -> None:
        """Let go: nobody waits for it."""
        self._call.lost()

    def stop(self) -> None:
        """Refuse because the member stops."""
        self._call.fail(Refused(Failure.STOPPED))

    def expire(self) -> None:
        """Refuse because the caller's deadline has passed."""
        self._call.expire()


@final
class StreamedCall:
    """A call with several messages; as an `Asking` it refuses by ending."""

    __slots__ = (
        "_begun",
        "_closed",
        "_counts",
        "_finished",
        "_heard",
        "_link",
        "_messages",
        "_method",
        "_outbox",
        "_packing",
        "_pending_bytes",
        "_reader",
        "_receiver",
        "_stream_id",
        "_waits_for_turn",
        "peer",
        "token",
    )

    def __init__(
        self,
        link: Link,
        stream_id: int,
        method: Method,
        token: bytes,
        reader: MessageReader,
        counts: CallCounts,
        encoding: bytes,
    ) -> None:
        self._link = link
        self._stream_id = stream_id
        self._counts = counts
        self._method = method
        self._packing = packing_for(encoding)
        self._reader = reader
        self._begun = False
        self._heard = False
        self._finished = False
        self._closed = False
        # Prefixes and messages that this turn's end will queue, how many and how long the messages
        # are, and whether the producer waits for that.
        self._outbox: list[bytes] = []
        self._messages = 0
        self._pending_bytes = 0
        self._waits_for_turn = False
        self._receiver: Receiver
        self.peer = link.peer
        self.token = token

    def attach(self, receiver: Receiver) -> None:
        """Name who takes what comes in."""
        self._receiver = receiver

    # --- from the connection --------------------------------------------------------------------

    def data(self, data: bytes, *, ended: bool) -> bool:
        """Take in data; return whether nothing more is expected."""
        try:
            for content in _read_messages(self._reader, data):
                self._link.work += 1
                if not self._finished and self._wants_more:
                    self._heard = True
                    self._receiver.received(parse(self._method, content))
        except Refused as refused:
            self.finish(refused)
            return False
        if ended and not self._finished:
            if self._reader.is_empty:
                self._receiver.half_closed()
            else:
                self.finish(Refused(Failure.MALFORMED_MESSAGE, "it ends within a message"))
        return False

    @property
    def _wants_more(self) -> bool:
        """Whether another message means anything: a server's stream has one request."""
        return not self._heard or self._method.shape is not Shape.SERVER_STREAM

    def drained(self) -> None:
        """Let the producer go on."""
        if not self._finished:
            self._receiver.drained()

    def lost(self) -> None:
        """Let go: the peer has reset the stream or is gone."""
        if not self._closed:
            self._counts.refuse(Code.CANCELLED)
        self._close()

    def stop(self) -> None:
        """End because the member stops."""
        self.finish(Refused(Failure.STOPPED))

    def _close(self) -> None:
        self._finished = True
        if not self._closed:
            self._closed = True
            self._link.owed_bytes -= self._pending_bytes
            self._pending_bytes = 0
            self._receiver.closed()

    def expire(self) -> None:
        """End because the caller's deadline has passed."""
        self.finish(Refused(Failure.DEADLINE_EXCEEDED))

    # --- for the service ------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Send one message at the end of this turn."""
        if self._finished:
            return
        self._owe(len(message), 1)
        self._outbox += self._packing.pack(message)

    def send_each(self, header: bytes, marks: Sequence[bytes], tail: bytes) -> None:
        """Send for each of the marks one message with it in the middle, at the end of this turn."""
        if self._finished:
            return
        if self._packing.is_packed:
            for mark in marks:
                self.send(header + mark + tail)
            return
        length, count = len(header) + len(marks[0]) + len(tail), len(marks)
        self._owe(length * count, count)
        head = prefix_of(length) + header
        # Nothing in Python for each of them: there may be thousands, for every event.
        self._outbox += (head, (tail + head).join(marks), tail)

    def _owe(self, length: int, count: int) -> None:
        """Count messages that the outbox gets."""
        self._pending_bytes += length
        self._messages += count
        self._link.owed_bytes += length
        if not self._outbox:
            # The turn hands over whatever has come together by its end.
            self._link.turn.answer(self, b"", None)

    def succeed(self, answer: Answer) -> None:
        """Send one answer with its header."""
        self.send(self._link.header(answer.revision) + answer.body)

    def fail(self, refused: Refused) -> None:
        """End the call with a refusal."""
        self.finish(refused)

    def finish(self, refused: Refused | None = None) -> None:
        """End the call at the end of this turn, after what was sent."""
        if not self._finished:
            self._finished = True
            self._link.turn.answer(self, None, refused)

    @property
    def is_full(self) -> bool:
        """Whether so much is queued that the producer has to wait for `drained`."""
        if self._link.is_clogged:
            self._link.wake_when_clear(self)
            return True
        if self._pending_bytes > STREAM_UNSENT_BYTES_MAX:
            self._waits_for_turn = True
            return True
        return self._link.outgoing.is_full(self._stream_id, STREAM_UNSENT_BYTES_MAX)

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Hand what came together, or the end, to the connection."""
        link = self._link
        if self._closed:
            return
        if message is not None:
            outbox, self._outbox = self._outbox, []
            messages, self._messages = self._messages, 0
            link.owed_bytes -= self._pending_bytes
            self._pending_bytes = 0
            if not self._begun:
                self._begun = True
                link.outgoing.send_headers(self._stream_id, self._packing.headers)
            link.outgoing.send_data(self._stream_id, b"".join(outbox))
            # For each message a client may say that it has read it, however few frames they fill:
            # C gRPC does.
            link.outgoing.answers += messages - 1
            link.turn.mark(link)
            if self._waits_for_turn:
                self._waits_for_turn = False
                link.turn.at_end(self.drained)
            return
        self._end(refused)

    def _end(self, refused: Refused | None) -> None:
        link = self._link
        code, text = (0, "") if refused is None else (refused.code, refused.text)
        if self._begun:
            link.outgoing.end(self._stream_id, encode_trailers(code, text))
        else:
            link.outgoing.refuse(self._stream_id, encode_refusal(code, text))
        if code:
            self._counts.refuse(code)
        else:
            self._counts.done += 1
        self._close()
        link.ended(self._stream_id)

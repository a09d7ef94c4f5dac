"""Bursts: plain gets and puts of one connection that came in one read, as calls.

    events of one read ──> gather ──> GetCalls / PutCalls ──> api.kv ──> the gate's bursts
                              └ what is not plain, or not taken: request by request

Owns: which requests are one burst, and answering each of them.
Never: decides anything about a request.
Follows: docs/adr/0011-bursts.md.
Keeps: a request is answered once, by its burst or by itself.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, final

from kvsecure.api import kv
from kvsecure.api.methods import METHODS, Header, Method
from kvsecure.api.services import Services
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.plain import plain_get, plain_put
from kvsecure.server.calls import CallCounts, Link, UnaryCall
from kvsecure.wire.grpc import OK_HEADERS, OK_TRAILERS, encode_refusal

__all__ = ["BURSTS", "BurstLink", "BurstOf", "Gathered", "GetCalls", "PutCalls"]


class BurstLink(Link, Protocol):
    """What a burst needs of its connection."""

    def ended_each(self, streams: Sequence[int]) -> None:
        """Take note that these calls are over; what they answered is to be written."""
        ...

    def expire_at(self, stream_id: int, timeout_ns: int, expire: Callable[[], None]) -> None:
        """Do this once a call has taken too long."""
        ...

    def serve_alone(self, call: UnaryCall, stream_id: int, method: Method, content: bytes) -> None:
        """Serve a request of a burst by itself, under the deadline that it has."""
        ...


class Gathered(NamedTuple):
    """The requests of a burst, in the order they came."""

    # What all of them carry.
    token: bytes
    streams: list[int]
    # What `BurstOf.read` made of each.
    items: list[Any]
    contents: list[bytes]
    # Place in these lists, and nanoseconds; of those that have a deadline.
    timeouts_ns: list[tuple[int, int]]
    counts: CallCounts


type_serve = Callable[[Services, BurstLink, Gathered, int], int]


class BurstOf(NamedTuple):
    """How the requests of one method become a burst."""

    # Reads the bytes of a request that is plain; otherwise None.
    read: Callable[[bytes], Any]
    # Serves a burst, given how many bytes its answers may have, and returns how many were taken.
    serve: type_serve


class _Calls:
    """The calls of a burst that are to be answered."""

    __slots__ = (
        "_begun_ns",
        "_contents",
        "_counts",
        "_expired",
        "_is_over",
        "_link",
        "_messages",
        "_method",
        "_owed_bytes",
        "_streams",
        "peer",
        "token",
    )

    def __init__(self, link: BurstLink, gathered: Gathered, method: Method) -> None:
        self._link = link
        self._method = method
        self.peer = link.peer
        self.token = gathered.token
        self._streams = gathered.streams
        self._contents = gathered.contents
        self._counts = gathered.counts
        self._messages: list[bytes] = []
        self._owed_bytes = 0
        self._expired: set[int] = set()
        self._is_over = False
        self._begun_ns = link.now_ns() if gathered.counts.times is not None else 0

    def expire_by(self, timeouts_ns: list[tuple[int, int]]) -> None:
        """Give up those of the requests that have a deadline once it has passed."""
        for place, timeout_ns in timeouts_ns:
            stream_id = self._streams[place]
            self._link.expire_at(stream_id, timeout_ns, partial(self._expire, stream_id))

    def _expire(self, stream_id: int) -> None:
        """Refuse one of them because its deadline has passed; what it asks may still happen."""
        if not self._is_over and stream_id not in self._expired:
            self._expired.add(stream_id)
            UnaryCall(self._link, stream_id, Header.FULL, self.token, self._counts).expire()

    def _each_alone(self, streams: Sequence[int], contents: Sequence[bytes]) -> None:
        """Have requests served one by one."""
        for stream_id, content in zip(streams, contents, strict=True):
            if stream_id not in self._expired:
                call = UnaryCall(self._link, stream_id, Header.FULL, self.token, self._counts)
                self._link.serve_alone(call, stream_id, self._method, content)

    def _answer(self, messages: list[bytes]) -> None:
        """Answer with a message each at the end of this turn; but for those that have expired."""
        if self._expired:
            left = [
                (stream_id, message)
                for stream_id, message in zip(self._streams, messages, strict=True)
                if stream_id not in self._expired
            ]
            self._streams = [stream_id for stream_id, _ in left]
            messages = [message for _, message in left]
        link = self._link
        self._messages = messages
        self._owed_bytes = sum(map(len, messages))
        link.owed_bytes += self._owed_bytes
        link.turn.answer(self, b"", None)

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Hand the answers to the connection."""
        link, streams, counts = self._link, self._streams, self._counts
        link.owed_bytes -= self._owed_bytes
        if message is not None:
            link.outgoing.respond_each(streams, OK_HEADERS, self._messages, OK_TRAILERS)
            counts.done += len(streams)
        elif refused is not None:
            refusal = encode_refusal(refused.code, refused.text)
            for stream_id in streams:
                link.outgoing.refuse(stream_id, refusal)
                counts.refuse(refused.code)
        if counts.times is not None:
            took_s = (link.now_ns() - self._begun_ns) / 1e9
            for _ in streams:
                counts.times.observe(took_s)
        link.ended_each(streams)


@final
class GetCalls(_Calls):
    """A burst of gets."""

    __slots__ = ()

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has come of it yet."""
        return not self._is_over

    def succeed(self, revision: int, bodies: Sequence[bytes]) -> None:
        """Answer the first of the requests at the end of this turn."""
        self._is_over = True
        header = self._link.header(revision)
        self._streams = self._streams[: len(bodies)]
        self._answer([header + body for body in bodies])

    def go_alone(self, count: int) -> None:
        """Have the requests behind the first so many, which were answered, served one by one."""
        streams, contents = self._streams[count:], self._contents[count:]
        self._streams = self._streams[:count]
        self._is_over = True
        self._each_alone(streams, contents)


@final
class PutCalls(_Calls):
    """A burst of puts."""

    __slots__ = ()

    def succeed(self, answer: Answer) -> None:
        """Answer at the end of this turn; each put has a revision of its own."""
        self._is_over = True
        link, first = self._link, answer.revision - len(self._streams) + 1
        self._answer([link.header(first + n) for n in range(len(self._streams))])

    def fail(self, refused: Refused) -> None:
        """Refuse at the end of this turn.

        If it is for want of a right, nothing was done, and what one of them lacks another may have:
        each goes by itself then.
        """
        self._is_over = True
        if refused.failure is Failure.PERMISSION_DENIED:
            self._each_alone(self._streams, self._contents)
            return
        self._streams = [each for each in self._streams if each not in self._expired]
        self._link.turn.answer(self, None, refused)


def _serve_gets(services: Services, link: BurstLink, gathered: Gathered, bytes_max: int) -> int:
    calls = GetCalls(link, gathered, _RANGE)
    count = kv.gets(services, calls, gathered.items, bytes_max)
    if count and calls.is_waiting and gathered.timeouts_ns:
        calls.expire_by(gathered.timeouts_ns)
    return count


def _serve_puts(services: Services, link: BurstLink, gathered: Gathered, _: int) -> int:
    calls = PutCalls(link, gathered, _PUT)
    if not kv.puts(services, calls, gathered.items, gathered.contents):
        return 0
    if gathered.timeouts_ns:
        calls.expire_by(gathered.timeouts_ns)
    return len(gathered.streams)


_PUT: Final = METHODS["/etcdserverpb.KV/Put"]
_RANGE: Final = METHODS["/etcdserverpb.KV/Range"]

# By the path of the method.
BURSTS: Final = {
    "/etcdserverpb.KV/Range": BurstOf(plain_get, _serve_gets),
    "/etcdserverpb.KV/Put": BurstOf(plain_put, _serve_puts),
}

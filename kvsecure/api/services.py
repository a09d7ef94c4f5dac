"""What the services work with: the gate, and the two kinds of calls.

Owns: what a service may ask of a call, and what there is for all calls together.
Never: a transport; `server` implements these protocols over HTTP/2 and JSON.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from google.protobuf.message import Message

from kvsecure.model.errors import Refused
from kvsecure.proto.joining_pb2 import JoinRedeemRequest
from kvsecure.security.asking import Asking
from kvsecure.security.feeds import Feeds
from kvsecure.security.gate import Gate
from kvsecure.security.long_ranges import LongRanges
from kvsecure.security.membership import Membership
from kvsecure.security.queues import Queues
from kvsecure.security.upkeep import Upkeep

__all__ = ["Admission", "KeyCare", "Receiver", "Services", "StreamCall"]


class StreamCall(Asking, Protocol):
    """A call with more than one message in some direction.

    As an `Asking` it refuses by ending the stream.
    """

    def send(self, message: bytes) -> None:
        """Send one message; it may be queued."""
        ...

    def send_each(self, header: bytes, marks: Sequence[bytes], tail: bytes) -> None:
        """Send for each of the marks one message: the header, the mark, the tail.

        Args:
            header: What the messages begin with.
            marks: What tells them apart; not none, and all of one length.
            tail: What they end with.
        """
        ...

    def finish(self, refused: Refused | None = None) -> None:
        """End the call, well or with a refusal."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether so much is queued that the producer has to wait for `drained`."""
        ...


class Receiver(Protocol):
    """What a service does with what comes in on a stream."""

    def received(self, message: Any) -> None:
        """Take one message, of the method's request type."""
        ...

    def half_closed(self) -> None:
        """Take note that no more messages will come."""
        ...

    def drained(self) -> None:
        """Take note that what was queued has been sent."""
        ...

    def closed(self) -> None:
        """Take note that nobody listens any more; called once, also after `finish`."""
        ...


class KeyCare(Protocol):
    """The keys that everything of this member is sealed under.

    Every method gives the answer, and raises `Refused` (KEYS_UNCHANGED) where it cannot be done.
    """

    async def status(self, *, count: bool) -> Message:
        """Say which keys there are, and if it is to be counted what is sealed under which."""
        ...

    async def rotate(self) -> Message:
        """Make a new data key for everything that is written from now on."""
        ...

    async def rewrap(self) -> Message:
        """Wrap the keys under another key-encryption key."""
        ...

    async def reencrypt(self, rows_per_second: int) -> Message:
        """Begin to seal under the newest data key what is under older ones."""
        ...

    async def retire(self, term: int) -> Message:
        """Destroy a data key under which nothing is sealed any more."""
        ...


class Admission(Protocol):
    """How machines become members by tokens.

    Every method gives the answer, and raises `Refused` (JOIN_REJECTED, JOIN_TOKEN_REJECTED, or why
    nobody is added now) where it cannot be done.
    """

    def authority(self) -> Message:
        """Say who this cluster's authority is."""
        ...

    async def add_token(self, ttl_s: int) -> Message:
        """Make a token that is good for so many seconds, or the default for 0."""
        ...

    async def redeem(self, request: JoinRedeemRequest, source: str) -> Message:
        """Make who has a token a member; `source` is the address that it comes from."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What there is for all calls."""

    gate: Gate
    feeds: Feeds
    queues: Queues
    upkeep: Upkeep
    membership: Membership
    keys: KeyCare
    admission: Admission
    ranges: LongRanges
    # The header field of an answer at a revision; 0 leaves the revision out.
    header: Callable[[int], bytes]
    # Does something at the end of this turn, before its answers leave.
    at_turn_end: Callable[[Callable[[], None]], None]
    # Does something that takes a few milliseconds, when it is its turn among all such.
    in_turn: Callable[[Callable[[], None]], None]
    # Does something after so many seconds; the answer cancels it.
    later: Callable[[float, Callable[[], None]], Callable[[], None]]
    # Runs a coroutine to its end, within the server's own task group.
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    txn_ops_max: int
    request_bytes_max: int
    progress_interval_s: float
    random_bytes: Callable[[int], bytes]

"""What the JSON gateway's calls have in common, and what carries each of them.

Owns: the bound on what all JSON requests together hold in memory.
Never: decides anything about a request; knows sockets, HTTP/1.1 or HTTP/2.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, final

from kvsecure.api.services import Services
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import GATEWAY_HELD_BYTES_MAX
from kvsecure.security.session import Peer
from kvsecure.server.calls import CallCounts
from kvsecure.server.turn import Turn

__all__ = ["Exchange", "Gateway"]


class Exchange(Protocol):
    """One request and its answer, as a version of HTTP carries them."""

    peer: Peer

    def owe(self, size_bytes: int) -> None:
        """Take note that so much more (or, negative, less) will be handed over this turn."""
        ...

    def respond(self, status: int, body: bytes) -> None:
        """Answer whole."""
        ...

    def begin(self) -> None:
        """Begin an answer that has no length."""
        ...

    def send(self, piece: bytes) -> None:
        """Send a piece of it."""
        ...

    def end(self) -> None:
        """End it."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the peer has so much to read that the call has to wait for `drained`."""
        ...


@final
class Gateway:
    """What all JSON calls of a listener have in common."""

    __slots__ = (
        "_held_bytes",
        "body_bytes_max",
        "counts",
        "message_bytes_max",
        "now_ns",
        "services",
        "turn",
        "unwanted_bytes_max",
    )

    def __init__(
        self,
        *,
        services: Services,
        turn: Turn,
        counts: Mapping[str, CallCounts],
        now_ns: Callable[[], int],
        message_bytes_max: int,
    ) -> None:
        """Put together what JSON calls need.

        Args:
            services: What serves them.
            turn: Where answers wait.
            counts: How calls began and ended, by path of gRPC.
            now_ns: Monotonic time in nanoseconds.
            message_bytes_max: How large a request may be as a message.
        """
        self.services = services
        self.turn = turn
        self.now_ns = now_ns
        self.counts = counts
        self.message_bytes_max = message_bytes_max
        # Base64 is a third longer than what it stands for; names and spaces come on top.
        self.body_bytes_max = message_bytes_max * 3 // 2
        # What is still taken, and thrown away, of a request that was refused before it was whole.
        self.unwanted_bytes_max = 4 * self.body_bytes_max
        self._held_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Take note that so much more of a request is kept.

        Raises:
            Refused: That would be too much for all requests together.
        """
        if self._held_bytes + size_bytes > GATEWAY_HELD_BYTES_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)
        self._held_bytes += size_bytes

    def let_go(self, size_bytes: int) -> None:
        """Take note that it is not kept any more."""
        self._held_bytes -= size_bytes

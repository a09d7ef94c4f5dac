"""Pings of a connection: how often the peer may send them, and ours to a peer that is silent.

Owns: the strikes of a peer that pings too often, and whether a silent peer is still there.
Never: looks at a clock, reads or writes a frame; it is told the time and gives a verdict.
Follows: grpc-go's keep-alive as etcd 3.5 sets it up, without the permission to ping when no stream
    is open. It differs where etcd's manual differs from what etcd does: 0 switches a part off.
"""

from enum import Enum
from typing import Final, NamedTuple, final

__all__ = ["ANY_PINGS", "PingLimits", "Pings", "Probe"]

# So many pings may come too early in a row; the next one ends the connection.
_STRIKES_MAX: Final = 2
# How often a peer may ping that has no stream open: it has nothing to keep alive.
_IDLE_INTERVAL_NS_MIN: Final = 2 * 60 * 60 * 1_000_000_000


class PingLimits(NamedTuple):
    """When pings are too many, and when there are too few; in nanoseconds, 0 is without limit.

    Attributes:
        interval_ns_min: How far apart the pings of a peer with open streams have to be.
        silence_ns_max: How long a peer may say nothing before it is pinged.
        answer_ns_max: How long it may go on saying nothing before it counts as gone.
    """

    interval_ns_min: int = 0
    silence_ns_max: int = 0
    answer_ns_max: int = 0


ANY_PINGS: Final = PingLimits()


class Probe(Enum):
    """What is to be done about a peer's silence."""

    NOTHING = "nothing"
    PING = "ping"
    GIVE_UP = "give up"


@final
class Pings:
    """The pings of one connection, both ways."""

    __slots__ = (
        "_last_ns",
        "_limits",
        "_pinged_ns",
        "_silent_since_ns",
        "_strikes",
        "answered",
    )

    def __init__(self, limits: PingLimits) -> None:
        self._limits = limits
        # Whether anything was sent for a request since the last ping; that forgives the strikes.
        self.answered = False
        self._last_ns: int | None = None
        self._strikes = 0
        self._silent_since_ns: int | None = None
        self._pinged_ns: int | None = None

    def is_tolerable(self, now_ns: int, *, has_streams: bool) -> bool:
        """Take note of a ping of the peer's; return False if it is one too many.

        Args:
            now_ns: Monotonic time.
            has_streams: Whether a stream is open.
        """
        interval_ns = self._limits.interval_ns_min
        if not interval_ns:
            return True
        last_ns, self._last_ns = self._last_ns, now_ns
        if self.answered:
            self.answered = False
            self._strikes = 0
            return True
        if not has_streams:
            interval_ns = _IDLE_INTERVAL_NS_MIN
        if last_ns is not None and now_ns - last_ns < interval_ns:
            self._strikes += 1
        return self._strikes <= _STRIKES_MAX

    def tick(self, now_ns: int, *, heard: bool) -> Probe:
        """Take note that a while has passed.

        Args:
            now_ns: Monotonic time.
            heard: Whether the peer said anything in that while; any byte is a sign of life.
        """
        limits = self._limits
        if heard or self._silent_since_ns is None:
            self._silent_since_ns = now_ns
            self._pinged_ns = None
        elif self._pinged_ns is None:
            if limits.silence_ns_max and now_ns - self._silent_since_ns >= limits.silence_ns_max:
                self._pinged_ns = now_ns
                return Probe.PING
        elif limits.answer_ns_max and now_ns - self._pinged_ns >= limits.answer_ns_max:
            return Probe.GIVE_UP
        return Probe.NOTHING

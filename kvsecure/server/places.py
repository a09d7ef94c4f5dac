"""Places: how many connections there may be, all together and from one source.

Owns: counting connections and handshakes by source, and saying no before anything is spent on one.
Never: touches a socket beyond asking who is at its other end.
Keeps: a source is an IPv4 address, the first 64 bits of an IPv6 address (one customer has at least
    those), or a user of this machine; whoever is refused is counted, and the log says how many
    were in one line a second at most, so that a flood is seen and does not fill the disk.
"""

import ipaddress
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, final

from kvsecure.model.limits import (
    CONNECTIONS_MAX,
    CONNECTIONS_PER_LOCAL_SOURCE_MAX,
    CONNECTIONS_PER_SOURCE_MAX,
    HANDSHAKES_MAX,
    HANDSHAKES_PER_LOCAL_SOURCE_MAX,
    HANDSHAKES_PER_SOURCE_MAX,
)
from kvsecure.telemetry.log import log

__all__ = ["PlaceBounds", "Places", "Refusal", "Refusals", "Source", "source_of"]

# struct ucred: process, user, group.
_UCRED: Final = struct.Struct("iII")
_NETWORK_BYTES: Final = 8

_log = log("listener")


class Refusal(Enum):
    """Why a connection was not taken."""

    CONNECTIONS = "connections"
    CONNECTIONS_OF_SOURCE = "connections of one source"
    HANDSHAKES = "handshakes"
    HANDSHAKES_OF_SOURCE = "handshakes of one source"


class Source(NamedTuple):
    """Where a connection comes from.

    Attributes:
        ip: The address; for a unix socket `unix:` and the number of the user.
        port: The port; for a unix socket the number of the process.
        group: What is counted together with it.
        is_local: Whether it is on this machine.
    """

    ip: str
    port: int
    group: str
    is_local: bool


def source_of(sock: socket.socket, address: Any) -> Source:
    """Tell where an accepted connection comes from.

    Args:
        sock: The connection.
        address: What `accept` said of its other end.

    Raises:
        OSError: It is gone already.
    """
    if sock.family == socket.AF_UNIX:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        process, user, _ = _UCRED.unpack(found)
        name = f"unix:{user}"
        return Source(name, process, name, is_local=True)
    ip, port = str(address[0]), int(address[1])
    if sock.family == socket.AF_INET:
        return Source(ip, port, ip, is_local=ip.startswith("127."))
    parsed = ipaddress.IPv6Address(ip)
    if parsed.is_loopback:
        return Source(ip, port, ip, is_local=True)
    return Source(ip, port, parsed.packed[:_NETWORK_BYTES].hex(), is_local=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceBounds:
    """How many there may be; a connection that still shakes hands is one as well."""

    connections_max: int = CONNECTIONS_MAX
    per_source_max: int = CONNECTIONS_PER_SOURCE_MAX
    per_local_source_max: int = CONNECTIONS_PER_LOCAL_SOURCE_MAX
    handshakes_max: int = HANDSHAKES_MAX
    handshakes_per_source_max: int = HANDSHAKES_PER_SOURCE_MAX
    handshakes_per_local_source_max: int = HANDSHAKES_PER_LOCAL_SOURCE_MAX


@final
class Refusals:
    """What was refused, for the metrics and the log."""

    __slots__ = ("_fresh", "_last", "counts")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Refusal, 0)
        # Since the last line of the log, and who was the last of them.
        self._fresh: Counter[Refusal] = Counter()
        self._last = ""

    def add(self, refusal: Refusal, source: Source) -> None:
        """Count one."""
        self.counts[refusal] += 1
        self._fresh[refusal] += 1
        self._last = source.ip

    def second(self) -> None:
        """Take note that a second has passed: tell the log what was refused in it."""
        if not self._fresh:
            return
        _log.warning(
            "connections refused: there are too many",
            refused=self._fresh.total(),
            bounds=sorted(refusal.value for refusal in self._fresh),
            remote=self._last,
        )
        self._fresh.clear()


@final
class Places:
    """The places of some listeners."""

    __slots__ = ("_bounds", "_count", "_handshake_count", "_handshakes", "_held", "_refusals")

    def __init__(self, bounds: PlaceBounds, refusals: Refusals) -> None:
        self._bounds = bounds
        self._refusals = refusals
        self._count = 0
        self._handshake_count = 0
        # By group; who has none is not in it.
        self._held: dict[str, int] = {}
        self._handshakes: dict[str, int] = {}

    def take(self, source: Source) -> bool:
        """Take a place for a connection that begins; return whether there was one."""
        refusal = self._refusal(source)
        if refusal is not None:
            self._refusals.add(refusal, source)
            return False
        group = source.group
        self._count += 1
        self._handshake_count += 1
        self._held[group] = self._held.get(group, 0) + 1
        self._handshakes[group] = self._handshakes.get(group, 0) + 1
        return True

    def settle(self, source: Source) -> None:
        """Take note that it does not shake hands any more."""
        self._handshake_count -= 1
        _take_one(self._handshakes, source.group)

    def leave(self, source: Source) -> None:
        """Give the place back."""
        self._count -= 1
        _take_one(self._held, source.group)

    def _refusal(self, source: Source) -> Refusal | None:
        bounds, group = self._bounds, source.group
        held_max, handshakes_max = bounds.per_source_max, bounds.handshakes_per_source_max
        if source.is_local:
            held_max = bounds.per_local_source_max
            handshakes_max = bounds.handshakes_per_local_source_max
        if self._count >= bounds.connections_max:
            return Refusal.CONNECTIONS
        if self._held.get(group, 0) >= held_max:
            return Refusal.CONNECTIONS_OF_SOURCE
        if self._handshake_count >= bounds.handshakes_max:
            return Refusal.HANDSHAKES
        if self._handshakes.get(group, 0) >= handshakes_max:
            return Refusal.HANDSHAKES_OF_SOURCE
        return None


def _take_one(counts: dict[str, int], group: str) -> None:
    left = counts[group] - 1
    if left:
        counts[group] = left
    else:
        del counts[group]

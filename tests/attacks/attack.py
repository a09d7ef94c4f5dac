"""What an attack is, and what came of one.

    Attack       one by its public name: what it does, and what is expected to stop it
    Fight        what it did to the member and to others
    Ground       the member it goes against
    Struck       what one attempt met with

Owns: the words that attacks and their measurement share.
Never: attacks or measures; it knows what is a complaint, and nothing of times: machines differ.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from wire.socket_peer import SocketPeer, client_tls

__all__ = ["Attack", "Fight", "Ground", "Struck"]

# What one attempt met with, in words: "GOAWAY ENHANCE_YOUR_CALM", "status 8", "served", "held".
Struck = Counter[str]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The member that is attacked, and how long.

    Attributes:
        port: On loopback.
        authority: Whom the member's certificate is from.
        token: Of a user that may read what is large.
        until_s: When to stop, monotonic; an attempt that holds something holds it until then.
    """

    port: int
    authority: Path
    token: str
    until_s: float

    def peer(self, *, receive_bytes: int | None = None, alpn: str = "h2") -> SocketPeer:
        """Connect."""
        tls = client_tls(self.authority, alpn=(alpn,))
        return SocketPeer(self.port, tls, receive_bytes=receive_bytes)

    @property
    def left_s(self) -> float:
        """How long it goes on, in seconds."""
        return max(0.0, self.until_s - time.monotonic())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        name: As it is known in public.
        identity: Its name in a test's.
        what: What the attacker does, in a sentence.
        bound: What stops it, in a sentence.
        strike: Makes one attempt, and says what it met with.
        met: Everything that an attempt may meet with.
        attackers: How many attempts are made at the same time.
        strikes_max: How many attempts each attacker makes at most.
        grown_bytes_max: How much larger the member may become meanwhile.
    """

    name: str
    identity: str
    what: str
    bound: str
    strike: Callable[[Ground], Struck]
    met: frozenset[str]
    attackers: int = 2
    strikes_max: int = 1_000
    grown_bytes_max: int = 120_000_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fight:
    """One attack, measured.

    Attributes:
        met: What the attempts met with, and how many of each.
        requests: How many requests the good client made meanwhile.
        failures: What went wrong with any of them.
        p50_ms: How long half of them took at most.
        p99_ms: How long all but one in a hundred took at most.
        memory_before_bytes: The member's resident memory when it began.
        memory_peak_bytes: The most that was seen of it.
    """

    met: dict[str, int]
    requests: int
    failures: list[str]
    p50_ms: float
    p99_ms: float
    memory_before_bytes: int
    memory_peak_bytes: int

    def complaints(self, attack: Attack) -> list[str]:
        """Return what did not go as it should have."""
        found = [f"others: {failure}" for failure in self.failures]
        found += [f"met with {what}" for what in self.met if what not in attack.met]
        if not self.met:
            found.append("nobody attacked")
        grown_bytes = self.memory_peak_bytes - self.memory_before_bytes
        if grown_bytes > attack.grown_bytes_max:
            found.append(f"grown by {grown_bytes} bytes")
        return found

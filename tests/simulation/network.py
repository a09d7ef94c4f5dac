"""A network that does to messages what networks do.

    Weather     how often and how much
    Network     carries bytes from one to another, or does not

Owns: which bytes arrive, when, how often and how whole.
Never: knows what a message means.
Keeps: bytes that were changed on the way are not taken for whole ones (a link has a seal); whoever
    receives them is told.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

from simulation.kernel import MS, Kernel

__all__ = ["Network", "Weather"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What happens to a message; shares are from 0 to 1."""

    delay_us_min: int = 200
    delay_us_max: int = 2 * MS
    # Of how many messages the delay is many times as long, so that others overtake them.
    late: float = 0.0
    late_us_max: int = 300 * MS
    lost: float = 0.0
    doubled: float = 0.0
    damaged: float = 0.0


@final
class Network:
    """Links between all pairs, each way its own."""

    def __init__(
        self, kernel: Kernel, deliver: Callable[[int, int, bytes, bool], None], weather: Weather
    ) -> None:
        """Make links that are whole.

        Args:
            kernel: Time and chance.
            deliver: Called with receiver, sender, bytes and whether they are as they were sent.
            weather: What happens to messages from now on.
        """
        self.weather = weather
        self.counts: Counter[str] = Counter()
        self._kernel = kernel
        self._deliver = deliver
        self._cut: set[tuple[int, int]] = set()
        # Whether what is on its way when a link is cut is lost with it, or still arrives.
        self._loses_all = True

    def send(self, sender: int, receiver: int, content: bytes) -> None:
        """Carry bytes, perhaps."""
        chance, weather = self._kernel.chance, self.weather
        if (sender, receiver) in self._cut:
            self.counts["cut off"] += 1
            return
        draw = chance.random()
        if draw < weather.lost:
            self.counts["lost"] += 1
            return
        if draw < weather.lost + weather.doubled:
            self.counts["doubled"] += 1
            self._carry(sender, receiver, content, is_whole=True)
        if weather.damaged and chance.random() < weather.damaged:
            self.counts["damaged"] += 1
            content = self._damage(content)
            self._carry(sender, receiver, content, is_whole=False)
            return
        self._carry(sender, receiver, content, is_whole=True)

    def cut(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """Let nothing through from any of some to any of others; the way back stays."""
        self._loses_all = self._kernel.chance.random() < 0.5
        receivers = tuple(receivers)
        self._cut |= {(one, other) for one in senders for other in receivers if one != other}

    def heal(self) -> None:
        """Let everything through again."""
        self._cut.clear()

    def _carry(self, sender: int, receiver: int, content: bytes, *, is_whole: bool) -> None:
        kernel, weather = self._kernel, self.weather
        chance = kernel.chance
        spread = weather.delay_us_max - weather.delay_us_min
        delay_us = weather.delay_us_min + int(chance.random() * spread)
        if weather.late and chance.random() < weather.late:
            self.counts["late"] += 1
            delay_us += int(chance.random() * weather.late_us_max)
        kernel.after(delay_us, self._arrive, sender, receiver, content, is_whole)

    def _arrive(self, sender: int, receiver: int, content: bytes, is_whole: bool) -> None:  # noqa: FBT001 - the kernel calls by position
        if self._loses_all and (sender, receiver) in self._cut:
            self.counts["cut off"] += 1
            return
        self._deliver(receiver, sender, content, is_whole)

    def _damage(self, content: bytes) -> bytes:
        chance = self._kernel.chance
        if not content or chance.random() < 0.3:
            return content[: chance.randrange(len(content) + 1)]
        changed = bytearray(content)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

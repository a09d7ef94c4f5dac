"""Virtual time: what happens next, and all chance there is.

Owns: the order of events and the one source of chance. A seed decides both.
Never: looks at a real clock, or runs two things at once.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any, Final, final

__all__ = ["MS", "SECOND", "Clock", "Kernel", "Timer", "TooManySteps"]

# Virtual time is counted in microseconds.
MS: Final = 1_000
SECOND: Final = 1_000_000
# A run takes some ten thousand.
_STEPS_MAX: Final = 200_000


class TooManySteps(AssertionError):
    """Events make more and more events."""


@final
class Timer:
    """Something that will happen, unless it is called off."""

    __slots__ = ("action", "arguments")

    def __init__(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.action: Callable[..., None] | None = action
        self.arguments = arguments

    def call_off(self) -> None:
        """Let it not happen."""
        self.action = None
        self.arguments = ()


@final
class Kernel:
    """A queue of events by virtual time."""

    def __init__(self, seed: int) -> None:
        self.now_us = 0
        self.steps = 0
        self.chance = random.Random(seed)
        self._queue: list[tuple[int, int, Timer]] = []
        self._count = 0

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> Timer:
        """Let something happen in a while; what is due at one time happens in order of calls."""
        timer = Timer(action, arguments)
        self._count += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._count, timer))
        return timer

    def run(self, until_us: int) -> None:
        """Let events happen until a time.

        Raises:
            TooManySteps: They do not come to an end.
        """
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_us:
            self.now_us, _, timer = pop(queue)
            if timer.action is None:
                continue
            self.steps += 1
            if self.steps > _STEPS_MAX:
                raise TooManySteps(f"{_STEPS_MAX} steps, and no end of them")
            timer.action(*timer.arguments)
        self.now_us = until_us


@final
class Clock:
    """A clock that is fast or slow."""

    __slots__ = ("_kernel", "_since_us", "_then_us", "rate")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.rate = 1.0
        self._since_us = kernel.now_us
        self._then_us = 0.0

    def now_us(self) -> float:
        """Return what it shows."""
        return self._then_us + (self._kernel.now_us - self._since_us) * self.rate

    def go(self, rate: float) -> None:
        """Be as fast as this from now on."""
        self._then_us = self.now_us()
        self._since_us = self._kernel.now_us
        self.rate = rate

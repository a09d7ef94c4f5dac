"""Timers of the event loop that end together.

Owns: what is due later, once or again and again, until all is stopped.
Never: knows what it is.
"""

import asyncio
from collections.abc import Callable
from typing import final

__all__ = ["Timers"]


@final
class Timers:
    """What is due later."""

    __slots__ = ("_is_stopped", "_timers")

    def __init__(self) -> None:
        self._timers: list[asyncio.TimerHandle] = []
        self._is_stopped = False

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something after so many seconds, unless all is stopped before."""
        if self._is_stopped:
            return
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if timer.when() > loop.time()]
        self._timers.append(loop.call_later(delay_s, act))

    def every(self, period_s: float, act: Callable[[], None]) -> None:
        """Do something again and again."""

        def again() -> None:
            act()
            self.later(period_s, again)

        self.later(period_s, again)

    def stop(self) -> None:
        """Do nothing any more."""
        self._is_stopped = True
        for timer in self._timers:
            timer.cancel()

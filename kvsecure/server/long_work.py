"""Long work: what is cut into steps of a few milliseconds, and waits while others have their turn.

Owns: the order of the steps: one of them in each turn of the event loop, first come, first served.
Never: knows what a step does.
Keeps: however much long work there is, what else comes waits for one step of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import final

__all__ = ["LongWork"]


@final
class LongWork:
    """The steps that wait."""

    __slots__ = ("_loop", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with none."""
        self._loop = loop
        self._steps: deque[Callable[[], None]] = deque()

    def add(self, step: Callable[[], None]) -> None:
        """Run a step once those before it have been run; one that needs another adds it."""
        if not self._steps:
            self._loop.call_soon(self._run)
        self._steps.append(step)

    def _run(self) -> None:
        step = self._steps[0]
        try:
            step()
        finally:
            # Until now it was there: what it has added did not ask for a turn.
            self._steps.popleft()
            if self._steps:
                self._loop.call_soon(self._run)

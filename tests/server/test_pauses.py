"""The gauge of the event loop's pauses, on a loop whose time is turned by hand."""

import asyncio
from collections.abc import Callable
from typing import cast, final

from kvsecure.server.pauses import PERIOD_S, note_pauses


@final
class _Loop:
    """A loop with one timer."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.due_s = 0.0
        self.act: Callable[[], None] = lambda: None

    def time(self) -> float:
        """Return its time."""
        return self.now_s

    def call_at(self, when_s: float, act: Callable[[], None]) -> None:
        """Take the timer."""
        self.due_s, self.act = when_s, act

    def come_back_after(self, away_s: float) -> None:
        """Be away from events for so long, and go on."""
        self.now_s += away_s
        if self.now_s >= self.due_s:
            self.act()


def test_pause_is_noted_as_at_most_a_period_too_short() -> None:
    """What the loop was away is told to within the period, and what comes in time is nothing."""
    loop, noted = _Loop(), list[float]()
    note_pauses(cast("asyncio.AbstractEventLoop", loop), noted.append)

    for away_s in (PERIOD_S, PERIOD_S / 2, 0.25, PERIOD_S, 1.0):
        loop.come_back_after(away_s)

    assert len(noted) == 4
    assert max(noted[0], noted[2]) < 1e-9
    assert 0.25 - PERIOD_S - 1e-9 <= noted[1] <= 0.25
    assert 1.0 - PERIOD_S - 1e-9 <= noted[3] <= 1.0

"""Pauses: how long the event loop was away from its events, for operators to see.

Owns: a timer, and noting how late it came.
Never: knows what took so long; it costs a few microseconds, a hundred times a second.
Keeps: a pause that is longer than the period is noted, as at most one period shorter than it was.
"""

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["PERIOD_S", "note_pauses"]

PERIOD_S: Final = 0.01


def note_pauses(loop: asyncio.AbstractEventLoop, observe: Callable[[float], None]) -> None:
    """Measure from now on, as long as the loop runs.

    Args:
        loop: What is measured.
        observe: Told once in a period by how many seconds the timer was late.
    """
    due_s = loop.time() + PERIOD_S

    def note() -> None:
        observe(max(0.0, loop.time() - due_s))
        note_pauses(loop, observe)

    loop.call_at(due_s, note)

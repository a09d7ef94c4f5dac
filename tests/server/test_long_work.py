"""Long work on a loop whose turns are taken by hand."""

import asyncio
from collections.abc import Callable
from typing import cast, final

import pytest

from kvsecure.server.long_work import LongWork


@final
class _Loop:
    """A loop that runs what was asked for in its next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, act: Callable[[], None]) -> None:
        """Take what is to be run in the next turn."""
        self.soon.append(act)

    def turn(self) -> None:
        """Take one turn."""
        acts, self.soon = self.soon, []
        for act in acts:
            act()


@pytest.fixture
def loop() -> _Loop:
    """A loop with nothing to do."""
    return _Loop()


def _work_on(loop: _Loop) -> LongWork:
    return LongWork(cast("asyncio.AbstractEventLoop", loop))


def test_each_turn_runs_one_step(loop: _Loop) -> None:
    """However many steps wait, one of them runs in a turn, first come, first served."""
    work, done = _work_on(loop), list[str]()

    def again() -> None:
        done.append("a")
        if len(done) < 4:
            work.add(again)

    work.add(again)
    work.add(lambda: done.append("b"))
    seen = []
    while loop.soon:
        assert len(loop.soon) == 1
        loop.turn()
        seen.append("".join(done))

    assert seen == ["a", "ab", "aba", "abaa"]


def test_step_that_fails_stops_no_other(loop: _Loop) -> None:
    """What goes wrong in one step is that step's failure."""
    work, done = _work_on(loop), list[str]()

    def fail() -> None:
        raise ValueError("broken")

    work.add(fail)
    work.add(lambda: done.append("b"))
    with pytest.raises(ValueError, match="broken"):
        loop.turn()
    loop.turn()

    assert done == ["b"]
    work.add(lambda: done.append("c"))
    loop.turn()
    assert done == ["b", "c"]

"""Slices: long work on the key spaces, compactions for one, done a little at a time.

Owns: when the next slice is run, who waits for the end of the work, and who holds it up.
Never: knows what a slice does; runs one while a command is carried out in part.
"""

from collections.abc import Callable
from typing import Final, final

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.replica import Replica
from kvsecure.core.timers import Timers

__all__ = ["Slicing"]

_PAUSE_S: Final = 0.002


@final
class Slicing:
    """Runs the slices that there are."""

    __slots__ = ("_holds", "_is_running", "_on_damage", "_replica", "_timers", "_waiting")

    def __init__(
        self, replica: Replica, timers: Timers, on_damage: Callable[[DamagedRecord], None]
    ) -> None:
        self._replica = replica
        self._timers = timers
        self._on_damage = on_damage
        self._is_running = False
        self._waiting: list[Callable[[], None]] = []
        # One for each who wants the index and the tables to go on saying the same.
        self._holds: set[object] = set()

    def begin(self) -> None:
        """Run slices from now on, if there are any."""
        if self._replica.state.store.slices and not self._is_running:
            self._is_running = True
            self._timers.later(_PAUSE_S, self._run)

    def when_done(self, resume: Callable[[], None]) -> None:
        """Call back once the long work that is due now has been done."""
        if self._replica.state.store.slices:
            self._waiting.append(resume)
        else:
            resume()

    def hold(self) -> Callable[[], None]:
        """Let long work wait until what is returned is called; more calls change nothing."""
        mark = object()
        self._holds.add(mark)

        def release() -> None:
            self._holds.discard(mark)

        return release

    def _run(self) -> None:
        if self._holds or self._replica.is_between:
            self._timers.later(_PAUSE_S, self._run)
            return
        try:
            is_more = self._replica.state.store.run_slice()
        except DamagedRecord as error:
            self._on_damage(error)
            return
        if is_more:
            self._timers.later(_PAUSE_S, self._run)
            return
        self._is_running = False
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

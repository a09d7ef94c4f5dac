"""Clocks of Python processes that go wrong.

    Clock             a process's time of day, ahead, behind, and jumping while it runs
      at_pace(rate)   the same with monotonic time that is faster or slower from the start on
    library()         libfaketime, or None: apt's package `faketime` is not installed

Owns: what a process is started with so that its clocks may be turned.
Never: turns the clock of the machine, or of the tests.
Keeps: a jump is of the time of day alone; monotonic time goes on, as the kernel promises.
    libfaketime cannot turn the latter, nor sleep until a time: with it `time.sleep` never ends, or
    fails if the time is past. So that is Python's own, which is turned as the process starts; what
    the loop waits for is still waited for at our pace.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import kvsecure

__all__ = ["NEEDED", "Clock", "library"]

NEEDED: Final = "libfaketime, of apt's package faketime, is not installed"
# The one for programs with threads.
_LIBRARIES: Final = "*/faketime/libfaketimeMT.so.1"
# Python imports this before anything else.
_SLEEP: Final = """
import select, time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
_TURN: Final = """
def _turned(clock, rate):
    begun = clock()
    return lambda: begun + type(begun)((clock() - begun) * rate)

time.monotonic = _turned(time.monotonic, {rate})
time.monotonic_ns = _turned(time.monotonic_ns, {rate})
"""


@functools.cache
def library() -> Path | None:
    """Return the library that turns clocks, if it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob(_LIBRARIES))), None)


@final
class Clock:
    """The time of day of one process, as far as it is from ours."""

    def __init__(self, directory: Path, ahead_s: float = 0.0) -> None:
        """Make a clock.

        Args:
            directory: Where it is kept; it is made.
            ahead_s: How far it is ahead of ours, in seconds; negative if it is behind.
        """
        directory.mkdir(mode=0o700)
        self._directory = directory
        self._file = directory / "ahead"
        self.set(ahead_s)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is started with that goes by this clock."""
        return self._environment("usual", _SLEEP)

    def at_pace(self, rate: float) -> Mapping[str, str]:
        """Return the same for one whose monotonic time goes at a rate; 1.01 is too fast."""
        return self._environment("turned", _SLEEP + _TURN.format(rate=rate))

    def set(self, ahead_s: float) -> None:
        """Jump, at once, to so many seconds ahead of ours."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{ahead_s:+.3f}\n")
        aside.rename(self._file)

    def _environment(self, name: str, first: str) -> dict[str, str]:
        begins = self._directory / name
        begins.mkdir(exist_ok=True)
        (begins / "sitecustomize.py").write_text(first)
        return {
            "LD_PRELOAD": str(library()),
            "PYTHONPATH": f"{begins}:{Path(kvsecure.__file__).parent.parent}",
            # Times of files stay what they are, and who is killed leaves nothing in /dev/shm.
            "NO_FAKE_STAT": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

"""Clocks of processes that go wrong.

    Clock             a process's time of day, by libfaketime: ahead, behind, jumping as it runs
    pace(rate)        a process's monotonic time, faster or slower from its start on
    library()         libfaketime, or None: apt's package `faketime` is not installed

Owns: what a process is started with so that its clocks may be turned.
Never: turns the clock of the machine, or of the tests.
Keeps: a jump is of the time of day alone; monotonic time goes on, as the kernel promises.
    What only sleeps, and has no deadline of its own, sleeps at our pace: libfaketime's sleeps by
    monotonic time never end with this Python, so that Python's own monotonic clock is turned.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import kvsecure

__all__ = ["NEEDED", "Clock", "library", "pace"]

NEEDED: Final = "libfaketime, of apt's package faketime, is not installed"
# The one for programs with threads.
_LIBRARIES: Final = "*/faketime/libfaketimeMT.so.1"
# Python imports this before anything else.
_TURN: Final = """
import time

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


def pace(directory: Path, rate: float, usual: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment of a Python process whose monotonic time goes at another rate.

    Args:
        directory: Where what it needs is kept.
        rate: 1.01 is a hundredth too fast.
        usual: Its environment otherwise.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "sitecustomize.py").write_text(_TURN.format(rate=rate))
    there = str(Path(kvsecure.__file__).parent.parent)
    return {**usual, "PYTHONPATH": f"{directory}:{there}"}


@final
class Clock:
    """The time of day of one process, as far as it is from ours."""

    def __init__(self, file: Path, ahead_s: float = 0.0) -> None:
        """Make a clock.

        Args:
            file: Where it is kept.
            ahead_s: How far it is ahead of ours, in seconds; negative if it is behind.
        """
        self._file = file
        self.set(ahead_s)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is started with that goes by this clock."""
        return {
            "LD_PRELOAD": str(library()),
            # Times of files stay what they are, and who is killed leaves nothing in /dev/shm.
            "NO_FAKE_STAT": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: float) -> None:
        """Jump, at once, to so many seconds ahead of ours."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{ahead_s:+.3f}\n")
        aside.rename(self._file)

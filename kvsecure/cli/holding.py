"""Holding something until a signal comes, or for as long as a command runs.

Owns: what signals mean meanwhile, and the environment and exit status of a command that is run.
Never: ends without letting go, unless it is killed.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Final

from kvsecure.cli.failures import CommandFailure

__all__ = ["interruptible", "run_while", "until_interrupted"]

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Added to the number of the signal that ended a command, as the shell does it.
_BY_SIGNAL: Final = 128

type_handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let every signal that asks to end be an interrupt, so that what is held is let go."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


def until_interrupted(when_lost: Callable[[Callable[[], None]], None], what: str) -> None:
    """Wait until a signal asks to end.

    Args:
        when_lost: Takes what is to be called if what is held is lost.
        what: Says in words what that is.

    Raises:
        CommandFailure: It was lost first.
    """
    over, lost = threading.Event(), threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    def lose() -> None:
        lost.set()
        over.set()

    with _handled(end):
        when_lost(lose)
        over.wait()
    if lost.is_set():
        raise _lost(what)


def run_while(
    words: Sequence[str],
    more: Mapping[str, str],
    when_lost: Callable[[Callable[[], None]], None],
    what: str,
) -> int:
    """Run a command; signals go to it, and it is asked to end if what is held is lost.

    Args:
        words: The command.
        more: What its environment has besides ours.
        when_lost: Takes what is to be called if what is held is lost.
        what: Says in words what that is.

    Returns:
        Its exit status; of one that a signal has ended, 128 and the signal's number.

    Raises:
        CommandFailure: It cannot be run, or what is held was lost meanwhile.
    """
    try:
        process = subprocess.Popen(words, env={**os.environ, **more})  # noqa: S603 - the user's own command
    except OSError as error:
        raise CommandFailure(f"cannot run {words[0]}: {error.strerror}") from None
    lost = threading.Event()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # A terminal has sent its interrupt to the command as well.
        if number != signal.SIGINT:
            process.send_signal(number)

    def lose() -> None:
        lost.set()
        process.terminate()

    with _handled(pass_on):
        when_lost(lose)
        status = process.wait()
    if lost.is_set():
        raise _lost(what)
    return _BY_SIGNAL - status if status < 0 else status


@contextlib.contextmanager
def _handled(handler: type_handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _lost(what: str) -> CommandFailure:
    return CommandFailure(f"{what} was lost: it may be somebody else's by now")

"""The program on a pseudo-terminal, and somebody who types.

Owns: the terminal, what is on its screen, and the end of the program.
Never: knows what is asked.
"""

import os
import select
import subprocess
import sys
import time
from typing import Final, final

__all__ = ["Terminal"]

_WAIT_S_MAX: Final = 20.0
# A session gets its terminal by asking for it; then the program takes this one's place.
_SIT_DOWN: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@final
class Terminal:
    """The program on a pseudo-terminal of its own, which is also the one it may ask on."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.screen = b""
        self._descriptor, far_end = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SIT_DOWN, sys.executable, "-m", "kvsecure", *arguments],
            stdin=far_end,
            stdout=far_end,
            stderr=far_end,
            env=environment,
            start_new_session=True,
        )
        os.close(far_end)

    def expect(self, text: bytes, *, count: int = 1) -> None:
        """Wait until the text is on the screen so many times."""
        deadline = time.monotonic() + _WAIT_S_MAX
        while self.screen.count(text) < count:
            if not self._read(deadline):
                raise AssertionError(f"no {text!r} in {self.screen!r}")

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, text)

    def end(self) -> int:
        """Wait for the program's end and return its exit status."""
        deadline = time.monotonic() + _WAIT_S_MAX
        while self._read(deadline):
            pass
        return self._process.wait(_WAIT_S_MAX)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        try:
            content = os.read(self._descriptor, 65_536)
        except OSError:
            # The other end of a terminal is gone when its last program is.
            return False
        self.screen += content
        return bool(content)

    def close(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.wait()
        os.close(self._descriptor)

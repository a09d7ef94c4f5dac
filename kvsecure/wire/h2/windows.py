"""Flow control: how much the peer may still send.

Owns: one receive window and when to open it again.
Never: sends; it returns the increment for a WINDOW_UPDATE.
Follows: RFC 9113 section 6.9.
Keeps: 0 <= left <= size.
"""

from typing import Final, final

__all__ = ["OPENING_MAX", "WINDOW_DEFAULT", "WINDOW_MAX", "ReceiveWindow"]

WINDOW_DEFAULT: Final = 65_535
WINDOW_MAX: Final = 2**31 - 1
# By how much a window may be opened ahead, without a look at the stream.
OPENING_MAX: Final = 65_535


@final
class ReceiveWindow:
    """What the peer was promised, and what it has used of that."""

    __slots__ = ("_size", "left")

    def __init__(self, size: int) -> None:
        self._size = size
        self.left = size

    def take(self, length: int) -> bool:
        """Take note of received data; return False if the peer sent more than it was allowed."""
        self.left -= length
        return self.left >= 0

    def reopen(self) -> int:
        """Return by how much to open the window now that its data is dealt with, 0 for not yet.

        Half a window at a time: one update for many frames.
        """
        used = self._size - self.left
        if 2 * used < self._size:
            return 0
        self.left = self._size
        return used

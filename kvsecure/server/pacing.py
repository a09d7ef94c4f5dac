"""Large writes to one connection: a share of them in each turn of the loop.

Owns: what was given to be written and is not with the transport yet, and its order.
Never: looks at it; holds back what is small while nothing waits.
Follows: docs/adr/0017-long-work.md: encrypting tens of megabytes at once takes a tenth of a second.
Keeps: everything leaves in the order in which it came, and the end comes after it.
"""

import asyncio
from collections import deque
from typing import Final, Protocol, final

__all__ = ["SHARE_BYTES", "Pacing", "SetWritable"]

# Two or three milliseconds of encryption.
SHARE_BYTES: Final = 1024 * 1024


class SetWritable(Protocol):
    """What whoever writes is told by."""

    def __call__(self, *, writable: bool) -> None:
        """Take note that more is wanted now, or is not."""
        ...


@final
class Pacing:
    """What one connection has to write."""

    __slots__ = (
        "_is_ending",
        "_is_held",
        "_is_paused",
        "_is_scheduled",
        "_loop",
        "_rest",
        "_set_writable",
        "_transport",
        "rest_bytes",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        set_writable: SetWritable,
    ) -> None:
        """Begin with nothing.

        Args:
            transport: What takes the bytes.
            loop: Gives the turns.
            set_writable: Told when more is not wanted, and when it is again.
        """
        self._transport = transport
        self._loop = loop
        self._set_writable: SetWritable = set_writable
        self._rest: deque[memoryview] = deque()
        # How much waits here.
        self.rest_bytes = 0
        # Whether the transport has enough, and whether whoever writes was told so.
        self._is_paused = False
        self._is_held = False
        self._is_scheduled = False
        self._is_ending = False

    def write(self, data: bytes) -> None:
        """Write, at once or a share at a time, while the transport is open."""
        if not self._rest and len(data) <= SHARE_BYTES:
            self._transport.write(data)
            return
        self._rest.append(memoryview(data))
        self.rest_bytes += len(data)
        self._hold()
        self._go_on()

    def end(self) -> None:
        """Close the connection after what was written."""
        self._is_ending = True
        if not self._rest:
            self._transport.close()

    def pause(self) -> None:
        """Take note that the transport has enough."""
        self._is_paused = True
        self._hold()

    def resume(self) -> None:
        """Take note that the transport takes more."""
        self._is_paused = False
        self._go_on()
        self._release()

    def lost(self) -> None:
        """Forget what is left, and whoever wrote it: the connection is gone."""
        self._rest.clear()
        self.rest_bytes = 0
        # It knows this: a circle, which would stay until it is collected.
        self._set_writable = _tell_nobody

    def _go_on(self) -> None:
        if self._rest and not self._is_paused and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._write_share)

    def _write_share(self) -> None:
        self._is_scheduled = False
        if self._transport.is_closing():
            self.lost()
            return
        left_bytes = SHARE_BYTES
        while self._rest and left_bytes and not self._is_paused:
            first = self._rest.popleft()
            if len(first) > left_bytes:
                self._rest.appendleft(first[left_bytes:])
                first = first[:left_bytes]
            left_bytes -= len(first)
            self.rest_bytes -= len(first)
            self._transport.write(first)
        self._go_on()
        if not self._rest and self._is_ending:
            self._transport.close()
            return
        self._release()

    def _hold(self) -> None:
        if not self._is_held:
            self._is_held = True
            self._set_writable(writable=False)

    def _release(self) -> None:
        if self._is_held and not self._is_paused and not self._rest:
            self._is_held = False
            self._set_writable(writable=True)


def _tell_nobody(**_: bool) -> None:
    """Stand in for whoever is gone."""

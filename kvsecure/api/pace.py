"""How fast a stream may be filled: as fast as its reader takes it.

Owns: waiting until there is room, and whether anybody still listens.
Never: knows what is sent.
"""

import asyncio
from typing import final

from kvsecure.api.services import StreamCall

__all__ = ["Pace"]


@final
class Pace:
    """The pace of one stream; its receiver passes on what it is told."""

    __slots__ = ("_call", "_closed", "_room")

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._closed = False
        # Set whenever there may be room again, or nobody listens any more.
        self._room = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether nobody listens any more."""
        return self._closed

    def drained(self) -> None:
        """Take note that what was queued has been sent."""
        self._room.set()

    def closed(self) -> None:
        """Take note that nobody listens any more."""
        self._closed = True
        self._room.set()

    async def has_room(self, idle_s_max: float | None = None) -> bool:
        """Wait until the reader has room; tell whether it is still there.

        Args:
            idle_s_max: For how long it may take nothing.

        Raises:
            TimeoutError: It has taken nothing for longer.
        """
        while not self._closed and self._call.is_full:
            self._room.clear()
            await asyncio.wait_for(self._room.wait(), idle_s_max)
        return not self._closed

"""Tasks: what a member does besides answering, and what it means when a part of it fails.

Owns: starting tasks within the member's group, and ending the member for those it cannot be
    without.
Never: lets a failure pass in silence.
Keeps: what keeps others safe never stops while the member goes on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, final

from kvsecure.model.errors import Broken
from kvsecure.telemetry.log import log

__all__ = ["Tasks"]

_log = log("server")


@final
class Tasks:
    """The tasks of a member."""

    __slots__ = ("_end", "_group", "_running")

    def __init__(self, group: asyncio.TaskGroup, end: Callable[[str], None]) -> None:
        """Start with none.

        Args:
            group: What they belong to.
            end: Ends the member; told why.
        """
        self._group = group
        self._end = end
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start what serves one request or connection."""
        self._start(self._guarded(work))

    def spawn_vital(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start what the member must not be without: when it ends, so does the member.

        Args:
            name: What it is, for the log.
            work: It goes on until it is cancelled.
        """
        self._start(self._vital(name, work))

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in self._running:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a mistake of ours cost one request or connection, and no more."""
        try:
            await work
        except Broken as error:
            self._end(f"an invariant does not hold: {error}")
        except Exception:  # noqa: BLE001 - the outermost frame of a task; it is logged
            _log.exception("a task failed")

    async def _vital(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the outermost frame of a task; it is logged
            _log.exception("a task failed that the member cannot be without", task=name)
            self._end(f"{name} failed: {type(error).__name__}")
        else:
            self._end(f"{name} ended")

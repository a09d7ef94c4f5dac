"""Threads that do the same until they are told to stop.

Owns: starting and joining them.
Never: swallows what a thread raises: pytest tells of it.
"""

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

__all__ = ["Crew"]


class Crew:
    """A thread for each of some arguments, from entering to leaving."""

    def __init__(self, work: Callable[..., None], each: Iterable[tuple[Any, ...]]) -> None:
        """Prepare; nobody works yet.

        Args:
            work: What a thread does; it ends soon after `stop` is set.
            each: The arguments of each thread.
        """
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=work, args=arguments) for arguments in each]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

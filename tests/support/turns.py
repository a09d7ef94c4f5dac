"""A turn that ends when a test says so.

Owns: what waits for its end.
Never: decides when that is.
"""

from collections.abc import Callable
from typing import Any, final

from kvsecure.model.errors import Refused

__all__ = ["HeldTurn"]


@final
class HeldTurn:
    """A turn that ends when it is told to."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, bytes | None, Refused | None]] = []
        self.later: list[Callable[[], None]] = []

    def schedule(self) -> None:
        """It ends when it is told to, and not before."""

    def answer(self, to: Any, message: bytes | None, refused: Refused | None) -> None:
        """Let an answer wait for the end."""
        self.answers.append((to, message, refused))

    def at_end(self, produce: Callable[[], None]) -> None:
        """Let something else wait for it."""
        self.later.append(produce)

    def end(self) -> None:
        """Hand out what waits, until nothing does."""
        while self.answers or self.later:
            answers, self.answers = self.answers, []
            later, self.later = self.later, []
            for produce in later:
                produce()
            for to, message, refused in answers:
                to.deliver(message, refused)

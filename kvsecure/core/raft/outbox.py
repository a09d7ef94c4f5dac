"""Messages on their way out, of which some wait for the disk.

Owns: which messages may be sent now, and which only when the term and vote are durable.
Never: makes a message.
Follows: Raft figure 2: what must be stable is so before a member responds.
"""

from typing import final

from kvsecure.core.raft.messages import Message
from kvsecure.model.ids import Term

__all__ = ["Outbox"]


@final
class Outbox:
    """Messages in the order in which they were made."""

    __slots__ = ("_held", "_ready")

    def __init__(self) -> None:
        self._ready: list[Message] = []
        self._held: list[Message] = []

    def send(self, message: Message) -> None:
        """Take a message that depends on nothing."""
        self._ready.append(message)

    def hold(self, message: Message) -> None:
        """Take a message that depends on the term and the vote being durable."""
        self._held.append(message)

    def release(self, term: Term) -> None:
        """Let go what was held for a term that is durable now; what was of another is void."""
        if self._held:
            self._ready += [message for message in self._held if message.term == term]
            self._held = []

    def take(self) -> list[Message]:
        """Return what may be sent now, once."""
        if not self._ready:
            return []
        ready, self._ready = self._ready, []
        return ready

"""A client's end of one stream, as far as all of them are alike: who it is, and how it ended.

Owns: the end.
Never: takes messages.
"""

from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.security.session import Peer

__all__ = ["ClientEnd"]


class ClientEnd:
    """The end of a client that asks over one connection, with one token."""

    def __init__(self, peer: Peer, token: bytes = b"") -> None:
        self.peer = peer
        self.token = token
        self.ended: Refused | None = None
        self.is_over = False
        self.receiver: Receiver

    def finish(self, refused: Refused | None = None) -> None:
        """Take the end."""
        self.is_over, self.ended = True, refused
        self.receiver.closed()

    def succeed(self, answer: Answer) -> None:
        """Fail: a stream has no single answer."""
        raise AssertionError(answer)

    def fail(self, refused: Refused) -> None:
        """Take a refusal as the end."""
        self.finish(refused)

"""What the calls of locks and elections share.

Owns: an answer that is a header alone, and the bound on what a queue's transaction may hold.
Never: decides.
"""

from typing import final

from google.protobuf.message import Message

from kvsecure.api.services import Services
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.security.asking import Asking

__all__ = ["WithoutBody", "check_size"]


@final
class WithoutBody:
    """Asks for somebody who is told no more than that it was done."""

    __slots__ = ("_asking", "peer", "token")

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self.peer = asking.peer
        self.token = asking.token

    def succeed(self, answer: Answer) -> None:
        """Answer with the header alone."""
        self._asking.succeed(Answer(answer.revision, b""))

    def fail(self, refused: Refused) -> None:
        """Pass the refusal on."""
        self._asking.fail(refused)


def check_size(services: Services, command: Message) -> None:
    """Check what a request comes to.

    Raises:
        Refused: It is larger than a request may be.
    """
    if command.ByteSize() > services.request_bytes_max:
        raise Refused(Failure.REQUEST_TOO_LARGE)

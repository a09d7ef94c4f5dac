"""Asking: one request, as far as the gate needs to know it.

Owns: the protocol alone.
Never: a transport; `server` implements it over HTTP/2 and JSON.
"""

from typing import Protocol

from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.security.session import Peer

__all__ = ["Asking"]


class Asking(Protocol):
    """One request, as far as the gate needs to know it."""

    peer: Peer
    token: bytes

    def succeed(self, answer: Answer) -> None:
        """Answer; called once, unless `fail` is."""
        ...

    def fail(self, refused: Refused) -> None:
        """Refuse; called once, unless `succeed` is."""
        ...

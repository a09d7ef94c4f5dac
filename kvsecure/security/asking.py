"""Asking: one request, as far as the gate needs to know it.

Owns: the protocol alone.
Never: a transport; `server` implements it over HTTP/2 and JSON.
"""

from collections.abc import Callable
from typing import Protocol

from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Refused
from kvsecure.security.session import Peer

__all__ = ["Asking", "Awaiting", "PatientAsking"]


class Awaiting(Protocol):
    """Whoever waits for what becomes of a command."""

    def succeed(self, answer: Answer) -> None:
        """Answer; called once, unless `fail` is."""
        ...

    def fail(self, refused: Refused) -> None:
        """Refuse; called once, unless `succeed` is."""
        ...


class Asking(Awaiting, Protocol):
    """One request, as far as the gate needs to know it."""

    peer: Peer
    token: bytes


class PatientAsking(Asking, Protocol):
    """A request whose answer may be long in coming."""

    def when_gone(self, act: Callable[[Code], None]) -> None:
        """Have this called once if the request ends before it is answered, with how it ended.

        It was taken back, its deadline has passed, its connection is lost, or the member stops.
        """
        ...

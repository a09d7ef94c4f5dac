"""Two members that are asked the same question; or one, where the other would not survive it.

Owns: the clients of all, by user, and their answers to one call.
Never: decides whether two answers agree.
"""

from typing import Any, Final, NamedTuple, final

import grpc
from support.rpc import Client, Refusal, refusal_of
from support.servers import ROOT_PASSWORD, Member

__all__ = ["NOBODY", "Answer", "Pair"]

# The user of calls that carry no token.
NOBODY: Final = ""


@final
class Answer(NamedTuple):
    """What one call came to, on one member."""

    message: Any
    refusal: Refusal | None


@final
class Pair:
    """Etcd and the server under test, in this order; or the server under test alone."""

    def __init__(self, *members: Member) -> None:
        self.members = members
        self._passwords = {"root": ROOT_PASSWORD}
        self._clients: dict[str, list[Client]] = {}

    @property
    def subject(self) -> Member:
        """The server under test."""
        return self.members[-1]

    def add_password(self, user: str, password: str) -> None:
        """Log this user in with this password from now on."""
        self._passwords[user] = password

    def clients(self, user: str = "root") -> list[Client]:
        """Return a client of each member that acts as the user."""
        if user not in self._clients:
            self._clients[user] = [
                member.anonymous() if user == NOBODY else member.client(user, self._passwords[user])
                for member in self.members
            ]
        return self._clients[user]

    def ask(self, name: str, request: Any, user: str = "root") -> list[Answer]:
        """Make the same call on each member and return what came of it.

        Args:
            name: Service and method, like `kv.Put`.
            request: The message.
            user: Who asks.
        """
        return [self.answer(client, name, request) for client in self.clients(user)]

    def do(self, name: str, request: Any, user: str = "root") -> list[Any]:
        """Make a call that every member must accept and return the messages.

        Raises:
            grpc.RpcError: One of them refused.
        """
        return [client.call(name, request) for client in self.clients(user)]

    @staticmethod
    def answer(client: Client, name: str, request: Any) -> Answer:
        """Make one call of one client and return what came of it."""
        try:
            return Answer(client.call(name, request), None)
        except grpc.RpcError as error:
            return Answer(None, refusal_of(error))

    def close(self) -> None:
        """Close every client."""
        for clients in self._clients.values():
            for client in clients:
                client.close()

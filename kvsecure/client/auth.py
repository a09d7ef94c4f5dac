"""Whether the service authenticates, and the log-in that gives a token.

Owns: the switch, its state, and tokens as a person handles them.
Never: keeps a token; that is the session's.
"""

from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.session import token_expiry_s
from kvsecure.client.values import Header
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2

__all__ = ["Auth", "AuthStatus", "Token"]

_SERVICE: Final = "/etcdserverpb.Auth"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuthStatus:
    """The state of authentication.

    Attributes:
        header: Who answered when.
        enabled: Whether it is on.
        auth_revision: How often users, roles and permissions have changed.
    """

    header: Header
    enabled: bool
    auth_revision: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The result of a log-in.

    Attributes:
        token: To be sent with each call.
        expiry_s: When it ends, in seconds of Unix time; 0 when it does not say.
    """

    token: Secret
    expiry_s: int


@final
class Auth:
    """Authentication. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enable(self) -> None:
        """Turn authentication on; user root must exist and have role root."""
        self._connection.call(
            f"{_SERVICE}/AuthEnable", auth_pb2.AuthEnableRequest(), auth_pb2.AuthEnableResponse
        )

    def disable(self) -> None:
        """Turn authentication off: from then on anybody who can connect may do anything."""
        self._connection.call(
            f"{_SERVICE}/AuthDisable", auth_pb2.AuthDisableRequest(), auth_pb2.AuthDisableResponse
        )

    def status(self) -> AuthStatus:
        """Return whether authentication is on; needs no log-in."""
        answer = self._connection.call(
            f"{_SERVICE}/AuthStatus", auth_pb2.AuthStatusRequest(), auth_pb2.AuthStatusResponse
        )
        return AuthStatus(
            header=Header.of(answer.header),
            enabled=answer.enabled,
            auth_revision=answer.authRevision,
        )

    def log_in(self, name: str, password: Secret) -> Token:
        """Exchange a password for a token; the client itself goes on as it was.

        Args:
            name: The user; `tenant/user` in a named tenant.
            password: The password.
        """
        token = self._connection.log_in(name, password)
        return Token(token=token, expiry_s=token_expiry_s(token))

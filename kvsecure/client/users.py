"""The users of the service.

Owns: adding, changing and removing users, and the roles they have.
Never: a password that is not a `Secret`.
"""

from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2, authstore_pb2

__all__ = ["Users"]

_SERVICE: Final = "/etcdserverpb.Auth"


@final
class Users:
    """Users. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, name: str, password: Secret | None) -> None:
        """Add a user.

        Args:
            name: The name.
            password: The password; None for a user who logs in by certificate alone.
        """
        self._connection.call(
            f"{_SERVICE}/UserAdd",
            auth_pb2.AuthUserAddRequest(
                name=name,
                password="" if password is None else password.reveal_text(),
                options=authstore_pb2.UserAddOptions(no_password=password is None),
            ),
            auth_pb2.AuthUserAddResponse,
        )

    def delete(self, name: str) -> None:
        """Delete a user."""
        self._connection.call(
            f"{_SERVICE}/UserDelete",
            auth_pb2.AuthUserDeleteRequest(name=name),
            auth_pb2.AuthUserDeleteResponse,
        )

    def roles_of(self, name: str) -> tuple[str, ...]:
        """Return the roles a user has."""
        answer = self._connection.call(
            f"{_SERVICE}/UserGet",
            auth_pb2.AuthUserGetRequest(name=name),
            auth_pb2.AuthUserGetResponse,
        )
        return tuple(answer.roles)

    def list(self) -> tuple[str, ...]:
        """Return the names of all users."""
        answer = self._connection.call(
            f"{_SERVICE}/UserList", auth_pb2.AuthUserListRequest(), auth_pb2.AuthUserListResponse
        )
        return tuple(answer.users)

    def change_password(self, name: str, password: Secret) -> None:
        """Give a user a new password; their tokens end."""
        self._connection.call(
            f"{_SERVICE}/UserChangePassword",
            auth_pb2.AuthUserChangePasswordRequest(name=name, password=password.reveal_text()),
            auth_pb2.AuthUserChangePasswordResponse,
        )

    def grant_role(self, name: str, role: str) -> None:
        """Give a user a role."""
        self._connection.call(
            f"{_SERVICE}/UserGrantRole",
            auth_pb2.AuthUserGrantRoleRequest(user=name, role=role),
            auth_pb2.AuthUserGrantRoleResponse,
        )

    def revoke_role(self, name: str, role: str) -> None:
        """Take a role from a user."""
        self._connection.call(
            f"{_SERVICE}/UserRevokeRole",
            auth_pb2.AuthUserRevokeRoleRequest(name=name, role=role),
            auth_pb2.AuthUserRevokeRoleResponse,
        )

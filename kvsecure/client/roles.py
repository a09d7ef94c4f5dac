"""The roles of the service and what they permit.

Owns: adding and removing roles, and their permissions on ranges of keys.
Never: decides; the service does.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.keys import Keys
from kvsecure.proto import auth_pb2, authstore_pb2

__all__ = ["Permission", "Right", "Roles"]

_SERVICE: Final = "/etcdserverpb.Auth"


class Right(Enum):
    """What may be done with the keys of a permission."""

    READ = "READ"
    WRITE = "WRITE"
    READWRITE = "READWRITE"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """A right on some keys."""

    right: Right
    keys: Keys


@final
class Roles:
    """Roles. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, name: str) -> None:
        """Add a role that permits nothing yet."""
        self._connection.call(
            f"{_SERVICE}/RoleAdd",
            auth_pb2.AuthRoleAddRequest(name=name),
            auth_pb2.AuthRoleAddResponse,
        )

    def delete(self, name: str) -> None:
        """Delete a role and take it from all users."""
        self._connection.call(
            f"{_SERVICE}/RoleDelete",
            auth_pb2.AuthRoleDeleteRequest(role=name),
            auth_pb2.AuthRoleDeleteResponse,
        )

    def permissions_of(self, name: str) -> tuple[Permission, ...]:
        """Return what a role permits."""
        answer = self._connection.call(
            f"{_SERVICE}/RoleGet",
            auth_pb2.AuthRoleGetRequest(role=name),
            auth_pb2.AuthRoleGetResponse,
        )
        return tuple(
            Permission(
                right=Right(authstore_pb2.Permission.Type.Name(found.permType)),
                keys=Keys(found.key, found.range_end),
            )
            for found in answer.perm
        )

    def list(self) -> tuple[str, ...]:
        """Return the names of all roles."""
        answer = self._connection.call(
            f"{_SERVICE}/RoleList", auth_pb2.AuthRoleListRequest(), auth_pb2.AuthRoleListResponse
        )
        return tuple(answer.roles)

    def grant(self, name: str, permission: Permission) -> None:
        """Let a role do something; a right it has on the same keys is replaced."""
        self._connection.call(
            f"{_SERVICE}/RoleGrantPermission",
            auth_pb2.AuthRoleGrantPermissionRequest(
                name=name,
                perm=authstore_pb2.Permission(
                    permType=permission.right.value,
                    key=permission.keys.key,
                    range_end=permission.keys.range_end,
                ),
            ),
            auth_pb2.AuthRoleGrantPermissionResponse,
        )

    def revoke(self, name: str, keys: Keys) -> None:
        """Take back a permission; the keys must be given as they were granted."""
        self._connection.call(
            f"{_SERVICE}/RoleRevokePermission",
            auth_pb2.AuthRoleRevokePermissionRequest(
                role=name, key=keys.key, range_end=keys.range_end
            ),
            auth_pb2.AuthRoleRevokePermissionResponse,
        )

"""The tenants of the service; for administrators of the whole cluster.

Owns: adding, listing and removing tenants.
Never: the keys or users of a tenant; its own users see to those.
"""

from dataclasses import dataclass
from typing import Final, Self, final

from kvsecure.client.connection import Connection
from kvsecure.model.secret import Secret
from kvsecure.proto import tenant_pb2

__all__ = ["Tenant", "Tenants"]

_SERVICE: Final = "/kvsecurepb.Tenants"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant.

    Attributes:
        tenant_id: Its number, never used again.
        name: Its name.
        key_count: How many keys it has.
        user_count: How many users it has.
        auth_revision: How often its users, roles and permissions have changed.
    """

    tenant_id: int
    name: str
    key_count: int
    user_count: int
    auth_revision: int

    @classmethod
    def of(cls, message: tenant_pb2.Tenant) -> Self:
        """Return the value of a message."""
        return cls(
            tenant_id=message.id,
            name=message.name,
            key_count=message.key_count,
            user_count=message.user_count,
            auth_revision=message.auth_revision,
        )


@final
class Tenants:
    """Tenants. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, name: str, root_password: Secret | None) -> Tenant:
        """Add a tenant with a user root of its own.

        Args:
            name: The name; users of the tenant log in as `name/user`.
            root_password: Its root's password; None for a root who logs in by certificate alone.
        """
        answer = self._connection.call(
            f"{_SERVICE}/TenantAdd",
            tenant_pb2.TenantAddRequest(
                name=name,
                root_password="" if root_password is None else root_password.reveal_text(),
                root_no_password=root_password is None,
            ),
            tenant_pb2.TenantAddResponse,
        )
        return Tenant.of(answer.tenant)

    def list(self) -> tuple[Tenant, ...]:
        """Return all tenants."""
        answer = self._connection.call(
            f"{_SERVICE}/TenantList",
            tenant_pb2.TenantListRequest(),
            tenant_pb2.TenantListResponse,
        )
        return tuple(Tenant.of(tenant) for tenant in answer.tenants)

    def get(self, name: str) -> Tenant:
        """Return one tenant."""
        answer = self._connection.call(
            f"{_SERVICE}/TenantGet",
            tenant_pb2.TenantGetRequest(name=name),
            tenant_pb2.TenantGetResponse,
        )
        return Tenant.of(answer.tenant)

    def delete(self, name: str) -> None:
        """Delete a tenant with all its keys, users and roles."""
        self._connection.call(
            f"{_SERVICE}/TenantDelete",
            tenant_pb2.TenantDeleteRequest(name=name),
            tenant_pb2.TenantDeleteResponse,
        )

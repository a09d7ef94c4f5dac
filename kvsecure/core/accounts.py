"""Accounts: tenants, their users and roles; replicated state.

Owns: the tables of tenants, users, roles and permissions, the auth revision and session epochs of
    each tenant, and the grants compiled from them.
Never: sees a password (verifiers come in hashed), decides a request, reads a clock.
Follows: etcd's authStore (server/auth/store.go) for preconditions and errors; differs: there is one
    set of accounts for each tenant, and permissions match on the whole (key, range_end) pair.
Keeps: ids of users, roles and tenants are never used again; every change raises the tenant's auth
    revision by one.
"""

from collections.abc import Iterable, Iterator
from typing import Final, final

from kvsecure.access.grants import EVERYTHING, NOTHING, Grants, Intervals
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import (
    DEFAULT_TENANT,
    FIRST_NAMED_TENANT,
    SYSTEM_TENANT,
    TenantId,
)
from kvsecure.model.keys import span_of
from kvsecure.proto import authstore_pb2, state_pb2

__all__ = ["ROOT", "Accounts", "Tenant"]

# The user that must exist, and the role that may do everything in its tenant (etcd).
ROOT: Final = "root"
_Permission = authstore_pb2.Permission
# More changes than the accounts of a tenant will ever see.
_OCCASION_SHIFT: Final = 48


@final
class Tenant:
    """The accounts of one tenant."""

    __slots__ = ("_grants", "_occasion", "law_revision", "record", "roles", "users")

    def __init__(self, record: state_pb2.Tenant, occasion: int) -> None:
        self.record = record
        # Counts what makes every decision a new one though no account has moved.
        self._occasion = occasion
        # Differs whenever a decision could.
        self.law_revision = 0
        self.users: dict[str, state_pb2.User] = {}
        self.roles: dict[str, state_pb2.Role] = {}
        self._grants: dict[str, Grants] = {}
        self.switched()

    @property
    def id(self) -> TenantId:
        """The tenant's number."""
        return TenantId(self.record.id)

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self.record.name

    @property
    def auth_revision(self) -> int:
        """Counts the changes to the tenant's accounts, as etcd counts them."""
        return self.record.auth_revision

    def changed(self) -> None:
        """Take note of a change: what was compiled is out of date."""
        self.record.auth_revision += 1
        self.switched()

    def switched(self) -> None:
        """Take note that authentication was switched on or off."""
        record = self.record
        # etcd's auth revision does not count enabling.
        accounts = record.auth_revision << 1 | record.auth_enabled
        self.law_revision = self._occasion << _OCCASION_SHIFT | accounts
        self._grants.clear()

    def decide_anew(self, occasion: int) -> None:
        """Have every decision made anew from this occasion on."""
        self._occasion = occasion
        self.switched()

    def grants_of(self, user: str) -> Grants | None:
        """Return what a user may do, or None if there is no such user."""
        grants = self._grants.get(user)
        if grants is None:
            found = self.users.get(user)
            if found is None:
                return None
            grants = self._grants[user] = self._compile(found)
        return grants

    def open_grants(self) -> Grants:
        """Return what anybody may do while the tenant's authentication is off."""
        return Grants(
            user="",
            roles=frozenset(),
            read=EVERYTHING,
            write=EVERYTHING,
            admin=True,
            cluster_admin=self.id in (DEFAULT_TENANT, SYSTEM_TENANT),
        )

    def _compile(self, user: state_pb2.User) -> Grants:
        if ROOT in user.roles:
            return Grants(
                user=user.name,
                roles=frozenset(user.roles),
                read=EVERYTHING,
                write=EVERYTHING,
                admin=True,
                # etcd's clients know one root; it carries the system tenant's rights.
                cluster_admin=self.id in (DEFAULT_TENANT, SYSTEM_TENANT),
            )
        permissions = [
            permission
            for role in user.roles
            if role in self.roles
            for permission in self.roles[role].permissions
        ]
        return Grants(
            user=user.name,
            roles=frozenset(user.roles),
            read=_intervals(permissions, _Permission.READ),
            write=_intervals(permissions, _Permission.WRITE),
            admin=False,
            cluster_admin=False,
        )


@final
class Accounts:
    """The accounts of every tenant."""

    def __init__(self) -> None:
        self.next_tenant_id: int = FIRST_NAMED_TENANT
        self._tenants: dict[TenantId, Tenant] = {}
        self._by_name: dict[str, Tenant] = {}
        self._occasion = 0

    # --- tenants --------------------------------------------------------------------------------

    def found(self) -> list[Tenant]:
        """Make the tenants that every cluster has; return them."""
        return [
            self.load_tenant(state_pb2.Tenant(id=SYSTEM_TENANT, name="system", auth_enabled=True)),
            self.load_tenant(state_pb2.Tenant(id=DEFAULT_TENANT, name="default")),
        ]

    def load_tenant(self, record: state_pb2.Tenant) -> Tenant:
        """Take in a tenant as it was stored."""
        record.auth_revision = record.auth_revision or 1
        tenant = Tenant(record, self._occasion)
        self._tenants[tenant.id] = tenant
        self._by_name[tenant.name] = tenant
        return tenant

    def add_tenant(self, name: str) -> Tenant:
        """Make a named tenant; its authentication is always on.

        Raises:
            Refused: The name is taken.
        """
        if name in self._by_name:
            raise Refused(Failure.TENANT_EXISTS)
        record = state_pb2.Tenant(id=self.next_tenant_id, name=name, auth_enabled=True)
        self.next_tenant_id += 1
        return self.load_tenant(record)

    def drop_tenant(self, name: str) -> Tenant:
        """Remove a named tenant and its accounts.

        Raises:
            Refused: There is no such tenant, or it is one that every cluster has.
        """
        tenant = self.tenant_named(name)
        if tenant.id < FIRST_NAMED_TENANT:
            raise Refused(Failure.INVALID_AUTH_MANAGEMENT)
        del self._tenants[tenant.id]
        del self._by_name[name]
        # Sessions that hold on to it find out that it has moved, and then that it is gone.
        tenant.changed()
        return tenant

    def tenant(self, tenant: TenantId) -> Tenant | None:
        """Return a tenant by its number, or None if it is gone."""
        return self._tenants.get(tenant)

    def tenant_named(self, name: str) -> Tenant:
        """Return a tenant by its name.

        Raises:
            Refused: There is none.
        """
        tenant = self._by_name.get(name)
        if tenant is None:
            raise Refused(Failure.TENANT_NOT_FOUND)
        return tenant

    def tenants(self) -> Iterator[Tenant]:
        """Yield all tenants by number."""
        yield from (self._tenants[number] for number in sorted(self._tenants))

    def decide_anew(self, occasion: int) -> None:
        """Have every session resolved and every decision made anew, though no account has moved.

        Args:
            occasion: Counts what was a reason to; it comes from the state, and never goes back.
        """
        self._occasion = occasion
        for tenant in self._tenants.values():
            tenant.decide_anew(occasion)

    # --- enabling -------------------------------------------------------------------------------

    def enable(self, tenant: Tenant) -> bool:
        """Switch authentication on; return whether that changed anything.

        Raises:
            Refused: There is no user root, or it has not the role root.
        """
        if tenant.record.auth_enabled:
            return False
        root = tenant.users.get(ROOT)
        if root is None:
            raise Refused(Failure.ROOT_USER_MISSING)
        if ROOT not in root.roles:
            raise Refused(Failure.ROOT_ROLE_MISSING)
        # Enabling is not a change of accounts: etcd does not count it.
        tenant.record.auth_enabled = True
        tenant.switched()
        return True

    def disable(self, tenant: Tenant) -> bool:
        """Switch authentication off and end all sessions; return whether that changed anything.

        Raises:
            Refused: A named tenant is never without authentication.
        """
        if not tenant.record.auth_enabled:
            return False
        if tenant.id != DEFAULT_TENANT:
            raise Refused(Failure.INVALID_AUTH_MANAGEMENT)
        tenant.record.auth_enabled = False
        tenant.record.session_epoch += 1
        tenant.changed()
        return True

    # --- users ----------------------------------------------------------------------------------

    def add_user(self, tenant: Tenant, name: str, verifier: str, *, no_password: bool) -> None:
        """Add a user.

        Args:
            tenant: Where.
            name: Its name.
            verifier: Its password's verifier; empty with `no_password`.
            no_password: It can log in by certificate only.

        Raises:
            Refused: The name is empty or taken.
        """
        if not name:
            raise Refused(Failure.USER_EMPTY)
        if name in tenant.users:
            raise Refused(Failure.USER_EXISTS)
        tenant.record.next_user_id += 1
        tenant.users[name] = state_pb2.User(
            id=tenant.record.next_user_id,
            name=name,
            password_hash="" if no_password else verifier,
            no_password=no_password,
        )
        tenant.changed()

    def delete_user(self, tenant: Tenant, name: str) -> state_pb2.User:
        """Remove a user; its sessions end, because its number is never used again.

        Raises:
            Refused: There is none, or it is root while authentication is on.
        """
        if tenant.record.auth_enabled and name == ROOT:
            raise Refused(Failure.INVALID_AUTH_MANAGEMENT)
        user = self._user(tenant, name)
        del tenant.users[name]
        tenant.changed()
        return user

    def change_password(self, tenant: Tenant, name: str, verifier: str) -> state_pb2.User:
        """Give a user a new verifier; its sessions end.

        Raises:
            Refused: There is no such user.
        """
        user = self._user(tenant, name)
        user.password_hash = verifier
        user.no_password = False
        user.session_epoch += 1
        tenant.changed()
        return user

    def upgrade_verifier(self, tenant: Tenant, name: str, old: str, new: str) -> None:
        """Replace a verifier by a stronger one of the same password; sessions go on.

        It is left alone when it is no longer the one that was checked.
        """
        user = tenant.users.get(name)
        if user is not None and user.password_hash == old:
            user.password_hash = new

    def grant_role(self, tenant: Tenant, user_name: str, role: str) -> bool:
        """Give a user a role; return whether that changed anything.

        Raises:
            Refused: There is no such user or role.
        """
        user = self._user(tenant, user_name)
        if role != ROOT and role not in tenant.roles:
            raise Refused(Failure.ROLE_NOT_FOUND)
        if role in user.roles:
            return False
        roles = sorted([*user.roles, role])
        del user.roles[:]
        user.roles.extend(roles)
        tenant.changed()
        return True

    def revoke_role(self, tenant: Tenant, user_name: str, role: str) -> None:
        """Take a role from a user.

        Raises:
            Refused: There is no such user, it has not the role, or it is root's root.
        """
        if tenant.record.auth_enabled and user_name == ROOT and role == ROOT:
            raise Refused(Failure.INVALID_AUTH_MANAGEMENT)
        user = self._user(tenant, user_name)
        if role not in user.roles:
            raise Refused(Failure.ROLE_NOT_GRANTED)
        user.roles.remove(role)
        tenant.changed()

    # --- roles ----------------------------------------------------------------------------------

    def add_role(self, tenant: Tenant, name: str) -> None:
        """Add a role without permissions.

        Raises:
            Refused: The name is empty or taken.
        """
        if not name:
            raise Refused(Failure.ROLE_EMPTY)
        if name in tenant.roles:
            raise Refused(Failure.ROLE_EXISTS)
        tenant.record.next_role_id += 1
        tenant.roles[name] = state_pb2.Role(id=tenant.record.next_role_id, name=name)
        tenant.changed()

    def delete_role(self, tenant: Tenant, name: str) -> tuple[state_pb2.Role, list[state_pb2.User]]:
        """Remove a role; return it and the users that had it.

        Raises:
            Refused: There is none, or it is root while authentication is on.
        """
        if tenant.record.auth_enabled and name == ROOT:
            raise Refused(Failure.INVALID_AUTH_MANAGEMENT)
        role = self._role(tenant, name)
        del tenant.roles[name]
        holders = [user for user in tenant.users.values() if name in user.roles]
        for user in holders:
            user.roles.remove(name)
        tenant.changed()
        return role, holders

    def grant_permission(
        self, tenant: Tenant, role_name: str, permission: authstore_pb2.Permission
    ) -> None:
        """Give a role a permission, or change the type of one on the same range.

        Raises:
            Refused: There is no such role, or the range is none.
        """
        role = self._role(tenant, role_name)
        for held in role.permissions:
            if (held.key, held.range_end) == (permission.key, permission.range_end):
                held.permType = permission.permType
                break
        else:
            role.permissions.append(permission)
            ordered = sorted(role.permissions, key=lambda each: (each.key, each.range_end))
            copies = [authstore_pb2.Permission.FromString(p.SerializeToString()) for p in ordered]
            del role.permissions[:]
            role.permissions.extend(copies)
        tenant.changed()

    def revoke_permission(
        self, tenant: Tenant, role_name: str, key: bytes, range_end: bytes
    ) -> None:
        """Take from a role the permission on exactly this range.

        Raises:
            Refused: There is no such role or permission.
        """
        role = self._role(tenant, role_name)
        for number, held in enumerate(role.permissions):
            if (held.key, held.range_end) == (key, range_end):
                del role.permissions[number]
                tenant.changed()
                return
        raise Refused(Failure.PERMISSION_NOT_GRANTED)

    # --- within ---------------------------------------------------------------------------------

    def _user(self, tenant: Tenant, name: str) -> state_pb2.User:
        user = tenant.users.get(name)
        if user is None:
            raise Refused(Failure.USER_NOT_FOUND)
        return user

    def _role(self, tenant: Tenant, name: str) -> state_pb2.Role:
        role = tenant.roles.get(name)
        if role is None:
            raise Refused(Failure.ROLE_NOT_FOUND)
        return role


def _intervals(permissions: Iterable[authstore_pb2.Permission], wanted: int) -> Intervals:
    spans = [
        span_of(permission.key, permission.range_end)
        for permission in permissions
        if permission.permType in (wanted, _Permission.READWRITE)
    ]
    return Intervals(spans) if spans else NOTHING

"""Accounts: every precondition and error of etcd's auth store, as tables (etcd-surface 3.2-3.4)."""

from collections.abc import Callable
from typing import Final

import pytest

from kvsecure.core.accounts import ROOT, Accounts, Tenant
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, FIRST_NAMED_TENANT, SYSTEM_TENANT
from kvsecure.proto import authstore_pb2, state_pb2

_Permission = authstore_pb2.Permission
_Act = Callable[[Accounts, Tenant], object]


def _accounts() -> tuple[Accounts, Tenant]:
    """Return accounts with a user u that has role r, which may read key k; and root."""
    accounts = Accounts()
    accounts.found()
    tenant = accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None
    accounts.add_user(tenant, ROOT, "hash", no_password=False)
    accounts.add_role(tenant, ROOT)
    accounts.grant_role(tenant, ROOT, ROOT)
    accounts.add_user(tenant, "u", "hash", no_password=False)
    accounts.add_role(tenant, "r")
    accounts.grant_permission(tenant, "r", _Permission(permType=_Permission.READ, key=b"k"))
    accounts.grant_role(tenant, "u", "r")
    return accounts, tenant


def _stored(accounts: Accounts) -> list[bytes]:
    """Return everything that is stored of the accounts."""
    rows = []
    for tenant in accounts.tenants():
        records = (tenant.record, *tenant.users.values(), *tenant.roles.values())
        rows += [record.SerializeToString(deterministic=True) for record in records]
    return rows


def _off(accounts: Accounts, tenant: Tenant) -> None:
    assert not tenant.record.auth_enabled


def _on(accounts: Accounts, tenant: Tenant) -> None:
    assert accounts.enable(tenant)


_INVALID_MANAGEMENT: Final = (Code.INVALID_ARGUMENT, "etcdserver: invalid auth management")
_NO_USER: Final = (Code.FAILED_PRECONDITION, "etcdserver: user name not found")
_NO_ROLE: Final = (Code.FAILED_PRECONDITION, "etcdserver: role name not found")

# What is done, with authentication off or on, and how it is refused.
_REFUSALS: tuple[tuple[str, _Act, _Act, tuple[Code, str]], ...] = (
    (
        "user-add-empty",
        _on,
        lambda a, t: a.add_user(t, "", "h", no_password=False),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty"),
    ),
    (
        "user-add-taken",
        _on,
        lambda a, t: a.add_user(t, "u", "h", no_password=False),
        (Code.FAILED_PRECONDITION, "etcdserver: user name already exists"),
    ),
    ("user-delete-unknown", _on, lambda a, t: a.delete_user(t, "x"), _NO_USER),
    ("user-delete-root-on", _on, lambda a, t: a.delete_user(t, ROOT), _INVALID_MANAGEMENT),
    ("password-unknown", _on, lambda a, t: a.change_password(t, "x", "h"), _NO_USER),
    ("grant-unknown-user", _on, lambda a, t: a.grant_role(t, "x", "r"), _NO_USER),
    ("grant-unknown-role", _on, lambda a, t: a.grant_role(t, "u", "x"), _NO_ROLE),
    ("revoke-unknown-user", _on, lambda a, t: a.revoke_role(t, "x", "r"), _NO_USER),
    (
        "revoke-not-held",
        _on,
        lambda a, t: a.revoke_role(t, "u", ROOT),
        (Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user"),
    ),
    ("revoke-root-on", _on, lambda a, t: a.revoke_role(t, ROOT, ROOT), _INVALID_MANAGEMENT),
    (
        "role-add-empty",
        _on,
        lambda a, t: a.add_role(t, ""),
        (Code.INVALID_ARGUMENT, "etcdserver: role name is empty"),
    ),
    (
        "role-add-taken",
        _on,
        lambda a, t: a.add_role(t, "r"),
        (Code.FAILED_PRECONDITION, "etcdserver: role name already exists"),
    ),
    ("role-delete-unknown", _on, lambda a, t: a.delete_role(t, "x"), _NO_ROLE),
    ("role-delete-root-on", _on, lambda a, t: a.delete_role(t, ROOT), _INVALID_MANAGEMENT),
    (
        "permission-grant-unknown",
        _on,
        lambda a, t: a.grant_permission(t, "x", _Permission(key=b"k")),
        _NO_ROLE,
    ),
    (
        "permission-revoke-unknown-role",
        _on,
        lambda a, t: a.revoke_permission(t, "x", b"k", b""),
        _NO_ROLE,
    ),
    (
        "permission-revoke-other-end",
        _on,
        lambda a, t: a.revoke_permission(t, "r", b"k", b"l"),
        (Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"),
    ),
    (
        "enable-without-root",
        lambda a, t: a.delete_user(t, ROOT),
        lambda a, t: a.enable(t),
        (Code.FAILED_PRECONDITION, "etcdserver: root user does not exist"),
    ),
    (
        "enable-without-root-role",
        lambda a, t: a.revoke_role(t, ROOT, ROOT),
        lambda a, t: a.enable(t),
        (Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role"),
    ),
    (
        "tenant-add-taken",
        lambda a, t: a.add_tenant("x"),
        lambda a, t: a.add_tenant("x"),
        (Code.FAILED_PRECONDITION, "kvsecure: tenant name already exists"),
    ),
    (
        "tenant-drop-unknown",
        _on,
        lambda a, t: a.drop_tenant("x"),
        (Code.FAILED_PRECONDITION, "kvsecure: tenant name not found"),
    ),
    ("tenant-drop-default", _on, lambda a, t: a.drop_tenant("default"), _INVALID_MANAGEMENT),
    ("tenant-drop-system", _on, lambda a, t: a.drop_tenant("system"), _INVALID_MANAGEMENT),
    (
        "named-tenant-disable",
        lambda a, t: a.add_tenant("x"),
        lambda a, t: a.disable(a.tenant_named("x")),
        _INVALID_MANAGEMENT,
    ),
)


@pytest.mark.parametrize(
    ("prepare", "act", "refusal"),
    [case[1:] for case in _REFUSALS],
    ids=[case[0] for case in _REFUSALS],
)
def test_accounts_refuse_as_etcd_does(prepare: _Act, act: _Act, refusal: tuple[Code, str]) -> None:
    """What cannot be done is refused with etcd's code and text, and changes nothing."""
    accounts, tenant = _accounts()
    prepare(accounts, tenant)
    before = _stored(accounts)

    with pytest.raises(Refused) as refused:
        act(accounts, tenant)

    assert (refused.value.code, refused.value.text) == refusal
    assert _stored(accounts) == before


# What is done while authentication is off, and by how much the auth revision rises.
_CHANGES: tuple[tuple[str, _Act, int], ...] = (
    ("user-add", lambda a, t: a.add_user(t, "v", "h", no_password=False), 1),
    ("user-delete", lambda a, t: a.delete_user(t, "u"), 1),
    ("user-delete-root-off", lambda a, t: a.delete_user(t, ROOT), 1),
    ("password", lambda a, t: a.change_password(t, "u", "h"), 1),
    ("verifier", lambda a, t: a.upgrade_verifier(t, "u", "hash", "h"), 0),
    ("grant", lambda a, t: a.grant_role(t, ROOT, "r"), 1),
    ("grant-again", lambda a, t: a.grant_role(t, "u", "r"), 0),
    ("grant-root-to-other", lambda a, t: a.grant_role(t, "u", ROOT), 1),
    ("revoke", lambda a, t: a.revoke_role(t, "u", "r"), 1),
    ("revoke-root-off", lambda a, t: a.revoke_role(t, ROOT, ROOT), 1),
    ("role-add", lambda a, t: a.add_role(t, "s"), 1),
    ("role-delete", lambda a, t: a.delete_role(t, "r"), 1),
    ("role-delete-root-off", lambda a, t: a.delete_role(t, ROOT), 1),
    ("permission", lambda a, t: a.grant_permission(t, "r", _Permission(key=b"k")), 1),
    ("permission-revoke", lambda a, t: a.revoke_permission(t, "r", b"k", b""), 1),
    ("enable", lambda a, t: a.enable(t), 0),
    ("disable-while-off", lambda a, t: a.disable(t), 0),
    ("enable-and-disable", lambda a, t: (a.enable(t), a.disable(t)), 1),
)


@pytest.mark.parametrize(
    ("act", "rise"), [case[1:] for case in _CHANGES], ids=[case[0] for case in _CHANGES]
)
def test_auth_revision_counts_as_etcd_counts(act: _Act, rise: int) -> None:
    """Every change of users and roles counts one, disabling too, enabling and repeating not."""
    accounts, tenant = _accounts()
    before = tenant.auth_revision

    act(accounts, tenant)

    assert tenant.auth_revision - before == rise


@pytest.mark.parametrize(
    "act",
    [case[1] for case in _CHANGES if case[2]] + [lambda a, t: a.enable(t)],
)
def test_law_revision_moves_with_every_decision(act: _Act) -> None:
    """Whatever could change a decision changes the law revision, and never back to an old one."""
    accounts, tenant = _accounts()
    seen = [tenant.law_revision]
    act(accounts, tenant)
    seen.append(tenant.law_revision)
    accounts.add_role(tenant, "more")
    seen.append(tenant.law_revision)

    assert seen == sorted(set(seen))


def test_auth_revision_of_a_new_tenant_is_one() -> None:
    """A tenant begins at revision 1, as etcd does."""
    accounts = Accounts()
    accounts.found()

    assert [tenant.auth_revision for tenant in accounts.tenants()] == [1, 1]
    assert accounts.add_tenant("x").auth_revision == 1


def test_dropping_a_tenant_moves_its_law() -> None:
    """Whoever holds on to a tenant that was dropped finds that its law has moved."""
    accounts, _ = _accounts()
    tenant = accounts.add_tenant("x")
    before = tenant.law_revision

    accounts.drop_tenant("x")

    assert tenant.law_revision != before
    assert accounts.tenant(tenant.id) is None


def test_enabling_twice_is_enabling_once() -> None:
    """Enabling what is enabled and disabling what is disabled succeed without effect."""
    accounts, tenant = _accounts()

    assert [accounts.enable(tenant), accounts.enable(tenant)] == [True, False]
    assert [accounts.disable(tenant), accounts.disable(tenant)] == [True, False]


def test_named_tenant_is_never_without_authentication() -> None:
    """A named tenant begins with authentication on, and enabling it changes nothing."""
    accounts, _ = _accounts()
    tenant = accounts.add_tenant("x")

    assert tenant.record.auth_enabled
    assert accounts.enable(tenant) is False


def test_sessions_end_with_password_and_with_disabling() -> None:
    """A new password raises its user's session epoch, disabling that of the tenant."""
    accounts, tenant = _accounts()
    accounts.enable(tenant)
    users = {name: user.session_epoch for name, user in tenant.users.items()}
    epoch = tenant.record.session_epoch

    accounts.change_password(tenant, "u", "other")
    accounts.disable(tenant)

    assert tenant.users["u"].session_epoch == users["u"] + 1
    assert tenant.users[ROOT].session_epoch == users[ROOT]
    assert tenant.record.session_epoch == epoch + 1


def test_numbers_are_never_used_again() -> None:
    """A user, role or tenant of the name of one that is gone is another one."""
    accounts, tenant = _accounts()
    old = accounts.delete_user(tenant, "u").id, accounts.delete_role(tenant, "r")[0].id
    gone = accounts.add_tenant("x").id
    accounts.drop_tenant("x")

    accounts.add_user(tenant, "u", "hash", no_password=False)
    accounts.add_role(tenant, "r")

    assert tenant.users["u"].id > old[0]
    assert tenant.roles["r"].id > old[1]
    assert accounts.add_tenant("x").id == gone + 1


def test_deleted_role_is_taken_from_its_holders() -> None:
    """Deleting a role returns everybody who had it, and leaves it with nobody."""
    accounts, tenant = _accounts()

    _, holders = accounts.delete_role(tenant, "r")

    assert [holder.name for holder in holders] == ["u"]
    assert list(tenant.users["u"].roles) == []


def test_root_role_need_not_be_stored() -> None:
    """The role root can be given though nobody has made it (etcd)."""
    accounts, tenant = _accounts()
    accounts.delete_role(tenant, ROOT)

    assert accounts.grant_role(tenant, "u", ROOT)
    grants = tenant.grants_of("u")
    assert grants is not None
    assert grants.admin


def test_roles_and_permissions_are_sorted() -> None:
    """A user's roles are in order, and a role's permissions by key and end (etcd)."""
    accounts, tenant = _accounts()
    for name in ("z", "b", "a"):
        accounts.add_role(tenant, name)
        accounts.grant_role(tenant, "u", name)
    for key, end in ((b"z", b""), (b"a", b"c"), (b"k", b"l"), (b"a", b"")):
        accounts.grant_permission(tenant, "r", _Permission(key=key, range_end=end))

    assert list(tenant.users["u"].roles) == ["a", "b", "r", "z"]
    permissions = [(p.key, p.range_end) for p in tenant.roles["r"].permissions]
    assert permissions == [(b"a", b""), (b"a", b"c"), (b"k", b""), (b"k", b"l"), (b"z", b"")]


def test_permission_matches_on_key_and_end() -> None:
    """A permission on the same range changes its type; on another range of the key it is new."""
    accounts, tenant = _accounts()
    both = _Permission(permType=_Permission.READWRITE, key=b"k")
    other = _Permission(permType=_Permission.WRITE, key=b"k", range_end=b"m")
    accounts.grant_permission(tenant, "r", both)
    accounts.grant_permission(tenant, "r", other)

    assert list(tenant.roles["r"].permissions) == [both, other]
    accounts.revoke_permission(tenant, "r", b"k", b"")
    assert list(tenant.roles["r"].permissions) == [other]


@pytest.mark.parametrize(
    ("no_password", "stored"), [(False, "hash"), (True, "")], ids=["password", "none"]
)
def test_user_without_password_has_no_verifier(*, no_password: bool, stored: str) -> None:
    """A user that logs in by certificate only keeps no verifier, whatever was sent."""
    accounts, tenant = _accounts()
    accounts.add_user(tenant, "v", "hash", no_password=no_password)

    assert tenant.users["v"].password_hash == stored
    assert tenant.users["v"].no_password == no_password
    accounts.change_password(tenant, "v", "new")
    assert not tenant.users["v"].no_password


@pytest.mark.parametrize(("old", "stored"), [("hash", "new"), ("other", "hash")])
def test_verifier_is_upgraded_only_where_it_was_checked(old: str, stored: str) -> None:
    """An upgrade replaces the verifier that was checked, and no newer one."""
    accounts, tenant = _accounts()
    accounts.upgrade_verifier(tenant, "u", old, "new")
    accounts.upgrade_verifier(tenant, "nobody", old, "new")

    assert tenant.users["u"].password_hash == stored
    assert tenant.users["u"].session_epoch == 0


def test_tenants_are_apart() -> None:
    """Users and roles of the same name in two tenants have nothing to do with each other."""
    accounts, default = _accounts()
    named = accounts.add_tenant("x")
    accounts.add_user(named, "u", "h", no_password=False)
    before = [user.SerializeToString() for user in default.users.values()]

    accounts.change_password(named, "u", "g")
    accounts.delete_user(named, "u")

    assert [user.SerializeToString() for user in default.users.values()] == before
    assert default.grants_of("u") is not None
    assert named.grants_of("u") is None


def test_tenants_come_by_number() -> None:
    """The tenants are listed in the order of their numbers, the two fixed ones first."""
    accounts, _ = _accounts()
    for name in ("z", "a"):
        accounts.add_tenant(name)

    numbers = [tenant.id for tenant in accounts.tenants()]

    assert numbers == [SYSTEM_TENANT, DEFAULT_TENANT, FIRST_NAMED_TENANT, FIRST_NAMED_TENANT + 1]


def test_stored_tenant_without_revision_begins_at_one() -> None:
    """A record from before the first change is one at revision 1."""
    tenant = Accounts().load_tenant(state_pb2.Tenant(id=20, name="x"))

    assert tenant.auth_revision == 1


def test_failures_have_the_texts_that_clients_match() -> None:
    """What Go clients turn into typed errors is as etcd writes it."""
    assert Failure.AUTH_NOT_ENABLED.text == "etcdserver: authentication is not enabled"
    assert Failure.PERMISSION_DENIED.text == "etcdserver: permission denied"
    assert Failure.INVALID_AUTH_TOKEN.text == "etcdserver: invalid auth token"
    assert Failure.AUTH_FAILED.text == (
        "etcdserver: authentication failed, invalid user ID or password"
    )

"""Policy bundles: what is understood becomes commands, anything else an error that says where."""

from typing import Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.bundled import resource
from kvsecure.core.accounts import Accounts
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import auth_pb2, authstore_pb2
from kvsecure.security.policy import BundleError, commands_of

_GOOD: Final = b"""
version: 1
roles:
  app:
    description: For people.
    permissions:
      - access: read
        prefix: /app/
      - {access: write, key: /app/state}
      - {access: readwrite, range: [/a, /b]}
      - {access: read, prefix: "\xc3\xbf"}
  empty:
  other: {}
users:
  web:
    roles: [app, empty]
  idle:
"""


def test_a_bundle_becomes_commands_in_order() -> None:
    """Roles come first, each with its permissions, then users with their roles."""
    commands = commands_of(_GOOD)

    assert [type(each).__name__ for each in commands] == [
        "AuthRoleAddRequest",
        *["AuthRoleGrantPermissionRequest"] * 4,
        "AuthRoleAddRequest",
        "AuthRoleAddRequest",
        "AuthUserAddRequest",
        *["AuthUserGrantRoleRequest"] * 2,
        "AuthUserAddRequest",
    ]
    granted = [
        (each.perm.permType, each.perm.key, each.perm.range_end)
        for each in commands
        if isinstance(each, auth_pb2.AuthRoleGrantPermissionRequest)
    ]
    assert granted == [
        (authstore_pb2.Permission.READ, b"/app/", b"/app0"),
        (authstore_pb2.Permission.WRITE, b"/app/state", b""),
        (authstore_pb2.Permission.READWRITE, b"/a", b"/b"),
        (authstore_pb2.Permission.READ, b"\xc3\xbf", b"\xc3\xc0"),
    ]
    users = [each for each in commands if isinstance(each, auth_pb2.AuthUserAddRequest)]
    assert all(each.options.no_password and not each.hashedPassword for each in users)


@pytest.mark.parametrize("name", ["default.yaml", "examples/application.yaml"])
def test_shipped_bundles_can_be_applied(name: str) -> None:
    """What ships is of the form, and every one of its commands is accepted."""
    accounts = Accounts()
    accounts.found()
    tenant = accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None

    for command in commands_of(resource("policies", *name.split("/")).read_bytes()):
        match command:
            case auth_pb2.AuthRoleAddRequest():
                accounts.add_role(tenant, command.name)
            case auth_pb2.AuthRoleGrantPermissionRequest():
                accounts.grant_permission(tenant, command.name, command.perm)
            case auth_pb2.AuthUserAddRequest():
                accounts.add_user(tenant, command.name, "", no_password=True)
            case auth_pb2.AuthUserGrantRoleRequest():
                assert accounts.grant_role(tenant, command.user, command.role)

    assert {"reader", "writer"} <= tenant.roles.keys()


_V: Final = "version: 1\n"
_P: Final = _V + "roles: {app: {permissions: ["


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the bundle"),
        ("[]", "the bundle"),
        ("just text", "the bundle"),
        ("{", "YAML"),
        ("version: 1\n\tx: 2", "YAML"),
        ("!!python/object/apply:os.system [id]", "YAML"),
        ("a: &a [*a, *a]", "version|not known"),
        ("[" * 5_000, "YAML"),
        ("roles: {}", "version"),
        ("version: 2", "version: 2"),
        ("version: '1'", "version"),
        ("version: true", "version"),
        ("version: [1]", "version"),
        (_V + "tenants: {}", "'tenants'"),
        (_V + "1: {}", "the bundle"),
        (_V + "roles: []", "roles"),
        (_V + "roles: text", "roles"),
        (_V + "roles: false", "roles"),
        (_V + "roles: {1: {}}", "roles"),
        (_V + "roles: {app: []}", "roles.app"),
        (_V + "roles: {app: false}", "roles.app"),
        (_V + "roles: {app: {permission: []}}", "'permission'"),
        (_V + "roles: {app: {permissions: {}}}", "permissions"),
        (_V + "roles: {app: {}, app: {}}", "'app' stands there twice"),
        (_V + "version: 1", "'version' stands there twice"),
        (_V + "roles: {root: {}}", "root"),
        (_V + "users: {root: {}}", "root"),
        (_V + "roles: {'': {}}", "no name"),
        (_V + "roles: {a/b: {}}", "no name"),
        (_V + 'roles: {"a\\tb": {}}', "no name"),
        (_V + 'roles: {"\\ud800": {}}', "UTF-8"),
        (_V + f"users: {{{'x' * 257}: {{}}}}", "no name"),
        (_V + "users: {web: {roles: [missing]}}", "'missing'"),
        (_V + "users: {web: {roles: [root]}}", "'root'"),
        (_V + "users: {web: {roles: [[app]]}}", "no role"),
        (_V + "users: {web: {roles: [{a: 1}]}}", "no role"),
        (_V + "users: {web: {roles: app}}", "list"),
        (_V + "users: {web: {password: x}}", "'password'"),
        (_P + "text]}}", "permissions\\[0\\]"),
        (_P + "{}]}}", "access"),
        (_P + "{access: read}]}}", "exactly one"),
        (_P + "{access: all, key: a}]}}", "access"),
        (_P + "{access: [read], key: a}]}}", "access"),
        (_P + "{access: {}, key: a}]}}", "access"),
        (_P + "{access: read, key: a, prefix: b}]}}", "exactly one"),
        (_P + "{access: read, key: a, range: null}]}}", "exactly one"),
        (_P + "{access: read, kye: a}]}}", "'kye'"),
        (_P + "{access: read, key: ''}]}}", "not empty"),
        (_P + "{access: read, prefix: ''}]}}", "not empty"),
        (_P + "{access: read, key: null}]}}", "a key is text"),
        (_P + "{access: read, key: 5}]}}", "a key is text"),
        (_P + "{access: read, key: yes}]}}", "a key is text"),
        (_P + "{access: read, key: [a]}]}}", "a key is text"),
        (_P + '{access: read, key: "\\udfff"}]}}', "UTF-8"),
        (_P + "{access: read, range: a}]}}", "list"),
        (_P + "{access: read, range: [a]}]}}", "two keys"),
        (_P + "{access: read, range: [a, b, c]}]}}", "two keys"),
        (_P + "{access: read, range: [b, a]}]}}", "two keys"),
        (_P + "{access: read, range: [a, a]}]}}", "two keys"),
        (_P + "{access: read, range: [1, 2]}]}}", "a key is text"),
        (_P + "{access: read, key: a, access: write}]}}", "'access' stands there twice"),
        (_P + "{access: read, prefix: /a/}, {access: write, prefix: /a/}]}}", "already"),
    ],
)
def test_a_mistake_is_refused_with_its_place(text: str, says: str) -> None:
    """What is not understood is an error that names the place, never something left out."""
    with pytest.raises(BundleError, match=says):
        commands_of(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    """A file that is no text is no bundle."""
    for content in (b"\xff\xfe\x00", b"\x00", b"version: 1\nroles: {\xff: {}}"):
        with pytest.raises(BundleError):
            commands_of(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("read"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "roles", "users", "permissions", "access", "key", "a"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_anything_is_a_bundle_or_an_error(value: object) -> None:
    """Whatever a file holds, there are commands or one kind of error."""
    text = yaml.safe_dump(value)

    try:
        commands = commands_of(text.encode())
    except BundleError:
        return
    assert isinstance(commands, list)

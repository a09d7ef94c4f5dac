"""Policy bundles: what a new cluster's accounts start with, from a file.

Owns: the form of a bundle, checking it, and the commands that it comes to.
Never: reads a file, or holds a password: users of a bundle log in by certificate; touches root, who
    is made when a cluster is founded.
Follows: policies/README.md.
Keeps: a bundle that is taken is taken whole; what is not understood is an error and never skipped.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import yaml
from google.protobuf.message import Message

from kvsecure.model.keys import prefix_end
from kvsecure.model.limits import AUTH_NAME_BYTES_MAX
from kvsecure.proto import auth_pb2, authstore_pb2

__all__ = ["BundleError", "commands_of"]

_VERSION: Final = 1
_ROOT: Final = "root"
_ACCESS: Final = {
    "read": authstore_pb2.Permission.READ,
    "write": authstore_pb2.Permission.WRITE,
    "readwrite": authstore_pb2.Permission.READWRITE,
}


@final
class BundleError(Exception):
    """A bundle is not of the form; the text says where."""


def commands_of(content: bytes) -> list[Message]:
    """Return the commands that make a bundle's roles and users, in order.

    Raises:
        BundleError: The bundle is not of the form.
    """
    try:
        bundle = yaml.load(content, Loader=_Loader)  # noqa: S506 - a SafeLoader that refuses more
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BundleError(f"not YAML: {error}") from None
    top = _mapping(bundle, "the bundle", {"version", "roles", "users"})
    version = top.get("version")
    if version != _VERSION or isinstance(version, bool):
        raise BundleError(f"version: {version!r} is not known here, only {_VERSION}")
    roles = _mapping(_given(top, "roles"), "roles", None)
    users = _mapping(_given(top, "users"), "users", None)
    commands: list[Message] = []
    for name, role in roles.items():
        commands.extend(_role(_name(name, "roles"), role))
    for name, user in users.items():
        commands.extend(_user(_name(name, "users"), user, roles))
    return commands


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a name that stands twice is a mistake and not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the signature is the library's
        seen: set[str] = set()
        for key, _ in node.value:
            # A merge key (`<<`) may stand beside what it brings in.
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                raise BundleError(f"line {key.start_mark.line + 1}: {name!r} stands there twice")
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def _role(name: str, role: object) -> Iterator[Message]:
    where = f"roles.{name}"
    fields = _mapping({} if role is None else role, where, {"description", "permissions"})
    yield auth_pb2.AuthRoleAddRequest(name=name)
    ranges: set[tuple[bytes, bytes]] = set()
    for number, each in enumerate(_list(fields.get("permissions"), f"{where}.permissions")):
        place = f"{where}.permissions[{number}]"
        permission = _permission(each, place)
        asked = (permission.key, permission.range_end)
        if asked in ranges:
            # The later one would replace the earlier one.
            raise BundleError(f"{place}: the role has a permission on this very range already")
        ranges.add(asked)
        yield auth_pb2.AuthRoleGrantPermissionRequest(name=name, perm=permission)


def _user(name: str, user: object, roles: Mapping[str, Any]) -> Iterator[Message]:
    where = f"users.{name}"
    fields = _mapping({} if user is None else user, where, {"description", "roles"})
    yield auth_pb2.AuthUserAddRequest(
        name=name, options=authstore_pb2.UserAddOptions(no_password=True)
    )
    for role in _list(fields.get("roles"), f"{where}.roles"):
        if not isinstance(role, str) or role not in roles:
            raise BundleError(f"{where}.roles: there is no role {role!r} in the bundle")
        yield auth_pb2.AuthUserGrantRoleRequest(user=name, role=role)


def _name(name: str, where: str) -> str:
    """Check a name by the rules for names that come over the wire."""
    if name == _ROOT:
        raise BundleError(f"{where}: root is made by the server, with its password, and not here")
    size_bytes = len(_encoded(name, where))
    if not 0 < size_bytes <= AUTH_NAME_BYTES_MAX or "/" in name or not name.isprintable():
        raise BundleError(
            f"{where}: {name!r} is no name: 1 to {AUTH_NAME_BYTES_MAX} bytes, without slashes and "
            "control characters"
        )
    return name


def _permission(permission: object, where: str) -> authstore_pb2.Permission:
    fields = _mapping(permission, where, {"access", "prefix", "key", "range"})
    access = fields.get("access")
    if not isinstance(access, str) or access not in _ACCESS:
        raise BundleError(f"{where}.access: one of {', '.join(_ACCESS)}")
    given = [name for name in ("prefix", "key", "range") if name in fields]
    if len(given) != 1:
        raise BundleError(f"{where}: exactly one of prefix, key and range")
    key, range_end = _span(given[0], fields[given[0]], f"{where}.{given[0]}")
    return authstore_pb2.Permission(permType=_ACCESS[access], key=key, range_end=range_end)


def _span(kind: str, value: object, where: str) -> tuple[bytes, bytes]:
    if kind == "range":
        ends = [_key(end, where) for end in _list(value, where)]
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise BundleError(f"{where}: two keys, the lower one first")
        return ends[0], ends[1]
    key = _key(value, where)
    return key, prefix_end(key) if kind == "prefix" else b""


def _key(value: object, where: str) -> bytes:
    """Return a key; what YAML takes for a number or a truth is not guessed at."""
    if not isinstance(value, str) or not value:
        raise BundleError(f"{where}: a key is text, and not empty; put it in quotes")
    return _encoded(value, where)


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BundleError(f"{where}: {text!r} is not text in UTF-8") from None


def _given(fields: Mapping[str, Any], name: str) -> object:
    value = fields.get(name)
    return {} if value is None else value


def _mapping(value: object, where: str, known: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BundleError(f"{where}: names with values are expected")
    unknown = set(value) - known if known is not None else set()
    if unknown:
        raise BundleError(f"{where}: {min(unknown)!r} is not known here")
    return value


def _list(value: object, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BundleError(f"{where}: a list is expected")
    return value

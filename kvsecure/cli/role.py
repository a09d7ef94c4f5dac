"""`kvsecure role`: roles and what they permit.

Owns: the commands on roles.
Never: grants more than one right on one choice of keys at a time.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table
from kvsecure.cli.texts import bytes_of_argument, described, json_bytes
from kvsecure.client.errors import ClientError
from kvsecure.client.keys import Keys
from kvsecure.client.roles import Permission, Right
from kvsecure.model.errors import Failure

__all__ = ["role"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_name = click.argument("name", metavar="ROLE")


@click.group(
    epilog=example(
        "kvsecure role add reader",
        "kvsecure role grant reader /app/",
        "kvsecure role get reader",
    )
)
def role() -> None:
    """Roles and what they permit."""


@role.command(epilog=example("kvsecure role add reader"))
@_name
@pass_invocation
def add(invocation: Invocation, *, name: str) -> None:
    """Add a role that permits nothing yet."""
    with invocation.client("manage roles") as client:
        client.roles.add(name)
    click.echo(f"role {name} added")


@role.command(epilog=example("kvsecure role delete reader"))
@_name
@pass_invocation
def delete(invocation: Invocation, *, name: str) -> None:
    """Delete a role and take it from all users."""
    with invocation.client("manage roles") as client:
        client.roles.delete(name)
    click.echo(f"role {name} deleted")


@role.command(epilog=example("kvsecure role get reader"))
@_name
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def get(invocation: Invocation, *, name: str, form: Format) -> None:
    """Print what a role permits."""
    with invocation.client(f"look at role {name}") as client:
        permissions = client.roles.permissions_of(name)
    if form is Format.JSON:
        print_json({"role": name, "permissions": [_permission_json(each) for each in permissions]})
        return
    rows = [[each.right.value.lower(), described(*each.keys)] for each in permissions]
    print_table(["RIGHT", "KEYS"], rows)


def _permission_json(permission: Permission) -> dict[str, Any]:
    return {
        "right": permission.right.value.lower(),
        **json_bytes("key", permission.keys.key),
        **json_bytes("range_end", permission.keys.range_end),
    }


@role.command(name="list", epilog=example("kvsecure role list"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the names of all roles."""
    with invocation.client("list roles") as client:
        roles = client.roles.list()
    if form is Format.JSON:
        print_json({"roles": list(roles)})
        return
    for name in roles:
        click.echo(name)


def _permission_options(command: Decorated) -> Decorated:
    decorators = (
        _name,
        click.argument("key"),
        click.option("--key", "exactly", is_flag=True, help="Exactly this key, not a prefix."),
        click.option(
            "--range-end", metavar="END", help="The keys from KEY up to END, without END."
        ),
        click.option("--from-key", is_flag=True, help="KEY and every key after it."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _keys(key: str, *, exactly: bool, range_end: str | None, from_key: bool) -> Keys:
    if exactly + (range_end is not None) + from_key > 1:
        raise click.UsageError("choose one of --key, --range-end and --from-key")
    start = bytes_of_argument(key)
    if exactly:
        if not start:
            raise click.UsageError("KEY is empty: without --key it means every key")
        return Keys.one(start)
    if from_key:
        return Keys.from_key(start)
    if range_end is not None:
        if bytes_of_argument(range_end) <= start:
            raise click.UsageError("--range-end must come after KEY")
        return Keys.between(start, bytes_of_argument(range_end))
    return Keys.prefix(start)


@role.command(
    epilog=example(
        "kvsecure role grant reader /app/",
        "kvsecure role grant writer /app/ --readwrite",
        "kvsecure role grant deploy /app/version --key --write",
        'kvsecure role grant auditor ""',
    )
)
@_permission_options
@click.option("--read", "right", flag_value="READ", help="Reading and watching (default).")
@click.option("--write", "right", flag_value="WRITE", help="Writing and deleting, not reading.")
@click.option("--readwrite", "right", flag_value="READWRITE", help="Both.")
@pass_invocation
def grant(
    invocation: Invocation,
    *,
    name: str,
    key: str,
    exactly: bool,
    range_end: str | None,
    from_key: bool,
    right: str | None,
) -> None:
    """Let a role read or write the keys that begin with KEY.

    A right that the role has on the same keys is replaced. The last of --read, --write and
    --readwrite counts.
    """
    keys = _keys(key, exactly=exactly, range_end=range_end, from_key=from_key)
    permission = Permission(right=Right(right or "READ"), keys=keys)
    with invocation.client("manage roles") as client:
        try:
            client.roles.grant(name, permission)
        except ClientError as error:
            raise _explained(error, name) from None
    verbs = {Right.READ: "read", Right.WRITE: "write", Right.READWRITE: "read and write"}
    click.echo(f"role {name} may {verbs[permission.right]} {described(*keys)}")


@role.command(
    epilog=example(
        "kvsecure role revoke reader /app/", "kvsecure role revoke deploy /app/version --key"
    )
)
@_permission_options
@pass_invocation
def revoke(
    invocation: Invocation,
    *,
    name: str,
    key: str,
    exactly: bool,
    range_end: str | None,
    from_key: bool,
) -> None:
    """Take a permission back; the keys must be named as they were granted."""
    keys = _keys(key, exactly=exactly, range_end=range_end, from_key=from_key)
    with invocation.client("manage roles") as client:
        try:
            client.roles.revoke(name, keys)
        except ClientError as error:
            raise _explained(error, name) from None
    click.echo(f"role {name} has no right of its own on {described(*keys)} any more")


def _explained(error: ClientError, name: str) -> Exception:
    match error.failure:
        case Failure.ROLE_NOT_FOUND:
            return CommandFailure(error.text, hint=f"add it: `kvsecure role add {name}`")
        case Failure.PERMISSION_NOT_GRANTED:
            return CommandFailure(
                error.text, hint=f"`kvsecure role get {name}` shows what it permits"
            )
        case _:
            return error

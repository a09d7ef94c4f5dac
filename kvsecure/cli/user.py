"""`kvsecure user`: users and their roles.

Owns: the commands on users.
Never: takes a password from an argument.
"""

from pathlib import Path

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import chosen_password
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option, new_password_options
from kvsecure.cli.output import print_json, print_table
from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Failure
from kvsecure.model.secret import Secret

__all__ = ["user"]

_name = click.argument("name", metavar="USER")


@click.group(
    epilog=example(
        "kvsecure user add web",
        "kvsecure user grant web reader",
        "kvsecure user get web",
    )
)
def user() -> None:
    """Users and their roles."""


@user.command(
    epilog=example(
        "kvsecure user add web",
        "kvsecure user add web --password-file web.password",
        "kvsecure user add web --no-password",
    )
)
@_name
@new_password_options()
@click.option("--no-password", is_flag=True, help="The user logs in by certificate alone.")
@pass_invocation
@click.pass_context
def add(
    ctx: click.Context,
    invocation: Invocation,
    *,
    name: str,
    password_file: Path | None,
    password_stdin: bool,
    no_password: bool,
) -> None:
    """Add a user; the password is asked for unless an option says where it is."""
    if ":" in name:
        # etcdctl takes NAME:PASSWORD here.
        raise click.UsageError("a name has no colon, and a password does not belong there")
    password: Secret | None = None
    if no_password:
        if password_file is not None or password_stdin:
            raise click.UsageError("--no-password and a password do not go together")
    else:
        password = chosen_password(
            ctx,
            file=password_file,
            stdin=password_stdin,
            prompt=f"Password of {name}",
            confirm=True,
        )
    with invocation.client("manage users") as client:
        client.users.add(name, password)
    click.echo(f"user {name} added")


@user.command(epilog=example("kvsecure user delete web"))
@_name
@pass_invocation
def delete(invocation: Invocation, *, name: str) -> None:
    """Delete a user."""
    with invocation.client("manage users") as client:
        client.users.delete(name)
    click.echo(f"user {name} deleted")


@user.command(epilog=example("kvsecure user get web"))
@_name
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def get(invocation: Invocation, *, name: str, form: Format) -> None:
    """Print the roles of a user."""
    with invocation.client(f"look at user {name}") as client:
        roles = client.users.roles_of(name)
    if form is Format.JSON:
        print_json({"user": name, "roles": list(roles)})
        return
    print_table(["USER", "ROLES"], [[name, ", ".join(roles)]])


@user.command(name="list", epilog=example("kvsecure user list"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the names of all users."""
    with invocation.client("list users") as client:
        users = client.users.list()
    if form is Format.JSON:
        print_json({"users": list(users)})
        return
    for name in users:
        click.echo(name)


@user.command(epilog=example("kvsecure user passwd web"))
@_name
@new_password_options()
@pass_invocation
@click.pass_context
def passwd(
    ctx: click.Context,
    invocation: Invocation,
    *,
    name: str,
    password_file: Path | None,
    password_stdin: bool,
) -> None:
    """Give a user a new password; their log-ins end."""
    password = chosen_password(
        ctx,
        file=password_file,
        stdin=password_stdin,
        prompt=f"New password of {name}",
        confirm=True,
    )
    with invocation.client("manage users") as client:
        client.users.change_password(name, password)
    click.echo(f"password of user {name} changed")


@click.command(
    name="grant-role",
    epilog=example("kvsecure user grant-role web reader", "kvsecure user grant web reader"),
)
@_name
@click.argument("role")
@pass_invocation
def grant_role(invocation: Invocation, *, name: str, role: str) -> None:
    """Give a user a role."""
    with invocation.client("manage users") as client:
        try:
            client.users.grant_role(name, role)
        except ClientError as error:
            raise _explained(error, name, role) from None
    click.echo(f"user {name} has role {role}")


def _explained(error: ClientError, name: str, role: str) -> Exception:
    match error.failure:
        case Failure.USER_NOT_FOUND:
            return CommandFailure(error.text, hint=f"add it: `kvsecure user add {name}`")
        case Failure.ROLE_NOT_FOUND:
            return CommandFailure(error.text, hint=f"add it: `kvsecure role add {role}`")
        case _:
            return error


user.add_command(grant_role)
user.add_command(grant_role, name="grant")


@user.command(epilog=example("kvsecure user revoke-role web reader"))
@_name
@click.argument("role")
@pass_invocation
def revoke_role(invocation: Invocation, *, name: str, role: str) -> None:
    """Take a role from a user."""
    with invocation.client("manage users") as client:
        client.users.revoke_role(name, role)
    click.echo(f"user {name} no longer has role {role}")

"""`kvsecure tenant`: tenants, who cannot see each other.

Owns: the commands on tenants; for administrators of the cluster.
Never: deletes a tenant without being told twice.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import chosen_password, stdin_is_terminal
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option, new_password_options
from kvsecure.cli.output import print_json, print_table
from kvsecure.model.secret import Secret

if TYPE_CHECKING:
    from kvsecure.client.tenants import Tenant

__all__ = ["tenant"]

_name = click.argument("name", metavar="TENANT")


@click.group(
    epilog=example(
        "kvsecure tenant add acme", "kvsecure --context acme login --tenant acme --user root"
    )
)
def tenant() -> None:
    """Tenants, who cannot see each other."""


@tenant.command(
    epilog=example(
        "kvsecure tenant add acme",
        "kvsecure tenant add acme --root-password-file acme.password",
    )
)
@_name
@new_password_options("root-password")
@click.option("--no-password", is_flag=True, help="Its root logs in by certificate alone.")
@format_option(Format.TEXT, Format.JSON)
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
    form: Format,
) -> None:
    """Add a tenant with a user root of its own, whose password is asked for."""
    password: Secret | None = None
    if no_password:
        if password_file is not None or password_stdin:
            raise click.UsageError("--no-password and a password do not go together")
    else:
        password = chosen_password(
            ctx,
            file=password_file,
            stdin=password_stdin,
            prompt=f"Password of root in tenant {name}",
            confirm=True,
        )
    with invocation.client("manage tenants") as client:
        added = client.tenants.add(name, password)
    if form is Format.JSON:
        print_json(_tenant_json(added))
        return
    log_in = f"kvsecure --context {name} login --tenant {name} --user root"
    click.echo(f"tenant {name} added; its root logs in with `{log_in}`")


def _tenant_json(found: "Tenant") -> dict[str, Any]:
    return {
        "id": found.tenant_id,
        "name": found.name,
        "key_count": found.key_count,
        "user_count": found.user_count,
        "auth_revision": found.auth_revision,
    }


def _print(tenants: "tuple[Tenant, ...]") -> None:
    rows = [
        [str(each.tenant_id), each.name, str(each.key_count), str(each.user_count)]
        for each in tenants
    ]
    print_table(["ID", "TENANT", "KEYS", "USERS"], rows)


@tenant.command(name="list", epilog=example("kvsecure tenant list"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print all tenants."""
    with invocation.client("list tenants") as client:
        tenants = client.tenants.list()
    if form is Format.JSON:
        print_json({"tenants": [_tenant_json(each) for each in tenants]})
        return
    _print(tenants)


@tenant.command(epilog=example("kvsecure tenant get acme"))
@_name
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def get(invocation: Invocation, *, name: str, form: Format) -> None:
    """Print one tenant."""
    with invocation.client(f"look at tenant {name}") as client:
        found = client.tenants.get(name)
    if form is Format.JSON:
        print_json(_tenant_json(found))
        return
    _print((found,))


@tenant.command(epilog=example("kvsecure tenant delete acme"))
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def delete(invocation: Invocation, *, name: str, yes: bool) -> None:
    """Delete a tenant with all its keys, users and roles."""
    if not yes:
        if not stdin_is_terminal():
            raise click.UsageError("no terminal to ask on: give --yes to delete without a question")
        question = f"Delete tenant {name} with all its keys, users and roles?"
        if not click.confirm(question, err=True):
            raise CommandFailure("nothing was deleted")
    with invocation.client("manage tenants") as client:
        client.tenants.delete(name)
    click.echo(f"tenant {name} deleted")

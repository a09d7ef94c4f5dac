"""`kvsecure auth`: turn authentication on and off.

Owns: the commands on the switch.
Never: turns it on for a store whose root could not log in.
Follows: etcdctl: user root gets role root on the way, if only that is missing.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json
from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Failure

if TYPE_CHECKING:
    from kvsecure.client import Client

__all__ = ["auth"]


@click.group(epilog=example("kvsecure auth status"))
def auth() -> None:
    """Turn authentication on and off."""


@auth.command(epilog=example("kvsecure user add root", "kvsecure auth enable"))
@pass_invocation
def enable(invocation: Invocation) -> None:
    """Turn authentication on; user root must exist."""
    with invocation.client("turn authentication on") as client:
        try:
            client.auth.enable()
        except ClientError as error:
            if error.failure is not Failure.ROOT_ROLE_MISSING:
                raise
            _make_root(client)
            client.auth.enable()
    click.echo("authentication is on")


def _make_root(client: "Client") -> None:
    # An existing role is fine; any other failure comes out at the next step.
    with suppress(ClientError):
        client.roles.add("root")
    client.users.grant_role("root", "root")


@auth.command(epilog=example("kvsecure auth disable"))
@pass_invocation
def disable(invocation: Invocation) -> None:
    """Turn authentication off: anybody who can connect may then do anything."""
    with invocation.client("turn authentication off") as client:
        client.auth.disable()
    click.echo("authentication is off: anybody who can connect may do anything")


@auth.command(epilog=example("kvsecure auth status"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def status(invocation: Invocation, *, form: Format) -> None:
    """Print whether authentication is on."""
    with invocation.client("ask for the state of authentication") as client:
        state = client.auth.status()
    if form is Format.JSON:
        print_json({"enabled": state.enabled, "auth_revision": state.auth_revision})
        return
    click.echo(f"authentication is {'on' if state.enabled else 'off'}")
    click.echo(f"auth revision {state.auth_revision}")

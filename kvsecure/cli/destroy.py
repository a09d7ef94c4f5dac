"""`kvsecure destroy`: forget every version of a key for good.

Owns: asking twice, waiting for the bytes to be gone, and saying what they are not gone from.
Never: says that something is gone that may be there.
"""

import time
from typing import TYPE_CHECKING, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import stdin_is_terminal
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.texts import bytes_of_argument, shown

if TYPE_CHECKING:
    from kvsecure.client import Client

__all__ = ["destroy"]

_LOOK_EVERY_S: Final = 0.2
_ELSEWHERE: Final = (
    "Backups from before still have it, and so may blocks that the file system has freed: "
    "`kvsecure crypto rotate`, `reencrypt` and `retire` make those unreadable."
)


@click.command(epilog=example("kvsecure destroy /app/db/password"))
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the bytes to be gone from the disk.",
)
@pass_invocation
def destroy(invocation: Invocation, *, key: str, yes: bool, wait_s: float) -> None:
    """Forget every version of a key for good.

    The present value is deleted, none of the past can be read from then on, and the bytes go from
    the tables and the log of the member. What cannot be reached from there is told at the end. If
    the bytes are not gone in time the exit status is 1, and the server goes on by itself.
    """
    name = bytes_of_argument(key)
    if not name:
        raise click.UsageError("KEY is empty")
    if not yes:
        if not stdin_is_terminal():
            raise click.UsageError(
                "no terminal to ask on: give --yes to destroy without a question"
            )
        question = f"Destroy every version of {shown(name)}? This cannot be undone."
        if not click.confirm(question, err=True):
            raise CommandFailure("nothing was destroyed")
    with invocation.client(f"destroy {shown(name)}") as client:
        existed = client.versions.destroy(name)
        was = "is deleted, and none" if existed else "did not exist; none"
        click.echo(f"{shown(name)} {was} of its versions can be read any more")
        _wait(client, wait_s)
    click.echo("its bytes are gone from the tables and the log")
    click.echo(_ELSEWHERE, err=True)


def _wait(client: "Client", wait_s: float) -> None:
    """Wait until nothing is left on the member's disk.

    Raises:
        CommandFailure: There may be something.
    """
    end_s = time.monotonic() + wait_s
    while True:
        remains = client.versions.remains()
        if not remains.pending:
            return
        if time.monotonic() >= end_s:
            why = "; the disk does not let it, see the server's log" if remains.is_stalled else ""
            raise CommandFailure(
                f"its bytes may still be on the disk: the server goes on getting rid of them{why}"
            )
        # A person waits; the server needs nobody to.
        time.sleep(_LOOK_EVERY_S)

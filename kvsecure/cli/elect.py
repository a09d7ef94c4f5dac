"""`kvsecure elect`: stand for an election and lead until Ctrl-C, or follow who leads.

Owns: the command's options and what it prints.
Never: ends without resigning, unless it is killed; then its lease ends the term.
"""

import click

from kvsecure.cli.holding import interruptible, until_interrupted
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.texts import bytes_of_argument, shown

__all__ = ["elect"]


@click.command(
    epilog=example(
        "kvsecure elect /elections/primary host-1", "kvsecure elect --listen /elections/primary"
    )
)
@click.argument("name")
@click.argument("value", required=False)
@click.option("-l", "--listen", is_flag=True, help="Print who leads, and each change of that.")
@pass_invocation
def elect(invocation: Invocation, *, name: str, value: str | None, listen: bool) -> None:
    """Stand for an election and lead until Ctrl-C, or follow who leads.

    Waits until nobody who came before leads in the election NAME, prints the key and VALUE, a line
    each, and leads until Ctrl-C. With --listen prints key and value of who leads, and again with
    each change.
    """
    if listen and value is not None:
        raise click.UsageError("give VALUE or --listen: who listens proclaims nothing")
    if not listen and value is None:
        raise click.UsageError("give VALUE, to stand for the election, or --listen")
    what = f"the election {shown(bytes_of_argument(name))}"
    attempt = f"observe {what}" if listen else f"stand for {what}"
    with interruptible(), invocation.client(attempt) as client:
        election = client.election(bytes_of_argument(name))
        if value is None:
            for leader in election.observe():
                click.echo(f"{shown(leader.key)}\n{shown(leader.value)}")
            return
        with election.campaign(bytes_of_argument(value)) as leading:
            click.echo(f"{shown(leading.key)}\n{shown(bytes_of_argument(value))}")
            until_interrupted(leading.when_lost, what)

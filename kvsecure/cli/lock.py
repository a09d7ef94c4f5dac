"""`kvsecure lock`: hold a lock, for as long as a command runs or until Ctrl-C.

Owns: the command's options, what it prints, and what the command that it runs is told.
Never: ends without letting go of the lock, unless it is killed; then its lease ends it.
"""

import os

import click

from kvsecure.cli.holding import interruptible, run_while, until_interrupted
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.texts import bytes_of_argument, shown

__all__ = ["lock"]


@click.command(
    # What follows NAME is the command's.
    context_settings={"allow_interspersed_args": False},
    epilog=example("kvsecure lock /locks/report", "kvsecure lock /locks/report make-report"),
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Without a sign of life for so long, the lock is somebody else's.",
)
@pass_invocation
@click.pass_context
def lock(
    ctx: click.Context, invocation: Invocation, *, name: str, command: tuple[str, ...], ttl_s: int
) -> None:
    """Hold a lock, for as long as COMMAND runs or until Ctrl-C.

    Waits until nobody who came before has the lock NAME. Without COMMAND prints the lock's key and
    holds it until Ctrl-C. COMMAND finds the key in ETCD_LOCK_KEY and in ETCD_LOCK_REV a number that
    is higher for each holder than for those before it; its exit status is this command's. A COMMAND
    whose lock is lost is sent SIGTERM. Options come before NAME.
    """
    # As etcdctl wants it before a command with options of its own.
    words = command[1:] if command[:1] == ("--",) else command
    what = f"the lock {shown(bytes_of_argument(name))}"
    with (
        interruptible(),
        invocation.client(f"take {what}") as client,
    ):
        taken = client.lock(bytes_of_argument(name), ttl_s=ttl_s)
        with taken as held:
            if not words:
                click.echo(shown(held.key))
                until_interrupted(taken.when_lost, what)
                return
            more = {"ETCD_LOCK_KEY": os.fsdecode(held.key), "ETCD_LOCK_REV": str(held.fence)}
            status = run_while(words, more, taken.when_lost, what)
    ctx.exit(status)

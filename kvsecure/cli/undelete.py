"""`kvsecure undelete`: bring back a key that was deleted.

Owns: which version comes back.
Never: overwrites a key that exists.
"""

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.points import time_text
from kvsecure.cli.texts import bytes_of_argument, shown

__all__ = ["undelete"]


@click.command(epilog=example("kvsecure undelete /app/db/password"))
@click.argument("key")
@pass_invocation
def undelete(invocation: Invocation, *, key: str) -> None:
    """Bring back a deleted key.

    The last version before the deletion is written again, without the lease that it had. A key that
    exists is left alone (exit status 1), and so is one of which that version is not kept.
    """
    from kvsecure.client.restoring import Step, carry_out

    name = bytes_of_argument(key)
    if not name:
        raise click.UsageError("KEY is empty")
    with invocation.client(f"undelete {shown(name)}") as client:
        versions = client.versions.history(name)
        newest = next(versions, None)
        if newest is not None and not newest.is_deleted:
            raise CommandFailure(
                f"{shown(name)} exists", hint="`kvsecure rollback` makes it what it was before"
            )
        last = next(versions, None) if newest is not None else None
        if newest is None or last is None or last.is_deleted:
            raise CommandFailure(f"no version of {shown(name)} from before a deletion is kept")
        step = Step(key=name, now=None, then=last.key_value())
        ((_, is_done),) = carry_out(client, [step])
    if not is_done:
        raise CommandFailure(f"{shown(name)} exists: somebody has just written it")
    when = f", written {time_text(last.time_s)}" if last.time_s else ""
    click.echo(f"{shown(name)} is as it was at revision {last.mod_revision}{when}")

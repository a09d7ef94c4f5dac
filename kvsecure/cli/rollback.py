"""`kvsecure rollback`: make keys what they were.

Owns: the command's options, and telling what was done.
Never: undoes what somebody else writes meanwhile.
"""

import time
from typing import TYPE_CHECKING, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.points import Point, read_time, revision_of, version_at
from kvsecure.cli.texts import bytes_of_argument, described, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvsecure.client import Client, Keys
    from kvsecure.client.restoring import Step

__all__ = ["rollback"]

_ONE_POINT: Final = "choose one of --rev, --at and --version"


@click.command(
    epilog=example(
        "kvsecure rollback /app/colour --version 3",
        "kvsecure rollback --prefix /app/ --at '2h ago' --dry-run",
    )
)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Every key that begins with KEY.")
@click.option(
    "--rev", "revision", type=click.IntRange(min=1), metavar="REV", help="As it was then."
)
@click.option("--at", metavar="TIME", help="As it was then: RFC 3339, or how long ago, like -2h.")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="To this version.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@pass_invocation
def rollback(
    invocation: Invocation,
    *,
    key: str,
    prefix: bool,
    revision: int | None,
    at: str | None,
    version: int | None,
    dry_run: bool,
) -> None:
    """Make keys what they were.

    Values are written again and keys that did not exist are deleted, in ordinary transactions:
    each takes effect as a whole, and a key that somebody else changes meanwhile is left as they
    made it and named at the end (exit status 1). What has the same value already is left alone.
    Leases do not come back.
    """
    from kvsecure.client.keys import Keys
    from kvsecure.client.restoring import carry_out

    if (revision is not None) + (at is not None) + (version is not None) != 1:
        raise click.UsageError(_ONE_POINT)
    if prefix and version is not None:
        raise click.UsageError("--version is about one key: give --rev or --at with --prefix")
    name = bytes_of_argument(key)
    if not name and not prefix:
        raise click.UsageError("KEY is empty: for every key give --prefix as well")
    keys = Keys.prefix(name) if prefix else Keys.one(name)
    time_s = None if at is None else read_time(at, time.time())
    point = Point(revision=revision, version=version, time_s=time_s)
    left_alone = []
    count = 0
    with invocation.client(f"roll back {described(*keys)}") as client:
        steps = _steps(client, keys, point)
        outcomes = ((step, True) for step in steps) if dry_run else carry_out(client, steps)
        for step, is_done in outcomes:
            if is_done:
                count += 1
                click.echo(_said(step, dry_run=dry_run))
            else:
                left_alone.append(step.key)
    keys_said = f"{count} key" if count == 1 else f"{count} keys"
    click.echo(f"{keys_said} {'would be changed' if dry_run else 'changed'}")
    if left_alone:
        names = ", ".join(map(shown, left_alone))
        raise CommandFailure(f"changed by somebody else meanwhile, and left alone: {names}")


def _steps(client: "Client", keys: "Keys", point: Point) -> "Iterator[Step]":
    from kvsecure.client.errors import ClientError
    from kvsecure.client.restoring import Step, steps_to
    from kvsecure.model.errors import Failure

    one = keys.key if keys.is_one else None
    revision = revision_of(client, point, one)
    if one is not None:
        present = client.kv.get(one)
        past = version_at(client, one, revision)
        then = None if past is None or past.is_deleted else past.key_value()
        if (present and present.value) != (then and then.value):
            yield Step(key=one, now=present, then=then)
        return
    try:
        current = client.kv.range(keys, limit=1).header.revision
        yield from steps_to(client, keys, revision, current)
    except ClientError as error:
        if error.failure is not Failure.COMPACTED:
            raise
        raise CommandFailure(
            f"revision {revision} is compacted: only single keys go back further, as far as "
            "versions of them are kept"
        ) from None


def _said(step: "Step", *, dry_run: bool) -> str:
    if step.then is None:
        return f"{'would delete' if dry_run else 'deleted'} {shown(step.key)}"
    verb = "would write" if dry_run else "wrote"
    return f"{verb} {shown(step.key)} as it was at revision {step.then.mod_revision}"

"""`kvsecure compact`: forget old revisions.

Owns: the command's options.
Never: chooses the revision.
"""

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json

__all__ = ["compact"]


@click.command(epilog=example("kvsecure compact 1000"))
@click.argument("revision", type=int, metavar="REV")
@click.option("--wait", is_flag=True, help="Return when the space has been given back.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def compact(invocation: Invocation, *, revision: int, wait: bool, form: Format) -> None:
    """Forget the history before revision REV.

    The newest value of each key stays. What was forgotten can be neither read nor watched again.
    """
    with invocation.client("compact the history") as client:
        now = client.kv.compact(revision, wait=wait)
    if form is Format.JSON:
        print_json({"compact_revision": revision, "revision": now})
        return
    click.echo(f"compacted revision {revision}")

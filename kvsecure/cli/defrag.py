"""`kvsecure defrag`: give free space back to the file system.

Owns: the command's options.
Never: defragments two members at once.
"""

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json

__all__ = ["defrag"]


@click.command(epilog=example("kvsecure defrag", "kvsecure --timeout 300 defrag"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def defrag(invocation: Invocation, *, form: Format) -> None:
    """Give the free space of each endpoint's tables back to its file system.

    Compaction and deletion free space, which is used again; this makes the files smaller. Reads and
    writes go on meanwhile. For a while it takes as much room on the disk as is in use.
    """
    with invocation.client("defragment") as client:
        for endpoint, took_s in client.maintenance.every_defragment():
            if form is Format.JSON:
                print_json({"endpoint": str(endpoint), "took_s": round(took_s, 6)})
            else:
                click.echo(f"{endpoint}: defragmented in {took_s:.3f} s")

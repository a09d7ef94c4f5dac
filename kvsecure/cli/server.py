"""`kvsecure server`: run a member.

Owns: handing the command line over as it is.
Never: parses a flag; the server reads etcd's flags by etcd's rules.
"""

import os
import sys

import click

__all__ = ["server"]


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def server(arguments: tuple[str, ...]) -> None:
    """Run a member; `kvsecure server --help` lists its flags."""
    from kvsecure.server.lifecycle import run

    sys.exit(run(arguments, os.environ))

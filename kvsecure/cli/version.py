"""`kvsecure version`: the version of this program.

Owns: the command.
Never: asks a server; `kvsecure endpoint status` does.
"""

import platform

import click

import kvsecure
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json

__all__ = ["version"]


@click.command(epilog=example("kvsecure version"))
@format_option(Format.TEXT, Format.JSON)
def version(*, form: Format) -> None:
    """Print the version of this program."""
    if form is Format.JSON:
        print_json({"kvsecure": kvsecure.__version__, "python": platform.python_version()})
        return
    click.echo(f"kvsecure {kvsecure.__version__}")

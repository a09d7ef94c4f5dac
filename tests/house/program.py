"""What the program's command line has: every command, and the flags of each.

Owns: asking click and the server's table of flags.
Never: reads a document.
"""

import click

from kvsecure.cli.main import COMMANDS, kvsecure_command
from kvsecure.server.config.table import FLAGS

__all__ = ["known_flags", "started_modules"]


def known_flags() -> dict[tuple[str, ...], frozenset[str]]:
    """Return the flags of each command by the command's words; () holds the global ones."""
    known: dict[tuple[str, ...], frozenset[str]] = {}
    _walk(kvsecure_command, (), known)
    spelled = {f"{dashes}{name}" for name in FLAGS for dashes in ("-", "--")}
    known["server",] = known.get(("server",), frozenset()) | spelled | {"--help", "--version"}
    return known


def started_modules() -> frozenset[str]:
    """Return the modules that nothing imports because a name on the command line starts them."""
    commands = {command.module for command in COMMANDS.values()}
    return frozenset({"kvsecure", "kvsecure.__main__", *commands})


def _walk(
    command: click.Command,
    path: tuple[str, ...],
    known: dict[tuple[str, ...], frozenset[str]],
) -> None:
    context = click.Context(command, info_name=" ".join(("kvsecure", *path)))
    flags = {"--help"}
    for parameter in command.get_params(context):
        flags |= {*parameter.opts, *parameter.secondary_opts}
    known[path] = frozenset(flag for flag in flags if flag.startswith("-"))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                _walk(inner, (*path, name), known)

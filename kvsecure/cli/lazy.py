"""Commands that are imported when they are run.

Owns: the group that finds a command by a table, and its list in the help.
Never: imports a command to describe it.
Follows: the start-up budget of the command line: `kvsecure get` must not pay for `kvsecure server`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import click

from kvsecure.cli.failures import CommandFailure, PipeClosed

__all__ = ["LazyCommand", "LazyGroup"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LazyCommand:
    """Where a command is, and what it is for.

    Attributes:
        module: The module that holds it.
        name: Its name in that module.
        section: The part of the help that lists it.
        summary: What it does, in a few words; the first line of its own help says the same.
    """

    module: str
    name: str
    section: str
    summary: str


@final
class LazyGroup(click.Group):
    """A group of commands that are imported one by one."""

    def __init__(self, *args: Any, table: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of the output that went away ends it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise PipeClosed from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(self.table)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return a command."""
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            if error.name != entry.module:
                raise
            raise CommandFailure(f"this installation has no command {cmd_name!r}") from None
        command: click.Command = getattr(module, entry.name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.table.items():
            sections.setdefault(entry.section, []).append((name, entry.summary))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)

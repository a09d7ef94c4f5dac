"""How reading the configuration can end without a configuration.

Owns: the two outcomes besides success: a text that was asked for, and an error.
Never: prints or exits; the command that asked does.
Follows: etcd's process contract: 0 for help and version, 2 for flag syntax, 1 for the rest.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import final

__all__ = ["ConfigError", "Early", "ExitStatus", "printable"]


class ExitStatus(IntEnum):
    """What the process exits with."""

    ASKED = 0
    CONFIG = 1
    USAGE = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """Help or version: print the text on standard output and exit with status 0."""

    text: str


@final
class ConfigError(Exception):
    """The configuration cannot be used; the text is one line, for the operator.

    Attributes:
        status: What the process exits with: 2 for flag syntax, 1 for everything else.
    """

    def __init__(self, text: str, status: ExitStatus = ExitStatus.CONFIG) -> None:
        super().__init__(printable(text))
        self.status = status


def printable(text: str) -> str:
    """Return the text on one line, with what could move a terminal's cursor escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )

"""The command line in Go's flag syntax.

Owns: what is a flag, what is its value, and where flags end.
Never: knows what a flag means.
Follows: the documentation of Go's flag package, with the texts that etcd prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from kvsecure.server.config.flag import Flag, Kind, Value
from kvsecure.server.config.outcome import ConfigError, ExitStatus
from kvsecure.server.config.removed_flags import LEGACY_FLAGS, OLD_SPELLINGS
from kvsecure.server.config.settings import Setting, Source
from kvsecure.server.config.table import find
from kvsecure.server.config.values import parse_text, quoted

__all__ = ["CommandLine", "HelpWanted", "parse_command_line"]


@final
class HelpWanted(Exception):
    """-h or --help was met; what follows it was not looked at."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command line, read.

    Attributes:
        settings: By flag name; of a repeated flag the last.
        rest: What is not a flag.
        legacy: Ignored flags of old, as they were written.
        old_spellings: Flags that were written under an old name.
    """

    settings: dict[str, Setting]
    rest: tuple[str, ...]
    legacy: tuple[str, ...]
    old_spellings: tuple[str, ...]


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Read flags up to the first argument that is none, or up to `--`.

    Raises:
        HelpWanted: -h or --help.
        ConfigError: A flag is unknown, badly written, or has no or a bad value; status 2.
    """
    settings: dict[str, Setting] = {}
    legacy: dict[str, None] = {}
    old: dict[str, None] = {}
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting[-1]
        if len(argument) < 2 or argument[0] != "-":
            break
        waiting.pop()
        if argument == "--":
            break
        name, separator, text = _name_of(argument).partition("=")
        if name in LEGACY_FLAGS:
            legacy[name] = None
            continue
        flag = _flag(name)
        if name in OLD_SPELLINGS:
            old[name] = None
        if not separator:
            text = _next_text(flag, name, waiting)
        settings[flag.name] = Setting(flag, _value(flag, name, text), Source.FLAG)
    return CommandLine(
        settings=settings,
        rest=tuple(reversed(waiting)),
        legacy=tuple(legacy),
        old_spellings=tuple(old),
    )


def _name_of(argument: str) -> str:
    """Return the argument without its one or two dashes."""
    name = argument[2:] if argument.startswith("--") else argument[1:]
    if not name or name[0] in "-=":
        raise _usage(f"bad flag syntax: {argument}")
    return name


def _flag(name: str) -> Flag:
    flag = find(name)
    if flag is not None:
        return flag
    if name in {"h", "help"}:
        raise HelpWanted
    raise _usage(f"flag provided but not defined: -{name}")


def _next_text(flag: Flag, name: str, waiting: list[str]) -> str:
    """Return the value of a flag that came without `=`, taking the next argument if it must."""
    if flag.kind is Kind.SWITCH:
        return "true"
    if not waiting:
        raise _usage(f"flag needs an argument: -{name}")
    return waiting.pop()


def _value(flag: Flag, name: str, text: str) -> Value:
    try:
        return parse_text(flag, text)
    except ValueError as reason:
        shown = quoted(flag, text)
        if flag.kind is Kind.SWITCH:
            raise _usage(f"invalid boolean value {shown} for -{name}: {reason}") from None
        raise _usage(f"invalid value {shown} for flag -{name}: {reason}") from None


def _usage(text: str) -> ConfigError:
    return ConfigError(text, ExitStatus.USAGE)

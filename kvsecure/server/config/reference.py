"""What the table looks like to a reader: the help, and the page of documentation.

Owns: both texts, and the version's.
Never: says anything about a flag that its row does not say.
Follows: etcd's --version, whose first line other programs parse.
"""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from kvsecure import __version__
from kvsecure.model.versions import ETCD_VERSION
from kvsecure.server.config.durations import format_duration
from kvsecure.server.config.flag import Bounds, Flag, Kind, Section, Status
from kvsecure.server.config.removed_flags import LEGACY_FLAGS, OLD_SPELLINGS
from kvsecure.server.config.table import FLAGS, rows

__all__ = ["USAGE", "help_text", "markdown", "version_text"]

USAGE: Final = """\
Usage:

  kvsecure server [flags]
    Start a server.

  kvsecure server --version
    Show the version.

  kvsecure server -h | --help
    Show every flag.

  kvsecure server --config-file FILE
    Read everything from a YAML file; all other flags and variables are then ignored.
"""

_WIDTH: Final = 88

_INTRODUCTION: Final = """\
# Flags of `kvsecure server`

Generated from the table in `kvsecure/server/config`; write it again with
`python -c 'from kvsecure.server.config.reference import markdown; print(markdown(), end="")'`.

Flags are written as Go programs take them: `-name value`, `--name=value`.
A switch alone means true; the last of several counts; `--` ends them.

Every flag can be set by an environment variable instead: etcd's flags by `ETCD_` and the name in
upper case with underscores, kvsecure's own by `KVSECURE_` and the name. Setting both is an error.

With `--config-file` a YAML file with the flags' names as keys is all that counts. The TLS flags may
stand in the groups `client-transport-security` and `peer-transport-security`, as in etcd's file.
A key that does not exist is an error, unless the file says `compat: etcd`.

A flag of etcd that has no effect here is accepted, and a warning in the log says why.
A flag that asks for something this release will not or cannot do is an error at start.
Both rules are about values other than the default.
"""


def version_text() -> str:
    """Return what --version prints; the first line is etcd's, for programs that look for it."""
    return f"etcd Version: {ETCD_VERSION}\nkvsecure Version: {__version__}\n"


def help_text() -> str:
    """Return what --help prints."""
    return "\n".join((USAGE, *_help_lines())).rstrip() + "\n"


def markdown() -> str:
    """Return the page of documentation."""
    return "\n".join((_INTRODUCTION, *_page_lines())).rstrip() + "\n"


def _help_lines() -> Iterator[str]:
    for section in Section:
        flags = [flag for flag in rows(section) if flag.status is Status.HONOURED]
        if not flags:
            continue
        yield f"{section.value}:"
        for flag in flags:
            yield f"  --{flag.name} {flag.kind.value}".rstrip()
            yield from _wrapped(f"{flag.help} {_facts(flag)}")
        yield ""
    for status, title in (
        (Status.ACCEPTED, "Accepted, without effect (a warning says so)"),
        (Status.REJECTED, "Not in this release (an error)"),
    ):
        yield f"{title}:"
        for why, names in _by_reason(status).items():
            yield from textwrap.wrap(
                " ".join(f"--{name}" for name in names),
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
            yield from _wrapped(f"{_sentence(why)}.")
        yield ""


def _page_lines() -> Iterator[str]:
    for section in Section:
        flags = [flag for flag in rows(section) if flag.status is Status.HONOURED]
        if not flags:
            continue
        yield f"## {section.value}\n"
        yield "| Flag | Default | Meaning |"
        yield "|---|---|---|"
        for flag in flags:
            yield f"| `--{flag.name}` | {_code(flag.default)} | {flag.help}{_range(flag)} |"
        yield ""
    for status, title in (
        (Status.ACCEPTED, "Accepted, without effect"),
        (Status.REJECTED, "Not in this release"),
    ):
        yield f"## {title}\n"
        yield "| Flags | Why |"
        yield "|---|---|"
        for why, names in _by_reason(status).items():
            yield f"| {', '.join(f'`--{name}`' for name in names)} | {_sentence(why)}. |"
        yield ""
    yield "## Old names\n"
    yield f"These mean the flag without `experimental-`: {_names(OLD_SPELLINGS)}.\n"
    yield f"These mean nothing any more, and are accepted as switches: {_names(LEGACY_FLAGS)}."


def _by_reason(status: Status) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for flag in FLAGS.values():
        if flag.status is status:
            reasons.setdefault(flag.help, []).append(flag.name)
    return reasons


def _facts(flag: Flag) -> str:
    default = f"default {flag.default}, " if flag.default else ""
    return f"[{default}{flag.variable or 'no variable'}{_range(flag)}]"


def _range(flag: Flag) -> str:
    if flag.choices:
        return f"; one of {', '.join(choice for choice in flag.choices if choice)}"
    if flag.bounds is None:
        return ""
    return f"; {_bounds(flag.bounds, flag.kind)}"


def _bounds(bounds: Bounds, kind: Kind) -> str:
    write = format_duration if kind is Kind.DURATION else str
    return f"{write(bounds.minimum)} to {write(bounds.maximum)}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="      ",
        subsequent_indent="      ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`--{name}`" for name in sorted(names))

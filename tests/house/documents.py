"""Documents that can be trusted: links that lead somewhere, commands that exist.

Owns: reading Markdown for links and for commands.
Never: runs a command.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from house.source import Offence, Source

__all__ = ["commands_in", "flags_exist", "links_lead_somewhere"]

_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_INLINE: Final = re.compile(r"`((?:python -m )?kvsecure [^`]*)`")
_COMMAND: Final = re.compile(r"^\s*(?:\$ )?(?:\w+=\S+ )*(?:sudo )?(?:python -m )?kvsecure\s")
_PIPE: Final = re.compile(r"\|\|?|&&|;")
_FLAG: Final = re.compile(r"^--?[a-z][a-z0-9-]*")


def links_lead_somewhere(source: Source, root: Path) -> Iterator[Offence]:
    """Report relative links of a Markdown file to files or headings that are not there."""
    for number, line in _prose(source):
        for target in _LINK.findall(line):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, anchor = target.partition("#")
            path = (root / source.path).parent / name if name else root / source.path
            if not path.exists():
                yield Offence(source.path, number, f"{target} leads nowhere")
            elif anchor and path.suffix == ".md" and anchor not in _anchors(path):
                yield Offence(source.path, number, f"{target} names no heading")


def _prose(source: Source) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(source.lines, start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _anchors(path: Path) -> set[str]:
    anchors = set()
    for _, line in _prose(Source(path.name, path.read_text())):
        heading = _HEADING.match(line)
        if heading is not None:
            plain = re.sub(r"[^\w\- ]", "", heading[1].lower())
            anchors.add(plain.strip().replace(" ", "-"))
    return anchors


def commands_in(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the words of every `kvsecure` command that a document shows."""
    fenced, joined, start = False, "", 0
    for number, line in enumerate(source.lines, start=1):
        if _FENCE.match(line):
            fenced, joined = not fenced, ""
            continue
        if not fenced:
            for command in _INLINE.findall(line):
                yield number, _words(command)
            continue
        start = start if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        for command in _PIPE.split(joined):
            if _COMMAND.match(command):
                yield start, _words(command)
        joined = ""


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        # A command that is cut short in running text, or has an apostrophe.
        words = command.split()
    return words[words.index("kvsecure") + 1 :]


def flags_exist(
    source: Source, known: Mapping[tuple[str, ...], frozenset[str]]
) -> Iterator[Offence]:
    """Report commands and flags of a document that the program does not have.

    Args:
        source: A Markdown file.
        known: The flags of every command, by the command's words; () holds the global ones.
    """
    for number, words in commands_in(source):
        if words and words[0].isidentifier() and (words[0],) not in known:
            yield Offence(source.path, number, f"kvsecure has no command {words[0]!r}")
            continue
        path: tuple[str, ...] = ()
        for word in words:
            flag = _FLAG.match(word)
            if flag is None:
                path = (*path, word) if (*path, word) in known else path
            elif not any(flag[0] in known[path[:end]] for end in range(len(path) + 1)):
                command = " ".join(("kvsecure", *path))
                yield Offence(source.path, number, f"{command} has no flag {flag[0]}")

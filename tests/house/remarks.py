"""What may not be left lying in a file: promises, unexplained silence, and traces of a machine.

Owns: the words and patterns.
Never: looks at generated files.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from house.source import Offence, Source

__all__ = ["exceptions_have_reasons", "nothing_is_left_for_later", "tree_is_portable"]

# Written in halves, so that this file may be searched like any other.
_LATER: Final = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
_SILENCED: Final = re.compile(r"#\s*(noqa|type:\s*ignore)(.*)$")
_EXPLAINED: Final = {
    "noqa": re.compile(r"^:\s*[A-Z]+\d+(\s*,\s*[A-Z]+\d+)*\s+\S*\s*\w"),
    "type": re.compile(r"^\[[a-z\-, ]+\]\s*#\s*\w"),
}
_MACHINES: Final = (
    (re.compile(r"(?<![\w./])/(root|work|home/\w+|Users/\w+)(/|\b)"), "a path of one machine"),
    (re.compile(r"/tmp/" + r"kv\b"), "a path of one machine"),
    (re.compile(r"\.py" + r"env\b"), "a path of one machine"),
    (
        re.compile(r"\b(pypi\." + r"org|python" + r"hosted\.org|proxy\.golang\." + r"org)\b"),
        "the host of a registry",
    ),
    (re.compile(r"\b(docker\." + r"io|ghcr\." + r"io|quay\." + r"io)\b"), "the host of a registry"),
    (re.compile(r"--(extra-)?index-" + r"url"), "where packages come from is not ours to say"),
)


def nothing_is_left_for_later(source: Source) -> Iterator[Offence]:
    """Report notes that promise work."""
    for number, line in enumerate(source.lines, start=1):
        if _LATER.search(line):
            yield Offence(source.path, number, "a promise; keep it or drop it")


def exceptions_have_reasons(source: Source) -> Iterator[Offence]:
    """Report silenced checks without the code that is silenced, or without a reason."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        found = _SILENCED.search(token.string)
        if found is None:
            continue
        kind = found[1].partition(":")[0]
        if not _EXPLAINED[kind].search(found[2].strip() if kind == "type" else found[2]):
            yield Offence(source.path, token.start[0], f"{kind} without a code or a reason")


def tree_is_portable(source: Source) -> Iterator[Offence]:
    """Report what holds on one machine only."""
    for number, line in enumerate(source.lines, start=1):
        for pattern, what in _MACHINES:
            if pattern.search(line):
                yield Offence(source.path, number, what)

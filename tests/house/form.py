"""Sizes and names: short files, short functions, words that mean something.

Owns: the bounds, the words that are banned, and the list of exceptions with their reasons.
Never: counts a docstring as length; explaining is free.
"""

import ast
import re
from collections.abc import Iterator
from typing import Final

from house.source import Offence, Source

__all__ = ["FILE_LINES_MAX", "FUNCTION_LINES_MAX", "LONG_FILES", "names_mean", "sizes_are_bounded"]

FILE_LINES_MAX: Final = 600
FUNCTION_LINES_MAX: Final = 70
# A file that may be longer, and why.
LONG_FILES: Final[dict[str, str]] = {}
_BANNED: Final = frozenset(
    {"manager", "helper", "helpers", "util", "utils", "utility", "utilities", "common", "misc"}
    | {"base", "handler", "handlers", "processor", "wrapper", "data", "info", "impl"}
)
# A name that has such a word and may keep it, and why.
_ALLOWED: Final[dict[str, str]] = {
    "DataDirectory": "the thing has this name: it is what --data-dir says",
}
_WORD: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def sizes_are_bounded(source: Source) -> Iterator[Offence]:
    """Report files and functions that are longer than anyone reads."""
    count = len(source.lines)
    if count > FILE_LINES_MAX and source.path not in LONG_FILES:
        yield Offence(source.path, count, f"{count} lines; the bound is {FILE_LINES_MAX}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _length(node)
            if length > FUNCTION_LINES_MAX:
                yield Offence(
                    source.path,
                    node.lineno,
                    f"{node.name} has {length} lines; the bound is {FUNCTION_LINES_MAX}",
                )


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    whole = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return whole
    docstring = node.body[0]
    return whole - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def names_mean(source: Source) -> Iterator[Offence]:
    """Report modules and classes named with words that say nothing."""
    for word in source.module.replace("_", ".").split("."):
        if word in _BANNED:
            yield Offence(source.path, 1, f"{word!r} in a module's name says nothing")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name not in _ALLOWED:
            for word in _WORD.findall(node.name):
                if word.lower() in _BANNED:
                    yield Offence(
                        source.path, node.lineno, f"{word!r} in class {node.name} says nothing"
                    )

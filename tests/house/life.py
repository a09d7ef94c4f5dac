"""Modules that nothing leads to are dead, and so is what an editor or a patch leaves behind.

Owns: what counts as leading to a module, and which files are nobody's.
Never: counts a test; what only its test imports is dead.
"""

import ast
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from house.imports import imported
from house.source import Offence, Source

__all__ = ["leftovers_are_gone", "modules_are_alive"]

_LEFTOVERS: Final = (".orig", ".rej", ".bak", ".swp", "~")


def leftovers_are_gone(names: Iterable[str]) -> Iterator[Offence]:
    """Report files that editors, merges and patches leave beside what they changed."""
    for name in names:
        if name.endswith(_LEFTOVERS):
            yield Offence(name, 1, "left behind by a tool")


def modules_are_alive(sources: Iterable[Source], started: Collection[str]) -> Iterator[Offence]:
    """Report modules of the program that no other module imports or names in a string.

    Args:
        sources: The files of the program.
        started: Modules that are started or loaded by a table when they run.
    """
    program = list(sources)
    reached: set[str] = set()
    for source in program:
        for name, _ in imported(source):
            # `from package import name` leads to package, and to name if that is a module.
            reached |= {name, name.rpartition(".")[0]} - {source.module}
        reached |= set(_named(source))
    for source in program:
        is_package = source.path.endswith("/__init__.py")
        if not is_package and source.module not in reached and source.module not in started:
            yield Offence(source.path, 1, "nothing leads here")


def _named(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name.startswith("kvsecure.") and name != source.module:
                yield name

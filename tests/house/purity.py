"""Pure rooms stay pure: no clock, no chance, no system, no network, no tasks, no log.

Owns: which rooms are pure, and what that forbids.
Never: looks at what a pure room is handed; that is how it learns the time.
"""

import ast
from collections.abc import Iterator
from typing import Final

from house.imports import imported
from house.source import Offence, Source

__all__ = ["PURE_ROOMS", "pure_rooms_are_pure"]

PURE_ROOMS: Final = (
    "kvsecure/model/",
    "kvsecure/wire/",
    "kvsecure/core/raft/",
    "kvsecure/core/mvcc/",
    "kvsecure/access/",
)
_MODULES: Final = frozenset(
    {"asyncio", "logging", "os", "random", "secrets", "select", "selectors", "socket", "ssl"}
    | {"subprocess", "tempfile", "threading", "time", "uvloop", "structlog", "multiprocessing"}
)
# A generator that is handed in is a parameter like another; making one is not.
_PARAMETERS: Final = frozenset({"random.Random"})
_NAMES: Final = frozenset({"Random", "open", "input", "print", "breakpoint", "exec", "eval"})
_CLOCKS: Final = frozenset({"now", "today", "utcnow"})


def pure_rooms_are_pure(source: Source) -> Iterator[Offence]:
    """Report what reaches out of a pure room."""
    if not source.path.startswith(PURE_ROOMS):
        return
    for name, line in imported(source):
        if name.partition(".")[0] in _MODULES and name not in _PARAMETERS:
            yield Offence(source.path, line, f"{name} in a pure room")
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in _NAMES:
            yield Offence(source.path, node.lineno, f"{called.id}() in a pure room")
        if (
            isinstance(called, ast.Attribute)
            and called.attr in _CLOCKS
            and isinstance(called.value, ast.Name)
            and called.value.id in {"date", "datetime"}
        ):
            yield Offence(source.path, node.lineno, f"{called.attr}() reads a clock")

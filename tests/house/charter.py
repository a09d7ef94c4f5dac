"""Every module says first what it owns and what it must never do, and lists what it offers.

Owns: the form of charters and of `__all__`.
Never: judges whether a charter is true; readers do.
"""

import ast
from collections.abc import Iterator
from typing import Final

from house.source import Offence, Source

__all__ = ["charter_is_complete", "exports_are_true"]

_HEADINGS: Final = ("Owns:", "Never:")
# A package's `__init__` and `__main__` only open the door.
_DOORS: Final = frozenset({"__init__", "__main__"})
# Nobody imports these; pytest finds what is in them.
_FOUND: Final = frozenset({"conftest"})


def charter_is_complete(source: Source) -> Iterator[Offence]:
    """Report a module whose docstring is missing, or lacks a heading."""
    charter = ast.get_docstring(source.tree)
    if charter is None:
        yield Offence(source.path, 1, "no charter")
        return
    first = charter.partition("\n\n")[0].rstrip()
    if not first.endswith((".", "?")):
        yield Offence(source.path, 1, "the charter's first sentence has no end")
    if source.stem in _DOORS or source.stem.startswith("test_"):
        return
    starts = {line.strip() for line in charter.splitlines()}
    for heading in _HEADINGS:
        if not any(line.startswith(f"{heading} ") for line in starts):
            yield Offence(source.path, 1, f"the charter does not say {heading}")


def exports_are_true(source: Source) -> Iterator[Offence]:
    """Report an `__all__` that is missing, untrue or out of order."""
    if source.stem in _DOORS | _FOUND or source.stem.startswith("test_"):
        return
    body = source.tree.body
    defined = {name: node.lineno for node in body for name in _names(node)}
    if "__all__" not in defined:
        yield Offence(source.path, 1, "no __all__")
        return
    listed = [name for node in body if "__all__" in _names(node) for name in _strings(node)]
    aliases = {name for node in body if _is_alias(node) for name in _names(node)}
    for name in sorted(set(listed) - defined.keys() - _imported(source)):
        yield Offence(source.path, 1, f"__all__ lists {name}, which is not there")
    for name in sorted(defined.keys() - set(listed) - set(map(_command, body))):
        if not name.startswith("_") and name not in aliases:
            yield Offence(source.path, defined[name], f"{name} is public and not in __all__")
    if listed != sorted(set(listed), key=_rank):
        yield Offence(source.path, 1, "__all__ is not sorted: constants, classes, the rest")


def _imported(source: Source) -> set[str]:
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in source.tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign(targets=targets):
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                        yield inner.id
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case _:
            return


def _is_alias(node: ast.stmt) -> bool:
    # A name for a type serves its own module; who needs it elsewhere finds it listed.
    match node:
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
            return True
        case ast.Assign(value=ast.Subscript() | ast.BinOp() | ast.Name() | ast.Attribute()):
            return not any(name.isupper() for name in _names(node))
        case _:
            return False


def _command(node: ast.stmt) -> str:
    # A click command belongs to its group; nobody imports the function.
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Attribute) and called.attr in {"command", "group"}:
                return node.name
    return ""


def _strings(node: ast.stmt) -> list[str]:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if not isinstance(value, ast.List | ast.Tuple):
        return []
    return [str(item.value) for item in value.elts if isinstance(item, ast.Constant)]


def _rank(name: str) -> tuple[int, str]:
    if name.isupper():
        return 0, name
    return (1 if name[:1].isupper() else 2), name

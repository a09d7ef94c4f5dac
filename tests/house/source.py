"""The files of the tree as the checks see them, and the offences they report.

Owns: which files belong to the tree, and how one is read.
Never: judges a file.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, final

__all__ = ["ROOT", "Offence", "Source", "file_names", "python_files", "text_files"]

ROOT: Final = Path(__file__).resolve().parents[2]
_SKIPPED: Final = frozenset(
    {".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "__pycache__"}
    | {"build", "dist", "node_modules", "site"}
)
_TEXT_SUFFIXES: Final = frozenset(
    {"", ".cfg", ".conf", ".json", ".md", ".proto", ".py", ".pyi", ".service", ".sh", ".toml"}
    | {".txt", ".yaml", ".yml"}
)


@final
@dataclass(frozen=True, slots=True, order=True)
class Offence:
    """A breach of the style: where, and what."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@final
@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the tree, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        """The dotted name by which a Python file is imported."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def stem(self) -> str:
        """The name of the file without its directory and suffix."""
        return self.path.rpartition("/")[2].partition(".")[0]

    @property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self.text.splitlines()


def text_files() -> Iterator[Source]:
    """Yield every text file of the tree that a person wrote."""
    yield from _read_once()


@cache
def _read_once() -> tuple[Source, ...]:
    # Every check looks at every file; it is read, and parsed, for the first of them.
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), path.read_text())
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in _TEXT_SUFFIXES and path.is_file() and _is_written(path)
    )


def file_names() -> Iterator[str]:
    """Yield the path of every file of the tree, whatever it is, but for what tools keep there."""
    for path in sorted(ROOT.rglob("*")):
        if path.is_file() and _SKIPPED.isdisjoint(path.relative_to(ROOT).parts):
            yield path.relative_to(ROOT).as_posix()


def _is_written(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return (
        _SKIPPED.isdisjoint(parts)
        and not any(part.endswith(".egg-info") for part in parts)
        and not path.name.endswith(("_pb2.py", "_pb2.pyi"))
    )


def python_files(*rooms: str) -> Iterator[Source]:
    """Yield the Python files below these directories, generated ones left out."""
    for source in text_files():
        if source.path.endswith(".py") and source.path.startswith(tuple(f"{r}/" for r in rooms)):
            yield source

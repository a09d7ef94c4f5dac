"""Tests prove one sentence each, on the real thing.

Owns: the form of a test, and what is banned from tests.
Never: judges whether the sentence is worth proving.
"""

import ast
from collections.abc import Iterator

from house.imports import imported
from house.source import Offence, Source

__all__ = ["proofs_are_sentences", "proofs_use_the_real_thing"]


def proofs_are_sentences(source: Source) -> Iterator[Offence]:
    """Report tests whose docstring is not one sentence."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("test_"):
            continue
        sentence = ast.get_docstring(node)
        if sentence is None:
            yield Offence(source.path, node.lineno, f"{node.name} proves no sentence")
        elif not sentence.endswith(".") or "\n\n" in sentence:
            yield Offence(source.path, node.lineno, f"{node.name}: one sentence, with its end")


def proofs_use_the_real_thing(source: Source) -> Iterator[Offence]:
    """Report mocks, and our own code replaced while it runs."""
    for name, line in imported(source):
        if name.startswith("unittest") or name.partition(".")[0] in {"mock", "pytest_mock"}:
            yield Offence(source.path, line, f"{name}: fakes are small real objects")
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in {"setattr", "delattr", "setitem"}
            and isinstance(node.value, ast.Name)
            and node.value.id == "monkeypatch"
        ):
            yield Offence(source.path, node.lineno, f"monkeypatch.{node.attr} replaces our code")

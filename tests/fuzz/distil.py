"""A corpus made small: only inputs that take a way through the code that no smaller one takes.

Owns: which ways an input takes, line by line, and which inputs are kept.
Never: needs the fuzzer.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["distil"]

# From a line to a line of a file.
Step = tuple[str, int, int]


def distil(
    attempt: Callable[[bytes], None], modules: tuple[str, ...], corpus: Path, inputs: Path
) -> int:
    """Take inputs into a corpus, and out of it what they make superfluous; return how many it has.

    Args:
        attempt: Tries an input.
        modules: Whose lines count.
        corpus: A directory.
        inputs: Another one, which stays as it is.
    """
    found = {path.read_bytes() for place in (corpus, inputs) for path in place.iterdir()}
    files = _files_of(modules)
    seen: set[Step] = set()
    kept: dict[str, bytes] = {}
    for content in sorted(found, key=lambda each: (len(each), each)):
        steps = _steps(attempt, content, files)
        if not steps <= seen:
            seen |= steps
            kept[hashlib.sha256(content).hexdigest()[:16] + ".bin"] = content
    for path in corpus.iterdir():
        if path.name not in kept:
            path.unlink()
    for name, content in kept.items():
        (corpus / name).write_bytes(content)
    return len(kept)


def _files_of(modules: Iterable[str]) -> frozenset[str]:
    """Return the files of modules, and of everything within them, that have been imported."""
    return frozenset(
        str(module.__file__)
        for name, module in sys.modules.items()
        if any(name == one or name.startswith(one + ".") for one in modules)
        and getattr(module, "__file__", None)
    )


def _steps(
    attempt: Callable[[bytes], None], content: bytes, files: frozenset[str]
) -> frozenset[Step]:
    """Return the steps that an input makes the code take."""
    steps: set[Step] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in files:
            return None
        last = 0

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        attempt(content)
    finally:
        sys.settrace(before)
    return frozenset(steps)

"""Fixtures of the API's tests.

Owns: a bench for each test.
Never: opens a socket.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api.watching import Bench

__all__ = ["bench"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with root and nobody else."""
    built = Bench(tmp_path)
    yield built
    built.close()

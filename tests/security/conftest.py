"""Fixtures of the security room's tests.

Owns: a world for each test.
Never: asserts.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from security.lab import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A security room with a root that has a certificate, and authentication on."""
    built = World(tmp_path)
    yield built
    built.close()

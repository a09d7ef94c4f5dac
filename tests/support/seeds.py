"""The seed that this run of the tests was given.

Owns: where it comes from: pytest-randomly prints it, and takes it by `--randomly-seed`.
Never: draws anything.
"""

import pytest

__all__ = ["seed_of"]


def seed_of(config: pytest.Config) -> int:
    """Return the seed, below 2**31."""
    return int(config.getoption("randomly_seed", 0)) % (1 << 31)

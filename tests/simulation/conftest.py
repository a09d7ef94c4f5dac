"""What the tests of the simulation share.

Owns: the count of what was visited, which is printed.
Never: decides what is visited.
"""

from collections.abc import Iterator

import pytest
from simulation.running import Tally


@pytest.fixture
def tally(capsys: pytest.CaptureFixture[str]) -> Iterator[Tally]:
    """A count that is printed at the end."""
    tally = Tally()
    yield tally
    with capsys.disabled():
        print(f"\n  simulation: {tally}")

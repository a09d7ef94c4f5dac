"""What the tests of the simulation share.

Owns: the count of what was visited, which is printed.
Never: decides what is visited.
"""

from collections.abc import Callable, Iterator

import pytest
from simulation.running import Tally


@pytest.fixture
def tally(say: Callable[[str], None], request: pytest.FixtureRequest) -> Iterator[Tally]:
    """A count that is printed at the end."""
    tally = Tally()
    yield tally
    say(f"simulation, {request.node.name}: {tally}")

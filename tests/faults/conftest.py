"""What the tests of faults share.

Owns: a table process, and the count of what was visited, which is printed.
Never: decides what is visited.
"""

from collections.abc import Callable, Iterator

import pytest
from faults.exploring import Tally
from faults.table_servant import TableServant


@pytest.fixture(scope="module")
def servant() -> Iterator[TableServant]:
    """A table process that is told what to open again and again."""
    servant = TableServant()
    yield servant
    servant.close()


@pytest.fixture
def tally(say: Callable[[str], None], request: pytest.FixtureRequest) -> Iterator[Tally]:
    """A count that is printed at the end."""
    tally = Tally()
    yield tally
    say(f"faults, {request.node.name}: {tally}")

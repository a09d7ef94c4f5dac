"""The server that programs in other languages talk to.

Owns: fixtures of the interoperability tests.
Never: starts a server that no test asked for.
"""

from collections.abc import Iterator

import pytest
from e2e.world import Fortress
from interop.peers import Reports


@pytest.fixture(scope="module")
def shared_fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server with TLS that takes certificates and passwords; one for a module's scenarios."""
    with Fortress(tmp_path_factory.mktemp("interop")) as built:
        yield built


@pytest.fixture(scope="module")
def reports() -> Reports:
    """The verdicts of programs that do many checks in one run; kept for a module's tests."""
    return Reports()

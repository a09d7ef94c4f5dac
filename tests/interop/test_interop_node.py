"""Node: npm's etcd3, and through it grpc-js, does everything against kvsecure."""

from pathlib import Path
from typing import Final

import pytest
from e2e.world import Fortress
from interop.peers import Way, ask, ask_over_restart
from interop.toolchains import install_node

_SCENARIOS: Final = ("keys", "transactions", "large", "watch", "leases", "accounts")


@pytest.fixture(scope="module")
def program() -> list[str]:
    """The scenarios, beside the pinned packages."""
    return install_node("node", "main.js")


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
@pytest.mark.parametrize("scenario", _SCENARIOS)
def test_node_client_is_served(
    program: list[str], shared_fortress: Fortress, scenario: str, way: Way
) -> None:
    """Node's etcd client gets what it expects, with a password or with a certificate."""
    ask(program, scenario, shared_fortress, way)


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
def test_node_client_survives_a_restart(program: list[str], tmp_path: Path, way: Way) -> None:
    """A Node client that is told to go away comes back by itself, and its watch goes on."""
    with Fortress(tmp_path / "fortress") as fortress:
        ask_over_restart(program, "restart", fortress, way)

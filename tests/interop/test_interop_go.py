"""Go: the current etcd clientv3, and through it grpc-go, does everything against kvsecure."""

from pathlib import Path
from typing import Final

import pytest
from e2e.world import Fortress
from interop.peers import Way, ask, ask_over_restart
from interop.toolchains import build_go

_SCENARIOS: Final = (
    "keys",
    "transactions",
    "large",
    "watch",
    "many",
    "leases",
    "expiry",
    "accounts",
    "cancellation",
    "deadline",
    "errors",
)


@pytest.fixture(scope="module")
def program() -> Path:
    """The scenarios, built with the pinned clientv3."""
    return build_go("go", ".")


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
@pytest.mark.parametrize("scenario", _SCENARIOS)
def test_go_client_is_served(
    program: Path, shared_fortress: Fortress, scenario: str, way: Way
) -> None:
    """Go's etcd client gets what it expects, whether it comes with a password or a certificate."""
    ask([str(program)], scenario, shared_fortress, way)


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
def test_go_client_survives_a_restart(program: Path, tmp_path: Path, way: Way) -> None:
    """A Go client that is told to go away comes back by itself; its watch and its lease go on."""
    with Fortress(tmp_path / "fortress") as fortress:
        ask_over_restart([str(program)], "restart", fortress, way)


def test_go_client_without_an_identity_is_refused(program: Path, shared_fortress: Fortress) -> None:
    """A wrong password is refused with the error that Go's client knows."""
    ask([str(program)], "stranger", shared_fortress, Way.PASSWORD)

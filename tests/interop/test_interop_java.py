"""Java: jetcd, and through it grpc-java, does everything against kvsecure."""

from typing import Final

import pytest
from e2e.world import Fortress
from interop.peers import Reports, Way, environment
from interop.toolchains import build_java

pytestmark = pytest.mark.timeout(420)

_CHECKS: Final = (
    "keys",
    "transactions",
    "compaction",
    "large",
    "leases",
    "expiry",
    "watch",
    "progress",
    "accounts",
    "errors",
    "restart",
)


@pytest.fixture(scope="module")
def program() -> list[str]:
    """The checks, built with the pinned jetcd."""
    return build_java("java", "jetcd.Main", with_protos=False)


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
@pytest.mark.parametrize("check", _CHECKS)
def test_java_client_is_served(
    program: list[str], reports: Reports, shared_fortress: Fortress, check: str, way: Way
) -> None:
    """Java's etcd client gets what it expects, with a password or with a certificate."""
    told = environment(shared_fortress, way)

    reports.judge(way.value, check, _CHECKS, program, shared_fortress, told)

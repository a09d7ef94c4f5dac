"""Python: etcd3, and etcd3gw over JSON, do everything that they can against kvsecure."""

from typing import Final

import pytest
from e2e.world import Fortress
from interop.peers import Reports, Way, environment
from interop.toolchains import HERE, install_python

pytestmark = pytest.mark.timeout(420)

_CHECKS: Final = {
    "etcd3": (
        "keys",
        "transactions",
        "compaction",
        "large",
        "leases",
        "watch",
        "locks",
        "members",
        "errors",
        "restart",
    ),
    "etcd3gw": (
        "keys",
        "transactions",
        "large",
        "leases",
        "watch",
        "locks",
        "members",
        "accounts",
        "errors",
        "restart",
    ),
}


@pytest.fixture(scope="module")
def interpreter() -> list[str]:
    """A python that has the pinned clients, and the old packages that they need."""
    return install_python("python")


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.value)
@pytest.mark.parametrize(
    ("client", "check"), [(client, check) for client in _CHECKS for check in _CHECKS[client]]
)
def test_python_client_is_served(
    interpreter: list[str],
    reports: Reports,
    shared_fortress: Fortress,
    client: str,
    check: str,
    way: Way,
) -> None:
    """Python's etcd clients get what they expect, with a password or with a certificate."""
    name = f"{client}, {way.value}"
    command = [*interpreter, str(HERE / "python" / f"{client}_checks.py")]
    told = environment(shared_fortress, way)

    reports.judge(name, check, _CHECKS[client], command, shared_fortress, told)

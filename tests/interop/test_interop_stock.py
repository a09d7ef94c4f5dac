"""The stock gRPC libraries, by themselves: one list of checks for Go, Java, Node and Python.

Their messages come from kvsecure's own .proto files, or from the server's reflection. There is no
call in the API with a stream of requests and one answer, so that no check is about that shape.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from e2e.world import Fortress
from interop.peers import Reports, identities
from interop.toolchains import HERE, build_go, build_java, install_node

pytestmark = pytest.mark.timeout(420)

_CHECKS: Final = (
    "unary",
    "server_stream",
    "bidirectional_stream",
    "large_messages",
    "many_requests",
    "many_events",
    "stalled_reader",
    "cancellation",
    "deadline",
    "pings_permitted",
    "compression",
    "oversize",
    "unknown",
    "metadata",
    "error_text",
    "health",
    "reflection",
    "restart",
)
_PROGRAMS: Final[dict[str, Callable[[], list[str]]]] = {
    "go": lambda: [str(build_go("stock/go", "."))],
    "java": lambda: build_java("stock/java", "stock.Main", with_protos=True),
    "node": lambda: install_node("stock/node", "main.js"),
    "python": lambda: [sys.executable, "-B", str(HERE / "stock" / "python" / "main.py")],
}


@pytest.fixture(scope="module")
def patient_fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server that permits pings so often that a test has time for several of them."""
    flags = ("--grpc-keepalive-min-time=400ms",)
    with Fortress(tmp_path_factory.mktemp("patient"), flags) as built:
        yield built


@pytest.mark.parametrize("check", _CHECKS)
@pytest.mark.parametrize("language", _PROGRAMS)
def test_stock_grpc_is_served(
    reports: Reports, patient_fortress: Fortress, language: str, check: str
) -> None:
    """A stock gRPC library sees nothing that it would not see of grpc-go's server."""
    command = _PROGRAMS[language]()
    told = identities(patient_fortress)

    reports.judge(language, check, _CHECKS, command, patient_fortress, told)


@pytest.mark.parametrize("language", _PROGRAMS)
def test_stock_grpc_that_pings_too_often_is_told(
    reports: Reports, shared_fortress: Fortress, language: str
) -> None:
    """Pings beyond etcd's own bound end the connection, with the word that libraries know."""
    check, name = "pings_excessive", f"{language}, default flags"
    told = identities(shared_fortress)

    reports.judge(name, check, (check,), _PROGRAMS[language](), shared_fortress, told)

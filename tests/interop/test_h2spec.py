"""Conformance: h2spec, which knows RFC 9113's predecessor and RFC 7541 case by case, finds nothing.

No case is run again when it has failed: what a case finds does not depend on which of its frames
the server has read before it answers.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from interop.toolchains import build_go
from support.servers import KvsecureServer

_PACKAGE: Final = "github.com/summerwind/h2spec/cmd/h2spec"
# Without a failure it takes half a second, and two more for each failure.
_RUN_S_MAX: Final = 15
# How many cases there are, so that a run that stops early is none.
_COUNTS: Final = {"whole": 145, "strict": 146}


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The program, built from its pinned source."""
    return build_go("h2spec", _PACKAGE)


@pytest.fixture(scope="module", params=["tls", "plaintext"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KvsecureServer]:
    """A server, over TLS or not."""
    directory = tmp_path_factory.mktemp("conformant")
    with KvsecureServer(directory / "server", tls=request.param == "tls") as running:
        yield running


def _failures(report: Path) -> tuple[int, dict[str, str]]:
    """Return how many cases were run, and what those that failed have seen."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failures = {
        f"{case.get('package')}: {case.get('classname')}": "".join(case.itertext()).strip()
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    return len(cases), failures


@pytest.mark.parametrize("extent", sorted(_COUNTS))
def test_server_conforms(h2spec: Path, server: KvsecureServer, extent: str, tmp_path: Path) -> None:
    """Every case of h2spec passes, over TLS and in plaintext, the strict ones as well."""
    report = tmp_path / "report.xml"
    command = [str(h2spec), "-h", "127.0.0.1", "-p", str(server.port), "-j", str(report)]
    command += ["--tls", "--insecure"] if server.tls else []
    command += ["--strict"] if extent == "strict" else []

    done = subprocess.run(command, capture_output=True, timeout=_RUN_S_MAX, check=False)
    count, failures = _failures(report)

    assert not failures, f"{failures}\n{done.stdout[-3_000:].decode()}"
    assert count >= _COUNTS[extent]
    assert b"Exception" not in server.log.read_bytes()

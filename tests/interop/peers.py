"""Programs in other languages, as clients of a real server.

    ask(program, scenario, server, way)      run one scenario to its end
    ask_over_restart(...)                    the same, with a restart of the server in the middle

A program gets the scenario's name as its argument and everything else from its environment:
KVSECURE_ENDPOINT (host:port), KVSECURE_CA, and either KVSECURE_USER and KVSECURE_PASSWORD or
KVSECURE_CERT and KVSECURE_KEY. It ends with status 0 and the last line `ok`. A scenario that needs
a restart prints the line `restart` and waits for a line on its standard input.

Owns: how a program is told where the server is and who it is, and deadlines.
Never: knows what a scenario does.
"""

import os
import subprocess
import tempfile
from enum import Enum
from typing import Final, final

from e2e.world import Fortress
from support.servers import ROOT_PASSWORD

__all__ = ["Way", "ask", "ask_over_restart", "environment"]

_SCENARIO_S_MAX: Final = 60


@final
class Way(Enum):
    """How a program proves who it is; it is root either way."""

    PASSWORD = "password"
    CERTIFICATE = "certificate"


def environment(fortress: Fortress, way: Way) -> dict[str, str]:
    """Return what a program has to know."""
    told = {
        **os.environ,
        "KVSECURE_ENDPOINT": fortress.server.endpoint,
        "KVSECURE_CA": str(fortress.server.authority.certificate),
    }
    if way is Way.PASSWORD:
        return told | {"KVSECURE_USER": "root", "KVSECURE_PASSWORD": ROOT_PASSWORD}
    pair = fortress.server.authority.client("root")
    return told | {"KVSECURE_CERT": str(pair.certificate), "KVSECURE_KEY": str(pair.key)}


def ask(command: list[str], scenario: str, fortress: Fortress, way: Way) -> None:
    """Run one scenario.

    Raises:
        AssertionError: It failed; with what it printed.
    """
    done = subprocess.run(
        [*command, scenario],
        env=environment(fortress, way),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SCENARIO_S_MAX,
        check=False,
    )
    _judge(done.returncode, done.stdout, done.stderr)


def ask_over_restart(command: list[str], scenario: str, fortress: Fortress, way: Way) -> None:
    """Run a scenario during which the server is stopped in good order and started again.

    Raises:
        AssertionError: It failed; with what it printed.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, scenario],
            env=environment(fortress, way),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as program,
    ):
        try:
            assert program.stdout is not None
            before = program.stdout.readline()
            if before.strip() == b"restart":
                fortress.server.stop()
                fortress.server.restart()
            after, _ = program.communicate(b"\n", timeout=_SCENARIO_S_MAX)
        except BaseException:
            program.kill()
            raise
        errors.seek(0)
        _judge(program.returncode, after, errors.read())
        assert before.strip() == b"restart"


def _judge(status: int, printed: bytes, errors: bytes) -> None:
    text = (printed + errors)[-6_000:].decode(errors="replace")
    assert status == 0, f"exit status {status}:\n{text}"
    assert printed.split()[-1:] == [b"ok"], text

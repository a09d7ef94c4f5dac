"""Programs in other languages, as clients of a real server.

    ask(program, scenario, server, way)      run one scenario to its end
    ask_over_restart(...)                    the same, with a restart of the server in the middle
    Reports                                  many checks, with one run of a program for them all

A program gets the scenario's name as its argument and everything else from its environment:
KVSECURE_ENDPOINT (host:port), KVSECURE_CA, and either KVSECURE_USER and KVSECURE_PASSWORD or
KVSECURE_CERT and KVSECURE_KEY. It ends with status 0 and the last line `ok`. A scenario that needs
a restart prints the line `restart` and waits for a line on its standard input.

A program of checks gets the names of all of them, and does them in this order with one client. For
each it prints `passed` or `failed`, the name and the seconds that it took; why it failed is on its
standard error before that. One that is a stock gRPC library knows both identities.

Owns: how a program is told where the server is and who it is, and deadlines.
Never: knows what a scenario or a check does.
"""

import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import IO, Final, NamedTuple, final

from e2e.world import Fortress
from interop.toolchains import PROTOS
from support.servers import ROOT_PASSWORD

__all__ = ["Reports", "Verdict", "Way", "ask", "ask_over_restart", "environment", "identities"]

_SCENARIO_S_MAX: Final = 60
# All checks of a program; without a failure the slowest takes half a minute.
_CHECKS_S_MAX: Final = 100


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


def identities(fortress: Fortress) -> dict[str, str]:
    """Return what a program has to know that proves in both ways who it is."""
    both = environment(fortress, Way.CERTIFICATE) | environment(fortress, Way.PASSWORD)
    return both | {"KVSECURE_PROTOS": str(PROTOS), "PYTHONPATH": str(PROTOS)}


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


class Verdict(NamedTuple):
    """How a check ended."""

    passed: bool
    # What the program said meanwhile.
    why: str


@final
class Reports:
    """The verdicts of programs, each of which is run when it is first asked for."""

    def __init__(self) -> None:
        self._verdicts: dict[str, Mapping[str, Verdict]] = {}

    def judge(
        self,
        name: str,
        check: str,
        checks: Sequence[str],
        command: list[str],
        fortress: Fortress,
        told: Mapping[str, str],
    ) -> None:
        """Look up how a check ended; run the program if it has not run yet.

        Args:
            name: Of the run.
            check: Which one it is about.
            checks: All that this run does, in this order; one that restarts the server comes last.
            command: Program and arguments.
            fortress: The server.
            told: The program's environment.

        Raises:
            AssertionError: It failed, or the program ended before it; with what it printed.
        """
        if name not in self._verdicts:
            self._verdicts[name] = _run_checks(command, checks, fortress, told)
        verdict = self._verdicts[name][check]
        assert verdict.passed, verdict.why


def _run_checks(
    command: list[str], checks: Sequence[str], fortress: Fortress, told: Mapping[str, str]
) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    told_bytes = 0
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, *checks],
            env=told,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as program,
    ):
        overdue = threading.Timer(_CHECKS_S_MAX, program.kill)
        overdue.start()
        try:
            assert program.stdout is not None
            assert program.stdin is not None
            for line in program.stdout:
                match line.decode().split():
                    case ["passed" | "failed" as how, check, _]:
                        why, told_bytes = _since(errors, told_bytes)
                        verdicts[check] = Verdict(how == "passed", why)
                    case ["restart"]:
                        fortress.server.stop()
                        fortress.server.restart()
                        program.stdin.write(b"\n")
                        program.stdin.flush()
        except BaseException:
            program.kill()
            raise
        finally:
            overdue.cancel()
        status = program.wait()
        why, _ = _since(errors, told_bytes)
    # Those that it did not come to have failed as well.
    missed = Verdict(passed=False, why=f"exit status {status} before it:\n{why}")
    return dict.fromkeys(checks, missed) | verdicts


def _since(errors: IO[bytes], begin: int) -> tuple[str, int]:
    """Return what a program has written to a file since a place in it, and the next place."""
    end = os.fstat(errors.fileno()).st_size
    begin = max(begin, end - 6_000)
    return os.pread(errors.fileno(), end - begin, begin).decode(errors="replace"), end


def _judge(status: int, printed: bytes, errors: bytes) -> None:
    text = (printed + errors)[-6_000:].decode(errors="replace")
    assert status == 0, f"exit status {status}:\n{text}"
    assert printed.split()[-1:] == [b"ok"], text

"""What the tests of the command line share: a person's home, and ways to run the program.

Owns: the fixtures of this directory.
Never: runs a command with the contexts of whoever runs the tests.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.etcd import ScriptedServer
from support.servers import ROOT_PASSWORD, Member

import kvsecure
from kvsecure.cli.main import kvsecure_command

__all__: list[str] = []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The directory of a person's contexts; it does not exist yet."""
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """An environment that knows nothing but the home."""
    return {
        "KVSECURE_HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
    }


Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A way to run a command in this process: arguments, stdin, environment."""
    for name in list(os.environ):
        if name.startswith("KVSECURE_"):
            monkeypatch.delenv(name)

    def invoke(
        *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> Result:
        variables = {"KVSECURE_HOME": str(home), **(environ or {})}
        return CliRunner().invoke(kvsecure_command, list(arguments), input=stdin, env=variables)

    return invoke


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """A way to start the program as a process of its own; what still runs is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def popen(
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "kvsecure"),
    ) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, **(environ or {})},
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def password_file(tmp_path: Path) -> Callable[[str], Path]:
    """A maker of files with a password, which only their owner can read."""

    def write(password: str = ROOT_PASSWORD) -> Path:
        path = tmp_path / f"password-{len(list(tmp_path.iterdir()))}"
        path.touch(mode=0o600)
        path.write_text(f"{password}\n")
        return path

    return write


@pytest.fixture
def root(run: Run, member: Member, password_file: Callable[[], Path]) -> Run:
    """A way to run a command as root of the member, logged in."""
    logged_in = run(
        "--endpoint",
        member.endpoint,
        "--cacert",
        str(member.authority.certificate),
        "login",
        "--user",
        "root",
        "--password-file",
        str(password_file()),
    )
    assert logged_in.exit_code == 0, logged_in.output
    return run


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers by a script."""
    server = ScriptedServer()
    yield server
    server.close()

"""The README's commands, run as they are written.

Owns: two terminals, and what each of their commands must come to.
Never: knows a command; a line that ends with `# refused` must fail, every other one must not.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import pytest
from house.source import ROOT
from support.processes import wait_until

_BLOCK: Final = re.compile(r"<!-- (first|second) terminal -->\n```sh\n(.*?)```", re.DOTALL)
_REFUSED: Final = "# refused"
_READY: Final = "stop with Ctrl-C"
_DEADLINE_S: Final = 30.0


@final
class _Terminals:
    """One that serves, and one in which commands are typed."""

    def __init__(self, directory: Path) -> None:
        (directory / ".venv").symlink_to(sys.prefix)
        self._directory = directory
        self._environment = {**os.environ, "HOME": str(directory)}
        self._environment.pop("KVSECURE_HOME", None)
        self._server: subprocess.Popen[bytes] | None = None
        self._starts = 0
        # What was exported in the second terminal holds for what is typed there later.
        self._exports: list[str] = []

    def serve(self, script: str) -> None:
        """Run a block in the first terminal, after a Ctrl-C if something still runs there."""
        self.interrupt()
        self._starts += 1
        log = self._directory / f"first-{self._starts}.txt"
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                ["bash", "-s"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )
        assert self._server.stdin is not None
        path = 'export PATH="$PWD/.venv/bin:$PATH"\n'
        self._server.stdin.write((path + script).encode())
        self._server.stdin.close()
        server = self._server
        wait_until(
            lambda: _READY in log.read_text() or server.poll() is not None,
            deadline_s=_DEADLINE_S,
            what="the server",
        )
        assert _READY in log.read_text(), log.read_text()

    def type(self, script: str) -> list[str]:
        """Type a block in the second terminal; return what each command has printed."""
        printed = []
        for line in script.splitlines():
            if line.startswith("export "):
                self._exports.append(line)
                continue
            command, refused, _ = line.partition(_REFUSED)
            done = subprocess.run(
                ["bash", "-s"],
                # Not as an argument: `pkill -f` would find the shell as well.
                input="\n".join([*self._exports, command]).encode(),
                capture_output=True,
                cwd=self._directory,
                env=self._environment,
                timeout=_DEADLINE_S,
                check=False,
            )
            said = f"{line}\n{done.stdout.decode()}{done.stderr.decode()}"
            assert (done.returncode != 0) == bool(refused), said
            if refused:
                assert "Error" in said, said
            printed.append(done.stdout.decode())
        return printed

    def interrupt(self) -> None:
        """Press Ctrl-C in the first terminal."""
        if self._server is not None:
            if self._server.poll() is None:
                os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait(_DEADLINE_S)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[_Terminals]:
    """Two terminals in a directory that looks like a clone with its environment."""
    both = _Terminals(tmp_path)
    yield both
    both.interrupt()


def test_commands_of_the_readme_do_what_it_says(terminals: _Terminals) -> None:
    """Every command stands as it is run: the refused ones fail, the others print what they must."""
    printed = []
    for where, script in _BLOCK.findall((ROOT / "README.md").read_text()):
        if where == "first":
            terminals.serve(script)
        else:
            printed += terminals.type(script)

    assert printed.count("s3cr3t") == 2
    assert "another-s3cr3t" in printed
    assert any(each.startswith("ok: ") for each in printed)
    assert "/app/db/password\ns3cr3t\n" in printed

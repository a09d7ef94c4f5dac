"""`kvsecure dev`: the first run, the ones after it, and what they leave on the disk."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from e2e.world import cli, environment
from support.processes import wait_until

# Certificates, and what an authority would tell anybody about itself.
_PUBLIC: Final = {".crt", ".yaml", ".json"}
_SHOWN_ONCE: Final = re.compile(r"^password of root, shown once: (\S+)$", re.MULTILINE)


class _Dev:
    """One run of `kvsecure dev`."""

    def __init__(self, home: Path, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.home = home
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._output.read_text()

    @property
    def shown_password(self) -> str | None:
        """The password that it has shown, if it has."""
        found = _SHOWN_ONCE.search(self.said)
        return found[1] if found else None

    @property
    def is_listening(self) -> bool:
        """Whether somebody answers where it says that it serves."""
        found = re.search(r"https://127\.0\.0\.1:(\d+)", self.said)
        try:
            with socket.create_connection(("127.0.0.1", int(found[1]) if found else 0), 1.0):
                return True
        except OSError:
            return False

    def run(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a command without any flags that say where the server is."""
        return cli(self.home, *words, stdin=stdin)

    def interrupt(self) -> int:
        """Press Ctrl-C, which reaches every process of the terminal; return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(10)


@contextlib.contextmanager
def _dev(home: Path, *words: str, ready: bool = True) -> Iterator[_Dev]:
    """Run `kvsecure dev` on a free port, under the worst umask, until the end of the block."""
    output = home.with_name(f"{home.name}.output")
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvsecure", "dev", "--port=0", *words],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment(home),
            cwd=home.parent,
            start_new_session=True,
            umask=0,
        )
    dev = _Dev(home, process, output)
    try:
        if ready:
            wait_until(
                lambda: process.poll() is not None or dev.is_listening,
                deadline_s=20,
                what="the server",
            )
            assert process.poll() is None, dev.said
        yield dev
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which nothing has been run."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


def test_first_run_needs_nothing_and_the_next_command_no_flags(home: Path) -> None:
    """One command makes everything; the ones after it write and read a secret as they stand."""
    with _dev(home) as dev:
        put = dev.run("put", "/app/db/password", "--stdin", stdin=b"secret")
        got = dev.run("get", "/app/db/password")
        listed = dev.run("role", "list")
        verified = dev.run("audit", "verify")
        password = dev.shown_password
        arguments = Path(f"/proc/{dev.process.pid}/cmdline").read_bytes()

    assert (put.returncode, got.stdout, verified.returncode) == (0, b"secret", 0)
    assert listed.stdout.split() == [b"reader", b"root", b"writer"]
    assert password is not None
    assert len(password) >= 20
    assert password.encode() not in arguments
    assert (home / "dev" / "root-password").read_text().strip() == password


def test_second_run_goes_on_where_the_first_ended(home: Path) -> None:
    """Password, certificates, keys and data are those of the first run; nothing is shown again."""
    with _dev(home) as dev:
        dev.run("put", "k", "first")
        assert dev.interrupt() == -signal.SIGINT
    before = {path: path.read_bytes() for path in (home / "dev").iterdir() if path.is_file()}

    with _dev(home) as dev:
        again = dev.run("get", "k")
        shown = dev.shown_password
        login = dev.run(
            "--user=root", f"--password-file={home / 'dev' / 'root-password'}", "get", "k"
        )

    assert again.stdout == login.stdout == b"first"
    assert shown is None
    assert {path: path.read_bytes() for path in before} == before


def test_ctrl_c_ends_it_in_order(home: Path) -> None:
    """An interrupt ends all processes by that signal, without a word of complaint."""
    with _dev(home) as dev:
        before = dev.said
        status = dev.interrupt()
        wait_until(
            lambda: not list(_of_group(dev.process.pid)), deadline_s=20, what="all processes"
        )
        said = dev.said.removeprefix(before)

    assert status == -signal.SIGINT
    assert "Traceback" not in said
    assert "\terror\t" not in said
    assert "Error:" not in said


def _of_group(group: int) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            yield path.parent.name


def test_a_killed_run_has_lost_nothing(home: Path) -> None:
    """After kill -9 of everything the next run has what was acknowledged."""
    with _dev(home) as dev:
        dev.run("put", "k", "kept")
        os.killpg(dev.process.pid, signal.SIGKILL)
        dev.process.wait()

    with _dev(home) as dev:
        assert dev.run("get", "k").stdout == b"kept"
        assert dev.run("audit", "verify").returncode == 0


def test_reset_forgets_the_data_and_the_password(home: Path) -> None:
    """With --reset --yes everything but the authority is new; without --yes nobody is asked."""
    with _dev(home) as dev:
        dev.run("put", "k", "old")
        first = dev.shown_password
        dev.interrupt()
    authority = (home / "pki" / "ca.crt").read_bytes()

    with _dev(home, "--reset", ready=False) as dev:
        assert dev.process.wait(20) == 1
        assert "say --yes as well" in dev.said
    with _dev(home, "--reset", "--yes") as dev:
        second = dev.shown_password
        assert dev.run("get", "k").returncode != 0
        assert dev.run("put", "k", "new").returncode == 0

    assert first != second
    assert second is not None
    assert (home / "pki" / "ca.crt").read_bytes() == authority


def test_a_run_beside_another_leaves_it_alone(home: Path) -> None:
    """While one runs neither a second run nor --reset takes its data or its context away."""
    with _dev(home) as dev:
        dev.run("put", "k", "kept")
        for words in ((), ("--reset", "--yes")):
            done = cli(home, "dev", "--port=0", *words)
            assert done.returncode == 1
            assert b"stop it first" in done.stderr, done.stderr
        assert dev.run("get", "k").stdout == b"kept"
        assert dev.process.poll() is None


def test_all_that_a_run_makes_is_private(home: Path) -> None:
    """Under any umask directories are 0700 and files 0600; what has no secret may be read."""
    with _dev(home) as dev:
        dev.run("put", "k", "v")
        dev.run("login", f"--password-file={home / 'dev' / 'root-password'}", "--user=root")
        dev.run("pki", "issue", "client", "web", "--out", str(home / "certificates"))
        wait_until(
            lambda: any((home / "dev" / "data" / "wal").iterdir()), deadline_s=20, what="the log"
        )
        found = {path: stat.S_IMODE(path.lstat().st_mode) for path in home.rglob("*")}

    open_to_others = {path for path, mode in found.items() if mode & 0o077}
    assert {path.suffix for path in open_to_others if path.is_file()} <= _PUBLIC
    assert all(path.is_file() and found[path] == 0o644 for path in open_to_others)
    assert not {path for path in open_to_others if "data" in path.parts}
    assert found[home / "context.json"] == 0o600
    assert {"kek", "root-password", "server.key", "root.key", "ca.key"} <= {
        path.name for path in found
    }


def test_dev_listens_on_loopback_only(home: Path) -> None:
    """No other machine can reach it, and no flag behind -- opens it without saying so."""
    with _dev(home) as dev:
        port = re.search(r"https://127\.0\.0\.1:(\d+)", dev.said)
        assert port is not None
        listening = _listening(dev.process.pid)
    with _dev(home, "--", "--listen-client-urls=http://0.0.0.0:1", ready=False) as opened:
        status = opened.process.wait(20)

    assert listening == {f"0100007F:{int(port[1]):04X}"}
    assert status == 1
    assert "would be readable on the network" in opened.said


def _listening(pid: int) -> set[str]:
    """Return the addresses that a process listens on, as the kernel writes them."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # One that has been closed in the meantime is no listener.
        with contextlib.suppress(FileNotFoundError):
            opened = str(path.readlink())
            if opened.startswith("socket:["):
                sockets.add(opened[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1])
    return found

"""Stock etcdctl as a tool of tests: one command at a time, or in the background.

Owns: how etcdctl is started against a member, and what it printed.
Never: interprets output.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol, final

from support.certificates import Authority
from support.processes import wait_until
from support.servers import ROOT_PASSWORD, etcd_program

__all__ = ["ROOT", "Background", "Credentials", "Etcdctl", "Outcome", "Reachable"]

_TIMEOUT_S: Final = 20.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who a command runs as; an empty user sends no credentials."""

    user: str = ""
    password: str = ""


ROOT: Final = Credentials(user="root", password=ROOT_PASSWORD)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one command left behind."""

    stdout: bytes
    stderr: bytes
    status: int


@final
class Background:
    """A command that goes on until it is stopped."""

    def __init__(self, command: Sequence[str], stdin: bytes, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._readers = [
            _reader(self._process.stdout, self._stdout),
            _reader(self._process.stderr, self._stderr),
        ]
        self.send(stdin)

    def send(self, stdin: bytes) -> None:
        """Type more input; the input stays open."""
        sink = self._process.stdin
        if stdin and sink is not None:
            sink.write(stdin)
            sink.flush()

    def wait_for(self, text: bytes, *, count: int = 1) -> None:
        """Wait until the output has the text at least `count` times, or the command ended."""

        def ready() -> bool:
            printed = self._stdout.count(text) + self._stderr.count(text)
            return printed >= count or self._process.poll() is not None

        wait_until(ready, deadline_s=_TIMEOUT_S, what=f"{text!r} {count} times in the output")

    def stop(self) -> Outcome:
        """End the command, unless it ended by itself, and return all that it printed."""
        ended = self._process.poll()
        if ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return Outcome(stdout=bytes(self._stdout), stderr=bytes(self._stderr), status=status)


class Reachable(Protocol):
    """What etcdctl can be pointed at: a member, or a cluster with all its endpoints."""

    authority: Authority
    client_certificates: bool
    directory: Path
    tls: bool

    @property
    def url(self) -> str:
        """The URL of each endpoint, with commas between them."""


@final
class Etcdctl:
    """etcdctl 3.5.1 pointed at one member or at several."""

    def __init__(self, member: Reachable) -> None:
        self._member = member

    def run(
        self,
        arguments: Sequence[str],
        *,
        credentials: Credentials = ROOT,
        stdin: bytes = b"",
    ) -> Outcome:
        """Run one command to its end.

        Raises:
            subprocess.TimeoutExpired: It did not end.
        """
        done = subprocess.run(
            self._line(arguments, credentials),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=self._environment(),
        )
        return Outcome(stdout=done.stdout, stderr=done.stderr, status=done.returncode)

    def command(
        self, arguments: Sequence[str], *, credentials: Credentials = ROOT
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command line and the environment of one command, to be run elsewhere."""
        return self._line(arguments, credentials), self._environment()

    def start(
        self,
        arguments: Sequence[str],
        *,
        credentials: Credentials = ROOT,
        stdin: bytes = b"",
    ) -> Background:
        """Start a command that goes on in the background."""
        return Background(self._line(arguments, credentials), stdin, self._environment())

    def _line(self, arguments: Sequence[str], credentials: Credentials) -> list[str]:
        line = [
            etcd_program("etcdctl"),
            f"--endpoints={self._member.url}",
            "--command-timeout=10s",
            "--dial-timeout=10s",
        ]
        if self._member.tls:
            line.append(f"--cacert={self._member.authority.certificate}")
        if self._member.client_certificates:
            pair = self._member.authority.client(credentials.user or "anonymous")
            line += [f"--cert={pair.certificate}", f"--key={pair.key}"]
        if credentials.user:
            line += [f"--user={credentials.user}", f"--password={credentials.password}"]
        return [*line, *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._member.directory)}


def _reader(source: IO[bytes] | None, sink: bytearray) -> threading.Thread:
    def read() -> None:
        while source is not None and (chunk := os.read(source.fileno(), 65_536)):
            sink.extend(chunk)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread

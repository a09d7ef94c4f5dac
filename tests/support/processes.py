"""Server processes for tests: started, waited for, killed at will, never left behind.

Owns: free ports, start-up with a deadline, the log of a process, and its end.
Never: knows what the process serves.
Keeps: a process that was started here is dead when its owner is closed.
"""

import contextlib
import functools
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

__all__ = ["ProcessFailedError", "ServerProcess", "free_ports", "wait_until"]

_TICK_S = 0.005
_LOG_TAIL_BYTES_MAX = 6_000
_LOWEST_PORT: Final = 10_000
# Where Linux begins to choose ports by itself, unless it is told otherwise.
_EPHEMERAL_PORT: Final = 32_768
_PORTS_CLAIMED: Final = 250


@final
class ProcessFailedError(Exception):
    """A process ended or stayed silent where it should have served."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody else takes before they are listened on."""
    _, ports = _claimed()
    return [next(port for port in ports if _is_free(port)) for _ in range(count)]


@functools.cache
def _claimed() -> tuple[socket.socket, Iterator[int]]:
    """Claim ports for this process, by a name that is free again when it ends.

    A port that the system gives to whoever binds none is given again a moment later, to a client
    or to the test next door; these it gives to nobody.
    """
    for lowest in range(_LOWEST_PORT, _EPHEMERAL_PORT - _PORTS_CLAIMED, _PORTS_CLAIMED):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0kvsecure-tests-{lowest}")
        except OSError:
            claim.close()
        else:
            return claim, itertools.cycle(range(lowest, lowest + _PORTS_CLAIMED))
    raise AssertionError("all ports are claimed")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(condition: Callable[[], object], *, deadline_s: float, what: str) -> None:
    """Poll until the condition is truthy.

    Args:
        condition: Cheap and free of side effects.
        deadline_s: Seconds until it is given up.
        what: What was waited for, for the error.

    Raises:
        TimeoutError: The condition was still false at the deadline.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s} s for {what}")
        time.sleep(_TICK_S)


@final
class ServerProcess:
    """One command that serves until it is stopped, and may be started again."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ready: bytes,
        environment: Mapping[str, str],
        deadline_s: float = 30.0,
    ) -> None:
        self._command = list(command)
        self._log = log
        self._ready = ready
        self._environment = dict(environment)
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the process without waiting for it to serve."""
        if self.is_running:
            raise ProcessFailedError("it is already running")
        with self._log.open("ab") as sink:
            self._log_start = sink.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait for the line that says it serves.

        Raises:
            ProcessFailedError: It ended first, or the deadline passed; with the end of its log.
        """
        end = time.monotonic() + self._deadline_s
        while self._ready not in self.log():
            if not self.is_running or time.monotonic() > end:
                raise ProcessFailedError(f"not ready:\n{self.log_tail()}")
            time.sleep(_TICK_S)

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.spawn()
        self.wait_ready()

    def kill9(self) -> None:
        """Kill the process without warning; what it started finds out by itself."""
        process = self._running()
        process.kill()
        process.wait()

    def kill9_all(self) -> None:
        """Kill the process and whatever it started, at once and without warning."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill9_children(self) -> int:
        """Kill what the process started, and not the process; return how many there were."""
        children = _children(self._running().pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return len(children)

    def stop(self, *, deadline_s: float = 10.0) -> int:
        """Ask the process to end and return its exit status.

        Raises:
            ProcessFailedError: It did not end in time; it was killed.
        """
        process = self._running()
        process.terminate()
        try:
            return process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill9_all()
            raise ProcessFailedError(f"did not stop:\n{self.log_tail()}") from None

    def terminate(self) -> None:
        """Ask the process to end, and do not wait for it."""
        self._running().terminate()

    def wait_exit(self, *, deadline_s: float = 30.0) -> int:
        """Wait for the process to end by itself and return its exit status."""
        return self._running().wait(deadline_s)

    def files_of_children(self) -> list[str]:
        """Return the paths of what the processes that it started have open."""
        found = []
        for child in _children(self._running().pid):
            for link in Path(f"/proc/{child}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append(str(link.readlink()))
        return found

    def close(self) -> None:
        """Leave nothing behind, whatever the state."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log(self) -> bytes:
        """Return what the process printed since it was last started."""
        with self._log.open("rb") as source:
            source.seek(self._log_start)
            return source.read()

    def log_tail(self) -> str:
        """Return the end of the log as text, for an error."""
        return self.log()[-_LOG_TAIL_BYTES_MAX:].decode(errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProcessFailedError("it was never started")
        return self._process


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in _words(task / "children")]
    return []


def _words(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().split()
    return []

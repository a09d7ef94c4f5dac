"""The table process of the tests: the real one's code, on a traced disk, one order at a time.

    TableServant           our end: started once, told what to open again and again
    python -m faults.table_servant FD

Owns: the process, which LMDB's rules ask for: one process must not open tables twice.
Never: runs an order before the one before it is done.
"""

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

from faults.traced_disk import Faults, Killed, Told, TracedDisk

from kvsecure.storage.defragment import Defragmenter
from kvsecure.storage.disk import Disk
from kvsecure.storage.files import StorageError
from kvsecure.storage.worker import Order, Report, TableProcess, carry_out, open_process

__all__ = ["TableServant", "main"]

_LENGTH_BYTES: Final = 4
# What a process is made by; a mistake that is planted makes another one.
type_open = Callable[[bytes, Any, Disk], TableProcess]


class _Wire:
    """Whole pickled messages over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        content = pickle.dumps(message)
        with self._lock:
            self._file.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
            self._file.flush()

    def receive(self) -> Any:
        head = self._file.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            raise EOFError("the table process has ended")
        return pickle.loads(self._file.read(int.from_bytes(head, "big")))

    def close(self) -> None:
        self._file.close()


@final
class TableServant:
    """A table process that outlives members."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: _Wire | None = None

    def open(self, calls: int, body: bytes, root: Path, faults: Faults, variant: str = "") -> None:
        """Give up what is open, and open tables.

        Raises:
            EOFError: It has died of them.
        """
        self._start()
        self.ask("open", calls, body, root, faults, variant)

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._wire is not None

    def ask(self, *message: Any) -> None:
        """Send a request; `answers` gives what comes of it."""
        assert self._wire is not None
        self._wire.send(*message)

    def answers(self, take: Callable[[Any], None]) -> Any:
        """Hand over what comes, and return what ended it.

        Raises:
            EOFError: It has died.
        """
        assert self._wire is not None
        while True:
            try:
                kind, *rest = self._wire.receive()
            except (EOFError, ConnectionResetError):
                self.close()
                raise EOFError("the table process has died") from None
            if kind == "done":
                return rest
            take((kind, *rest))

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._wire is not None:
            self._wire.close()
            self._process.kill()
            self._process.wait()
        self._process = self._wire = None

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.table_servant", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self._wire = _Wire(ours)


@final
class _Servant:
    """The other end."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._process: TableProcess | None = None
        self._disk: TracedDisk | None = None
        self._calls = 0

    def run(self) -> None:
        while True:
            kind, calls, *rest = self._wire.receive()
            self._calls = calls
            try:
                status = getattr(self, f"_{kind}")(*rest)
            except Killed:
                status = "killed"
            self._wire.send("done", self._calls, status)

    def send(self, kind: Report, *parts: bytes) -> None:
        """Report, as a disk process does."""
        self._wire.send("report", kind, b"".join(parts))

    def _open(self, body: bytes, root: Path, faults: Faults, variant: str) -> str:
        self._drop()
        self._disk = TracedDisk(root, self._tell, self._next_call, faults, has_tables=True)
        self._disk.know()
        opener: Any = open_process
        if variant:
            from faults.planted import TABLE_VARIANTS

            opener = TABLE_VARIANTS[variant]
        try:
            self._process = opener(body, self, self._disk)
            self._disk.observe()
        except (OSError, StorageError, ValueError, KeyError) as error:
            return str(error) or "it failed"
        return ""

    def _order(self, kind: Order, body: bytes) -> str:
        assert self._process is not None
        assert self._disk is not None
        is_alive = carry_out(self._process, kind, body, self)
        self._disk.observe()
        return "" if is_alive else "broken"

    def _wait(self) -> str:
        """Wait for the thread that defragments."""
        if self._process is not None:
            self._defragmenter.wait()
        return ""

    def _drop(self) -> str:
        """Let go of what is open, as a process does that dies."""
        process, self._process = self._process, None
        if process is not None:
            process._defragmenter.wait()
            process._writer.close()
        return ""

    @property
    def _defragmenter(self) -> Defragmenter:
        assert self._process is not None
        return self._process._defragmenter

    def _tell(self, told: Told) -> None:
        self._wire.send("told", told)

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls


def main() -> None:
    """Serve until the other end is gone."""
    # A thread that is killed takes its process along.
    threading.excepthook = lambda _: os._exit(1)
    wire = _Wire(socket.socket(fileno=int(sys.argv[1])))
    try:
        _Servant(wire).run()
    except (EOFError, ConnectionError):
        os._exit(0)


if __name__ == "__main__":
    main()

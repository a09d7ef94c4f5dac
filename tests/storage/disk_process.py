"""A disk process on the bench: the real one, spoken to over its socket without an event loop.

    DiskProcess           started, told, listened to; killed or left alone at the end

Owns: settings of both roles for the ids of the storage tests, and whole messages both ways.
Never: runs any of the process's code here.
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from storage.segments_lab import CLUSTER, KEYS, MEMBER, ROOT, SEGMENT_BYTES_MAX, Bench

from kvsecure.storage.worker import APPEND, APPENDED, FAILED, HEAD, Order, Report, order

__all__ = ["DiskProcess", "Told", "log_settings", "started", "table_settings"]

_ANSWER_S_MAX: Final = 20.0


class Told(NamedTuple):
    """A report."""

    kind: Report
    body: bytes

    @property
    def errno(self) -> int:
        """The number of the error of an order that was not carried out."""
        return int(FAILED.unpack_from(self.body)[0])

    @property
    def text(self) -> str:
        """The text of that error."""
        return self.body[FAILED.size :].decode()


def log_settings(bench: Bench, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> dict[str, Any]:
    """Return what a log process is told first, to go on where a directory ends."""
    _, tail = bench.recover()
    return {
        "role": "log",
        "cluster": CLUSTER,
        "member": MEMBER,
        "term": 1,
        "directory": str(bench.place.directory),
        "key": base64.b64encode(ROOT.reveal()).decode(),
        "number": tail.number,
        "link": base64.b64encode(tail.link).decode(),
        "following": tail.following,
        "segment_bytes_max": segment_bytes_max,
        "audit_segment_bytes_max": SEGMENT_BYTES_MAX,
    }


def table_settings(
    directory: Path, *, size_bytes_max: int = 64 << 20, cluster: int = CLUSTER
) -> dict[str, Any]:
    """Return what a table process is told first."""
    directory.mkdir(exist_ok=True)
    return {
        "role": "tables",
        "cluster": cluster,
        "member": MEMBER,
        "term": 1,
        "directory": str(directory),
        "key": base64.b64encode(KEYS.data_key(1, purpose="table").reveal()).decode(),
        "size_bytes_max": size_bytes_max,
    }


@final
class DiskProcess:
    """One disk process and our end of its socket."""

    def __init__(self) -> None:
        self._following = 1
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(_ANSWER_S_MAX)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kvsecure.storage.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def tell(self, kind: Order, *parts: bytes) -> None:
        """Give an order."""
        self._ours.sendall(order(kind, *parts))

    def open(self, settings: dict[str, Any]) -> Told:
        """Tell it what to open, and return what comes of it."""
        self._following = settings.get("following", 1)
        self.tell(Order.OPEN, json.dumps(settings).encode())
        return self.listen()

    def append(self, text: bytes, count: int = 1, *, carries_audit: bool = False) -> Told:
        """Let it append a frame, and return what comes of it."""
        self.tell(Order.APPEND, APPEND.pack(self._following, count, carries_audit), text)
        told = self.listen()
        if told.kind is Report.APPENDED:
            self._following = APPENDED.unpack(told.body)[0]
        return told

    def listen(self) -> Told:
        """Return the next report.

        Raises:
            EOFError: There will be none: the process has ended.
        """
        length, kind = HEAD.unpack(self._receive(HEAD.size))
        return Told(Report(kind), self._receive(length))

    def hang_up(self) -> int:
        """Close our end without a word, as a member that was killed, and return its status."""
        self._ours.close()
        return self.process.wait(_ANSWER_S_MAX)

    def close(self) -> int:
        """Let it end in good order, and return its status."""
        self.tell(Order.CLOSE)
        return self.hang_up()

    def end(self) -> None:
        """Leave nothing behind."""
        self._ours.close()
        self.process.kill()
        self.process.wait()

    def _receive(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            piece = self._ours.recv(length - len(content))
            if not piece:
                raise EOFError("the disk process has ended")
            content += piece
        return content


@contextlib.contextmanager
def started(settings: dict[str, Any]) -> Iterator[DiskProcess]:
    """Start a disk process that is ready, and leave nothing of it behind."""
    process = DiskProcess()
    try:
        assert process.open(settings).kind is Report.READY
        yield process
    finally:
        process.end()

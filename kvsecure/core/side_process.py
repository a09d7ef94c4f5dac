"""Side processes: each does one long job beside its member, and ends with it.

    start(module, ...) a process, for the member: the way to it and from it
    hear(reader)       what it says next
    begin(argv)        what such a process does first: its own end
    Voice              whole messages over that socket, blocking

Owns: how one is started and ended, and the form of what is said; what it means is its module's.
Never: leaves one running behind a member; gives it a key in its arguments or its environment.
Keeps: it gives way to the member's own processes, and holds nothing open that is not its own.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

from kvsecure.storage.files import StorageError

__all__ = ["HEAD", "Voice", "begin", "hear", "start"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_NICENESS: Final = 10

# Every message: its length without this head, and what it is.
HEAD: Final = struct.Struct(">IB")


async def start(
    module: str, behind: contextlib.ExitStack, kept_open: Sequence[int] = ()
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Start a process; it ends with this one.

    Args:
        module: What it runs; its first statements are those of `begin`.
        behind: Ends it when it is closed, whatever it is doing.
        kept_open: Descriptors of ours that it holds open as well.

    Raises:
        OSError: It could not be started.
    """
    process, ours = _start(module, kept_open)
    behind.callback(_end, process)
    try:
        reader, writer = await asyncio.open_connection(sock=ours)
    except BaseException:
        ours.close()
        raise
    behind.callback(_hang_up, writer)
    return reader, writer


async def hear(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return what a process says next: what it is, and its body.

    Raises:
        OSError: Nothing: it has ended.
    """
    try:
        length, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise OSError("the process that does it has ended") from None


def _start(module: str, kept_open: Sequence[int]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    package = Path(__file__).resolve().parents[2]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "KVSECURE_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), kept.get("PYTHONPATH", ""))))
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = str(theirs.fileno())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, descriptor, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *kept_open),
            env=kept,
        )
    return process, ours


def _hang_up(writer: asyncio.StreamWriter) -> None:
    # What was not said yet, nobody would hear.
    writer.transport.abort()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def begin(argv: Sequence[str]) -> "Voice | None":
    """Return the way to the member that started this process; None if it is gone already."""
    connection = socket.socket(fileno=int(argv[1]))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(argv[2]):
        return None
    # The member decides when to stop; a terminal's interrupt reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    return Voice(connection)


@final
class Voice:
    """The way to the member."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def hear_job(self) -> dict[str, Any]:
        """Return what is to be done.

        Raises:
            StorageError: The member is gone.
        """
        (length,) = struct.unpack(">I", self._receive(4))
        job: dict[str, Any] = json.loads(self._receive(length))
        return job

    def hear(self) -> tuple[int, bytes]:
        """Return what the member says next: what it is, and its body.

        Raises:
            StorageError: The member is gone.
        """
        length, kind = HEAD.unpack(self._receive(HEAD.size))
        return kind, self._receive(length)

    def tell(self, kind: int, body: bytes = b"") -> None:
        """Say something."""
        self._connection.sendall(HEAD.pack(len(body), kind) + body)

    def _receive(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            piece = self._connection.recv(length - len(content))
            if not piece:
                raise StorageError("the member is gone")
            content += piece
        return bytes(content)

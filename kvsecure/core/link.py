"""The member's end of a disk process: orders out, reports in, on the event loop.

Owns: starting the process, its socket, framing, and noticing that it died.
Never: knows what an order means.
Keeps: what is ordered before the event loop has the socket is carried out first: the first segment
    of the audit trail is begun then, and would never be made durable.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast, final

from kvsecure.storage.files import DirectoryLock, StorageError
from kvsecure.storage.worker import FAILED, HEAD, Order, Report, order

__all__ = ["DiskLink"]

# More parts than this are many bytes.
_JOINED_MAX: Final = 2

type_report = Callable[[Report, bytes], None]


@final
class DiskLink(asyncio.Protocol):
    """A connection to one disk process."""

    def __init__(self, settings: Mapping[str, Any], lock: DirectoryLock) -> None:
        """Start the process and tell it what to open.

        Args:
            settings: Its role and what that needs; keys travel here and nowhere else.
            lock: The data directory's lock, which the process inherits.
        """
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = _spawn(theirs, lock)
        theirs.close()
        ours.sendall(order(Order.OPEN, json.dumps(dict(settings)).encode()))
        self._buffer = b""
        # What it was told before the event loop has the socket.
        self._early: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._is_lost = False
        self._on_report: type_report | None = None
        self._on_lost: Callable[[], None] | None = None

    def wait_ready(self) -> None:
        """Block until the process has opened what it was told to.

        Raises:
            StorageError: It could not.
        """
        head = self._receive_exactly(HEAD.size)
        length, kind = HEAD.unpack(head)
        body = self._receive_exactly(length)
        if kind != Report.READY:
            raise StorageError(body[FAILED.size :].decode(errors="replace"))

    async def attach(self, on_report: type_report, on_lost: Callable[[], None]) -> None:
        """Go on from the event loop: reports are handed over as they come."""
        self._on_report = on_report
        self._on_lost = on_lost
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self, self._socket)

    def send(self, kind: Order, *parts: bytes) -> None:
        """Give an order; before `attach` it waits, and once the process is gone it is dropped."""
        if self._transport is None:
            if not self._is_lost:
                self._early.append(order(kind, *parts))
            return
        if self._transport.is_closing():
            return
        if len(parts) > _JOINED_MAX:
            # A flush may have many megabytes: nothing copies them together.
            self._transport.writelines([HEAD.pack(sum(map(len, parts)), kind), *parts])
        else:
            self._transport.write(order(kind, *parts))

    def close(self) -> None:
        """Let the process finish what it was told, and end."""
        self._on_lost = None
        self.send(Order.CLOSE)
        if self._transport is not None:
            self._transport.close()

    def wait_ended(self, timeout_s: float) -> None:
        """Block until the process has ended; kill it after a while."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start writing."""
        self._transport = cast("asyncio.WriteTransport", transport)
        early, self._early = self._early, []
        self._transport.writelines(early)

    def data_received(self, data: bytes) -> None:
        """Hand over whole reports."""
        buffer = self._buffer + data if self._buffer else data
        offset = 0
        while len(buffer) - offset >= HEAD.size:
            length, kind = HEAD.unpack_from(buffer, offset)
            end = offset + HEAD.size + length
            if end > len(buffer):
                break
            if self._on_report is not None:
                self._on_report(Report(kind), buffer[offset + HEAD.size : end])
            offset = end
        self._buffer = buffer[offset:]

    def connection_lost(self, _: Exception | None) -> None:
        """Tell the engine that the process is gone."""
        self._transport = None
        self._is_lost = True
        if self._on_lost is not None:
            self._on_lost()

    def _receive_exactly(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            piece = self._socket.recv(length - len(content))
            if not piece:
                raise StorageError(
                    "a disk process ended while starting; if it has said nothing above, the "
                    "tables are damaged: restore the data directory from a backup"
                )
            content += piece
        return bytes(content)


def _spawn(theirs: socket.socket, lock: DirectoryLock) -> subprocess.Popen[bytes]:
    package = Path(__file__).resolve().parents[2]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "KVSECURE_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), kept.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        # -P: the directory the member was started in is no place to import code from.
        [sys.executable, "-P", "-m", "kvsecure.storage.worker", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(), lock.descriptor),
        env=kept,
    )

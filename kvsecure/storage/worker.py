"""The disk processes: one appends to the write-ahead log, one writes the tables.

Owns: what is said over the socket between a member and its two disk processes, and their loops.
Never: decides anything; it does what it is told, in order, and answers when it is durable.
Follows: docs/adr/0004-disk-processes.md: a process of its own costs a socket write where a thread
    would cost the interpreter lock at every wake-up.
Keeps: it ends when its member ends; the data directory's lock is inherited, so a new member cannot
    start beside a disk process that is still writing.
"""

import base64
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol, final

from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
from kvsecure.storage.defragment import Defragmenter
from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import StorageError
from kvsecure.storage.rows import unpack_rows
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace, SegmentWriter, Tail
from kvsecure.storage.spares import SpareMaker
from kvsecure.storage.tables import Sizes, TableWriter

__all__ = [
    "APPEND",
    "APPENDED",
    "FAILED",
    "HEAD",
    "RESEAL",
    "WRITTEN",
    "LogProcess",
    "Order",
    "Report",
    "Reports",
    "TableProcess",
    "carry_out",
    "encode_keys",
    "main",
    "open_process",
    "order",
]

_PR_SET_DUMPABLE: Final = 4

# Every message: its length without this head, and what it is.
HEAD: Final = struct.Struct(">IB")
APPENDED: Final = struct.Struct(">QI")
WRITTEN: Final = struct.Struct(">QQI")
FAILED: Final = struct.Struct(">I")
# The index of a frame's first entry, how many it holds, and whether it carries what is not durable
# of the audit trail.
APPEND: Final = struct.Struct(">QI?")
# How long the note of progress is; and how many rows were sealed anew.
RESEAL: Final = struct.Struct(">I")


class Order(IntEnum):
    """What a member tells its disk processes."""

    OPEN = 1
    # Log: append one frame and make it durable, and before it the audit trail, unless carried.
    APPEND = 2
    # Log: delete the segments with nothing at or after this index.
    PURGE = 3
    # Log: the path of the audit segment that is to be made durable before each append.
    AUDIT = 4
    # Tables: write rows in one transaction.
    WRITE = 5
    CLOSE = 6
    # Log: make the audit segment durable now.
    SYNC_AUDIT = 7
    # Both: seal what comes under another data key: that key (`encode_keys`).
    REKEY = 8
    # Tables: the data keys that rows to be sealed anew are under (`encode_keys`).
    KEYS = 9
    # Tables: seal rows anew. The length of the note of progress, that note, the rows.
    RESEAL = 10
    # Tables: give free pages back to the file system; rows may be written meanwhile. With any body
    # nothing is left of rows that are gone either.
    DEFRAGMENT = 11


class Report(IntEnum):
    """What they answer."""

    READY = 1
    # Log: the index that follows what is durable, and how long the sync took in microseconds.
    APPENDED = 2
    # Tables: sizes, and how long the commit took in microseconds.
    WRITTEN = 3
    # The order was not carried out: an errno and its text. The next order may succeed.
    FAILED = 4
    # What is durable is not known any more: the member has to stop.
    BROKEN = 5
    # Log: the audit segment is durable as far as it was written when that was asked for.
    AUDIT_SYNCED = 6
    # Tables: how many rows were sealed anew.
    RESEALED = 7
    # Tables: rows could not be sealed anew, and none was: an errno and its text.
    NOT_RESEALED = 8
    # Tables: sizes, and how long it took in microseconds.
    DEFRAGMENTED = 9
    # Tables: they are as they were: an errno and its text.
    NOT_DEFRAGMENTED = 10


def order(kind: Order, *parts: bytes) -> bytes:
    """Encode a message."""
    length = sum(map(len, parts))
    return b"".join((HEAD.pack(length, kind), *parts))


def encode_keys(keys: Mapping[int, Secret]) -> bytes:
    """Encode data keys by term, as REKEY (with one) and KEYS take them."""
    texts = {term: base64.b64encode(key.reveal()).decode() for term, key in keys.items()}
    return json.dumps(texts).encode()


def _decode_keys(body: bytes) -> dict[int, Secret]:
    return {int(term): Secret(base64.b64decode(key)) for term, key in json.loads(body).items()}


class Reports(Protocol):
    """Where a disk process says what came of its orders."""

    def send(self, kind: Report, *parts: bytes) -> None:
        """Say it."""
        ...


@final
class _Socket:
    """Blocking, whole messages, over the inherited socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> tuple[Order, bytes] | None:
        """Return the next order, or None when the member is gone."""
        head = self._receive_exactly(HEAD.size)
        if head is None:
            return None
        length, kind = HEAD.unpack(head)
        body = self._receive_exactly(length)
        return None if body is None else (Order(kind), body)

    def send(self, kind: Report, *parts: bytes) -> None:
        """Send an answer."""
        length = sum(map(len, parts))
        self._connection.sendall(b"".join((HEAD.pack(length, kind), *parts)))

    def _receive_exactly(self, length: int) -> bytes | None:
        content = bytearray(length)
        view = memoryview(content)
        while view:
            count = self._connection.recv_into(view)
            if not count:
                return None
            view = view[count:]
        return bytes(content)


def _fail(answer: Reports, error: Exception, kind: Report = Report.FAILED) -> None:
    """Report an order that was not carried out."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    answer.send(kind, FAILED.pack(number), str(error).encode())


@final
class _BrokenError(Exception):
    """A sync failed: what it covered may or may not be durable, and a second one would lie."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@final
class _AuditFile:
    """The audit segment that the member writes, as far as it is made durable here."""

    def __init__(self, segment_bytes_max: int, disk: Disk) -> None:
        self._disk = disk
        self._segment_bytes_max = segment_bytes_max
        self._descriptor = -1
        self._spares: SpareMaker | None = None

    def change(self, path: Path) -> None:
        """Go over to another segment; the one before is made durable first."""
        self.sync()
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
        self._descriptor = self._disk.open(path, os.O_RDONLY)
        self._spares = SpareMaker(path.parent, self._segment_bytes_max, self._disk)

    def sync(self) -> None:
        """Make durable what was written by now.

        Raises:
            _BrokenError: What is durable is not known any more.
        """
        if self._descriptor >= 0:
            try:
                self._disk.sync_content(self._descriptor)
            except OSError as error:
                raise _BrokenError(error) from error

    def look_for_spare(self) -> None:
        """See to it that the next segment is ready before this one is full."""
        if self._spares is not None:
            self._spares.look(os.fstat(self._descriptor).st_size)


@final
class LogProcess:
    """Appends to the write-ahead log."""

    def __init__(self, settings: dict[str, Any], disk: Disk) -> None:
        segment_bytes_max = int(settings["segment_bytes_max"])
        place = SegmentPlace(
            Path(settings["directory"]),
            Kind.WAL,
            ClusterId(settings["cluster"]),
            MemberId(settings["member"]),
            disk,
        )
        tail = Tail(
            settings["number"], base64.b64decode(settings["link"]), settings["following"], 0
        )
        self._writer = SegmentWriter(
            place,
            tail,
            Secret(base64.b64decode(settings["key"])),
            term=int(settings["term"]),
            bytes_max=segment_bytes_max,
        )
        self._spares = SpareMaker(place.directory, segment_bytes_max, disk)
        self._audit = _AuditFile(int(settings["audit_segment_bytes_max"]), disk)

    def obey(self, kind: Order, body: bytes, answer: Reports) -> None:
        """Carry out one order."""
        if kind is Order.APPEND:
            self._append(body, answer)
        elif kind is Order.PURGE:
            # What stays takes space and does no harm; the next flush asks again. A failure that was
            # reported would be taken for that of an append.
            with contextlib.suppress(OSError, StorageError):
                # They may carry what is not durable anywhere else.
                self._writer.purge(int.from_bytes(body, "big"), self._audit.sync)
        elif kind is Order.SYNC_AUDIT:
            self._audit.sync()
            self._audit.look_for_spare()
            answer.send(Report.AUDIT_SYNCED)
        elif kind is Order.AUDIT:
            self._audit.change(Path(body.decode()))
        elif kind is Order.REKEY:
            ((term, key),) = _decode_keys(body).items()
            self._writer.use(key, term)

    def close(self) -> None:
        """Make everything durable."""
        self._writer.close()

    def _append(self, body: bytes, answer: Reports) -> None:
        first, count, carries_audit = APPEND.unpack_from(body)
        self._writer.append(count, body[APPEND.size :], first)
        started_ns = time.monotonic_ns()
        # What was decided is durable before what was done is acknowledged: here or in the frame.
        if not carries_audit:
            self._audit.sync()
        try:
            self._writer.sync()
        except OSError as error:
            raise _BrokenError(error) from error
        took_us = (time.monotonic_ns() - started_ns) // 1000
        answer.send(Report.APPENDED, APPENDED.pack(self._writer.following, took_us))
        self._spares.look(self._writer.size_bytes)
        self._audit.look_for_spare()


@final
class TableProcess:
    """Writes the tables."""

    def __init__(self, settings: dict[str, Any], answer: Reports, disk: Disk) -> None:
        self._answer = answer
        directory = Path(settings["directory"])
        self._writer = TableWriter(
            directory,
            ClusterId(settings["cluster"]),
            Secret(base64.b64decode(settings["key"])),
            term=int(settings["term"]),
            size_bytes_max=int(settings["size_bytes_max"]),
            disk=disk,
        )
        self._keys: dict[int, Secret] = {}
        # Held by whoever writes rows or reports: the thread that defragments does both at its end.
        self._lock = threading.Lock()
        self._defragmenter = Defragmenter(directory, self._writer, self._lock, disk)

    def obey(self, kind: Order, body: bytes, answer: Reports) -> None:
        """Carry out one order."""
        if kind is Order.REKEY:
            ((term, key),) = _decode_keys(body).items()
            with self._lock:
                self._writer.use(key, term)
        elif kind is Order.KEYS:
            self._keys = _decode_keys(body)
        elif kind is Order.RESEAL:
            # A copy that is being made would not notice which rows are sealed anew.
            self._defragmenter.wait()
            self._reseal(body, answer)
        elif kind is Order.WRITE:
            self._defragmenter.wait_for_room()
            started_ns = time.monotonic_ns()
            with self._lock:
                try:
                    sizes = self._writer.write(unpack_rows(body))
                except OSError as error:
                    _fail(answer, error)
                    return
                self._defragmenter.note(body)
                took_us = (time.monotonic_ns() - started_ns) // 1000
                answer.send(Report.WRITTEN, WRITTEN.pack(sizes.total, sizes.in_use, took_us))
        elif kind is Order.DEFRAGMENT:
            self._defragmenter.begin(self._defragmented, afresh=bool(body))

    def close(self) -> None:
        """Close the environment.

        A copy that is being made is of no use any more, and cannot be interrupted: with it the
        process ends at once, which the tables survive as they survive a kill.
        """
        with self._lock:
            if self._defragmenter.is_running:
                os._exit(0)
        self._writer.close()

    def _reseal(self, body: bytes, answer: Reports) -> None:
        (length,) = RESEAL.unpack_from(body)
        end = RESEAL.size + length
        try:
            rows = unpack_rows(body[end:])
            count = self._writer.reseal(rows, self._keys, body[RESEAL.size : end])
        except (OSError, DamagedRow) as error:
            # A failure of a write is told otherwise: whoever waits for it must not take this one.
            _fail(answer, error, Report.NOT_RESEALED)
            return
        answer.send(Report.RESEALED, RESEAL.pack(count))

    def _defragmented(self, outcome: Sizes | OSError, took_us: int) -> None:
        """Report how it ended; the lock is held."""
        with contextlib.suppress(OSError):
            if isinstance(outcome, OSError):
                _fail(self._answer, outcome, Report.NOT_DEFRAGMENTED)
            else:
                sizes = WRITTEN.pack(outcome.total, outcome.in_use, took_us)
                self._answer.send(Report.DEFRAGMENTED, sizes)


def open_process(body: bytes, answer: Reports, disk: Disk) -> LogProcess | TableProcess:
    """Open what the first order says.

    Raises:
        OSError: It cannot be written.
        StorageError: It is not usable.
    """
    settings = json.loads(body)
    if settings["role"] == "log":
        return LogProcess(settings, disk)
    return TableProcess(settings, answer, disk)


def carry_out(
    process: LogProcess | TableProcess, kind: Order, body: bytes, answer: Reports
) -> bool:
    """Obey one order and report what came of it; return whether the process may go on."""
    try:
        process.obey(kind, body, answer)
    except (OSError, StorageError) as error:
        _fail(answer, error)
    except _BrokenError as broken:
        _fail(answer, broken.cause, Report.BROKEN)
        return False
    return True


def _serve(answer: _Socket, disk: Disk) -> int:
    """Open what the first order says, then obey until the member closes or is gone."""
    first = answer.receive()
    if first is None or first[0] is not Order.OPEN:
        return 1
    process = open_process(first[1], answer, disk)
    answer.send(Report.READY)
    while (received := answer.receive()) is not None:
        kind, body = received
        if kind is Order.CLOSE:
            break
        if not carry_out(process, kind, body, answer):
            return 1
    process.close()
    return 0


def main() -> int:
    """Run as a disk process, spawned by a member with the number of its socket."""
    # Keys come over the socket next: starting a program has made this process readable to others of
    # its user again, whatever its member had set.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # The member decides when to stop; a terminal's interrupt reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answer = _Socket(socket.socket(fileno=int(sys.argv[1])))
    try:
        return _serve(answer, SYSTEM_DISK)
    except (OSError, StorageError, ValueError, KeyError) as error:
        try:
            _fail(answer, error)
        except OSError:
            return 1
        return 1


if __name__ == "__main__":
    sys.exit(main())

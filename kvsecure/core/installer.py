"""The installing process: writes another member's state into tables aside.

    Incoming                 what is written where, and under which key
    write_incoming(...)      the tables, durable and checked, or nothing
    python -m kvsecure.core.installer FD PID

Owns: what must be true of a state that was sent before it may take effect here.
Never: touches the tables that are in use, or lets what it wrote take effect: its member does.
Follows: docs/adr/0024-snapshots-between-members.md.
Keeps: tables that it says are done are whole, of the state that was announced, and such that a
    start can load them; keys come over the socket and nowhere else.
"""

import base64
import contextlib
import errno
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, final

from kvsecure.core.backup import Row, StoredVersion, unpack
from kvsecure.core.filling import Filling, state_of
from kvsecure.core.scan import Damage
from kvsecure.core.side_process import Voice, begin
from kvsecure.core.snapshot_stream import SnapshotHead, chunks_of
from kvsecure.core.state import State, UnreadableState
from kvsecure.model.ids import DEFAULT_TENANT, ClusterId
from kvsecure.model.secret import Secret
from kvsecure.proto.state_pb2 import Applied
from kvsecure.storage import rows as tables
from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.files import StorageError, remove_tree
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.tables import TableWriter

__all__ = ["Incoming", "Say", "Told", "main", "write_incoming"]

_APPLIED_KEY: Final = b"A"


class Say(IntEnum):
    """What the member says."""

    # A piece of the stream.
    PIECE = 1
    # There are no more pieces: number and hash of the newest audit record on the disk.
    END = 2


class Told(IntEnum):
    """What the process says."""

    # The tables are whole and durable.
    DONE = 1
    # Nothing is left of them: a text.
    FAILED = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What is written where.

    Attributes:
        directory: Made here, of tables that are not in use yet.
        cluster: Whose they are.
        key: The data key that their rows are sealed under, and which term it is of.
        size_bytes_max: How large they may grow.
        spare_bytes: How much room is left on the disk for others: for the log, above all.
        head: Which state was announced.
    """

    directory: Path
    cluster: ClusterId
    key: Secret
    term: int
    size_bytes_max: int
    spare_bytes: int
    head: SnapshotHead

    def encode(self) -> bytes:
        """Return it as the job of a process."""
        job = {
            "directory": str(self.directory),
            "cluster": self.cluster,
            "key": base64.b64encode(self.key.reveal()).decode(),
            "term": self.term,
            "size_bytes_max": self.size_bytes_max,
            "spare_bytes": self.spare_bytes,
            "head": self.head.encode().hex(),
        }
        return json.dumps(job).encode()


def write_incoming(
    incoming: Incoming,
    pieces: Iterable[bytes],
    audit_head: Callable[[], tuple[int, bytes]],
    disk: Disk = SYSTEM_DISK,
) -> None:
    """Write a state as it comes; it is checked, whole and durable at the end, or gone.

    What a `TableWriter` has written is durable, and so are its names; that of the directory is not.

    Args:
        incoming: What is written where.
        pieces: Of the stream.
        audit_head: Number and hash of the newest record of this member's own audit trail that is
            on the disk; asked for when the stream has ended.
        disk: What it is on.

    Raises:
        Damage: It is not what was announced, or not what a member sends.
        OSError: It could not be written.
        StorageError: The same, or the stream broke off.
    """
    directory = incoming.directory
    remove_tree(directory, disk)
    disk.make_directory(directory)
    try:
        _write(incoming, pieces, audit_head, disk)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(directory, disk)
        raise


def _write(
    incoming: Incoming,
    pieces: Iterable[bytes],
    audit_head: Callable[[], tuple[int, bytes]],
    disk: Disk,
) -> None:
    writer = TableWriter(
        incoming.directory,
        incoming.cluster,
        incoming.key,
        term=incoming.term,
        size_bytes_max=incoming.size_bytes_max,
        disk=disk,
    )
    try:
        checked = _Checked(incoming.head)
        filling = Filling(writer)
        for part in unpack(_with_room(chunks_of(pieces), incoming, disk)):
            checked.check(part)
            match part:
                case Row(key=key, value=value):
                    filling.add_state(key, value)
                case StoredVersion():
                    filling.add_version(part)
        applied = checked.applied
        # The trail is this member's own.
        applied.audit_seq, applied.audit_hash = audit_head()
        applied.is_received = True
        stored = applied.SerializeToString()
        filling.finish([tables.Row(Table.STATE, _APPLIED_KEY, NO_SCOPE, stored)])
    finally:
        writer.close()


def _with_room(chunks: Iterable[bytes], incoming: Incoming, disk: Disk) -> Iterator[bytes]:
    """Yield the chunks as long as there is room."""
    for chunk in chunks:
        if disk.free_bytes(incoming.directory) < incoming.spare_bytes:
            raise OSError(errno.ENOSPC, "there is no room for the state of another member")
        yield chunk


@final
class _Checked:
    """What has come so far, as far as what follows depends on it."""

    def __init__(self, head: SnapshotHead) -> None:
        self._head = head
        self.applied = Applied()
        self._state_rows: list[tuple[bytes, bytes]] = []
        # Made of the rows when all of them have come.
        self._state: State | None = None

    def check(self, part: object) -> None:
        """Check the next part.

        Raises:
            Damage: It cannot be used.
        """
        match part:
            case Applied():
                self._check_applied(part)
            case Row(key=key, value=value):
                before = self._state_rows[-1][0] if self._state_rows else b""
                if not before < key or key[:1] == _APPLIED_KEY:
                    raise Damage("a row of the snapshot's state is out of place")
                self._state_rows.append((key, value))
            case StoredVersion(tenant=tenant):
                if self._loaded().accounts.tenant(tenant) is None:
                    raise Damage("a version of the snapshot is of a tenant that is not there")
            case _:
                self._loaded()

    def _check_applied(self, applied: Applied) -> None:
        head = self._head
        stored = head.configuration.encode()
        if (applied.index, applied.term) != (head.index, head.term):
            raise Damage("the snapshot is of another state than was announced")
        if applied.configuration not in (b"", stored):
            raise Damage("the snapshot has another configuration than was announced")
        applied.configuration = stored
        self.applied = applied

    def _loaded(self) -> State:
        if self._state is None:
            rows = [(_APPLIED_KEY, self.applied.SerializeToString()), *self._state_rows]
            try:
                self._state = state_of(rows)
            except UnreadableState as error:
                raise Damage(str(error)) from None
            if self._state.accounts.tenant(DEFAULT_TENANT) is None:
                raise Damage("the snapshot has no tenant that every cluster has")
            self._state_rows.clear()
        return self._state


def _pieces(voice: Voice, heads: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """Yield what the member hands over; at the end it says how far its audit trail is."""
    while True:
        kind, body = voice.hear()
        if kind == Say.END:
            heads.append((int.from_bytes(body[:8], "big"), body[8:]))
            return
        yield body


def main() -> int:
    """Write one state for the member that started this process."""
    voice = begin(sys.argv)
    if voice is None:
        return 1
    try:
        job = voice.hear_job()
        incoming = Incoming(
            directory=Path(job["directory"]),
            cluster=ClusterId(job["cluster"]),
            key=Secret(base64.b64decode(job["key"])),
            term=int(job["term"]),
            size_bytes_max=int(job["size_bytes_max"]),
            spare_bytes=int(job["spare_bytes"]),
            head=SnapshotHead.decode(bytes.fromhex(job["head"])),
        )
        heads: list[tuple[int, bytes]] = []
        write_incoming(incoming, _pieces(voice, heads), lambda: heads[0])
    except (Damage, OSError, StorageError) as error:
        with contextlib.suppress(OSError):
            voice.tell(Told.FAILED, str(error).encode())
        return 1
    voice.tell(Told.DONE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Receiving a snapshot: another member's state, written aside and installed for the next life.

Owns: which snapshot is taken, one at a time; the process that writes it; the moment from which it
    counts.
Never: changes the tables that are in use, the log, or the node: a start with the new tables does.
Follows: docs/adr/0024-snapshots-between-members.md; Raft section 7.
Keeps: what counts is whole, durable and ahead of everything that is committed here; of anything
    else nothing is left. Between the last look at that and the end of this life nothing happens.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, final

from kvsecure.core import side_process
from kvsecure.core.installer import Incoming, Say, Told
from kvsecure.core.scan import Damage
from kvsecure.core.snapshot_stream import SnapshotHead
from kvsecure.model.ids import Index, Term
from kvsecure.model.limits import WAL_SEGMENT_BYTES_MAX
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.peers.bulk import BulkFailed
from kvsecure.storage.files import sync_directory
from kvsecure.storage.replacement import discard_incoming, incoming_of, install
from kvsecure.telemetry.log import log

__all__ = ["SnapshotReceiving"]

_MODULE: Final = "kvsecure.core.installer"

_log = log("server")


@final
class SnapshotReceiving:
    """Takes snapshots in one life of a member; the first one that is installed is its last."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        tables_bytes_max: int,
        wants: Callable[[Index, Term], bool],
        audit_head: Callable[[], tuple[int, bytes]],
        on_installed: Callable[[Index], None],
        spare_bytes: int = WAL_SEGMENT_BYTES_MAX,
    ) -> None:
        """Take none yet.

        Args:
            directory: Where it goes, under keys of its own.
            tables_bytes_max: How large the tables may grow.
            wants: Tells whether a state is ahead of everything that is committed here, and may come
                from another member: it may not where this one leads.
            audit_head: Number and hash of the newest audit record of this member on its disk.
            on_installed: Told through which index the new tables are, at once: nothing may be
                committed, applied, flushed or purged any more, and the life has to begin anew.
            spare_bytes: How much room on the disk is left to the log.
        """
        self._directory = directory
        self._tables_bytes_max = tables_bytes_max
        self._wants = wants
        self._audit_head = audit_head
        self._on_installed = on_installed
        self._spare_bytes = spare_bytes
        self._is_busy = False
        self._is_installed = False

    async def take(self, sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Consume a stream, as `PeerLinks` has it: it ends normally when the state is installed.

        Raises:
            BulkFailed: It is not, and nothing of it is left.
        """
        try:
            head = SnapshotHead.decode(subject)
        except Damage as damage:
            raise BulkFailed(str(damage)) from None
        if self._is_busy or self._is_installed:
            raise BulkFailed("another snapshot is being installed")
        self._check_wanted(head)
        self._is_busy = True
        try:
            await self._install(sender, head, pieces)
        finally:
            self._is_busy = False

    async def _install(self, sender: int, head: SnapshotHead, pieces: AsyncIterator[bytes]) -> None:
        directory, facts = self._directory, {"peer": f"{sender:x}", "index": head.index}
        _log.info("receiving a snapshot", **facts)
        term = directory.keyring.current_term
        incoming = Incoming(
            directory=incoming_of(directory.path),
            cluster=directory.identity.cluster,
            key=directory.keyring.data_key(term, purpose="table"),
            term=term,
            size_bytes_max=self._tables_bytes_max,
            spare_bytes=self._spare_bytes,
            head=head,
        )
        try:
            await _write(directory, incoming, pieces, self._audit_head)
            self._check_good(head, term)
            install(directory.path, directory.disk)
        except (BulkFailed, OSError) as error:
            await self._discard()
            raise BulkFailed(f"the snapshot cannot be installed: {error}") from None
        self._is_installed = True
        _log.info("a snapshot is installed", **facts)
        try:
            sync_directory(directory.path, directory.disk)
        except OSError as error:
            raise BulkFailed(f"the snapshot may not be durable: {error}") from None
        finally:
            # Whether it is durable or not: this life must not go further than it.
            self._on_installed(head.index)

    def _check_good(self, head: SnapshotHead, term: int) -> None:
        """Check that what was written may still be installed; nothing happens in between."""
        if self._directory.keyring.current_term != term:
            # The key may be retired before anybody seals the new tables anew.
            raise BulkFailed("the data key was rotated meanwhile")
        self._check_wanted(head)

    def _check_wanted(self, head: SnapshotHead) -> None:
        if not self._wants(head.index, head.term):
            raise BulkFailed(f"the snapshot at {head.index} is not wanted")

    async def _discard(self) -> None:
        # Taking away a large file takes a while. What stays goes at the next start.
        with contextlib.suppress(OSError):
            directory = self._directory
            await asyncio.to_thread(discard_incoming, directory.path, directory.disk)


async def _write(
    directory: DataDirectory,
    incoming: Incoming,
    pieces: AsyncIterator[bytes],
    audit_head: Callable[[], tuple[int, bytes]],
) -> None:
    """Hand a stream to the process that writes it, at its pace; return when it is done with it.

    The process is gone then, or when this fails.

    Raises:
        BulkFailed: The stream broke off, or the process could not use it.
        OSError: There is no process.
    """
    with contextlib.ExitStack() as behind:
        # It holds the lock as well: who comes next waits until it is gone.
        kept_open = (directory.lock.descriptor,)
        reader, writer = await side_process.start(_MODULE, behind, kept_open)
        hearing = asyncio.ensure_future(_hear(reader))
        behind.callback(hearing.cancel)
        job = incoming.encode()
        writer.write(len(job).to_bytes(4, "big") + job)
        async for piece in pieces:
            await _say(Say.PIECE, piece, writer, hearing)
        number, digest = audit_head()
        await _say(Say.END, number.to_bytes(8, "big") + digest, writer, hearing)
        kind, text = await hearing
        if kind != Told.DONE:
            raise BulkFailed(text)


async def _say(
    kind: Say,
    body: bytes,
    writer: asyncio.StreamWriter,
    hearing: "asyncio.Task[tuple[int, str]]",
) -> None:
    if not hearing.done():
        writer.write(side_process.HEAD.pack(len(body), kind) + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    if hearing.done():
        # It says nothing before the end unless it has failed.
        _, text = hearing.result()
        raise BulkFailed(text)


async def _hear(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Return what the process has to say in the end: that it has ended is a failure."""
    try:
        kind, text = await side_process.hear(reader)
    except OSError as error:
        return Told.FAILED, str(error)
    return kind, text.decode(errors="replace")

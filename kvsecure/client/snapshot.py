"""Backups: a member's snapshot, taken over the wire into a file.

Owns: that the file is there when all of it is durable and has the digest that was sent, and not
    before.
Never: opens a backup; that needs the cluster's keys.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Code
from kvsecure.proto import maintenance_pb2

__all__ = ["Saved", "Snapshots"]

_SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
_DIGEST_BYTES: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A backup that was saved."""

    size_bytes: int
    sha256: str


@final
class Snapshots:
    """Backups. Methods raise `ClientError` when refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, path: Path, progress: Callable[[int, int], None]) -> Saved:
        """Save a backup of this moment.

        Args:
            path: A file that is not there yet; only its owner may read it.
            progress: Told how many bytes have come, and of how many.

        Raises:
            FileExistsError: Something is there.
            OSError: It cannot be written.
            ClientError: It was refused, or did not come whole.
        """
        if path.exists():
            raise FileExistsError(
                errno.EEXIST, "it is there already; a backup is never overwritten", path
            )
        aside = path.with_name(path.name + ".part")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                saved = self._receive(file.write, progress)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        return saved

    def _receive(
        self, write: Callable[[bytes], int], progress: Callable[[int, int], None]
    ) -> Saved:
        digest = hashlib.sha256()
        size_bytes = 0
        last = b""
        with self._connection.open_stream(_SNAPSHOT, maintenance_pb2.SnapshotResponse) as stream:
            stream.send(maintenance_pb2.SnapshotRequest())
            while (answer := stream.receive_or_end()) is not None:
                digest.update(last)
                last = answer.blob
                write(last)
                size_bytes += len(last)
                progress(size_bytes, size_bytes + answer.remaining_bytes)
        if len(last) != _DIGEST_BYTES or digest.digest() != last:
            raise ClientError(Code.DATA_LOSS, "the snapshot that came is not whole")
        return Saved(size_bytes=size_bytes, sha256=last.hex())

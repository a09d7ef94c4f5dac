"""Mistakes that are planted in a member, to see that they are found.

    MISTAKES          a member with one of them each, and what has to be done to come upon it
    TABLE_VARIANTS    table processes with a mistake, by the names that a servant is told

Owns: one small wrong step each, made of the real parts around the seam of the disk.
Never: changes the source or what is imported: a mistake is given to the member that has it.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from faults.faulty_member import Variant
from faults.traced_disk import Fault

from kvsecure.crypto.keyring import Keyring
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.disk import Disk
from kvsecure.storage.files import write_all
from kvsecure.storage.rows import Row, Table
from kvsecure.storage.segments import SegmentWriter, list_segments
from kvsecure.storage.spares import spare_of
from kvsecure.storage.tables import Sizes, TableWriter
from kvsecure.storage.worker import (
    APPEND,
    APPENDED,
    LogProcess,
    Order,
    Report,
    Reports,
    TableProcess,
    open_process,
)

__all__ = ["MISTAKES", "TABLE_VARIANTS", "Mistake"]


@final
class Mistake(NamedTuple):
    """A member that does something wrong."""

    variant: Variant
    # What is done beside turns, and how often of ten.
    doing: dict[str, int]
    # What has to fail for it to matter.
    fault: Fault | None = None
    # Within a second, as a rule.
    is_soon_found: bool = True


@final
class _Unsynced:
    """A disk on which some files or directories are never made durable."""

    def __init__(self, disk: Disk, is_forgotten: Callable[[Path], bool]) -> None:
        self._disk = disk
        self._is_forgotten = is_forgotten
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def open(self, path: Path, flags: int) -> int:
        """Open, and remember what."""
        descriptor = self._disk.open(path, flags)
        self._paths[descriptor] = path
        return descriptor

    def sync(self, descriptor: int, /) -> None:
        """Sync, or forget to."""
        if not self._is_forgotten(self._paths[descriptor]):
            self._disk.sync(descriptor)

    sync_content = sync


def _forgets(is_forgotten: Callable[[Path], bool]) -> Variant:
    return Variant(disk=lambda disk: _Unsynced(disk, is_forgotten))  # type: ignore[arg-type,return-value]  # the rest is the disk's


@final
class _KeyringInPlace(DataDirectory):
    """Writes the keyring over the one that is there."""

    def write_keyring(self, keyring: Keyring) -> None:
        descriptor = self.disk.open(self.path / "keyring", os.O_WRONLY | os.O_TRUNC)
        write_all(descriptor, keyring.file_content(), self.disk)
        self.disk.sync(descriptor)
        self.disk.close(descriptor)


class _Hasty(LogProcess):
    """Acknowledges, and makes the trail durable afterwards."""

    def _append(self, body: bytes, answer: Reports) -> None:
        first, count, carries_audit = APPEND.unpack_from(body)
        self._writer.append(count, body[APPEND.size :], first)
        self._writer.sync()
        answer.send(Report.APPENDED, APPENDED.pack(self._writer.following, 1))
        if not carries_audit:
            self._audit.sync()


class _Trusting(LogProcess):
    """Has an opinion of its own on a sync that failed."""

    def _append(self, body: bytes, answer: Reports) -> None:
        first, count, carries_audit = APPEND.unpack_from(body)
        self._writer.append(count, body[APPEND.size :], first)
        if not carries_audit:
            self._audit.sync()
        try:
            self._writer.sync()
        except OSError as error:
            self._not_synced(error)
        answer.send(Report.APPENDED, APPENDED.pack(self._writer.following, 1))

    def _not_synced(self, error: OSError) -> None:
        raise NotImplementedError


class _Hopeful(_Trusting):
    """Tries a sync again that has failed."""

    def _not_synced(self, _: OSError) -> None:
        self._writer.sync()


class _Patient(_Trusting):
    """Takes a sync that has failed for a write that has: it is written once more later."""

    def _not_synced(self, error: OSError) -> None:
        raise OSError(errno.ENOSPC, str(error)) from error


class _Thrifty(LogProcess):
    """Keeps a purged segment as a spare, with what is in it."""

    def obey(self, kind: Order, body: bytes, answer: Reports) -> None:
        if kind is not Order.PURGE:
            super().obey(kind, body, answer)
            return
        place = self._writer._place
        below = int.from_bytes(body, "big")
        segments = list_segments(place)
        if len(segments) > 1 and segments[1].first <= below:
            place.disk.rename(segments[0].path, spare_of(place.directory))


class _Eager(LogProcess):
    """Purges what the tables do not hold yet."""

    def obey(self, kind: Order, body: bytes, answer: Reports) -> None:
        if kind is Order.PURGE:
            body = (int.from_bytes(body, "big") + 3).to_bytes(8, "big")
        super().obey(kind, body, answer)


class _Careless(LogProcess):
    """Purges segments without a thought for what they carry."""

    def obey(self, kind: Order, body: bytes, answer: Reports) -> None:
        if kind is Order.PURGE:
            self._writer.purge(int.from_bytes(body, "big"))
        else:
            super().obey(kind, body, answer)


class _Uncut(SegmentWriter):
    """Leaves what a write that failed has written, and goes on behind it."""

    __slots__ = ()

    def _cut(self) -> None:
        self._torn_at = None


class _Untidy(LogProcess):
    """Has a writer that leaves the rest of a failed write where it is."""

    def __init__(self, settings: dict[str, Any], disk: Disk) -> None:
        super().__init__(settings, disk)
        self._writer.__class__ = _Uncut


def _log(process: type[LogProcess]) -> Variant:
    def open_log(body: bytes, _: object, disk: Disk) -> LogProcess:
        return process(json.loads(body), disk)

    return Variant(open_log=open_log)


@final
class _InTwo:
    """A writer of tables that says first how far it has come, and then comes so far."""

    def __init__(self, writer: TableWriter, after: Callable[[], None]) -> None:
        self._writer = writer
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, rows: Iterable[Row]) -> Sizes:
        """Write, in two transactions."""
        rows = list(rows)
        applied = [row for row in rows if (row.table, row.key) == (Table.STATE, b"A")]
        self._writer.write(applied)
        self._after()
        return self._writer.write(row for row in rows if row not in applied)


def _tables_in_two(body: bytes, answer: Any, disk: Any) -> TableProcess:
    process = open_process(body, answer, disk)
    process._writer = _InTwo(process._writer, disk.observe)  # type: ignore[assignment]  # a small writer
    return process  # type: ignore[return-value]  # it is what the settings ask for


def _tables_unsynced(body: bytes, answer: Any, disk: Any) -> TableProcess:
    blind = _Unsynced(disk, lambda path: path.name == "tables")
    return open_process(body, answer, blind)  # type: ignore[arg-type,return-value]  # as above


TABLE_VARIANTS: Final = {"in two": _tables_in_two, "unsynced": _tables_unsynced}

MISTAKES: Final[dict[str, Mistake]] = {
    "acknowledged before the log is synced": Mistake(
        _forgets(lambda path: path.suffix == ".wal"), {"flush": 1}
    ),
    "a new segment's name is not synced": Mistake(
        _forgets(lambda path: path.name == "wal"), {"flush": 1}
    ),
    "the trail is not synced": Mistake(_forgets(lambda path: path.suffix == ".audit"), {}),
    "the trail is synced after the log is acknowledged": Mistake(_log(_Hasty), {}),
    "the keyring's content is not synced before its name": Mistake(
        _forgets(lambda path: path.name == "keyring.new"), {"rotate": 4}
    ),
    "the keyring's name is not synced": Mistake(
        _forgets(lambda path: path.name == "data"), {"rotate": 4}
    ),
    "the keyring is written in place": Mistake(Variant(directory=_KeyringInPlace), {"rotate": 4}),
    "a sync that failed is tried again": Mistake(_log(_Hopeful), {}, Fault.BROKEN),
    "a sync that failed is taken for a full disk": Mistake(_log(_Patient), {}, Fault.BROKEN),
    "a spare has an old segment's content": Mistake(_log(_Thrifty), {"flush": 5}),
    "the log is purged before the tables hold it": Mistake(
        _log(_Eager), {"flush": 2, "slow": 5}, is_soon_found=False
    ),
    "what the log carries of the trail is purged": Mistake(_log(_Careless), {"flush": 5}),
    "what a failed write left is not cut": Mistake(
        _log(_Untidy), {}, Fault.SHORT, is_soon_found=False
    ),
    "how far the tables are is written before them": Mistake(
        Variant(tables="in two"), {"flush": 5}, is_soon_found=False
    ),
    "the name of defragmented tables is not synced": Mistake(
        Variant(tables="unsynced"), {"defragment": 3, "flush": 5}
    ),
}

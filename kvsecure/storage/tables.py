"""Sealed tables on LMDB: the applied state, written in atomic transactions.

Owns: the environment's options, which tables there are, and the sealed form of a row.
Never: knows what a row means. Reader and writer live in different processes.
Follows: LMDB's own guidance: synchronous commits without WRITEMAP survive a crash of the machine.
Keeps: a row is bound to its table, key and scope (the tenant), so it opens nowhere else; rows are
    sealed under the key of an epoch, which one writer process draws when it starts.
"""

import contextlib
import errno
import itertools
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol, final

import lmdb

from kvsecure.crypto.keyring import KeyringError
from kvsecure.crypto.sealing import Sealer, derive_key, fresh_salt
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret
from kvsecure.storage.copying import copy_rows
from kvsecure.storage.disk import FILE_MODE, SYSTEM_DISK, Disk
from kvsecure.storage.epochs import ROW_HEAD, ROW_VERSION, Epochs, begin_epoch, put_epoch
from kvsecure.storage.files import (
    StorageError,
    remove_flat_directory,
    sync_directory,
    sync_file,
)
from kvsecure.storage.pages import check_pages
from kvsecure.storage.rows import Row, Table

__all__ = [
    "Sizes",
    "TableKeys",
    "TableReader",
    "TableWriter",
]

_FILE: Final = "data.mdb"
_LOCK_FILE: Final = "lock.mdb"
# Where a compact copy is made; one that a crash has left is of no use.
_COPIES: Final = "compact."
_EMPTY_BYTES_MAX: Final = 1 << 20
# 126 readers, LMDB's own default.
_LOCK_BYTES: Final = 8_192
_FORMAT: Final = b"1"
# A disk with less room has none for a transaction.
_FULL_BYTES: Final = 1 << 20
_SCOPE: Final = struct.Struct(">QI")
# The row of the meta table that says how far the rows are sealed anew.
_PROGRESS: Final = b"resealing"


class TableKeys(Protocol):
    """Where a reader gets the keys of the tables: the keyring, or what was given of it."""

    def data_key(self, term: int, *, purpose: str) -> Secret:
        """Derive a key from a data key.

        Raises:
            KeyringError: There is no such data key.
        """
        ...


class Sizes(NamedTuple):
    """How large the environment is, in bytes."""

    total: int
    in_use: int


@final
class TableWriter:
    """The one process that changes the tables."""

    def __init__(
        self,
        directory: Path,
        cluster: ClusterId,
        data_key: Secret,
        *,
        term: int,
        size_bytes_max: int,
        disk: Disk = SYSTEM_DISK,
    ) -> None:
        """Open the environment, making it if it is not there.

        Raises:
            StorageError: It is not usable, or is of another cluster or format.
        """
        self._directory, self._cluster = directory, cluster
        self._size_bytes_max = size_bytes_max
        self._disk = disk
        self._copies = itertools.count()
        self._env: lmdb.Environment
        self._meta: lmdb._Database
        self._tables: dict[Table, lmdb._Database]
        try:
            if not (directory / _FILE).exists():
                _create(directory, cluster, disk)
            for left in directory.glob(f"{_COPIES}*"):
                remove_flat_directory(left, disk)
            # Whoever made or exchanged them may have been killed before their name was durable.
            sync_directory(directory, disk)
            self._use(_open_writable(directory, size_bytes_max, disk))
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"{directory}: {error}") from None
        self._names = {table: _binding_of(cluster, table) for table in Table}
        self._term, self._salt = term, fresh_salt()
        # Begun with the first row: a member that does not get as far as to write changes nothing.
        self._epoch = 0
        self._sealer = Sealer(derive_key(data_key, purpose="table-epoch", salt=self._salt))

    def use(self, data_key: Secret, term: int) -> None:
        """Seal under another data key from the next row on."""
        self._term, self._salt = term, fresh_salt()
        self._epoch = 0
        self._sealer = Sealer(derive_key(data_key, purpose="table-epoch", salt=self._salt))

    def write(self, rows: Iterable[Row]) -> Sizes:
        """Write rows in one durable transaction.

        Raises:
            OSError: Nothing was written; ENOSPC when disk or map is full.
        """
        with self._writing() as (transaction, epoch):
            for row in rows:
                self._write_row(transaction, row, epoch)
        return self.sizes()

    def reseal(self, rows: Iterable[Row], keys: Mapping[int, Secret], progress: bytes) -> int:
        """Seal rows that are under other data keys under this one, in one durable transaction.

        Args:
            rows: By table, key and scope; what is not there any more, or is under this data key
                already, is left as it is.
            keys: The other data keys, by term.
            progress: What `TableReader.progress` gives from then on.

        Returns:
            How many rows were sealed anew.

        Raises:
            OSError: Nothing was written; ENOSPC when disk or map is full.
            DamagedRow: A row does not open; nothing was written.
        """
        count = 0
        with self._writing() as (transaction, epoch):
            epochs = Epochs(self._meta, keys.get)
            for table, key, scope, _ in rows:
                sealed = bytes(transaction.get(key, db=self._tables[table]) or b"")
                if not sealed or epochs.term_of(transaction, sealed) == self._term:
                    continue
                bound_to = self._names[table] + scope.to_bytes(4, "big") + key
                value = epochs.open(transaction, table.name, sealed, bound_to)
                self._write_row(transaction, Row(table, key, scope, value), epoch)
                count += 1
            transaction.put(_PROGRESS, progress, db=self._meta)
        return count

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[lmdb.Transaction, int]]:
        """Give a transaction and the epoch that its rows are sealed in; durable at the end.

        Raises:
            OSError: Nothing was written.
        """
        try:
            with self._env.begin(write=True) as transaction:
                epoch = self._epoch or begin_epoch(transaction, self._meta, self._term, self._salt)
                yield transaction, epoch
            self._epoch = epoch
        except lmdb.Error as error:
            failed = _os_error(error)
            is_full = self._disk.free_bytes(self._directory) < _FULL_BYTES
            if failed.errno == errno.EIO and is_full and not isinstance(error, lmdb.PanicError):
                # LMDB calls it so when a write goes in part only, which is all that fits.
                failed = OSError(errno.ENOSPC, str(error))
            raise failed from error

    def sizes(self) -> Sizes:
        """Return how large the environment is."""
        return _sizes(self._env, self._tables.values())

    def copy_aside(self, *, afresh: bool = False) -> Path:
        """Make a durable copy that has no free pages; writing may go on in another thread.

        Args:
            afresh: Row by row. Pages that are copied as they are may have, where they are not in
                use, what was there before.

        Returns:
            The directory that it is in.

        Raises:
            OSError: It could not be made; nothing of it is left.
        """
        aside = self._directory / f"{_COPIES}{next(self._copies)}"
        try:
            self._disk.make_directory(aside)
            if afresh:
                _create(aside, self._cluster, self._disk)
                named = {table.name.lower().encode(): db for table, db in self._tables.items()}
                copy_rows(self._env, {b"meta": self._meta, **named}, aside, self._size_bytes_max)
            else:
                self._env.copy(str(aside), compact=True)
            (aside / _FILE).chmod(FILE_MODE)
            sync_file(aside / _FILE, self._disk)
        except (lmdb.Error, OSError) as error:
            self.discard(aside)
            raise _os_error(error) from error
        return aside

    def discard(self, aside: Path) -> None:
        """Give up a copy; what cannot be removed now is at the next start."""
        with contextlib.suppress(OSError):
            remove_flat_directory(aside, self._disk)

    def go_over(self, aside: Path, missed: Iterable[Iterable[Row]]) -> Callable[[], Sizes]:
        """Bring a copy up to date; what is returned puts it in the place of the tables.

        Args:
            aside: From `copy_aside`.
            missed: What was written since the copy was begun, or a little more, in order.

        Returns:
            The last step. If that fails, the process must end: which file is the tables' is known
            again at the next start. It has everything in either case.

        Raises:
            OSError: The copy is of no use; the tables are as they were.
        """
        old = self._env, self._meta, self._tables
        try:
            self._use(_open_writable(aside, self._size_bytes_max, self._disk))
            if self._epoch:
                # It may have begun after the copy.
                with self._env.begin(write=True) as transaction:
                    put_epoch(transaction, self._meta, self._epoch, self._term, self._salt)
            for rows in missed:
                self.write(rows)
        except (lmdb.Error, StorageError, OSError) as error:
            if self._env is not old[0]:
                self._env.close()
            self._env, self._meta, self._tables = old
            raise _os_error(error) from error

        def take_place() -> Sizes:
            # The lock file belongs to its environment: it goes with it. A start that finds the new
            # tables beside the old lock file makes that anew.
            self._disk.rename(aside / _FILE, self._directory / _FILE)
            self._disk.rename(aside / _LOCK_FILE, self._directory / _LOCK_FILE)
            sync_directory(self._directory, self._disk)
            old[0].close()
            self.discard(aside)
            return self.sizes()

        return take_place

    def close(self) -> None:
        """Close the environment; everything written is durable already."""
        self._env.close()

    def _use(self, env: lmdb.Environment) -> None:
        """Go on with an environment.

        Raises:
            StorageError: It is of another cluster or format.
        """
        self._env = env
        with env.begin(write=True) as transaction:
            self._meta = env.open_db(b"meta", txn=transaction, create=False)
            self._tables = {
                table: env.open_db(table.name.lower().encode(), txn=transaction, create=False)
                for table in Table
            }
            _check_cluster(transaction, self._meta, self._cluster)
            check_pages(
                env,
                transaction,
                [self._tables[Table.STATE], self._tables[Table.INDEX]],
                [self._tables[Table.RECORDS]],
            )

    def _write_row(self, transaction: lmdb.Transaction, row: Row, epoch: int) -> None:
        table, key, scope, value = row
        if value is None:
            transaction.delete(key, db=self._tables[table])
            return
        head = ROW_HEAD.pack(ROW_VERSION, epoch, self._sealer.count)
        sealed = self._sealer.seal(value, self._names[table] + scope.to_bytes(4, "big") + key)
        transaction.put(key, head + sealed, db=self._tables[table])


@final
class TableReader:
    """Reads the tables from another process than the one that writes them.

    What it sees is the state at the last `refresh`.
    """

    def __init__(
        self, directory: Path, cluster: ClusterId, keyring: TableKeys, *, size_bytes_max: int
    ) -> None:
        """Open the environment; the writer must have made it.

        Args:
            directory: Where it is.
            cluster: Whose it must be.
            keyring: The cluster's keys.
            size_bytes_max: The same as the writer's.

        Raises:
            StorageError: It is not usable, or is of another cluster or format.
        """
        self._directory, self._cluster, self._keyring = directory, cluster, keyring
        self._size_bytes_max = size_bytes_max
        self._env: lmdb.Environment
        self._meta: lmdb._Database
        self._tables: dict[Table, lmdb._Database]
        self._transaction: lmdb.Transaction
        # The same file once more.
        self._held: int
        self._epochs: Epochs
        self._names = {table: _binding_of(cluster, table) for table in Table}
        self._attach()

    def refresh(self) -> None:
        """See what has been written since."""
        self._transaction.abort()
        self._transaction = self._env.begin()

    def reopen(self) -> None:
        """Go on with the tables that have taken the place of these.

        Only once the writer has said so: before, its lock file may still be the old one, and the
        writer would not know of this reader.

        Raises:
            StorageError: What is there now cannot be read.
        """
        self._transaction.abort()
        self._env.close()
        # The old file is unlinked: whoever closes it last waits until its pages are given up, half
        # a second for a gigabyte. A thread may.
        threading.Thread(target=os.close, args=(self._held,)).start()
        self._attach()

    def get(self, table: Table, key: bytes, scope: int) -> bytes | None:
        """Return a row's value, or None if there is no such row.

        Raises:
            DamagedRow: The row is there and does not open.
        """
        sealed = self._transaction.get(key, db=self._tables[table])
        return None if sealed is None else self._open(table, key, scope, bytes(sealed))

    def next(self, table: Table, start: bytes, scope: int) -> tuple[bytes, bytes] | None:
        """Return the first row at or after a key, or None behind the last.

        Raises:
            DamagedRow: The row does not open.
        """
        cursor = self._transaction.cursor(db=self._tables[table])
        if not (cursor.set_range(start) if start else cursor.first()):
            return None
        key = bytes(cursor.key())
        return key, self._open(table, key, scope, bytes(cursor.value()))

    def scan(
        self, table: Table, scope: int, *, start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order, for tables whose rows all have this scope.

        Raises:
            DamagedRow: A row does not open.
        """
        cursor = self._transaction.cursor(db=self._tables[table])
        if not (cursor.set_range(start) if start else cursor.first()):
            return
        for key, sealed in cursor:
            yield bytes(key), self._open(table, bytes(key), scope, bytes(sealed))

    def terms(self, table: Table, start: bytes, count_max: int) -> list[tuple[bytes, int]]:
        """Return (key, term) of the first rows at or after a key; nothing is opened.

        Raises:
            DamagedRow: A row has no form known here.
        """
        transaction, found = self._transaction, []
        cursor = transaction.cursor(db=self._tables[table])
        if cursor.set_range(start) if start else cursor.first():
            for key, sealed in cursor:
                found.append((bytes(key), self._epochs.term_of(transaction, bytes(sealed))))
                if len(found) == count_max:
                    break
        return found

    def progress(self) -> bytes:
        """Return what the last `TableWriter.reseal` left; nothing if there was none."""
        return bytes(self._transaction.get(_PROGRESS, db=self._meta) or b"")

    def forget_keys(self) -> None:
        """Let go of what was derived from data keys; it is derived again where it is needed."""
        self._epochs.forget()

    def scan_sealed(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, sealed row) in key order, for `open` once the scope is known."""
        for key, sealed in self._transaction.cursor(db=self._tables[table]):
            yield bytes(key), bytes(sealed)

    def open(self, table: Table, key: bytes, scope: int, sealed: bytes) -> bytes:
        """Return the value of a row of `scan_sealed`.

        Raises:
            DamagedRow: It does not open.
        """
        return self._open(table, key, scope, sealed)

    def count(self, table: Table) -> int:
        """Return how many rows a table has."""
        return int(self._transaction.stat(self._tables[table])["entries"])

    def sizes(self) -> Sizes:
        """Return how large the environment is."""
        return _sizes(self._env, self._tables.values())

    def close(self) -> None:
        """Stop reading."""
        self._transaction.abort()
        self._env.close()
        os.close(self._held)

    def _attach(self) -> None:
        directory = self._directory
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=self._size_bytes_max,
                readonly=True,
                max_dbs=8,
                readahead=False,
                create=False,
            )
            self._meta = self._env.open_db(b"meta", create=False)
            self._tables = {
                table: self._env.open_db(table.name.lower().encode(), create=False)
                for table in Table
            }
            self._transaction = self._env.begin()
            self._held = os.open(directory / _FILE, os.O_RDONLY | os.O_CLOEXEC)
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"{directory}: {error}") from None
        _check_cluster(self._transaction, self._meta, self._cluster)
        # Epochs are numbered by the tables that they are in.
        self._epochs = Epochs(self._meta, self._table_key)

    def _table_key(self, term: int) -> Secret | None:
        try:
            return self._keyring.data_key(term, purpose="table")
        except KeyringError:
            return None

    def _open(self, table: Table, key: bytes, scope: int, sealed: bytes) -> bytes:
        bound_to = self._names[table] + scope.to_bytes(4, "big") + key
        return self._epochs.open(self._transaction, table.name, sealed, bound_to)


def _binding_of(cluster: ClusterId, table: Table) -> bytes:
    return cluster.to_bytes(8, "big") + bytes((table,))


def _open_writable(directory: Path, size_bytes_max: int, disk: Disk) -> lmdb.Environment:
    # LMDB maps its lock file with holes in it: on a full disk touching one is the signal SIGBUS.
    descriptor = disk.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        disk.reserve(descriptor, _LOCK_BYTES)
    finally:
        disk.close(descriptor)
    return lmdb.open(
        str(directory),
        map_size=size_bytes_max,
        max_dbs=8,
        mode=FILE_MODE,
        readahead=False,
        metasync=True,
        sync=True,
        writemap=False,
    )


def _create(directory: Path, cluster: ClusterId, disk: Disk) -> None:
    """Make empty tables, so that a crash or a full disk leaves them whole or not at all.

    LMDB begins a file with two writes of its own; cut off in between, it could never be opened.
    """
    aside = directory / "new"
    remove_flat_directory(aside, disk)
    disk.make_directory(aside)
    env = _open_writable(aside, _EMPTY_BYTES_MAX, disk)
    try:
        with env.begin(write=True) as transaction:
            for table in Table:
                env.open_db(table.name.lower().encode(), txn=transaction)
            meta = env.open_db(b"meta", txn=transaction)
            transaction.put(b"format", _FORMAT, db=meta)
            transaction.put(b"cluster", cluster.to_bytes(8, "big"), db=meta)
    finally:
        env.close()
    disk.rename(aside / _FILE, directory / _FILE)
    remove_flat_directory(aside, disk)


def _check_cluster(transaction: lmdb.Transaction, meta: lmdb._Database, cluster: ClusterId) -> None:
    if transaction.get(b"format", db=meta) != _FORMAT:
        raise StorageError("the tables have a format that is not known here")
    stored = int.from_bytes(transaction.get(b"cluster", db=meta) or b"", "big")
    if stored != cluster:
        raise StorageError(f"the tables belong to cluster {stored:x}, not to {cluster:x}")


def _os_error(error: Exception) -> OSError:
    """Return what went wrong as an error of the system, with a number to act on."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, lmdb.MapFullError):
        return OSError(errno.ENOSPC, "the tables have reached their size limit")
    full = "space" in str(error).lower()
    return OSError(errno.ENOSPC if full else errno.EIO, str(error))


def _sizes(env: lmdb.Environment, tables: Iterable[lmdb._Database]) -> Sizes:
    with env.begin() as transaction:
        stats = [env.stat(), *(transaction.stat(table) for table in tables)]
    pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
    page_bytes = stats[0]["psize"]
    return Sizes((env.info()["last_pgno"] + 1) * page_bytes, pages * page_bytes)

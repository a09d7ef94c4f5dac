"""Filling: a whole state written into tables that are new, in transactions of some megabytes.

    Filling        takes rows and versions in their order
    state_of(...)  what the rows of the state say, so that it is known before they take effect

Owns: which rows the versions of keys become, and how many are written at once.
Never: checks versions: `kvsecure.core.backup` does.
Keeps: what says how far the state goes is written last, so tables without it are not whole.
"""

from collections.abc import Iterable, Sequence
from typing import Final, final

from kvsecure.core.backup import StoredVersion
from kvsecure.core.mvcc.records import index_block
from kvsecure.core.state import State
from kvsecure.storage.rows import NO_SCOPE, Row, Table
from kvsecure.storage.tables import TableWriter

__all__ = ["Filling", "state_of"]

_WRITTEN_AT_ONCE_BYTES: Final = 8 * 1024 * 1024
_INDEX_BLOCK_ROWS: Final = 4_096


@final
class Filling:
    """Fills the tables of one writer."""

    def __init__(self, writer: TableWriter) -> None:
        """Begin with tables that hold nothing."""
        self._writer = writer
        self._rows: list[Row] = []
        self._index_rows: list[bytes] = []
        self._size_bytes = 0

    def add_state(self, key: bytes, value: bytes) -> None:
        """Take a row of the state.

        Raises:
            OSError: It could not be written.
        """
        self._add(Row(Table.STATE, key, NO_SCOPE, value), len(key) + len(value))

    def add_version(self, version: StoredVersion) -> None:
        """Take a version; they come in the order they were written.

        Raises:
            OSError: It could not be written.
        """
        self._index_rows.append(version.row)
        self._size_bytes += len(version.row)
        if len(self._index_rows) == _INDEX_BLOCK_ROWS:
            self._add(index_block(self._index_rows), 0)
            self._index_rows = []
        if version.record is not None:
            row = Row(Table.RECORDS, version.place, version.tenant, version.record)
            self._add(row, len(version.record))

    def finish(self, last: Sequence[Row]) -> None:
        """Write what is left, and these rows with it.

        Raises:
            OSError: It could not be written.
        """
        if self._index_rows:
            self._rows.append(index_block(self._index_rows))
        self._rows += last
        self._write()

    def _add(self, row: Row, size_bytes: int) -> None:
        self._rows.append(row)
        self._size_bytes += size_bytes
        if self._size_bytes >= _WRITTEN_AT_ONCE_BYTES:
            self._write()

    def _write(self) -> None:
        self._writer.write(self._rows)
        self._rows, self._size_bytes = [], 0


def state_of(rows: Iterable[tuple[bytes, bytes]]) -> State:
    """Return the state without any version of a key, as the rows of the state table say it.

    Raises:
        UnreadableState: A start with these rows would fail.
    """
    state = State(_NoRows())
    state.load(rows, (), 0)
    return state


@final
class _NoRows:
    """A source of records that has none."""

    def get(self, table: Table, key: bytes, scope: int) -> bytes | None:
        """Return nothing."""

    def next(self, table: Table, start: bytes, scope: int) -> tuple[bytes, bytes] | None:
        """Return nothing."""

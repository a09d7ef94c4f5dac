"""The tables as plain dictionaries: what is flushed is written when the test says so.

Owns: rows as the table process would have them, and reading them back.
Never: seals anything; the real tables are tested on their own.
"""

from collections.abc import Iterator
from typing import Protocol, final

from sortedcontainers import SortedDict

from kvsecure.core.state import State
from kvsecure.storage.rows import NO_SCOPE, Table, unpack_rows

__all__ = ["MemoryTables", "StoredTables", "flush", "reload"]


class StoredTables(Protocol):
    """Tables that a state can be written to and read back from."""

    def get(self, table: Table, key: bytes, scope: int) -> bytes | None:
        """Return a row's value, or None if there is no such row."""
        ...

    def next(self, table: Table, start: bytes, scope: int) -> tuple[bytes, bytes] | None:
        """Return the first row at or after a key, or None behind the last."""
        ...

    def scan(self, table: Table, scope: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a table in order."""
        ...

    def write(self, packed: bytes) -> None:
        """Write rows in one transaction."""
        ...

    def keys(self, table: Table) -> list[bytes]:
        """Return the keys of a table's rows in order."""
        ...


@final
class MemoryTables:
    """Rows in memory; a wrong scope is found as the seal would find it."""

    def __init__(self) -> None:
        self._rows: dict[Table, SortedDict] = {table: SortedDict() for table in Table}

    def get(self, table: Table, key: bytes, scope: int) -> bytes | None:
        """Return a row's value, or None if there is no such row."""
        found = self._rows[table].get(key)
        if found is None:
            return None
        assert found[0] == scope, "a row opens under its own scope only"
        return found[1]

    def next(self, table: Table, start: bytes, scope: int) -> tuple[bytes, bytes] | None:
        """Return the first row at or after a key, or None behind the last."""
        for key in self._rows[table].irange(start):
            return key, self._rows[table][key][1]
        return None

    def scan(self, table: Table, scope: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a table in order."""
        for key, (_, value) in self._rows[table].items():
            yield key, value

    def scan_sealed(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a table in order; there is no seal here."""
        yield from self.scan(table, NO_SCOPE)

    def open(self, table: Table, key: bytes, scope: int, sealed: bytes) -> bytes:
        """Return a row's value."""
        assert self.get(table, key, scope) == sealed
        return sealed

    def write(self, packed: bytes) -> None:
        """Write rows in one transaction."""
        for row in unpack_rows(packed):
            if row.value is None:
                self._rows[row.table].pop(row.key, None)
            else:
                self._rows[row.table][row.key] = (row.scope, row.value)

    def keys(self, table: Table) -> list[bytes]:
        """Return the keys of a table's rows in order."""
        return list(self._rows[table])


def flush(state: State, tables: StoredTables) -> None:
    """Bring the tables to the present state."""
    _, packed = state.begin_flush(0, b"", b"")
    tables.write(b"".join(packed))
    state.end_flush()


def reload(tables: StoredTables) -> State:
    """Return the state that the tables hold; a new one when they are empty."""
    state = State(tables)
    rows = list(tables.scan(Table.STATE, NO_SCOPE))
    if rows:
        state.load(rows, [block for _, block in tables.scan(Table.INDEX, NO_SCOPE)], 0)
    else:
        state.found()
    return state

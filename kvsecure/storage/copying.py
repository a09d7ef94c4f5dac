"""A copy of tables row by row: nothing is in it that is not in a row.

Owns: reading one environment and filling another.
Never: opens a row, or changes what it reads.
Follows: docs/adr/0012-versions.md. A page of LMDB that is copied as it is has, where it is not in
    use, what was there before: rows that were deleted, or have moved.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import lmdb

from kvsecure.storage.disk import FILE_MODE

__all__ = ["copy_rows"]

_AT_ONCE_BYTES: Final = 4 << 20


def copy_rows(
    source: lmdb.Environment,
    databases: Mapping[bytes, lmdb._Database],
    target: Path,
    size_bytes_max: int,
) -> None:
    """Write every row, as of one moment, into tables that are new; others may write meanwhile.

    Args:
        source: What is copied.
        databases: Its databases, by the names that they have in both.
        target: Where the new tables are.
        size_bytes_max: How large they may grow.

    Raises:
        lmdb.Error: It could not be done; the new tables are of no use.
    """
    env = lmdb.open(
        str(target),
        map_size=size_bytes_max,
        max_dbs=8,
        mode=FILE_MODE,
        readahead=False,
        sync=False,
    )
    try:
        with source.begin() as old:
            for name, database in databases.items():
                filled = env.open_db(name, create=False)
                for rows in _batches(old.cursor(db=database)):
                    with env.begin(write=True) as new:
                        for key, value in rows:
                            new.put(key, value, db=filled)
        env.sync(True)
    finally:
        env.close()


def _batches(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield rows, in order, by so many as are written in one transaction."""
    batch: list[tuple[bytes, bytes]] = []
    size_bytes = 0
    for key, value in rows:
        batch.append((key, value))
        size_bytes += len(key) + len(value)
        if size_bytes >= _AT_ONCE_BYTES:
            yield batch
            batch, size_bytes = [], 0
    yield batch

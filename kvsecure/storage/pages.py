"""The pages of LMDB's file: looked at before anybody relies on them.

Owns: touching what is about to be read, in a process that may die of it.
Never: opens a row; what a page says is checked by the seals of its rows.
Follows: LMDB trusts its pages: one that is not there, because a disk lied or a file was cut off, is
    a signal and not an error; a member must not come upon it first.
"""

from collections.abc import Iterable
from pathlib import Path

import lmdb

__all__ = ["check_pages"]


def check_pages(
    env: lmdb.Environment,
    transaction: lmdb.Transaction,
    small: Iterable[lmdb._Database],
    large: Iterable[lmdb._Database],
) -> None:
    """Go through all pages of tables.

    Args:
        env: The environment, a directory.
        transaction: Reads them.
        small: Tables that are gone through at every start.
        large: Tables that are gone through only where the file is shorter than its last page: one
            at the end that was never used may be missing, any other may not.

    Raises:
        lmdb.Error: A page is not one.
    """
    pages_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    is_short = Path(env.path(), "data.mdb").stat().st_size < pages_bytes
    for table in [*small, *large] if is_short else small:
        for _ in transaction.cursor(db=table):
            pass

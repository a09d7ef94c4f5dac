"""What is sealed under which data key, read from the files of a data directory.

Owns: finding the data key of every row and segment, by the bytes that name it.
Never: asks the server, or opens anything: it is the check of what the server says.
"""

import struct
from collections import Counter
from pathlib import Path
from typing import Final

import lmdb

from kvsecure.storage.segment import HEADER_BYTES, Header

__all__ = ["rows_by_term", "segments_by_term"]

_TABLES: Final = (b"records", b"index", b"state")
# A row begins with its version and its epoch; an epoch's entry with its term.
_EPOCH: Final = struct.Struct(">xI")


def rows_by_term(data: Path) -> Counter[int]:
    """Return how many rows of all tables are sealed under each data key."""
    found: Counter[int] = Counter()
    with lmdb.open(
        str(data / "tables"), max_dbs=8, readonly=True, map_size=16 << 30, create=False
    ) as env:
        meta = env.open_db(b"meta", create=False)
        tables = [env.open_db(name, create=False) for name in _TABLES]
        with env.begin() as transaction:
            terms: dict[int, int] = {}
            for key, value in transaction.cursor(db=meta):
                if bytes(key).startswith(b"epoch/"):
                    number = int.from_bytes(bytes(key)[6:], "big")
                    terms[number] = int.from_bytes(bytes(value)[:4], "big")
            for table in tables:
                for _, value in transaction.cursor(db=table):
                    found[terms[_EPOCH.unpack_from(bytes(value))[0]]] += 1
    return found


def segments_by_term(data: Path, room: str) -> Counter[int]:
    """Return how many segments of the log or of the trail are sealed under each data key."""
    paths = [path for path in (data / room).iterdir() if path.suffix == f".{room}"]
    return Counter(Header.decode(path.read_bytes()[:HEADER_BYTES]).term for path in paths)

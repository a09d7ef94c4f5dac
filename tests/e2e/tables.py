"""The tables of a server, read beside it with its key.

Owns: finding out whose rows there are.
Never: changes anything.
"""

from collections import Counter

from e2e.world import Fortress

from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.pki.files import read_private
from kvsecure.server.datadir import MemberIdentity
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.tables import TableReader

__all__ = ["open_tables", "rows_by_tenant"]

_SIZE_BYTES_MAX = 16 * 1024**3


def rows_by_tenant(fortress: Fortress) -> tuple[Counter[int], int]:
    """Return how many versions of keys are in the index by tenant, and how many records there are.

    The records' own rows do not tell whose they are; each has a row in the index while it is used.
    """
    reader = open_tables(fortress)
    try:
        found: Counter[int] = Counter()
        for _, block in reader.scan(Table.INDEX, NO_SCOPE):
            found.update(int(tenant) for tenant, _, _, _ in decode_index_block(block))
        return found, reader.count(Table.RECORDS)
    finally:
        reader.close()


def open_tables(fortress: Fortress) -> TableReader:
    """Open the tables as they are now; the caller closes them."""
    data = fortress.data
    identity_file = data / "member.json"
    identity = MemberIdentity.decode(identity_file.read_bytes(), identity_file)
    key = KeyEncryptionKey.from_file_content(read_private(fortress.kek))
    keyring = Keyring.open((data / "keyring").read_bytes(), key)
    return TableReader(data / "tables", identity.cluster, keyring, size_bytes_max=_SIZE_BYTES_MAX)

"""One tenant's key space, and one revision being written to it.

Owns: what a put and a delete change: index, records, leases, events.
Never: checks rights or the shape of a request; never answers a client.
Follows: etcd's storeTxnWrite (server/storage/mvcc/kvstore_txn.go).
Keeps: a tenant has an index and leases of its own, so no range can reach another tenant's keys.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, final

from kvsecure.core.lease import LeaseTable
from kvsecure.core.mvcc.index import HEAD, POSITION_BYTES, KeyIndex
from kvsecure.core.mvcc.records import Records, encode_index_row
from kvsecure.core.mvcc.retention import Policy
from kvsecure.model.ids import TenantId
from kvsecure.proto.mvcc_pb2 import KeyValue

__all__ = ["Event", "Space", "Writing"]


class Event(NamedTuple):
    """One change of one key."""

    key: bytes
    # The encoded record, or None for a deletion.
    record: bytes | None
    # Where the version that it replaced is, or None if there was none.
    previous: bytes | None


# What `Event(...)` does, without the Python frame of a NamedTuple's constructor: one each write.
_event: Callable[[tuple[bytes, bytes | None, bytes | None]], Event] = partial(tuple.__new__, Event)


@final
class Space:
    """A tenant's keys and leases."""

    __slots__ = ("index", "is_changing", "leases", "prefix", "retention", "tenant")

    def __init__(self, tenant: TenantId) -> None:
        self.tenant = tenant
        self.prefix = tenant.to_bytes(4, "big")
        self.index = KeyIndex()
        self.leases = LeaseTable()
        # By prefix.
        self.retention: dict[bytes, Policy] = {}
        # Whether a revision is being written in steps: readers have to ask for the one before it,
        # because the newest versions are not all of it.
        self.is_changing = False

    def write(
        self, records: Records, key: bytes, value: bytes, lease: int, main: int, sub: int
    ) -> Event:
        """Write a version of a key at a position, tie it to this lease alone, and say so."""
        head, create, version, old = self.index.put(key, main, sub, lease)
        record = KeyValue(
            key=key,
            create_revision=create,
            mod_revision=main,
            version=version,
            value=value,
            lease=lease,
        ).SerializeToString()
        records.fresh[head[:POSITION_BYTES]] = (self.tenant, record)
        records.fresh_rows.append(encode_index_row(self.prefix, head, key))
        records.fresh_bytes += len(record)
        previous = None
        if old is not None:
            if not old[8] & 0x80:
                previous = old[:POSITION_BYTES]
            if old_lease := HEAD.unpack(old)[4]:
                self.leases.detach(old_lease, key)
        if lease:
            self.leases.attach(lease, key)
        return _event((key, record, previous))

    def delete(self, records: Records, key: bytes, main: int, sub: int) -> bytes:
        """Delete a key that exists, at a position; return the position of what it was."""
        head, old = self.index.delete(key, main, sub)
        records.fresh_rows.append(encode_index_row(self.prefix, head, key))
        if old_lease := HEAD.unpack(old)[4]:
            self.leases.detach(old_lease, key)
        return old[:POSITION_BYTES]


@final
class Writing:
    """The changes of one revision, in order."""

    __slots__ = ("_records", "_space", "events", "main")

    def __init__(self, space: Space, records: Records, main: int) -> None:
        self._space = space
        self._records = records
        self.main = main
        self.events: list[Event] = []

    def put(self, key: bytes, value: bytes, lease: int) -> None:
        """Write a version of a key and tie it to this lease alone."""
        event = self._space.write(self._records, key, value, lease, self.main, len(self.events))
        self.events.append(event)

    def delete(self, key: bytes) -> bytes:
        """Delete a key that exists; return the position of what it was."""
        previous = self._space.delete(self._records, key, self.main, len(self.events))
        self.events.append(Event(key, None, previous))
        return previous

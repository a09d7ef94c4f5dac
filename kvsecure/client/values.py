"""What answers are made of: the header, and a key with its value.

Owns: the two values that nearly every answer holds.
Never: a protobuf message in the hands of a caller.
"""

from dataclasses import dataclass, field
from typing import Self, final

from kvsecure.proto import kv_pb2, mvcc_pb2

__all__ = ["Header", "KeyValue"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Who answered, and at which point of the store's history.

    Attributes:
        cluster_id: The cluster.
        member_id: The member that answered.
        revision: The store's revision; 0 in answers that have none.
        raft_term: The election the member was in.
    """

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int

    @classmethod
    def of(cls, message: kv_pb2.ResponseHeader) -> Self:
        """Return the value of a message."""
        return cls(
            cluster_id=message.cluster_id,
            member_id=message.member_id,
            revision=message.revision,
            raft_term=message.raft_term,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key with its value.

    Attributes:
        key: The key.
        value: The value; empty when only keys were asked for.
        create_revision: The revision that created the key.
        mod_revision: The revision that wrote this value.
        version: How often the key was written since it was created; 1 after creation.
        lease: The lease the key dies with; 0 for none.
    """

    key: bytes
    # Whatever prints this must not print a secret.
    value: bytes = field(repr=False)
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    @classmethod
    def of(cls, message: mvcc_pb2.KeyValue) -> Self:
        """Return the value of a message."""
        return cls(
            key=message.key,
            value=message.value,
            create_revision=message.create_revision,
            mod_revision=message.mod_revision,
            version=message.version,
            lease=message.lease,
        )

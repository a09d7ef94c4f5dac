"""The audit trail over the wire: its newest records, and its signed head.

Owns: `kvsecurepb.Audit`, for administrators of the cluster.
Never: verifies the trail; that needs its files and keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.proto import tenant_pb2

__all__ = ["Audit", "AuditHead"]

_SERVICE: Final = "/kvsecurepb.Audit"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The newest record of a member's trail, signed.

    Attributes:
        stream: Whose trail.
        seq: The record's number.
        hash: What pins it and everything before it, 32 bytes.
        signature: Ed25519 over the checkpoint text (docs/audit.md).
        public_key: Who signed, 32 bytes.
    """

    stream: str
    seq: int
    hash: bytes
    signature: bytes
    public_key: bytes


@final
class Audit:
    """The audit trail. Methods raise `ClientError` when refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self) -> AuditHead:
        """Return the newest record's head, to be kept elsewhere."""
        answer = self._connection.call(
            f"{_SERVICE}/Head", tenant_pb2.AuditHeadRequest(), tenant_pb2.AuditHeadResponse
        )
        return AuditHead(
            stream=answer.stream,
            seq=answer.seq,
            hash=answer.hash,
            signature=answer.signature,
            public_key=answer.public_key,
        )

    def tail(self, count: int, *, follow: bool = False) -> Iterator[bytes]:
        """Yield the newest records, oldest first, each as canonical JSON.

        Args:
            count: How many of those that are there already.
            follow: Go on with new ones until the iterator is closed.
        """
        path = f"{_SERVICE}/Tail"
        with self._connection.open_stream(path, tenant_pb2.AuditTailResponse) as stream:
            stream.send(tenant_pb2.AuditTailRequest(count=count, follow=follow))
            while True:
                answer = stream.receive_or_end()
                if answer is None:
                    return
                yield from answer.records

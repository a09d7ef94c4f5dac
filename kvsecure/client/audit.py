"""The audit trail over the wire: its newest records, its head, and what members told.

Owns: `kvsecurepb.Audit`, for administrators of the cluster.
Never: verifies the trail; that needs its files and keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.proto import tenant_pb2

__all__ = ["Audit", "AuditHead", "ToldHead"]

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
@dataclass(frozen=True, slots=True, kw_only=True)
class ToldHead:
    """How far a member has told the cluster that its trail is.

    Attributes:
        member_id: Who.
        name: What the member is called.
        stream: Its trail.
        seq: The record's number; 0 if nothing was told yet.
        hash: What pins it and everything before it, 32 bytes; empty if nothing was told yet.
        signature: Ed25519 over the checkpoint text, by the key of that trail.
        time_s: When, in seconds since 1970, by that member's clock.
        is_missing: Its trail was found not to hold that record any more.
    """

    member_id: int
    name: str
    stream: str
    seq: int
    hash: bytes
    signature: bytes
    time_s: int
    is_missing: bool


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

    def heads(self) -> list[ToldHead]:
        """Return what each member has told, as far as the member that is asked has heard."""
        answer = self._connection.call(
            f"{_SERVICE}/Heads", tenant_pb2.AuditHeadsRequest(), tenant_pb2.AuditHeadsResponse
        )
        return [
            ToldHead(
                member_id=each.member_id,
                name=each.name,
                stream=each.stream,
                seq=each.seq,
                hash=each.hash,
                signature=each.signature,
                time_s=each.time_s,
                is_missing=each.is_missing,
            )
            for each in answer.heads
        ]

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

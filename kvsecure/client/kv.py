"""The key-value service of the client.

Owns: one method per operation.
Never: retries or translates by itself; that is the connection's and the operations' work.
"""

import contextlib
from collections.abc import Generator
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.keys import Keys
from kvsecure.client.operations import (
    Compare,
    Delete,
    Deleted,
    Fetch,
    Found,
    Keep,
    Operation,
    Order,
    Put,
    Range,
    Reading,
    SortBy,
    Stored,
    Txn,
    TxnResult,
)
from kvsecure.client.values import KeyValue
from kvsecure.model.errors import Code
from kvsecure.proto import kv_pb2

__all__ = ["Kv"]

_SERVICE: Final = "/etcdserverpb.KV"


@final
class Kv:
    """Keys and values. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(
        self, key: bytes, *, revision: int = 0, reading: Reading = Reading.LINEARIZABLE
    ) -> KeyValue | None:
        """Return one key, or None when it does not exist.

        Args:
            key: The key.
            revision: The point of history to read at; 0 for now.
            reading: How fresh.
        """
        found = self.range(Keys.one(key), revision=revision, reading=reading)
        return found.kvs[0] if found.kvs else None

    def range(
        self,
        keys: Keys,
        *,
        limit: int = 0,
        revision: int = 0,
        order: Order = Order.NONE,
        sort_by: SortBy = SortBy.KEY,
        fetch: Fetch = Fetch.VALUES,
        reading: Reading = Reading.LINEARIZABLE,
    ) -> Found:
        """Return many keys; see `Range` for the arguments."""
        return self.read(
            Range(
                keys=keys,
                limit=limit,
                revision=revision,
                order=order,
                sort_by=sort_by,
                fetch=fetch,
                reading=reading,
            )
        )

    def read(self, operation: Range) -> Found:
        """Carry out a `Range`."""
        return Found.of(
            self._connection.call(f"{_SERVICE}/Range", operation.message(), kv_pb2.RangeResponse)
        )

    def read_parts(self, operation: Range) -> Generator[Found, None, None]:
        """Carry out a `Range` part by part, all of one revision, without holding all of it.

        Only the last part has the header, the count and `more`. A server that does not know how to
        answers in one part.

        Args:
            operation: In no other order than that of the keys.

        Raises:
            ClientError: It was refused, or broke off: what came before is a part of the answer.
        """
        parts = self._connection.read_stream(
            f"{_SERVICE}/RangeStream", operation.message(), kv_pb2.RangeStreamResponse
        )
        has_begun = False
        try:
            with contextlib.closing(parts):
                for part in parts:
                    has_begun = True
                    yield Found.of(part.range_response)
        except ClientError as error:
            if has_begun or error.code is not Code.UNIMPLEMENTED:
                raise
            yield self.read(operation)

    def put(
        self, key: bytes, value: bytes | Keep, *, lease: int | Keep = 0, previous: bool = False
    ) -> Stored:
        """Write one key; see `Put` for the arguments."""
        return self.write(Put(key=key, value=value, lease=lease, previous=previous))

    def write(self, operation: Put) -> Stored:
        """Carry out a `Put`."""
        return Stored.of(
            self._connection.call(f"{_SERVICE}/Put", operation.message(), kv_pb2.PutResponse)
        )

    def delete(self, keys: Keys, *, previous: bool = False) -> Deleted:
        """Delete keys; see `Delete` for the arguments."""
        return Deleted.of(
            self._connection.call(
                f"{_SERVICE}/DeleteRange",
                Delete(keys=keys, previous=previous).message(),
                kv_pb2.DeleteRangeResponse,
            )
        )

    def txn(
        self,
        *,
        when: tuple[Compare, ...] = (),
        then: tuple[Operation, ...] = (),
        otherwise: tuple[Operation, ...] = (),
    ) -> TxnResult:
        """Do `then` if all conditions hold, and `otherwise` if not; all at one revision."""
        return self.transact(Txn(when=when, then=then, otherwise=otherwise))

    def transact(self, operation: Txn) -> TxnResult:
        """Carry out a `Txn`."""
        return TxnResult.of(
            self._connection.call(f"{_SERVICE}/Txn", operation.message(), kv_pb2.TxnResponse)
        )

    def compact(self, revision: int, *, wait: bool = False) -> int:
        """Forget the history before a revision, and return the store's revision.

        Args:
            revision: The oldest one that can still be read.
            wait: Return only when the space has been given back.
        """
        request = kv_pb2.CompactionRequest(revision=revision, physical=wait)
        answer = self._connection.call(f"{_SERVICE}/Compact", request, kv_pb2.CompactionResponse)
        return answer.header.revision

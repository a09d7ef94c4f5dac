"""Ranges behind the gate that are read in pieces, for a caller who takes them one by one.

Owns: opening such a range for a session, what comes out of it, cutting it when accounts move, and
    the record of how it ended.
Never: knows streams or messages' wire form beyond the request.
Follows: etcd-surface section 1.3, RangeStream: the right is decided at the start, and a change of
    accounts ends the call; differs: at once, where etcd looks after all has been sent.
"""

from typing import final

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.mvcc.walk import Chunk, Walk
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.proto.kv_pb2 import RangeRequest
from kvsecure.security.asking import Asking
from kvsecure.security.gate import Gate
from kvsecure.security.session import Session

__all__ = ["RangeFeed", "open_range"]


@final
class RangeFeed:
    """One open range."""

    __slots__ = ("_bytes", "_gate", "_has_ended", "_request", "_session", "_walk", "revision")

    def __init__(
        self, gate: Gate, session: Session, request: RangeRequest, walk: Walk, revision: int
    ) -> None:
        self._gate = gate
        self._session = session
        self._request = request
        self._walk = walk
        self._bytes = 0
        self._has_ended = False
        # The store's when it was opened, for the answer's header.
        self.revision = revision

    def step(self) -> Chunk | None:
        """Do a bounded part of the work; return a chunk if one is complete.

        Raises:
            Refused: Nothing more may or can be read; that is recorded.
        """
        try:
            chunk = self._step()
        except Refused as refused:
            self.end(refused.code)
            raise
        if chunk is not None:
            self._bytes += len(chunk.body)
            if chunk.is_last:
                self.end(Code.OK)
        return chunk

    def end(self, code: Code) -> None:
        """Record how it ended, unless that was done."""
        if not self._has_ended:
            self._has_ended = True
            result = b'"bytes":%d,"code":"%b","part":"end"' % (self._bytes, code.name.encode())
            self._gate.note_end(self._session, self._request, result)

    def _step(self) -> Chunk | None:
        session = self._session
        if session.law_revision != session.tenant.law_revision:
            raise Refused(Failure.AUTH_OLD_REVISION)
        try:
            return self._walk.step(self._gate.engine.state.store.compacted)
        except DamagedRecord as damage:
            raise self._gate.corrupt(damage) from None


def open_range(
    gate: Gate, asking: Asking, request: RangeRequest, chunk_bytes_max: int
) -> RangeFeed | None:
    """Open a range, or refuse through `asking` and return None.

    Args:
        gate: Decides.
        asking: Who asks.
        request: Its shape checked.
        chunk_bytes_max: What a chunk is to come close to, in bytes.
    """
    session = gate.admit_stream(asking, request, b'"code":"OK","part":"begin"')
    if session is None:
        return None
    store = gate.engine.state.store
    try:
        walk = store.walk(session.space, request, chunk_bytes_max)
    except Refused as refused:
        result = b'"code":"%b","part":"end"' % refused.code.name.encode()
        gate.note_end(session, request, result)
        asking.fail(refused)
        return None
    return RangeFeed(gate, session, request, walk, store.revision)

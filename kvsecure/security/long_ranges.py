"""Ranges of very many keys: read in steps, while others have their turn, and answered in one piece.

Owns: which range requests are read so, one after the other, and putting their parts together.
Never: decides, or knows what carries the answer.
Follows: docs/adr/0017-long-work.md.
Keeps: the answer is what reading at once would have given when it began. Where that is not to be
    had any more, because it was compacted or accounts moved, the gate answers anew, at once. One
    range is held at a time, however many are asked for.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, final

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.mvcc.walk import Walk
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.model.keys import span_of
from kvsecure.proto.kv_pb2 import RangeRequest
from kvsecure.security.asking import Asking
from kvsecure.security.gate import Gate
from kvsecure.security.session import Session

__all__ = ["LONG_RANGE_KEYS", "LongRanges"]

# What is read at once takes two or three milliseconds.
LONG_RANGE_KEYS: Final = 500
# Parts are joined in the end: there need not be many.
_PART_BYTES: Final = 1024 * 1024


class _Waiting(NamedTuple):
    asking: Asking
    session: Session
    request: RangeRequest


@final
class LongRanges:
    """The long ranges that are asked for, in the order they came."""

    __slots__ = ("_gate", "_in_turn", "_parts", "_revision", "_waiting", "_walk")

    def __init__(self, gate: Gate, in_turn: Callable[[Callable[[], None]], None]) -> None:
        """Begin with none.

        Args:
            gate: Decides, and answers what is not long.
            in_turn: Runs a step of a few milliseconds when it is its turn.
        """
        self._gate = gate
        self._in_turn = in_turn
        self._waiting: deque[_Waiting] = deque()
        # Of the first that waits.
        self._walk: Walk | None = None
        self._revision = 0
        self._parts: list[bytes] = []

    def read(self, asking: Asking, request: RangeRequest) -> None:
        """Answer a range request, its shape checked."""
        gate, engine = self._gate, self._gate.engine
        if not request.serializable and not engine.can_read():
            engine.when_readable(lambda: self.read(asking, request))
            return
        session = gate.admit(asking, request)
        if session is None:
            return
        if not _is_long(session, request):
            gate.answer(asking, session, request)
            return
        self._waiting.append(_Waiting(asking, session, request))
        if len(self._waiting) == 1:
            self._in_turn(self._step)

    def _step(self) -> None:
        """Do a bounded part of the work, and see to it that the next one is done."""
        waiting = self._waiting[0]
        try:
            is_done = self._read_on(waiting)
        except (Refused, DamagedRecord):
            # What it began with is gone, or damaged: the gate finds out, and says so.
            is_done = True
            self._walk = None
            self._gate.read(waiting.asking, waiting.request, stale=waiting.request.serializable)
        if is_done:
            self._waiting.popleft()
            self._parts = []
            self._walk = None
        if self._waiting:
            self._in_turn(self._step)

    def _read_on(self, waiting: _Waiting) -> bool:
        """Read on; return whether the request has been answered.

        Raises:
            Refused: What is read has been compacted.
            DamagedRecord: What is stored cannot be read.
        """
        asking, session, request = waiting
        gate = self._gate
        store = gate.engine.state.store
        if session.law_revision != session.tenant.law_revision:
            gate.read(asking, request, stale=request.serializable)
            return True
        if self._walk is None:
            self._walk = store.walk(session.space, request, _PART_BYTES)
            self._revision = store.revision
        chunk = self._walk.step(store.compacted)
        if chunk is None:
            return False
        self._parts.append(chunk.body)
        if chunk.is_last:
            body = b"".join(self._parts)
            gate.finish_read(asking, session, request, Answer(self._revision, body))
        return chunk.is_last


def _is_long(session: Session, request: RangeRequest) -> bool:
    """Tell whether a range has very many keys, and is one that can be walked."""
    if (
        not request.range_end
        or request.count_only
        or 0 < request.limit <= LONG_RANGE_KEYS
        or request.sort_target
        or request.sort_order == RangeRequest.DESCEND
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        return False
    index, span = session.space.index, span_of(request.key, request.range_end)
    if request.revision > 0:
        return index.count_ever(span) > LONG_RANGE_KEYS
    return index.count_now(span) > LONG_RANGE_KEYS

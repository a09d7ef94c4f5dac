"""Ranges of very many keys: read in steps, while others have their turn, and answered in one piece.

Owns: which range requests are read so, whose turn it is, and putting their parts together.
Never: decides, or knows what carries the answer.
Follows: docs/adr/0017-long-work.md.
Keeps: the answer is what reading at once would have given when it began. Where that is not to be
    had any more, because it was compacted or accounts moved, the gate answers anew, at once. One
    range is held at a time, however many are asked for; connections take turns.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple, final

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.mvcc.walk import Walk
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import span_of
from kvsecure.model.limits import LONG_RANGES_WAITING_MAX
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
    """The long ranges that are asked for."""

    __slots__ = ("_current", "_gate", "_in_turn", "_parts", "_revision", "_waiting", "_walk")

    def __init__(self, gate: Gate, in_turn: Callable[[Callable[[], None]], None]) -> None:
        """Begin with none.

        Args:
            gate: Decides, and answers what is not long.
            in_turn: Runs a step of a few milliseconds when it is its turn.
        """
        self._gate = gate
        self._in_turn = in_turn
        # By connection; the one whose turn comes next is first.
        self._waiting: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        # What is being read, and how far that is.
        self._current: _Waiting | None = None
        self._walk: Walk | None = None
        self._revision = 0
        self._parts: list[bytes] = []

    def read(self, asking: Asking, request: RangeRequest) -> None:
        """Answer a range request, its shape checked."""
        gate, engine = self._gate, self._gate.engine
        if not request.serializable and not engine.can_read_keys():
            gate.when_readable(asking, request, lambda: self.read(asking, request))
            return
        session = gate.admit(asking, request)
        if session is None:
            return
        if not _is_long(session, request):
            gate.answer(asking, session, request)
            return
        waiting = self._waiting.setdefault(id(asking.peer), deque())
        if len(waiting) >= LONG_RANGES_WAITING_MAX:
            gate.fail_read(asking, session, request, Refused(Failure.TOO_MANY_REQUESTS))
            return
        waiting.append(_Waiting(asking, session, request))
        if self._current is None:
            self._begin_next()

    def _begin_next(self) -> None:
        """Begin with the first range of the connection whose turn it is, if any waits."""
        done, self._current = self._current, None
        self._walk, self._parts = None, []
        if done is not None and id(done.asking.peer) in self._waiting:
            self._waiting.move_to_end(id(done.asking.peer))
        if self._waiting:
            peer, waiting = next(iter(self._waiting.items()))
            self._current = waiting.popleft()
            if not waiting:
                del self._waiting[peer]
            self._in_turn(self._step)

    def _step(self) -> None:
        """Do a bounded part of the work, and see to it that the next one is done."""
        current = self._current
        if current is None:
            return
        # Whatever goes wrong, the others have their turn.
        is_done = True
        try:
            is_done = self._read_on(current)
        except (Refused, DamagedRecord):
            # What it began with is gone, or damaged: the gate finds out, and says so.
            self._gate.read(current.asking, current.request, stale=current.request.serializable)
        finally:
            if is_done:
                self._begin_next()
            else:
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
    if request.revision > 0 or session.space.is_changing:
        return index.count_ever(span) > LONG_RANGE_KEYS
    return index.count_now(span) > LONG_RANGE_KEYS

"""Places: the way of one lock or campaign, from its place in a queue to its end.

    taken ──> waits ──> answered          nobody is ahead any more
                    ├─> given up          the caller is gone, or may not wait any more
                    └─> refused           the place is gone: its lease has ended

Owns: waiting until nobody is ahead, and the records of how that ended.
Never: knows messages' wire form beyond the transaction that takes a place.
Follows: etcd's concurrency.Mutex and Election; differs: a caller whose place is gone is told at
    once and never that it leads, and one that loses its rights is sent away when it does.
Keeps: a caller that waits costs memory alone: it is woken by the end of the one key ahead of it,
    or of its own. What it has taken is given up in its own name; where it has no right to that any
    more, the member takes back what was taken for it, and nothing else.
"""

import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple, final

from kvsecure.access.queues import entering, leaving, place_of, queue_span
from kvsecure.core.queues import Search
from kvsecure.core.watch import Filters, Room, Watcher
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.keys import span_of
from kvsecure.proto.election_pb2 import CampaignRequest
from kvsecure.proto.kv_pb2 import TxnResponse
from kvsecure.proto.lock_pb2 import LockRequest
from kvsecure.security.asking import Asking, PatientAsking
from kvsecure.security.gate import Gate
from kvsecure.security.session import Peer, Session

__all__ = ["Place", "Surroundings", "Unanswered", "type_body"]

# Makes the answer's body from the key of the place and the revision that created it.
type_body = Callable[[bytes, int], bytes]

_ENDS_ONLY: Final = Filters(no_put=True)


class Surroundings(NamedTuple):
    """What all places have in common."""

    gate: Gate
    # Searches as far as it goes at once, and the rest in steps; then goes on.
    search: Callable[[Search, Callable[[], None]], None]
    # Does something when this turn ends.
    soon: Callable[[Callable[[], None]], None]
    # All that wait.
    waiting: "set[Place]"


@final
class Unanswered:
    """Asks for what nobody waits for."""

    __slots__ = ("peer", "token")

    def __init__(self, peer: Peer, token: bytes) -> None:
        self.peer = peer
        self.token = token

    def succeed(self, answer: Answer) -> None:
        """It is in the trail."""

    def fail(self, refused: Refused) -> None:
        """It is in the trail."""


@final
class Place:
    """A place that is taken, or about to be, and who waits for what; as an `Asking` it takes it."""

    __slots__ = (
        "_ahead",
        "_around",
        "_body",
        "_caller",
        "_created",
        "_has_created",
        "_has_waited",
        "_is_looking",
        "_is_over",
        "_key",
        "_own",
        "_request",
        "_session",
        "_taken_at",
        "peer",
        "token",
    )

    def __init__(
        self,
        around: Surroundings,
        caller: PatientAsking,
        session: Session,
        request: LockRequest | CampaignRequest,
        body: type_body,
    ) -> None:
        self._around = around
        self._caller = caller
        self._session = session
        self._request = request
        self._body = body
        self._key = place_of(request.name, request.lease)
        # The revision that created the key, once it is there, and whether that was this call's; and
        # the revision at which it was found there.
        self._created = 0
        self._has_created = False
        self._taken_at = 0
        self._has_waited = False
        self._is_looking = False
        # Whether nothing more is to be done for the caller.
        self._is_over = False
        # What tells of the end of the key ahead, and of the own one.
        self._ahead: tuple[int, Watcher] | None = None
        self._own: Watcher | None = None
        self.peer = caller.peer
        self.token = caller.token

    @property
    def is_stale(self) -> bool:
        """Whether accounts have moved since it was last decided."""
        return self._session.law_revision != self._session.tenant.law_revision

    # --- taking it ------------------------------------------------------------------------------

    def take(self) -> None:
        """Take the place."""
        self._caller.when_gone(self._leave)
        txn = entering(self._request)
        gate = self._around.gate
        gate.carry_out(self, self._session, txn, txn.SerializeToString(), self._request)

    def succeed(self, answer: Answer) -> None:
        """Go on: the place is there."""
        response = TxnResponse.FromString(answer.body)
        self._taken_at = answer.revision
        if response.succeeded:
            self._created, self._has_created = answer.revision, True
        else:
            self._created = response.responses[0].response_range.kvs[0].create_revision
            if response.responses[1:] and response.responses[1].response_txn.succeeded:
                # Where the place was found; its value is newer.
                self._taken_at -= 1
        if self._is_over:
            self._give_up()
        else:
            self.look()

    def fail(self, refused: Refused) -> None:
        """Pass on that there is no place to be had."""
        if not self._is_over:
            self._is_over = True
            self._caller.fail(refused)

    # --- waiting --------------------------------------------------------------------------------

    def look(self) -> None:
        """See whether it still may wait, still has its place, and who is ahead."""
        engine = self._around.gate.engine
        if self._is_over or self._is_looking:
            return
        if not engine.can_read():
            # Of what is being deleted now, some keys may be gone and others not.
            self._is_looking = True
            engine.when_readable(self._look_again)
            return
        if not self._may_wait():
            return
        if self._ahead is not None and self._holds(self._ahead[1].span.start, self._ahead[0]):
            return
        self._is_looking = True
        self._search()

    def _look_again(self) -> None:
        self._is_looking = False
        self.look()

    def _search(self) -> None:
        span = queue_span(self._request.name)
        revision = self._around.gate.engine.state.store.revision
        search = Search(self._session.space.index, span, revision, before=self._created)
        self._around.search(search, lambda: self._found(search))

    def _found(self, search: Search) -> None:
        self._is_looking = False
        if not self._around.gate.engine.is_whole:
            self.look()
            return
        if self._is_over or not self._may_wait():
            return
        if search.found is None:
            self._answer()
        elif search.is_settled:
            self._wait_for(*search.found)
        else:
            # It ended while others were looked at.
            self.look()

    def _wait_for(self, key: bytes, created: int) -> None:
        self._close_ahead()
        self._ahead = (created, self._watch(key))
        if self._own is None:
            self._own = self._watch(self._key)
            self._has_waited = True
            self._around.waiting.add(self)

    def _watch(self, key: bytes) -> Watcher:
        """Be woken when a key ends."""
        state = self._around.gate.engine.state
        watcher = Watcher(
            space=self._session.space,
            span=span_of(key, b""),
            filters=_ENDS_ONLY,
            next_revision=state.store.revision + 1,
            # Its one event is small, and read at once.
            room=Room(),
            wake=self._woken,
        )
        state.hub.go_live(watcher)
        return watcher

    def _woken(self, _: Watcher) -> None:
        self._around.soon(self.look)

    def _may_wait(self) -> bool:
        """Decide again if accounts have moved, and see that the place is there; or end it."""
        session = self._around.gate.still_allowed(self.peer, self._session, self._request)
        if session is None:
            self._end()
            self._take_back()
            self._caller.fail(Refused(Failure.PERMISSION_DENIED))
            return False
        self._session = session
        if self._holds(self._key, self._created):
            return True
        is_lock = isinstance(self._request, LockRequest)
        refused = Refused(Failure.SESSION_EXPIRED if is_lock else Failure.NOT_ELECTED)
        self._end()
        self._note_end(refused.code)
        self._caller.fail(refused)
        return False

    def _holds(self, key: bytes, created: int) -> bool:
        """Tell whether a key is there that was created at this revision."""
        head = self._session.space.index.head(key)
        return head is not None and head.create == created

    # --- the end --------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Tell the caller that nobody is ahead."""
        self._end()
        revision, now = self._taken_at, self._around.gate.engine.state.store.revision
        if isinstance(self._request, LockRequest) and (self._has_waited or revision != now):
            # Somebody may have been ahead when it was taken; etcd looks at the key once more.
            revision = now
        if self._has_waited:
            self._note_end(Code.OK, b',"rev":%d' % revision)
        self._caller.succeed(Answer(revision, self._body(self._key, self._created)))

    def _leave(self, code: Code) -> None:
        """Give up: nobody waits for the answer any more."""
        if self._is_over:
            return
        self._end()
        if self._created:
            self._note_end(code)
            self._give_up()

    def _give_up(self) -> None:
        """Give up the place, in the caller's name."""
        gate = self._around.gate
        session = None
        if not self.peer.is_cut:
            session = gate.still_allowed(self.peer, self._session, self._request)
        if session is None:
            self._take_back()
            return
        txn = leaving(self._key, self._created)
        nobody: Asking = Unanswered(self.peer, self.token)
        gate.carry_out(nobody, session, txn, txn.SerializeToString())
        gate.schedule()

    def _take_back(self) -> None:
        """Take back the place that this call has taken for somebody who had the right to it."""
        if self._has_created:
            gate = self._around.gate
            # What cannot be done now, the end of its lease does.
            with contextlib.suppress(Refused):
                gate.submit_system(self._session.tenant.id, leaving(self._key, self._created))
            gate.schedule()

    def _note_end(self, code: Code, more: bytes = b"") -> None:
        result = b'"code":"%b","part":"end"%b' % (code.name.encode(), more)
        self._around.gate.note_end(self._session, self._request, result)

    def _end(self) -> None:
        self._is_over = True
        self._around.waiting.discard(self)
        self._close_ahead()
        if self._own is not None:
            self._around.gate.engine.state.hub.close(self._own)
            self._own = None

    def _close_ahead(self) -> None:
        if self._ahead is not None:
            self._around.gate.engine.state.hub.close(self._ahead[1])
            self._ahead = None

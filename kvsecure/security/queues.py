"""Queues behind the gate: what locks and elections ask of them.

Owns: entering a queue, proclaiming, and telling who leads.
Never: knows what carries the answers.
Follows: etcd-surface sections 1.9 and 1.10.
Keeps: what is done to keys is done in the caller's name, allowed by the law and in the trail.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, final

from google.protobuf.message import Message

from kvsecure.access.queues import proclaiming, queue_span
from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.queues import Found, Search
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import (
    LEASE_OF_QUEUES_TTL_S,
    QUEUE_KEYS_AT_ONCE,
    QUEUE_KEYS_PER_STEP,
)
from kvsecure.proto.election_pb2 import CampaignRequest, LeaderRequest, ProclaimRequest
from kvsecure.proto.encode import bytes_field
from kvsecure.proto.kv_pb2 import RangeRequest, RangeResponse, TxnResponse
from kvsecure.proto.lease_pb2 import LeaseGrantRequest
from kvsecure.proto.lock_pb2 import LockRequest
from kvsecure.security.asking import Asking, PatientAsking
from kvsecure.security.gate import Gate
from kvsecure.security.places import Place, Surroundings, Unanswered, type_body
from kvsecure.security.session import Session

__all__ = ["Queues", "record_found"]

# Field key of the key in v3electionpb.LeaderResponse.
_KV: Final = b"\x12"


@final
class Queues:
    """All who wait."""

    __slots__ = ("_around", "_gate", "_in_turn", "_waiting")

    def __init__(
        self,
        gate: Gate,
        *,
        at_turn_end: Callable[[Callable[[], None]], None],
        in_turn: Callable[[Callable[[], None]], None],
    ) -> None:
        """Begin with nobody.

        Args:
            gate: Decides and records.
            at_turn_end: Does something when this turn ends.
            in_turn: Runs a step of a few milliseconds when it is its turn.
        """
        self._gate = gate
        self._in_turn = in_turn
        self._waiting: set[Place] = set()
        self._around = Surroundings(gate, self.search, at_turn_end, self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(
        self,
        caller: PatientAsking,
        request: LockRequest | CampaignRequest,
        body: type_body,
        *,
        grant: bool,
    ) -> None:
        """Take a place, wait until nobody is ahead, and answer.

        Args:
            caller: Who asks.
            request: What is asked; it names a lease.
            body: Makes the answer.
            grant: Whether that lease is to be granted first.
        """
        session = self._gate.admit(caller, request)
        if session is None:
            return
        if grant:
            self._grant(caller, session, request.lease)
        Place(self._around, caller, session, request, body).take()

    def proclaim(self, asking: Asking, request: ProclaimRequest, *, grant: bool) -> None:
        """Give a leader's key another value, if it leads still.

        Args:
            asking: Who asks.
            request: What is asked, with a leader; it names a lease.
            grant: Whether that lease is to be granted first.
        """
        session = self._gate.admit(asking, request)
        if session is None:
            return
        if grant:
            self._grant(asking, session, request.leader.lease)
        txn = proclaiming(request)
        proclaiming_it = _Proclaiming(self._gate, asking, session, request)
        self._gate.carry_out(proclaiming_it, session, txn, txn.SerializeToString(), request)

    def lead(self, asking: Asking, request: LeaderRequest) -> None:
        """Answer with the oldest key of a queue."""
        engine = self._gate.engine
        if not engine.can_read():
            self._gate.when_readable(asking, request, lambda: self.lead(asking, request))
            return
        session = self._gate.admit(asking, request)
        if session is not None:
            revision = engine.state.store.revision
            search = Search(session.space.index, queue_span(request.name), revision)
            self.search(search, lambda: self._tell_leader(asking, session, request, search))

    def _tell_leader(
        self, asking: Asking, session: Session, request: LeaderRequest, search: Search
    ) -> None:
        gate = self._gate
        has_moved = session.law_revision != session.tenant.law_revision
        if has_moved or not search.is_settled or not gate.engine.is_whole:
            # Accounts, or who leads, have moved while others were looked at.
            self.lead(asking, request)
            return
        if search.found is None:
            _refuse(gate, asking, session, request, Refused(Failure.NO_ELECTED_LEADER))
            return
        try:
            kv = record_found(gate, session, search.found)
        except Refused as refused:
            _refuse(gate, asking, session, request, refused)
            return
        answer = Answer(gate.engine.state.store.revision, bytes_field(_KV, kv))
        gate.finish_read(asking, session, request, answer)

    def _grant(self, asking: Asking, session: Session, lease: int) -> None:
        """Grant the lease of what follows it in the log.

        The law decides it by itself; if it is refused, what follows is as well.
        """
        request = LeaseGrantRequest(ID=lease, TTL=LEASE_OF_QUEUES_TTL_S)
        nobody = Unanswered(asking.peer, asking.token)
        self._gate.carry_out(nobody, session, request, request.SerializeToString())

    def search(self, search: Search, done: Callable[[], None]) -> None:
        """Search as far as it goes at once, and the rest in steps; then go on."""
        if search.step(QUEUE_KEYS_AT_ONCE):
            done()
        else:
            self._in_turn(partial(self._search_on, search, done))

    def _search_on(self, search: Search, done: Callable[[], None]) -> None:
        if search.step(QUEUE_KEYS_PER_STEP):
            done()
        else:
            self._in_turn(partial(self._search_on, search, done))

    def wake_stale(self) -> None:
        """Make everybody whose rights may have changed look again."""
        for place in [place for place in self._waiting if place.is_stale]:
            place.look()


def record_found(gate: Gate, session: Session, found: Found) -> bytes:
    """Return the record, an encoded KeyValue, of what was found and is still there.

    Raises:
        Refused: It is damaged.
    """
    store = gate.engine.state.store
    try:
        body = store.range(session.space, RangeRequest(key=found.key))
    except DamagedRecord as damage:
        raise gate.corrupt(damage) from None
    return RangeResponse.FromString(body).kvs[0].SerializeToString()


def _refuse(
    gate: Gate, asking: Asking, session: Session, request: Message, refused: Refused
) -> None:
    """Record and refuse what was allowed."""
    gate.note_end(session, request, b'"code":"%b"' % refused.code.name.encode())
    asking.fail(refused)


@final
class _Proclaiming:
    """Asks for a proclamation, which may come too late."""

    __slots__ = ("_asking", "_gate", "_request", "_session", "peer", "token")

    def __init__(
        self, gate: Gate, asking: Asking, session: Session, request: ProclaimRequest
    ) -> None:
        self._gate = gate
        self._asking = asking
        self._session = session
        self._request = request
        self.peer = asking.peer
        self.token = asking.token

    def succeed(self, answer: Answer) -> None:
        """Answer with the header alone, or say that somebody else leads."""
        if TxnResponse.FromString(answer.body).succeeded:
            self._asking.succeed(Answer(answer.revision, b""))
            return
        # What was carried out changed nothing.
        refused = Refused(Failure.NOT_ELECTED)
        result = b'"code":"%b","part":"end"' % refused.code.name.encode()
        self._gate.note_end(self._session, self._request, result)
        self._asking.fail(refused)

    def fail(self, refused: Refused) -> None:
        """Pass the refusal on."""
        self._asking.fail(refused)

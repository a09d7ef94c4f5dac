"""Learning: what a member without a vote answers, which is next to nothing.

Owns: which methods these are, and the refusal of all others.
Never: decides who may ask; what a learner answers is decided as everywhere.
Follows: etcd 3.5's interceptors (server/etcdserver/api/v3rpc): Status, reads of keys that may be
    stale, and snapshots. Besides: defragmentation, as etcd 3.6 has it, and what etcd does not have
    and is about this member alone: its audit trail and its keys, health and reflection.
Keeps: what a learner refuses it refuses at once, whoever leads, and records as rejected.
"""

from collections.abc import Callable
from typing import Any, Final, final

from google.protobuf.message import Message

from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.kv_pb2 import RangeRequest
from kvsecure.security.asking import PatientAsking

__all__ = ["check_vote", "has_vote", "is_for_learners", "stream_with_vote", "with_vote"]

type_unary = Callable[[Services, PatientAsking, Any, bytes], None]
type_stream = Callable[[Services, StreamCall], Receiver]

_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_FOR_LEARNERS: Final = frozenset(
    _MAINTENANCE + method for method in ("Status", "Snapshot", "Defragment")
)
_OWN: Final = ("/kvsecurepb.Audit/", "/kvsecurepb.Crypto/", "/grpc.")


def is_for_learners(path: str) -> bool:
    """Tell whether a learner serves a method, whatever the request."""
    return path in _FOR_LEARNERS or path.startswith(_OWN)


def has_vote(services: Services) -> bool:
    """Tell whether this member votes, so that it answers everything."""
    gate = services.gate
    return not gate.engine.state.members.is_learner(gate.facts.member)


def check_vote(services: Services, request: object) -> None:
    """Refuse what only a member with a vote answers.

    Raises:
        Refused: This one has none, and the request is no read that may be stale.
    """
    if has_vote(services) or (isinstance(request, RangeRequest) and request.serializable):
        return
    raise Refused(Failure.NOT_FOR_LEARNERS)


def with_vote(serve: type_unary) -> type_unary:
    """Return a method of one request that a learner refuses."""

    def served(services: Services, asking: PatientAsking, request: Any, content: bytes) -> None:
        check_vote(services, request)
        serve(services, asking, request, content)

    return served


def stream_with_vote(begin: type_stream) -> type_stream:
    """Return a method of several messages that a learner refuses."""

    def begun(services: Services, call: StreamCall) -> Receiver:
        receiver = begin(services, call)
        return receiver if has_vote(services) else _Reluctant(services, call, receiver)

    return begun


@final
class _Reluctant:
    """One stream to a learner."""

    __slots__ = ("_call", "_receiver", "_services")

    def __init__(self, services: Services, call: StreamCall, receiver: Receiver) -> None:
        self._services = services
        self._call = call
        self._receiver = receiver

    def received(self, message: Message) -> None:
        """Refuse, or pass on what a learner answers."""
        try:
            check_vote(self._services, message)
        except Refused as refused:
            self._services.gate.reject(self._call, message, refused)
            self._services.gate.schedule()
        else:
            self._receiver.received(message)

    def half_closed(self) -> None:
        """Pass it on."""
        self._receiver.half_closed()

    def drained(self) -> None:
        """Pass it on."""
        self._receiver.drained()

    def closed(self) -> None:
        """Pass it on."""
        self._receiver.closed()

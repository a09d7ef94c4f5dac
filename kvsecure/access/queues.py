"""Queues: what a lock or an election asks of the keys that it is made of.

    name/18ca1b2f5b2d1a33    a place in the queue `name`, of the lease with that number
    the oldest of them       holds the lock, or leads

Owns: the one scheme of names and transactions that locks and elections share.
Never: decides, waits, or looks at any state.
Follows: etcd's recipes (client/v3/concurrency), whose clients queue up with ours; differs: whether
    a value is proclaimed anew is decided by the same transaction that looks for the place.
"""

from typing import Final

from google.protobuf.message import Message

from kvsecure.model.keys import Span, prefix_end, span_of
from kvsecure.proto.election_pb2 import (
    CampaignRequest,
    LeaderKey,
    LeaderRequest,
    ProclaimRequest,
    ResignRequest,
)
from kvsecure.proto.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvsecure.proto.lock_pb2 import LockRequest, UnlockRequest

__all__ = [
    "asked_of_keys",
    "entering",
    "leaving",
    "place_of",
    "proclaiming",
    "queue_span",
    "resigning",
    "unlocking",
]

_SEPARATOR: Final = b"/"


def place_of(name: bytes, lease: int) -> bytes:
    """Return the key that is a lease's place in a queue."""
    return b"%b%b%x" % (name, _SEPARATOR, lease)


def queue_span(name: bytes) -> Span:
    """Return where all places of a queue are."""
    prefix = name + _SEPARATOR
    return span_of(prefix, prefix_end(prefix))


def entering(request: LockRequest | CampaignRequest) -> TxnRequest:
    """Return what takes a place at the end of a queue, or finds the one that the lease has.

    Where that is found, the first answer of the transaction has it.
    """
    key = place_of(request.name, request.lease)
    value = request.value if isinstance(request, CampaignRequest) else b""
    put = RequestOp(request_put=PutRequest(key=key, value=value, lease=request.lease))
    found = [RequestOp(request_range=RangeRequest(key=key))]
    if isinstance(request, CampaignRequest):
        differs = Compare(
            key=key, target=Compare.VALUE, result=Compare.NOT_EQUAL, value=request.value
        )
        found.append(RequestOp(request_txn=TxnRequest(compare=[differs], success=[put])))
    return TxnRequest(compare=[_created_at(key, 0)], success=[put], failure=found)


def leaving(key: bytes, revision: int) -> TxnRequest:
    """Return what gives up a place, if it is still the one that was taken at a revision."""
    delete = RequestOp(request_delete_range=DeleteRangeRequest(key=key))
    return TxnRequest(compare=[_created_at(key, revision)], success=[delete])


def unlocking(request: UnlockRequest) -> DeleteRangeRequest:
    """Return what releases a lock."""
    return DeleteRangeRequest(key=request.key)


def proclaiming(request: ProclaimRequest) -> TxnRequest:
    """Return what gives a leader's key another value, if it leads still."""
    leader = request.leader
    put = PutRequest(key=leader.key, value=request.value, lease=leader.lease)
    return TxnRequest(compare=[_held(leader)], success=[RequestOp(request_put=put)])


def resigning(request: ResignRequest) -> TxnRequest:
    """Return what ends a leader's term, if it has not ended."""
    return leaving(request.leader.key, request.leader.rev)


def asked_of_keys(request: Message) -> list[Message]:
    """Return all that a request of a lock or an election asks of keys: may they be made, it may."""
    match request:
        case LockRequest() | CampaignRequest():
            # Whoever takes a place may have to leave it; its revision is not a matter of rights.
            leaving_it = leaving(place_of(request.name, request.lease), 0)
            return [entering(request), _whole(request.name), leaving_it]
        case UnlockRequest():
            return [unlocking(request)]
        case ProclaimRequest():
            return [proclaiming(request)]
        case ResignRequest():
            return [resigning(request)]
        case LeaderRequest():
            return [_whole(request.name)]
        case _:
            raise TypeError(type(request).__name__)


def _whole(name: bytes) -> RangeRequest:
    """Return what reads a whole queue."""
    prefix = name + _SEPARATOR
    return RangeRequest(key=prefix, range_end=prefix_end(prefix))


def _held(leader: LeaderKey) -> Compare:
    return _created_at(leader.key, leader.rev)


def _created_at(key: bytes, revision: int) -> Compare:
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)

"""v3electionpb.Election.

Owns: choosing the lease of a candidate without one, the shape checks of its requests, and the
    messages and the pace of an observation.
Never: decides, waits or names keys.
Follows: etcd-surface section 1.10.
"""

from typing import Final, final

from kvsecure.access.queues import entering, proclaiming, resigning
from kvsecure.api.lease import random_lease
from kvsecure.api.queue_calls import WithoutBody, check_size
from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.api.shape import check_txn
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.election_pb2 import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    ProclaimRequest,
    ResignRequest,
)
from kvsecure.proto.encode import bytes_field
from kvsecure.security.asking import Asking, PatientAsking
from kvsecure.security.feeds import Ended
from kvsecure.security.observing import Observation
from kvsecure.security.observing import observe as open_observation

__all__ = ["campaign", "leader", "observe", "proclaim", "resign"]

# Field key of v3electionpb.LeaderResponse.
_KV: Final = b"\x12"


def campaign(services: Services, asking: PatientAsking, request: CampaignRequest, _: bytes) -> None:
    """Wait until the caller leads, under a lease of ours if it names none."""
    is_without = not request.lease
    if is_without:
        lease = random_lease(services.random_bytes(8))
        request = CampaignRequest(name=request.name, lease=lease, value=request.value)
    check_size(services, entering(request))

    def elected(key: bytes, revision: int) -> bytes:
        key_of_leader = LeaderKey(name=request.name, key=key, rev=revision, lease=request.lease)
        return CampaignResponse(leader=key_of_leader).SerializeToString()

    services.queues.enter(asking, request, elected, grant=is_without)


def proclaim(services: Services, asking: Asking, request: ProclaimRequest, _: bytes) -> None:
    """Give the leader's key another value, if it leads still."""
    _check_leader(request)
    is_without = not request.leader.lease
    if is_without:
        given = request.leader
        lease = random_lease(services.random_bytes(8))
        request = ProclaimRequest(
            leader=LeaderKey(name=given.name, key=given.key, rev=given.rev, lease=lease),
            value=request.value,
        )
    txn = proclaiming(request)
    check_txn(txn, services.txn_ops_max)
    check_size(services, txn)
    services.queues.proclaim(asking, request, grant=is_without)


def leader(services: Services, asking: Asking, request: LeaderRequest, _: bytes) -> None:
    """Tell who leads."""
    services.queues.lead(asking, request)


def resign(services: Services, asking: Asking, request: ResignRequest, _: bytes) -> None:
    """End the leader's term; that it has ended is as good."""
    _check_leader(request)
    txn = resigning(request)
    check_txn(txn, services.txn_ops_max)
    services.gate.submit(WithoutBody(asking), txn, txn.SerializeToString(), request)


def observe(services: Services, call: StreamCall) -> Receiver:
    """Tell who leads, and each change of that."""
    return _Observed(services, call)


def _check_leader(request: ProclaimRequest | ResignRequest) -> None:
    if not request.HasField("leader"):
        raise Refused(Failure.LEADER_NOT_GIVEN)


@final
class _Observed:
    """The stream of one observation."""

    __slots__ = ("_call", "_is_closed", "_is_scheduled", "_observation", "_services")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._observation: Observation | None = None
        self._is_scheduled = False
        self._is_closed = False

    def received(self, message: LeaderRequest) -> None:
        """Begin."""
        services = self._services
        self._observation = open_observation(
            services.gate, services.feeds, services.queues, self._call, message, self._wake
        )

    def half_closed(self) -> None:
        """The one message has come."""

    def drained(self) -> None:
        """Tell what there is to tell, as far as the client keeps up."""
        self._is_scheduled = False
        observation = self._observation
        while observation is not None and not self._is_closed and not self._call.is_full:
            came = observation.take()
            if came is None:
                return
            if isinstance(came, Ended):
                self._call.finish(came.refused)
                return
            header = self._services.header(came.revision)
            self._call.send(header + bytes_field(_KV, came.kv))

    def closed(self) -> None:
        """End it."""
        self._is_closed = True
        if self._observation is not None:
            self._observation.close()

    def _wake(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._services.at_turn_end(self.drained)

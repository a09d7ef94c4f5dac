"""etcdserverpb.Lease.

Owns: choosing ids and TTLs before a grant enters the log, and the keep-alive stream.
Never: decides; reads no clock.
Follows: etcd-surface section 1.5.
"""

from typing import final

from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.api.shape import check_lease_ttl
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.proto.lease_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from kvsecure.security.asking import Asking

__all__ = ["grant", "keep_alive", "leases", "random_lease", "revoke", "time_to_live"]


def grant(services: Services, asking: Asking, request: LeaseGrantRequest, _: bytes) -> None:
    """Make a lease, under an id of ours if none is asked for."""
    ttl_s = check_lease_ttl(request.TTL)
    lease = request.ID or random_lease(services.random_bytes(8))
    command = LeaseGrantRequest(ID=lease, TTL=ttl_s)
    services.gate.submit(asking, command, command.SerializeToString())


def revoke(services: Services, asking: Asking, request: LeaseRevokeRequest, raw: bytes) -> None:
    """End a lease and delete its keys."""
    services.gate.submit(asking, request, raw)


def time_to_live(
    services: Services, asking: Asking, request: LeaseTimeToLiveRequest, _: bytes
) -> None:
    """Tell how long a lease lives, and its keys."""
    services.gate.read(asking, request)


def leases(services: Services, asking: Asking, request: LeaseLeasesRequest, _: bytes) -> None:
    """List the leases of the caller's tenant."""
    services.gate.read(asking, request, stale=True)


def keep_alive(services: Services, call: StreamCall) -> Receiver:
    """Renew leases, one answer for each message."""
    return _KeepAlive(services, call)


@final
class _KeepAlive:
    """A keep-alive stream."""

    __slots__ = ("_call", "_is_ending", "_services", "_unanswered", "peer", "token")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._unanswered = 0
        # Whether no more messages come.
        self._is_ending = False
        self.peer = call.peer
        self.token = call.token

    def received(self, message: LeaseKeepAliveRequest) -> None:
        """Renew one lease."""
        self._unanswered += 1
        self._services.gate.keep_alive(self, message)

    def half_closed(self) -> None:
        """End once every message has been answered."""
        self._is_ending = True
        self._end()

    # As who asks the gate, for each message.

    def succeed(self, answer: Answer) -> None:
        """Answer one message."""
        self._unanswered -= 1
        self._call.succeed(answer)
        self._end()

    def fail(self, refused: Refused) -> None:
        """End the stream with a refusal."""
        self._call.fail(refused)

    def _end(self) -> None:
        if self._is_ending and not self._unanswered:
            self._call.finish()

    def drained(self) -> None:
        """Answers are never held back."""

    def closed(self) -> None:
        """There is nothing to let go of."""


def random_lease(content: bytes) -> int:
    """Return a positive id from eight random bytes: nobody can guess another's (security.md A9)."""
    return int.from_bytes(content, "big") & 0x7FFF_FFFF_FFFF_FFFF or 1

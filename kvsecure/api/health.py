"""grpc.health.v1.Health.

Owns: telling whether this member serves.
Never: needs an identity.
Follows: the gRPC health checking protocol; the empty service name is the whole server. Differs: a
    learner says that it does not serve, where etcd refuses to say anything.
"""

from typing import Final, final

from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvsecure.security.asking import Asking

__all__ = ["check", "watch"]

_POLL_S: Final = 1.0
_SERVICES: Final = frozenset(
    {
        "",
        "etcdserverpb.KV",
        "etcdserverpb.Watch",
        "etcdserverpb.Lease",
        "etcdserverpb.Auth",
        "etcdserverpb.Cluster",
        "etcdserverpb.Maintenance",
        "kvsecurepb.Tenants",
        "kvsecurepb.Audit",
    }
)


def check(services: Services, asking: Asking, request: HealthCheckRequest, _: bytes) -> None:
    """Answer once."""
    if request.service not in _SERVICES:
        raise Refused(Failure.UNKNOWN_HEALTH_SERVICE)
    asking.succeed(Answer(0, _body(services, request.service)))


def watch(services: Services, call: StreamCall) -> Receiver:
    """Answer now and at every change."""
    return _HealthWatch(services, call)


def _body(services: Services, service: str) -> bytes:
    status = HealthCheckResponse.SERVICE_UNKNOWN
    if service in _SERVICES:
        # A learner answers next to nobody: whoever looks for a member to ask looks further.
        gate = services.gate
        is_learner = gate.engine.state.members.is_learner(gate.facts.member)
        serving = gate.engine.has_leader and not is_learner
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
    return HealthCheckResponse(status=status).SerializeToString()


@final
class _HealthWatch:
    """One watcher of a service's health."""

    __slots__ = ("_begun", "_call", "_last", "_open", "_service", "_services")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._service = ""
        self._last: bytes | None = None
        self._begun = False
        self._open = True

    def received(self, message: HealthCheckRequest) -> None:
        """Begin; there is one message, and what comes behind it is passed over."""
        if not self._begun:
            self._begun = True
            self._service = message.service
            self._look()

    def half_closed(self) -> None:
        """The one message has come."""

    def drained(self) -> None:
        """A status is small: nothing is held back."""

    def closed(self) -> None:
        """Stop looking."""
        self._open = False

    def _look(self) -> None:
        if not self._open:
            return
        body = _body(self._services, self._service)
        if body != self._last:
            self._last = body
            self._call.send(body)
        self._services.later(_POLL_S, self._look)

"""kvsecurepb.Tenants and kvsecurepb.Audit.

Owns: the shape checks of their requests, and the stream of audit records.
Never: decides.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.api.shape import check_tenant_name
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import AUDIT_TAIL_RECORDS_MAX
from kvsecure.model.secret import Secret
from kvsecure.proto.tenant_pb2 import AuditTailRequest, AuditTailResponse, TenantAddRequest
from kvsecure.security.asking import Asking
from kvsecure.security.session import Session

__all__ = ["audit_tail", "tenant_add"]

_RECORDS_PER_MESSAGE: Final = 256


def tenant_add(services: Services, asking: Asking, request: TenantAddRequest, _: bytes) -> None:
    """Make a tenant with its own root."""
    check_tenant_name(request.name)
    if request.root_hashed_password:
        raise Refused(Failure.PASSWORD_REJECTED, "root_hashed_password is for the log alone")
    if request.root_no_password:
        command = TenantAddRequest(name=request.name, root_no_password=True)
        services.gate.submit(asking, command, command.SerializeToString())
        return

    def rebuild(verifier: str) -> TenantAddRequest:
        return TenantAddRequest(name=request.name, root_hashed_password=verifier)

    password = Secret.of_text(request.root_password)
    services.spawn(services.gate.submit_with_password(asking, request, password, "root", rebuild))


def audit_tail(services: Services, call: StreamCall) -> Receiver:
    """Send the newest audit records, and go on with new ones if asked to."""
    return _Tail(services, call)


@final
class _Tail:
    """One reader of the audit trail."""

    __slots__ = ("_call", "_follow", "_request", "_services", "_session", "_stop", "_waiting")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._waiting: deque[bytes] = deque(maxlen=AUDIT_TAIL_RECORDS_MAX)
        self._follow = False
        self._request = AuditTailRequest()
        self._session: Session | None = None
        self._stop: Callable[[], None] | None = None

    def received(self, message: AuditTailRequest) -> None:
        """Begin; the reading itself becomes a record first."""
        gate = self._services.gate
        self._request = message
        self._session = gate.admit_stream(self._call, message)
        if self._session is None:
            return
        self._waiting.extend(gate.audit.recent(min(message.count, AUDIT_TAIL_RECORDS_MAX)))
        self._follow = message.follow
        if message.follow:
            self._stop = gate.audit.follow(self._more)
        self._services.at_turn_end(self.drained)

    def half_closed(self) -> None:
        """The one message has come."""

    def drained(self) -> None:
        """Send what there is, as far as the reader keeps up and may still read it."""
        if not self._is_allowed():
            return
        while self._waiting and not self._call.is_full:
            count = min(len(self._waiting), _RECORDS_PER_MESSAGE)
            records = [self._waiting.popleft() for _ in range(count)]
            self._call.send(AuditTailResponse(records=records).SerializeToString())
        if not self._waiting and not self._follow:
            self._call.finish()

    def closed(self) -> None:
        """Stop following."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _is_allowed(self) -> bool:
        """Decide again if accounts have moved; a reader who has lost the right is cut."""
        if self._session is None:
            return False
        self._session = self._services.gate.still_allowed(
            self._call.peer, self._session, self._request
        )
        if self._session is None:
            self.closed()
            self._waiting.clear()
            self._call.finish(Refused(Failure.PERMISSION_DENIED))
        return self._session is not None

    def _more(self, records: list[bytes]) -> None:
        self._waiting.extend(records)
        self._services.later(0.0, self.drained)

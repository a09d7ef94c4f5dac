"""The care of leases: ending those whose time is over, noting how long the others have, renewing.

Owns: how many leases are revoked and noted at once, and that a renewal is answered when a start of
    the member could not take it back.
Never: decides; the gate has. Holds no lease: the key spaces do.
Follows: etcd's lessor: 1,000 revocations a second in scans of 500 ms, checkpoints of 1,000 leases.
    Differs: no tenant's leases wait for those of another.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol, final

from google.protobuf.message import Message

from kvsecure.core.engine import Engine
from kvsecure.core.mvcc.space import Space
from kvsecure.core.query import answer_query
from kvsecure.core.relay import type_answered
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import LeaseId, TenantId
from kvsecure.model.limits import (
    LEASE_CHECKPOINT_BATCHES_MAX,
    LEASE_CHECKPOINTS_MAX,
    LEASE_EXPIRY_BATCH_MAX,
)
from kvsecure.proto.lease_pb2 import (
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from kvsecure.security.asking import Asking, Awaiting
from kvsecure.security.recorder import Recorder
from kvsecure.security.session import Session

__all__ = ["LeaseCare"]


class _Submit(Protocol):
    """Takes a command of the member itself through the log, for nobody or for somebody."""

    def __call__(
        self,
        tenant: TenantId,
        command: LeaseRevokeRequest | LeaseCheckpointRequest,
        asking: Awaiting | None = None,
    ) -> None: ...


@final
class LeaseCare:
    """Looks after the leases of all tenants."""

    __slots__ = ("_engine", "_now_ns", "_records", "_submit", "_turn", "expired", "renewed")

    def __init__(
        self, *, engine: Engine, records: Recorder, submit: _Submit, now_ns: Callable[[], int]
    ) -> None:
        """Begin to count.

        Args:
            engine: Has the leases.
            records: Where renewals are recorded.
            submit: Takes commands of the member itself.
            now_ns: Monotonic time in nanoseconds.
        """
        self._engine = engine
        self._records = records
        self._submit = submit
        self._now_ns = now_ns
        # Which tenant is served first moves on with every scan.
        self._turn = 0
        # Plain counts for whoever shows them.
        self.renewed = 0
        self.expired = 0

    def scan(self) -> None:
        """Revoke leases whose time is over, and note how long others have; half a second apart.

        Whoever leads does, and nobody else.
        """
        if not self._engine.leading.is_own or not self._engine.is_whole:
            return
        now_ns = self._now_ns()
        spaces = list(self._engine.state.store.spaces())
        self._turn += 1
        first = self._turn % len(spaces)
        spaces = spaces[first:] + spaces[:first]
        self._expire([space for space in spaces if space.leases.has_expired(now_ns)], now_ns)
        left = LEASE_CHECKPOINT_BATCHES_MAX
        for space in spaces:
            left -= self._note(space, now_ns, left)

    def remind(self, tenant: TenantId, request: LeaseRevokeRequest) -> None:
        """See to it that a lease is not forgotten because revoking it failed once."""
        space = self._engine.state.store.space(tenant)
        space.leases.remind(LeaseId(request.ID), self._now_ns())

    def keep_alive(self, asking: Asking, session: Session, request: LeaseKeepAliveRequest) -> None:
        """Renew a lease for a session that may.

        It lives on the clock of the member that leads, so nothing goes through the log, unless the
        log says that it has less than its whole time: that is taken back first.
        """
        if not self._engine.leading.is_own:
            self.ask_leader(asking, session, request)
            return
        self._with_whole_time(
            session.space,
            LeaseId(request.ID),
            lambda: self._renew(asking, session, request),
            asking.fail,
        )

    def _with_whole_time(
        self,
        space: Space,
        lease: LeaseId,
        renew: Callable[[], None],
        fail: Callable[[Refused], None],
    ) -> None:
        """Go on once the log says nothing of a lease having less than its whole time."""
        if not space.leases.remaining_s(lease):
            renew()
            return
        whole = LeaseCheckpointRequest(checkpoints=[LeaseCheckpoint(ID=lease)])
        with contextlib.suppress(Refused):
            # A refusal has reached who waits too.
            self._submit(space.tenant, whole, _Renewal(renew, fail))

    def _renew(self, asking: Asking, session: Session, request: LeaseKeepAliveRequest) -> None:
        revision = self._engine.state.store.revision
        ttl_s = session.space.leases.renew(LeaseId(request.ID), self._now_ns())
        self.renewed += ttl_s > 0
        body = LeaseKeepAliveResponse(ID=request.ID, TTL=ttl_s).SerializeToString()
        self._records.read(session, request, b'"code":"OK","rev":%d' % revision)
        asking.succeed(Answer(revision, body))

    # --- members of one another -------------------------------------------------------------------

    def ask_leader(
        self,
        asking: Asking,
        session: Session,
        request: LeaseKeepAliveRequest | LeaseTimeToLiveRequest,
    ) -> None:
        """Have the leader answer, for a session that may ask."""

        def answered(revision: int, came: bytes | Refused) -> None:
            if isinstance(came, Refused):
                code = came.code.name.encode()
                self._records.read(session, request, b'"code":"%b"' % code)
                asking.fail(came)
                return
            self._records.read(session, request, b'"code":"OK","rev":%d' % revision)
            asking.succeed(Answer(revision, came))

        self._engine.peering.ask(session.space.tenant, request, answered)

    def answer_member(self, tenant: TenantId, request: Message, answered: type_answered) -> None:
        """Answer, as the leader, what another member asks for a client that may ask it."""

        def fail(refused: Refused) -> None:
            answered(0, refused)

        def resume() -> None:
            try:
                self._answer_member(tenant, request, answered)
            except Refused as refused:
                fail(refused)

        self._engine.when_readable(resume, fail)

    def _answer_member(self, tenant: TenantId, request: Message, answered: type_answered) -> None:
        state = self._engine.state
        found = state.accounts.tenant(tenant)
        if not self._engine.leading.is_own or found is None:
            # Whoever asks tries again, or its client does.
            raise Refused(Failure.NO_LEADER)
        space = state.store.space(tenant)
        if isinstance(request, LeaseTimeToLiveRequest):
            answer = answer_query(state, found, space, request, self._now_ns())
            answered(answer.revision, answer.body)
        elif isinstance(request, LeaseKeepAliveRequest):
            lease = LeaseId(request.ID)

            def renew() -> None:
                ttl_s = space.leases.renew(lease, self._now_ns())
                self.renewed += ttl_s > 0
                body = LeaseKeepAliveResponse(ID=lease, TTL=ttl_s).SerializeToString()
                answered(state.store.revision, body)

            self._with_whole_time(space, lease, renew, lambda refused: answered(0, refused))

    def _expire(self, spaces: list[Space], now_ns: int) -> None:
        """Revoke what is due in these spaces, as many in each as long as not all can be."""
        left = LEASE_EXPIRY_BATCH_MAX
        while spaces and left:
            share = max(1, left // len(spaces))
            waiting = []
            for space in spaces:
                leases = space.leases.expired(now_ns, min(share, left))
                left -= len(leases)
                for lease in leases:
                    with contextlib.suppress(Refused):
                        self._submit(space.tenant, LeaseRevokeRequest(ID=lease))
                        self.expired += 1
                if len(leases) == share:
                    waiting.append(space)
            spaces = waiting

    def _note(self, space: Space, now_ns: int, batches_max: int) -> int:
        """Have noted how long leases have to live; return how many batches it took."""
        for count in range(batches_max):
            due = space.leases.due_checkpoints(now_ns, LEASE_CHECKPOINTS_MAX)
            if not due:
                return count
            checkpoints = [
                LeaseCheckpoint(ID=lease, remaining_TTL=remaining_s) for lease, remaining_s in due
            ]
            # If it is refused, it is due again at the next look at each of them.
            with contextlib.suppress(Refused):
                self._submit(space.tenant, LeaseCheckpointRequest(checkpoints=checkpoints))
        return batches_max


@final
class _Renewal:
    """A keep-alive that waits until its lease has its whole time in the log."""

    __slots__ = ("_fail", "_renew")

    def __init__(self, renew: Callable[[], None], fail: Callable[[Refused], None]) -> None:
        self._renew = renew
        self._fail = fail

    def succeed(self, _: Answer) -> None:
        """Renew now."""
        self._renew()

    def fail(self, refused: Refused) -> None:
        """Refuse."""
        self._fail(refused)

"""The gate: every request passes here, and only here, on its way to the core.

    submit  a command, through the log        read   one answer from the applied state
    watch   many answers                      operate  this member only
    bursts  many plain gets or puts at once

Owns: the order of things: identify, decide, record, pass on, record the outcome, answer.
Never: knows a transport or a message's wire form; never reaches past `access.decide`.
Follows: docs/adr/0008-audit-before-the-core.md. Rights are decided here on the newest state, so
    that forbidden writes never enter the log, and again when a command is applied if they moved.
Keeps: nothing is proposed before its intent record is on its way to the disk, and nothing is
    answered before its outcome record is; whoever runs the gate ends each turn with the trail.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast, final

from google.protobuf.message import Message

from kvsecure.access.decide import Decision, decide, is_open
from kvsecure.core.engine import Engine
from kvsecure.core.entry import encode, envelope
from kvsecure.core.member import MemberFacts
from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.query import answer_query, reads_only
from kvsecure.core.reading import caught_up
from kvsecure.core.replica import Outcome, Proposal
from kvsecure.model.answer import Answer
from kvsecure.model.burst import PutBurst, PutTxn
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT, TenantId
from kvsecure.model.limits import AUTH_NAME_BYTES_MAX
from kvsecure.model.secret import Secret
from kvsecure.proto import (
    auth_pb2,
    kv_pb2,
    lease_pb2,
    state_pb2,
)
from kvsecure.security.asking import Asking, Awaiting
from kvsecure.security.audit import AuditTrail
from kvsecure.security.authn import Authenticator
from kvsecure.security.bursts import Bursts
from kvsecure.security.describe import describe_fields, describe_refused, rpc_name
from kvsecure.security.events import Events
from kvsecure.security.lease_care import LeaseCare
from kvsecure.security.operations import operation_body
from kvsecure.security.password_policy import PasswordPolicy, check_verifier
from kvsecure.security.recorder import Recorder
from kvsecure.security.room import is_too_much, missing_alarm
from kvsecure.security.session import Peer, Session
from kvsecure.telemetry.log import log

__all__ = ["Gate"]

_log: Final = log("gate")


# Of a command until it is finished: who asks (nobody, where the member does), how the outcome's
# record ends, and the number of the intent's.
type_in_flight = tuple[Awaiting | None, bytes, int]


@final
class Gate:
    """The only way in."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        audit: AuditTrail,
        passwords: PasswordPolicy,
        facts: MemberFacts,
        now_ns: Callable[[], int],
    ) -> None:
        """Make a gate; `open_to` connects it to its engine and its turns.

        Args:
            authenticator: Resolves credentials.
            audit: The trail, open.
            passwords: Which passwords may be set.
            facts: What this member says of itself.
            now_ns: Monotonic time in nanoseconds.
        """
        self.authenticator = authenticator
        self.audit = audit
        self.facts = facts
        self.passwords = passwords
        self._now_ns = now_ns
        # Plain counts for whoever shows them.
        self.auth_failures: dict[str, int] = {}
        self._engine: Engine
        self.bursts: Bursts
        self.leases: LeaseCare
        self._schedule: Callable[[], None]
        self._records = Recorder(audit, now_ns)
        self.events = Events(self._records, self.schedule)

    def open_to(self, engine: Engine, schedule: Callable[[], None]) -> None:
        """Connect to the engine, and to what makes a turn end."""
        self._engine = engine
        self._schedule = schedule
        self.bursts = Bursts(
            authenticator=self.authenticator,
            records=self._records,
            engine=engine,
            check_room=self._check_room,
            now_ns=self._now_ns,
        )
        self.leases = LeaseCare(
            engine=engine, records=self._records, submit=self.submit_system, now_ns=self._now_ns
        )

    def schedule(self) -> None:
        """Have the turn end that is going on."""
        self._schedule()

    @property
    def engine(self) -> Engine:
        """The engine behind the gate."""
        return self._engine

    # --- commands -------------------------------------------------------------------------------

    def submit(
        self, asking: Asking, command: Message, request: bytes, asked: Message | None = None
    ) -> None:
        """Take a command through the log.

        Args:
            asking: Who asks, and where the answer goes.
            command: The request, its shape checked.
            request: Its bytes, which become the log's.
            asked: What is decided and recorded, where the command is what it comes to.
        """
        decided = command if asked is None else asked
        if self.may_be_too_early(asking, decided):
            resume = partial(self.submit, asking, command, request, asked)
            self.when_readable(asking, decided, resume)
            return
        session = self._identify(asking, decided)
        if session is not None:
            self.carry_out(asking, session, command, request, asked)

    def carry_out(
        self,
        asking: Asking,
        session: Session,
        command: Message,
        request: bytes,
        asked: Message | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Do what `submit` does for a session that is known already: it is decided all the same.

        `check` may refuse it then.
        """
        asked = command if asked is None else asked
        if not self._allows(asking, session, asked):
            return
        now_ns = self._now_ns()
        intent = self._records.intent(session, asked)
        entry = encode(type(command), session.envelope, request)
        in_flight: type_in_flight = (asking, session.stage_outcome, intent)
        proposal = Proposal(entry, session.caller, command, now_ns, in_flight)
        try:
            if check is not None:
                check()
            self._check_room(command, len(request))
            self._engine.submit(proposal)
        except Refused as refused:
            proposal.done = True
            self.finished(proposal, refused)

    def submit_system(
        self, tenant: TenantId, command: Message, asking: Awaiting | None = None
    ) -> None:
        """Take a command of the member itself through the log.

        Args:
            tenant: Whose state it changes.
            command: The command.
            asking: Who waits for it; the decision about that is not made here.

        Raises:
            Refused: It was not taken; who waits for it has been told as well.
        """
        caller = Caller(tenant, Origin.SYSTEM, "", 0)
        now_ns = self._now_ns()
        intent = self._records.event(
            stage="intent",
            actor={"via": "system"},
            op=describe_fields(command),
            tenant=self._name_of(tenant),
        )
        in_flight: type_in_flight = (asking, self._records.system_outcome, intent)
        entry = encode(type(command), envelope(caller), command.SerializeToString())
        proposal = Proposal(entry, caller, command, now_ns, in_flight)
        try:
            self._engine.submit(proposal)
        except Refused as refused:
            proposal.done = True
            self.finished(proposal, refused)
            raise

    def finished(self, proposal: Proposal, outcome: Outcome) -> None:
        """Record a command's outcome and answer it; the engine calls this."""
        asking, stage, intent = cast("type_in_flight", proposal.context)
        if isinstance(outcome, Refused):
            self._records.failure(stage, proposal.since_ns, intent, outcome)
            if asking is None:
                self._try_again(proposal)
            else:
                asking.fail(outcome)
            return
        self._records.success(stage, proposal.since_ns, intent, outcome.revision)
        if asking is None:
            return
        command = proposal.command
        if type(command) is kv_pb2.CompactionRequest and command.physical:
            # It asked to be told when the bytes are gone.
            self._engine.slicing.when_done(lambda: asking.succeed(outcome))
        else:
            asking.succeed(outcome)

    def end_turn(self) -> None:
        """Record what has succeeded in this turn, and write the turn's records.

        Raises:
            Refused: They could not be written; nothing of this turn may be answered or begun.
        """
        self._records.end_turn()

    def transact(self, asking: Asking, txn: kv_pb2.TxnRequest, request: bytes) -> None:
        """Run a transaction: through the log if it can write, otherwise as a read."""
        if reads_only(txn):
            self.read(asking, txn)
        else:
            self.submit(asking, txn, request)

    def reject(self, asking: Asking, request: Message, refused: Refused) -> None:
        """Record and refuse what nobody decided about: its shape is wrong, or its time is up."""
        self._records.event(
            stage="rejected",
            actor=self._actor_of(asking),
            op={"rpc": rpc_name(type(request))},
            peer=asking.peer,
            result=refused.code,
        )
        asking.fail(refused)

    def drop_turn(self, refused: Refused) -> None:
        """Let go of what was submitted in a turn that could not be recorded."""
        for proposal in self._engine.drop_turn():
            asking, _, _ = cast("type_in_flight", proposal.context)
            if asking is None:
                self._try_again(proposal)
            else:
                asking.fail(refused)

    # --- reads ----------------------------------------------------------------------------------

    def read(self, asking: Asking, request: Message, *, stale: bool = False) -> None:
        """Answer from the applied state.

        Args:
            asking: Who asks, and where the answer goes.
            request: Its shape checked.
            stale: What this member has applied will do; otherwise the read is linearizable.
        """
        engine = self._engine
        is_range = type(request) is kv_pb2.RangeRequest
        if not (stale or (engine.can_read_keys() if is_range else engine.can_read())):
            self.when_readable(asking, request, lambda: self.read(asking, request))
            return
        session = self.admit(asking, request)
        if session is None:
            return
        if type(request) is lease_pb2.LeaseTimeToLiveRequest and not engine.leading.is_own:
            self.leases.ask_leader(asking, session, request)
        else:
            self.answer(asking, session, request)

    def when_readable(self, asking: Asking, request: Message, resume: Callable[[], None]) -> None:
        """Go on once a linearizable read can be answered; a request that waits too long ends."""
        self._engine.when_readable(resume, partial(self.reject, asking, request))

    def answer(self, asking: Asking, session: Session, request: Message) -> None:
        """Answer a session that may ask this, from the applied state as it is."""
        try:
            answer = answer_query(
                self._engine.state, session.tenant, session.space, request, self._now_ns()
            )
        except Refused as refused:
            self.fail_read(asking, session, request, refused)
            return
        except DamagedRecord as damage:
            self.fail_read(asking, session, request, self.corrupt(damage))
            return
        self.finish_read(asking, session, request, answer)

    def finish_read(
        self, asking: Asking, session: Session, request: Message, answer: Answer
    ) -> None:
        """Record what was read, and answer with it."""
        self._records.read(
            session,
            request,
            b'"bytes":%d,"code":"OK","rev":%d' % (len(answer.body), answer.revision),
        )
        asking.succeed(answer)

    def corrupt(self, damage: Exception) -> Refused:
        """Say that something on the disk cannot be read, to whoever runs this and whoever asked."""
        _log.error("what is stored is damaged: restore the data directory", error=str(damage))
        return Refused(Failure.CORRUPT)

    def operate(self, asking: Asking, request: Message) -> None:
        """Answer from what this member knows of itself."""
        session = self.admit(asking, request)
        if session is None:
            return
        body = operation_body(request, self.facts, self._engine, self.audit)
        answer = Answer(self._engine.state.store.revision, body)
        self._records.read(session, request, b'"bytes":%d,"code":"OK"' % len(body))
        asking.succeed(answer)

    async def perform(
        self, asking: Asking, request: Message, act: Callable[[], Awaitable[Message]]
    ) -> None:
        """Do something to this member itself that takes a while, recorded before and after.

        Args:
            asking: Who asks, and where the answer goes.
            request: What is asked.
            act: Does it, once that it is about to be done is in the trail; gives the answer.
        """
        session = self.admit(asking, request)
        if session is None:
            return
        since_ns, failures = self._now_ns(), self.audit.failures
        intent = self._records.intent(session, request)
        self._schedule()
        while self.audit.written_head.seq < intent:
            if self.audit.failures != failures:
                asking.fail(Refused(Failure.AUDIT_UNAVAILABLE))
                return
            await asyncio.sleep(0)
        try:
            answer = await act()
        except Refused as refused:
            self._records.failure(session.stage_outcome, since_ns, intent, refused)
            asking.fail(refused)
            return
        revision = self._engine.state.store.revision
        self._records.success(session.stage_outcome, since_ns, intent, revision)
        asking.succeed(Answer(revision, answer.SerializeToString()))

    def keep_alive(self, asking: Asking, request: lease_pb2.LeaseKeepAliveRequest) -> None:
        """Renew a lease."""
        if not self._engine.can_read():
            self.when_readable(asking, request, lambda: self.keep_alive(asking, request))
            return
        session = self.admit(asking, request)
        if session is None:
            return
        self.leases.keep_alive(asking, session, request)

    # --- passwords ------------------------------------------------------------------------------

    async def log_in(self, asking: Asking, request: auth_pb2.AuthenticateRequest) -> None:
        """Turn a password into a token."""
        password = Secret.of_text(request.password)
        actor: dict[str, object] = {"user": request.name[:AUTH_NAME_BYTES_MAX], "via": "password"}
        peer = asking.peer
        try:
            # Who was told of a password, or that one is void, is not to find it otherwise here.
            await caught_up(self._engine)
        except Refused as refused:
            self.reject(asking, request, refused)
            return
        try:
            outcome = await self.authenticator.log_in(request.name, password, peer)
        except Refused as refused:
            self._count_failure(refused)
            self._records.event(
                stage="denied",
                actor=actor,
                op={"rpc": "Authenticate"},
                peer=peer,
                result=refused.code,
            )
            asking.fail(refused)
            return
        self._records.event(
            stage="login",
            actor=actor,
            op={"rpc": "Authenticate"},
            peer=peer,
            result=Code.OK,
            tenant=outcome.tenant.name,
        )
        if outcome.replacement:
            upgrade = state_pb2.VerifierUpgrade(
                user=outcome.user, old_hash=outcome.old_verifier, new_hash=outcome.replacement
            )
            # A disk that is full is no reason to keep out whoever could make room: it is tried
            # again at the next log-in.
            with contextlib.suppress(Refused):
                self.submit_system(outcome.tenant.id, upgrade)
        token = outcome.token.reveal_text()
        body = auth_pb2.AuthenticateResponse(token=token).SerializeToString()
        asking.succeed(Answer(self._engine.state.store.revision, body))

    async def submit_with_password(
        self,
        asking: Asking,
        command: Message,
        password: Secret,
        user: str,
        rebuild: Callable[[str], Message],
    ) -> None:
        """Take a command that sets a password through the log, with its verifier in its place.

        Args:
            asking: Who asks, and where the answer goes.
            command: The request; it is decided before any work is done for it.
            password: What it sets.
            user: Whose it is to be.
            rebuild: Makes the command that enters the log from the verifier.
        """
        session = self.admit(asking, command)
        if session is None:
            return
        try:
            self.passwords.check(password, user)
            verifier = await self.authenticator.hash(password)
        except Refused as refused:
            self._records.read(session, command, b'"code":"%b"' % refused.code.name.encode())
            asking.fail(refused)
            return
        rebuilt = rebuild(verifier)
        self.submit(asking, rebuilt, rebuilt.SerializeToString())

    def known_verifier(self, verifier: str) -> str:
        """Return a verifier that came from outside, if log-ins can be checked against it.

        Raises:
            Refused: They cannot, or only with too much work.
        """
        check_verifier(verifier)
        return verifier

    # --- streams --------------------------------------------------------------------------------

    def admit_stream(
        self, asking: Asking, request: Message, result: bytes = b'"code":"OK"'
    ) -> Session | None:
        """Decide and record the opening of a stream; return its session, or None if refused."""
        session = self.admit(asking, request)
        if session is not None:
            self._records.read(session, request, result)
        return session

    def note_end(self, session: Session, request: Message, result: bytes) -> None:
        """Record how a stream ended; `result` is as in the other records of reads."""
        self._records.read(session, request, result)
        self._schedule()

    def admit_work(self, asking: Asking, request: Message) -> Callable[[Code], None] | None:
        """Decide about work of a while.

        Returns:
            What records how it ended, to be called before it is answered; None if it was refused.
        """
        session = self.admit(asking, request)
        if session is None:
            return None

        def ended(code: Code) -> None:
            self._records.read(session, request, b'"code":"%b"' % code.name.encode())
            self._schedule()

        return ended

    def still_allowed(self, peer: Peer, session: Session, request: Message) -> Session | None:
        """Decide an open stream again if accounts have moved.

        Returns:
            The session to go on with, or None, with a record of why, if the stream has to end.
        """
        if session.law_revision == session.tenant.law_revision:
            return session
        try:
            renewed = self.authenticator.renewed(session, peer)
        except Refused:
            self._records.denial(session, request, "revoked")
            return None
        decision = decide(renewed.grants, request, renewed.facts)
        if decision is not Decision.ALLOW:
            self._records.denial(renewed, request, decision.value)
            return None
        return renewed

    # --- within ---------------------------------------------------------------------------------

    def _try_again(self, proposal: Proposal) -> None:
        """See to it that what the member itself wanted is not forgotten because it failed once."""
        command = proposal.command
        tenant = self._engine.state.accounts.tenant(proposal.caller.tenant)
        if isinstance(command, lease_pb2.LeaseRevokeRequest) and tenant is not None:
            self.leases.remind(tenant.id, command)

    def admit(self, asking: Asking, request: Message) -> Session | None:
        """Identify and decide; a refusal is recorded and answered here."""
        session = self._identify(asking, request)
        return session if session is not None and self._allows(asking, session, request) else None

    def may_be_too_early(self, asking: Asking, request: Message) -> bool:
        """Tell whether a request would be refused for what this member may not have heard of yet.

        That somebody may is decided again when it is applied; that somebody may not is final.
        """
        if self._engine.is_alone or self._engine.can_read():
            return False
        try:
            session = self.authenticator.session(asking.peer, asking.token)
        except Refused:
            return not is_open(request)
        return decide(session.grants, request, session.facts) is not Decision.ALLOW

    def _identify(self, asking: Asking, request: Message) -> Session | None:
        peer = asking.peer
        try:
            return self.authenticator.session(peer, asking.token)
        except Refused as refused:
            if is_open(request):
                return self.authenticator.stranger(peer)
            self._count_failure(refused)
            self._records.event(
                stage="denied",
                actor={"via": "nobody"},
                op=describe_refused(request),
                peer=peer,
                result=refused.code,
            )
            asking.fail(refused)
            return None

    def _allows(self, asking: Asking, session: Session, request: Message) -> bool:
        decision = decide(session.grants, request, session.facts)
        if decision is Decision.ALLOW:
            return True
        self._records.denial(session, request, decision.value)
        asking.fail(Refused(Failure.PERMISSION_DENIED))
        return False

    def _actor_of(self, asking: Asking) -> dict[str, object]:
        try:
            session = self.authenticator.session(asking.peer, asking.token)
        except Refused:
            return {"via": "nobody"}
        return {"user": session.caller.user, "via": session.via.kind}

    def _count_failure(self, refused: Refused) -> None:
        name = refused.failure.name.lower()
        self.auth_failures[name] = self.auth_failures.get(name, 0) + 1

    def fail_read(
        self, asking: Asking, session: Session, request: Message, refused: Refused
    ) -> None:
        """Record that an allowed read could not be answered, and say so."""
        self._records.read(session, request, b'"code":"%b"' % refused.code.name.encode())
        asking.fail(refused)

    def _name_of(self, tenant: TenantId) -> str:
        found = self._engine.state.accounts.tenant(tenant)
        return found.name if found else str(tenant)

    def _check_room(self, command: Message | PutBurst | PutTxn, size_bytes: int) -> None:
        """Refuse what grows the store once it has reached its quota, and raise the alarm."""
        if not is_too_much(self._engine, self.facts, command, size_bytes):
            return
        alarm = missing_alarm(self._engine, self.facts)
        if alarm is not None:
            self.submit_system(SYSTEM_TENANT, alarm)
        raise Refused(Failure.NO_SPACE)

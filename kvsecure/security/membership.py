"""Membership: adding, removing, moving and promoting members, as an administrator asks for it.

Owns: what is checked on the member that is asked, the ids of new members, and when is answered.
Never: changes consensus; what is declared goes through the log, and consensus follows it.
Follows: etcd's server.go (mayAddMember, mayRemoveMember, mayPromote) and etcd-surface section 10.3.
    What a member is asked it checks by what it has applied and whom it reaches; what the members
    are is decided again where it is applied.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, cast, final

from google.protobuf.message import Message

from kvsecure.core.members import Members, added_member_id
from kvsecure.core.raft.status import Role
from kvsecure.core.relay import type_answered
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT, MemberId, TenantId
from kvsecure.model.limits import LEARNERS_MAX, REQUEST_TIMEOUT_S
from kvsecure.proto import cluster_pb2, state_pb2
from kvsecure.security.asking import Asking, Awaiting
from kvsecure.security.gate import Gate
from kvsecure.security.session import Session

__all__ = ["Membership"]

# A learner that has as much of the leader's log is in step with it (etcd).
_IN_STEP: Final = 0.9
_NS: Final = 1_000_000_000


def _nobody() -> frozenset[int]:
    return frozenset()


@final
class Membership:
    """The membership of one cluster, as one member sees it."""

    def __init__(
        self,
        gate: Gate,
        *,
        wall_ns: Callable[[], int],
        later: Callable[[float, Callable[[], None]], Callable[[], None]],
        active: Callable[[], frozenset[int]] = _nobody,
        listens: bool = True,
        is_strict: bool = True,
        learners_max: int = LEARNERS_MAX,
    ) -> None:
        """Begin.

        Args:
            gate: Decides, records, and takes commands to the log.
            wall_ns: The time of day in nanoseconds since 1970; it goes into new members' ids.
            later: Does something after so many seconds; the answer cancels it.
            active: Which other members have been reached for some seconds without a break.
            listens: Whether others can reach this member.
            is_strict: Whether a change that could cost the quorum is refused.
            learners_max: How many learners there may be.
        """
        self._gate = gate
        self._wall_ns = wall_ns
        self._later = later
        self._active = active
        self._listens = listens
        self._is_strict = is_strict
        self._learners_max = learners_max
        # Whether it is being declared that a learner votes.
        self._is_promoting = False

    def add(self, asking: Asking, request: cluster_pb2.MemberAddRequest) -> None:
        """Make somebody a member, under an id of ours.

        A voter is answered for as soon as it is declared, as by etcd: two members that were one may
        agree on nothing before the second one has been started.
        """
        urls = sorted(request.peerURLs)
        record = state_pb2.Member(
            id=added_member_id(urls, self._wall_ns() // _NS),
            peer_urls=urls,
            is_learner=request.isLearner,
        )
        command = state_pb2.MemberAdd(member=record, learners_max=self._learners_max)
        whose = self._settling(asking) if request.isLearner else asking
        self._declare(
            whose, request, command, lambda: self._check_add(is_learner=request.isLearner)
        )

    def add_joining(self, waiting: Awaiting, name: str, peer_urls: Sequence[str]) -> None:
        """Make somebody a learner who has shown that it may become a member.

        Somebody of this name with these URLs who was added, and has never started, is taken for the
        same: its answer may have been lost.

        Args:
            waiting: Is answered once it is declared; who decided about it is not asked here.
            name: What it will call itself.
            peer_urls: Where other members will reach it.
        """
        urls = sorted(peer_urls)
        for each in self._members:
            if name in {each.name, f"{each.id:x}"}:
                is_same = each.is_joining and not each.client_urls and each.peer_urls == urls
                if is_same:
                    waiting.succeed(Answer(self._gate.engine.state.store.revision, b""))
                else:
                    waiting.fail(Refused(Failure.JOIN_REJECTED, "the name is another member's"))
                return
        record = state_pb2.Member(
            id=added_member_id(urls, self._wall_ns() // _NS),
            name=name,
            peer_urls=urls,
            is_learner=True,
            is_joining=True,
        )
        command = state_pb2.MemberAdd(member=record, learners_max=self._learners_max)
        try:
            self._check_add(is_learner=True)
        except Refused as refused:
            waiting.fail(refused)
            return
        # Who waits is told of a refusal as well.
        with contextlib.suppress(Refused):
            self._gate.submit_system(SYSTEM_TENANT, command, waiting)
        self._gate.schedule()

    def promote_joined(self) -> None:
        """Let learners vote who came to vote and are in step; call this about once a second.

        Whoever leads does it: it alone knows how far they are.
        """
        if self._is_promoting:
            return
        for each in self._members:
            # One that has not said where its clients come has not started.
            if not (each.is_joining and each.is_learner and each.client_urls):
                continue
            with contextlib.suppress(Refused):
                self._check_promote(each.id)
                self._is_promoting = True
                command = state_pb2.MemberPromote(id=each.id)
                self._gate.submit_system(SYSTEM_TENANT, command, _Told(self._promoted))
                self._gate.schedule()
            return

    def _promoted(self) -> None:
        self._is_promoting = False

    def remove(self, asking: Asking, request: cluster_pb2.MemberRemoveRequest) -> None:
        """Make somebody a member no more."""
        command = state_pb2.MemberRemove(id=request.ID)
        self._declare(
            self._settling(asking), request, command, lambda: self._check_remove(request.ID)
        )

    def update(self, asking: Asking, request: cluster_pb2.MemberUpdateRequest) -> None:
        """Say where other members reach a member."""
        urls = sorted(request.peerURLs)
        command = state_pb2.MemberUpdate(id=request.ID, peer_urls=urls)
        self._declare(asking, request, command, lambda: None)

    def promote(self, asking: Asking, request: cluster_pb2.MemberPromoteRequest) -> None:
        """Let a learner vote that is in step; only the leader knows whether it is."""
        session = self._admit(asking, request, lambda: self.promote(asking, request))
        if session is None:
            return
        engine, member = self._gate.engine, request.ID

        def go_on(check: Callable[[], None]) -> None:
            command = state_pb2.MemberPromote(id=member)
            self._carry_out(self._settling(asking), session, command, request, check)

        def answered(_: int, came: bytes | Refused) -> None:
            def check() -> None:
                if isinstance(came, Refused):
                    raise came

            go_on(check)
            self._gate.schedule()

        if engine.replica.node.role is Role.LEADER:
            go_on(lambda: self._check_promote(member))
        else:
            engine.peering.ask(SYSTEM_TENANT, state_pb2.LearnerReadiness(id=member), answered)

    def answer_member(self, _: TenantId, request: Message, answered: type_answered) -> None:
        """Answer another member, as the leader, whether a learner may vote by now."""
        engine = self._gate.engine

        def resume() -> None:
            try:
                self._check_promote(cast("state_pb2.LearnerReadiness", request).id)
            except Refused as refused:
                answered(0, refused)
            else:
                answered(engine.state.store.revision, b"")

        engine.when_readable(resume, lambda refused: answered(0, refused))

    # --- checks ---------------------------------------------------------------------------------

    @property
    def _members(self) -> Members:
        return self._gate.engine.state.members

    def _check_add(self, *, is_learner: bool) -> None:
        if not self._listens:
            # Whoever is added could never be told of it, and a second voter would be waited for.
            raise Refused(Failure.NOT_LISTENING)
        if not self._is_strict:
            return
        voters = self._voters()
        # A single member may grow, though with two it waits for the second one (etcd).
        if not is_learner and len(voters) > 1 and self._started() < _majority(len(voters) + 1):
            raise Refused(Failure.NOT_ENOUGH_STARTED)
        if len(voters) > 1 and self._reached() < _majority(len(voters) + 1):
            raise Refused(Failure.UNHEALTHY)

    def _check_remove(self, member: int) -> None:
        record = self._members.get(member)
        if not self._is_strict or (record is not None and record.is_learner):
            return
        others = self._voters() - {member}
        if self._started(but=member) < _majority(len(others)):
            raise Refused(Failure.NOT_ENOUGH_STARTED)
        own = self._gate.facts.member
        if member != own and member not in self._active():
            # Who is not there is no part of the quorum that there is.
            return
        if self._reached() - 1 < _majority(len(self._voters()) - 1):
            raise Refused(Failure.UNHEALTHY)

    def _check_promote(self, member: int) -> None:
        """Check whom a learner's vote would hold up."""
        node = self._gate.engine.replica.node
        if node.role is not Role.LEADER:
            # It has just ceased to: whoever asked can try again.
            raise Refused(Failure.NO_LEADER)
        record = self._members.get(member)
        if record is None:
            raise Refused(Failure.MEMBER_NOT_FOUND)
        if not record.is_learner:
            raise Refused(Failure.MEMBER_NOT_LEARNER)
        status = node.status()
        progress = status.peers.get(MemberId(member))
        if progress is None or not progress.is_active:
            raise Refused(Failure.LEARNER_NOT_READY)
        if progress.match < _IN_STEP * status.durable:
            raise Refused(Failure.LEARNER_NOT_READY)
        if self._is_strict and self._started() + 1 < _majority(len(self._voters()) + 1):
            raise Refused(Failure.NOT_ENOUGH_STARTED)

    def _voters(self) -> frozenset[int]:
        return frozenset(self._members.voters)

    def _started(self, but: int = 0) -> int:
        """Return how many voters have said what they are called, so that they were started."""
        return sum(
            1 for each in self._members if each.name and not each.is_learner and each.id != but
        )

    def _reached(self) -> int:
        """Return how many voters this member knows to be there, itself included."""
        return len(self._voters() & {self._gate.facts.member, *self._active()})

    # --- within ---------------------------------------------------------------------------------

    def _declare(
        self, asking: Asking, asked: Message, command: Message, check: Callable[[], None]
    ) -> None:
        session = self._admit(asking, asked, lambda: self._declare(asking, asked, command, check))
        if session is not None:
            self._carry_out(asking, session, command, asked, check)

    def _admit(self, asking: Asking, asked: Message, again: Callable[[], None]) -> Session | None:
        """Identify and decide; None if that was answered, or is done again a little later."""
        if self._gate.may_be_too_early(asking, asked):
            self._gate.when_readable(asking, asked, again)
            return None
        return self._gate.admit(asking, asked)

    def _carry_out(
        self,
        asking: Asking,
        session: Session,
        command: Message,
        asked: Message,
        check: Callable[[], None],
    ) -> None:
        text = command.SerializeToString()
        self._gate.carry_out(asking, session, command, text, asked, check=check)

    def _settling(self, asking: Asking) -> "_Settling":
        return _Settling(self._gate, asking, self._later)


@final
class _Told:
    """Waits for what became of a command, whatever that is."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def succeed(self, _: Answer) -> None:
        """Go on."""
        self._act()

    def fail(self, _: Refused) -> None:
        """Go on: it is looked at again."""
        self._act()


def _majority(members: int) -> int:
    return members // 2 + 1


@final
class _Settling:
    """Answers once consensus goes by what was declared."""

    __slots__ = ("_asking", "_cancel", "_gate", "_is_over", "_later", "peer", "token")

    def __init__(
        self,
        gate: Gate,
        asking: Asking,
        later: Callable[[float, Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.peer = asking.peer
        self.token = asking.token
        self._gate = gate
        self._asking = asking
        self._later = later
        self._is_over = False
        self._cancel: Callable[[], None] = lambda: None

    def succeed(self, answer: Answer) -> None:
        """Wait; it is declared."""

        def settled() -> None:
            if not self._is_over:
                self._is_over = True
                self._cancel()
                self._asking.succeed(answer)
                self._gate.schedule()

        self._cancel = self._later(REQUEST_TIMEOUT_S, self._too_late)
        self._gate.engine.membership.when_settled(settled)

    def fail(self, refused: Refused) -> None:
        """Refuse; it is not declared."""
        self._asking.fail(refused)

    def _too_late(self) -> None:
        """Let whoever asked go: what is declared goes on without."""
        if not self._is_over:
            self._is_over = True
            self._asking.fail(Refused(Failure.TIMEOUT))
            self._gate.schedule()

"""Promoting a learner: which member is asked, and whom it asks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

from core.cluster_lab import ClusterLab, cluster, member_record
from core.engine_lab import EngineLab, eventually
from google.protobuf.message import Message
from security.log_gate import LogGate

from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT, MemberId
from kvsecure.proto import cluster_pb2, state_pb2
from kvsecure.security.membership import Membership

_LEARNER: Final = MemberId(4)


@final
class _Asked:
    """One request and what came of it."""

    peer = None
    token = b""

    def __init__(self) -> None:
        self.came: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()

    def succeed(self, answer: Answer) -> None:
        """Take an answer."""
        self.came.set_result(answer)

    def fail(self, refused: Refused) -> None:
        """Take a refusal."""
        self.came.set_result(refused.failure)


@final
class _Gate(LogGate):
    """Lets everybody in, and takes commands to the log of a member on the bench."""

    def may_be_too_early(self, *_: object) -> bool:
        """Say that nobody would be refused."""
        return False

    def admit(self, *_: object) -> object:
        """Admit."""
        return self

    def carry_out(
        self,
        asking: Any,
        _session: object,
        command: Message,
        _text: bytes,
        _asked: Message,
        check: Callable[[], None],
    ) -> None:
        """Take a command to the log, if the check has nothing against it."""
        try:
            check()
        except Refused as refused:
            asking.fail(refused)
            return
        self.submit_system(SYSTEM_TENANT, command, asking)


def _membership(lab: EngineLab) -> Membership:
    loop = asyncio.get_running_loop()
    made = Membership(
        _Gate(lab),  # type: ignore[arg-type]  # all that membership asks of it
        wall_ns=lambda: 0,
        later=lambda delay_s, act: loop.call_later(delay_s, act).cancel,
        is_strict=False,
    )
    lab.engine.peering.answering[state_pb2.LearnerReadiness] = made.answer_member
    return made


async def _declare_learner(lab: ClusterLab) -> None:
    record = member_record(_LEARNER, is_learner=True)
    await lab.leader.do(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)
    await lab.settled()


async def _promote(membership: Membership, lab: EngineLab, member: int) -> Answer | Failure:
    asked = _Asked()
    membership.promote(asked, cluster_pb2.MemberPromoteRequest(ID=member))  # type: ignore[arg-type]  # nobody looks at its peer
    lab.engine.end_turn()
    return await asyncio.wait_for(asked.came, 20)


def test_learner_is_promoted_by_whichever_member_is_asked(tmp_path: Path) -> None:
    """A follower asks the leader whether the learner is in step, and has it declared a voter."""

    async def act() -> None:
        async with cluster(tmp_path, 3, learners=1, declared=True) as lab:
            learner = lab.members[_LEARNER]
            asked = {member: _membership(member) for member in lab.members.values()}
            follower = next(member for member in lab.followers if member is not learner)
            await lab.leader.put(b"k", b"v")
            await lab.settled()

            came = await _promote(asked[follower], follower, _LEARNER)

            assert isinstance(came, Answer)
            await eventually(lambda: _LEARNER in learner.engine.replica.node.configuration.voters)
            await lab.settled()
            assert all(_LEARNER in member.state.members.voters for member in lab.members.values())

    asyncio.run(act())


def test_follower_says_of_a_learner_what_the_leader_says(tmp_path: Path) -> None:
    """A learner that is not there, a voter and nobody are refused as by the leader itself."""

    async def act() -> None:
        async with cluster(tmp_path, 3, declared=True) as lab:
            await _declare_learner(lab)
            asked = {member: _membership(member) for member in lab.members.values()}

            for member in (lab.leader, lab.followers[0]):
                said = [await _promote(asked[member], member, who) for who in (_LEARNER, 1, 99)]
                assert said == [
                    Failure.LEARNER_NOT_READY,
                    Failure.MEMBER_NOT_LEARNER,
                    Failure.MEMBER_NOT_FOUND,
                ]

    asyncio.run(act())


def test_promotion_is_refused_where_nobody_leads(tmp_path: Path) -> None:
    """A member that knows of no leader has nobody to ask, and says that it took too long."""

    async def act() -> None:
        async with cluster(tmp_path, 3, declared=True) as lab:
            await _declare_learner(lab)
            follower = lab.followers[0]
            membership = _membership(follower)
            lab.cut(*lab.members)
            await eventually(lambda: not follower.engine.has_leader)

            assert await _promote(membership, follower, _LEARNER) is Failure.TIMEOUT

    asyncio.run(act())

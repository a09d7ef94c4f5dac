"""Reconfiguration: several members whose consensus follows what their log declares."""

from typing import Final, final

from core.stored_tables import MemoryTables
from google.protobuf.message import Message
from support.raft_cluster import TICKS, Cluster

from kvsecure.core.apply import apply
from kvsecure.core.entry import decode, encode, envelope
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import Append
from kvsecure.core.raft.status import Role
from kvsecure.core.reconfiguration import Reconfiguration
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT, Index, MemberId
from kvsecure.proto import state_pb2

_SYSTEM: Final = Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0)
_NOBODY: Final = Configuration(())


def _member(number: int) -> state_pb2.Member:
    return state_pb2.Member(id=number, peer_urls=[f"https://m{number}:2380"])


def _add(number: int, *, is_learner: bool = False) -> state_pb2.MemberAdd:
    record = _member(number)
    record.is_learner = is_learner
    return state_pb2.MemberAdd(member=record, learners_max=1)


@final
class _Declared:
    """A cluster whose members apply what is declared; each of them calls `step` when it has."""

    def __init__(self, *founders: int) -> None:
        self.founders = founders
        self.cluster = Cluster(founders)
        self.states: dict[int, State] = {}
        self.parts: dict[int, Reconfiguration] = {}
        self.done: dict[int, int] = {}
        for member in founders:
            self._begin(member)
        self.cluster.elect(founders[0])

    def _begin(self, member: int) -> None:
        state = State(MemoryTables())
        state.found([_member(founder) for founder in self.founders])
        self.states[member] = state
        self.parts[member] = Reconfiguration(self.cluster.node(member), state.members)
        self.done[member] = 0

    def start(self, member: int) -> None:
        """Start a member that was declared, from nothing."""
        self.cluster.start(member, configuration=_NOBODY)
        self._begin(member)

    def declare(self, member: int, command: Message) -> None:
        """Put a command into the log, by its leader."""
        entry = encode(type(command), envelope(_SYSTEM), command.SerializeToString())
        self.cluster.node(member).propose([entry])
        self.follow()

    def follow(self) -> None:
        """Let everything happen that follows, without time passing."""
        while True:
            self.cluster.settle()
            before = dict(self.done)
            for member in self.cluster.running:
                self._apply(member)
                self.parts[member].step()
            if before == self.done and not any(map(self.cluster.persist, self.cluster.running)):
                return

    def pass_time(self, ticks: int) -> None:
        """Let time pass, and everything happen that follows."""
        for _ in range(ticks):
            self.cluster.pass_time(1)
            self.follow()

    def _apply(self, member: int) -> None:
        applied = self.cluster.applied(member)
        for entry in applied[self.done[member] :]:
            caller, command = decode(entry)
            try:
                apply(self.states[member], caller, command, 0)  # type: ignore[arg-type]  # no burst
            except Refused:
                continue
        self.done[member] = len(applied)

    def voters(self, member: int) -> tuple[int, ...]:
        """Return who votes, as far as a member's consensus knows."""
        return self.cluster.node(member).configuration.voters

    def settled(self, *members: int) -> list[bool]:
        """Return for each of them whether it says that all agrees."""
        return [self.parts[member].is_settled for member in members]


def test_a_declared_voter_votes() -> None:
    """The leader changes the configuration by itself, and every member sees when it is done."""
    declared = _Declared(1, 2, 3)
    before = declared.settled(1, 2, 3)
    declared.declare(1, _add(4))
    declared.start(4)
    declared.pass_time(2)

    assert before == [True] * 3
    assert [declared.voters(member) for member in (1, 2, 3, 4)] == [(1, 2, 3, 4)] * 4
    assert declared.settled(1, 2, 3, 4) == [True] * 4


def test_only_the_leader_changes_anything() -> None:
    """A follower that has applied a declaration waits for the leader's entry."""
    declared = _Declared(1, 2, 3)
    declared.cluster.isolate([1])
    for member in (2, 3):
        state = declared.states[member]
        apply(state, _SYSTEM, _add(4), 0)
        last = declared.cluster.node(member).log.last

        declared.parts[member].step()

        assert declared.cluster.node(member).log.last == last
        assert not declared.parts[member].is_settled


def test_a_change_is_settled_when_it_is_committed_and_not_before() -> None:
    """A configuration that only the leader has yet can still be cut off."""
    declared = _Declared(1, 2, 3)
    declared.cluster.stuck_disks = {2, 3}
    apply(declared.states[1], _SYSTEM, state_pb2.MemberRemove(id=3), 0)

    declared.parts[1].step()
    declared.cluster.settle()
    before = declared.voters(1), declared.settled(1)
    declared.cluster.stuck_disks.clear()
    declared.pass_time(2)

    assert before == ((1, 2), [False])
    assert declared.settled(1) == [True]


def test_a_second_voter_leaves_a_lone_one_without_a_quorum_until_it_comes() -> None:
    """As in etcd: from the declaration on two have to agree, and the first one waits."""
    declared = _Declared(1)
    declared.declare(1, _add(2))
    declared.pass_time(3 * TICKS)
    before = declared.voters(1), declared.settled(1), declared.cluster.leader
    declared.start(2)
    declared.pass_time(8 * TICKS)

    assert before == ((1, 2), [False], 0)
    assert declared.cluster.leader in (1, 2)
    assert declared.settled(1, 2) == [True, True]


def test_several_declarations_become_one_joint_change() -> None:
    """What is declared while a change is under way is begun when that is over."""
    declared = _Declared(1, 2, 3)
    declared.cluster.stuck_disks = {2, 3}
    for command in (_add(4), _add(5), state_pb2.MemberRemove(id=3)):
        apply(declared.states[1], _SYSTEM, command, 0)
        declared.parts[1].step()
    first = declared.voters(1)
    declared.cluster.stuck_disks.clear()
    for member in (4, 5):
        declared.start(member)
    declared.pass_time(6)

    assert first == (1, 2, 3, 4)
    assert declared.voters(1) == (1, 2, 4, 5)
    assert declared.settled(1) == [True]


def test_a_joint_step_is_not_the_end_of_a_change() -> None:
    """While the voters of before still count, the change is under way, though it is committed."""
    declared = _Declared(1, 2, 3)
    state = declared.states[2]
    for command in (_add(4), _add(5)):
        apply(state, _SYSTEM, command, 0)
    follower = declared.cluster.node(2)
    joint = follower.configuration.towards([*state.members.voters], ())
    index = follower.log.last + 1
    declared.cluster.isolate([2])

    term = follower.term
    follower.step(
        Append(
            sender=MemberId(1),
            to=MemberId(2),
            term=term,
            prev_index=follower.log.last,
            prev_term=term,
            entry_term=term,
            committed=Index(index),
            entries=[joint.encode()],
        )
    )
    declared.cluster.settle()

    assert (follower.configuration, follower.log.committed) == (joint, index)
    assert declared.settled(2) == [False]


def test_a_learner_is_sent_everything_and_promoted_when_that_is_declared() -> None:
    """Learners follow without a vote."""
    declared = _Declared(1, 2)
    declared.declare(1, _add(3, is_learner=True))
    declared.start(3)
    declared.pass_time(2)
    before = declared.cluster.node(3).configuration, declared.settled(1, 2, 3)

    declared.declare(1, state_pb2.MemberPromote(id=3))
    declared.pass_time(2)

    learning = Configuration((MemberId(1), MemberId(2)), (), (MemberId(3),))
    assert before == (learning, [True] * 3)
    assert declared.voters(3) == (1, 2, 3)
    assert declared.settled(1, 2, 3) == [True] * 3


def test_a_leader_that_is_removed_leaves_a_cluster_that_goes_on() -> None:
    """It leads until its removal is committed; the others elect one of them."""
    declared = _Declared(1, 2, 3)

    declared.declare(1, state_pb2.MemberRemove(id=1))
    declared.pass_time(6 * TICKS)

    assert declared.cluster.node(1).role is not Role.LEADER
    assert declared.cluster.leader in (2, 3)
    assert declared.voters(2) == (2, 3)
    assert declared.settled(1, 2, 3) == [True] * 3


def test_the_next_leader_goes_on_with_a_change() -> None:
    """If a leader is lost between a declaration and its change, the next one makes it."""
    declared = _Declared(1, 2, 3)
    entry = encode(
        state_pb2.MemberRemove, envelope(_SYSTEM), state_pb2.MemberRemove(id=1).SerializeToString()
    )
    declared.cluster.node(1).propose([entry])
    declared.cluster.settle()
    declared.cluster.crash(1)

    declared.cluster.elect(2)
    declared.pass_time(TICKS)

    assert declared.voters(2) == declared.voters(3) == (2, 3)
    assert declared.settled(2, 3) == [True, True]

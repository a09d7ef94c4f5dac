"""Reads without entries in the log: thesis 6.4 and Raft section 8."""

import pytest
from support.raft_cluster import TICKS, Cluster

from kvsecure.core.raft.messages import Heartbeat, HeartbeatReply, ReadIndex, ReadIndexReply
from kvsecure.core.raft.refusals import TooManyReads
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import Index, MemberId, Term


def _three() -> Cluster:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.propose(1, "a", "b")
    cluster.settle()
    return cluster


def test_single_voter_confirms_at_once_thesis_6_4() -> None:
    """Where the own voice is a majority, a read waits for nobody."""
    cluster = Cluster((1,))
    cluster.elect(1)
    cluster.propose(1, "a")
    cluster.settle()

    cluster.read(1, 7)

    assert cluster.reads == [(1, 7, 2)]
    assert cluster.node(1).read_index() == 2


@pytest.mark.parametrize("member", [1, 2, 4])
def test_any_member_reads_thesis_6_4(member: int) -> None:
    """A leader asks its followers; followers and learners ask the leader."""
    cluster = Cluster((1, 2, 3), (4,))
    cluster.elect(1)
    cluster.propose(1, "a", "b")
    cluster.settle()

    cluster.read(member, 7)
    before = list(cluster.reads)
    cluster.settle()

    assert before == []
    assert cluster.reads == [(member, 7, 3)]


def test_leader_of_several_never_answers_alone_thesis_6_4() -> None:
    """A leader that may have been replaced without knowing it answers no read."""
    cluster = _three()
    cluster.isolate([1])
    cluster.read(1, 7)
    cluster.elect(2)
    cluster.propose(2, "c")
    cluster.settle()

    assert cluster.node(1).role is Role.LEADER
    assert cluster.node(1).read_index() is None
    assert cluster.reads == []


def test_read_waits_for_an_entry_of_the_own_term_thesis_6_4() -> None:
    """A new leader does not know what is committed until something of its own term is."""
    cluster = Cluster((1, 2, 3))
    cluster.elect_bare(1, 2)
    cluster.read(1, 7)
    before = [message for message in cluster.wire if isinstance(message, Heartbeat)]

    cluster.settle()

    assert before == []
    assert cluster.reads == [(1, 7, 1)]


def test_answers_from_before_the_question_do_not_count_thesis_6_4() -> None:
    """A heartbeat that was answered before a read was asked does not confirm it."""
    cluster = _three()
    cluster.tick(1)
    cluster.deliver(lambda message: isinstance(message, Heartbeat))
    cluster.read(1, 7)
    cluster.cut = {(1, 2), (1, 3)}

    cluster.settle()

    assert cluster.reads == []


def test_reads_share_a_round_thesis_6_4() -> None:
    """Reads that come while a round is on its way are confirmed by the next, all at once."""
    cluster = _three()
    node = cluster.node(1)
    for context in range(10):
        node.read(context)
    first = [message for message in node.take_messages() if isinstance(message, Heartbeat)]
    for context in range(10, 20):
        node.read(context)
    second = node.take_messages()
    for message in first:
        node.step(HeartbeatReply(message.to, MemberId(1), Term(1), message.context))
    third = [message for message in node.take_messages() if isinstance(message, Heartbeat)]

    assert (len(first), second, len(third)) == (2, [], 1)
    assert [context for context, _ in node.take_reads()] == list(range(10))


def _asked(cluster: Cluster) -> list[int]:
    """Return whom the leader asks to confirm a round."""
    return [message.to for message in cluster.wire if isinstance(message, Heartbeat)]


def _learn(cluster: Cluster, *members: int) -> None:
    """Let these members, in this order, answer a round before the others."""
    cluster.read(1, 1)
    cluster.deliver(lambda message: isinstance(message, Heartbeat))
    for member in members:
        cluster.deliver(
            lambda message, at=member: isinstance(message, HeartbeatReply) and message.sender == at
        )
    cluster.settle()


@pytest.mark.parametrize(
    ("members", "quickest"), [((1, 2, 3), (3,)), ((1, 2, 3, 4, 5), (5, 3)), ((1, 2), (2,))]
)
def test_no_more_are_asked_than_make_a_majority_thesis_6_4(
    members: tuple[int, ...], quickest: tuple[int, ...]
) -> None:
    """Those who answered the last round first are asked for the next, learners never."""
    cluster = Cluster(members, (9,))
    cluster.elect(1)
    cluster.settle()
    _learn(cluster, 9, *quickest)

    cluster.read(1, 2)

    assert _asked(cluster) == list(quickest)
    cluster.settle()
    assert [context for _, context, _ in cluster.reads] == [1, 2]


def test_witness_that_is_silent_is_made_up_for_thesis_6_4() -> None:
    """The next heartbeat goes to all, and whoever answers it is asked from then on."""
    cluster = _three()
    _learn(cluster, 3)
    cluster.cut = {(1, 3)}
    cluster.read(1, 2)
    cluster.settle()
    before = list(cluster.reads)

    cluster.tick(1)
    cluster.settle()
    cluster.read(1, 3)

    assert [context for _, context, _ in before] == [1]
    assert [context for _, context, _ in cluster.reads] == [1, 2]
    assert _asked(cluster) == [2]


def test_witness_that_cannot_be_reached_is_made_up_for_at_once_thesis_6_4() -> None:
    """Who is known to be gone is not waited for."""
    cluster = _three()
    _learn(cluster, 3)
    cluster.read(1, 2)
    node = cluster.node(1)

    node.report_unreachable(MemberId(3))

    assert [each.to for each in node.take_messages() if isinstance(each, Heartbeat)] == [2, 3]


def test_reads_keep_nobody_from_hearing_of_the_leader_raft_5_2() -> None:
    """Who is not asked gets its heartbeats all the same, however many rounds there are."""
    cluster = _three()
    _learn(cluster, 3)

    for context in range(2, 60):
        cluster.read(1, context)
        cluster.settle()
        for member in (1, 2, 3):
            cluster.tick(member)
        cluster.settle()

    assert cluster.node(2).leader == 1
    assert cluster.node(1).status().term == 1


def test_lost_questions_are_asked_again_thesis_6_4() -> None:
    """A follower whose question is lost asks again with time, a leader with its heartbeats."""
    cluster = _three()
    cluster.read(1, 7)
    cluster.read(2, 8)
    cluster.wire.clear()

    cluster.pass_time(2)

    assert sorted(cluster.reads) == [(1, 7, 3), (2, 8, 3)]


def test_reads_survive_a_change_of_leaders_thesis_6_4() -> None:
    """A read that the old leader did not answer is asked of the new one."""
    cluster = _three()
    cluster.isolate([1])
    cluster.read(1, 7)
    cluster.cut |= {(2, 1), (3, 1)}
    cluster.read(3, 8)
    cluster.elect(2)
    cluster.propose(2, "c")
    cluster.settle()
    cluster.heal()

    cluster.pass_time(3)

    assert {(member, context) for member, context, _ in cluster.reads} == {(1, 7), (3, 8)}
    assert {context: index for _, context, index in cluster.reads}[7] == 5


def test_answer_from_before_a_restart_is_none_thesis_6_4() -> None:
    """What was asked before a restart does not answer what is asked after it."""
    cluster = _three()
    cluster.read(2, 7)
    cluster.deliver(lambda message: isinstance(message, ReadIndex))
    cluster.deliver(lambda message: isinstance(message, Heartbeat))
    cluster.deliver(lambda message: isinstance(message, HeartbeatReply))
    late = [message for message in cluster.wire if isinstance(message, ReadIndexReply)]
    cluster.crash(2)
    cluster.start(2)
    cluster.tick(1)
    cluster.propose(1, "c")
    cluster.settle()
    cluster.reads.clear()
    cluster.read(2, 8)
    for message in late:
        cluster.hand_over(message)

    assert len(late) == 1
    assert cluster.reads == []


def test_only_the_leader_answers_thesis_6_4() -> None:
    """An index from who does not lead confirms nothing."""
    cluster = _three()
    cluster.read(2, 7)
    asked = next(message for message in cluster.wire if isinstance(message, ReadIndex))
    cluster.hand_over(ReadIndexReply(MemberId(3), MemberId(2), Term(1), asked.context, Index(1)))

    assert cluster.reads == []


def test_waiting_reads_are_bounded() -> None:
    """A member without a leader takes only so many reads."""
    cluster = Cluster((1, 2, 3), settings=Settings(election_ticks=TICKS, reads_max=3))
    for context in range(3):
        cluster.read(1, context)

    with pytest.raises(TooManyReads):
        cluster.read(1, 3)
    assert cluster.node(1).status().reads_waiting == 3

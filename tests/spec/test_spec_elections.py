"""Elections: Raft sections 5.1, 5.2, 5.4.1 and 5.6; thesis 3.10, 4.2.3, 6.2 and 9.6."""

import pytest
from support.raft_cluster import TICKS, Cluster

from kvsecure.core.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kvsecure.core.raft.refusals import NotLeader, TransferRefused, Transferring
from kvsecure.core.raft.status import Dropped, Role
from kvsecure.model.ids import Index, MemberId, Term


def _three() -> Cluster:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    return cluster


def test_members_elect_one_leader_section_5_2() -> None:
    """Left alone, members elect one of them, and the others follow it."""
    cluster = Cluster((1, 2, 3, 4, 5))

    cluster.pass_time(3 * TICKS)

    leader = cluster.leader
    assert leader
    assert {cluster.node(member).leader for member in cluster.running} == {leader}


def test_leader_stays_while_it_is_heard_section_5_2() -> None:
    """Heartbeats keep everybody from standing: the term does not move."""
    cluster = _three()
    term = cluster.node(1).term

    cluster.pass_time(20 * TICKS)

    assert (cluster.leader, cluster.node(1).term) == (1, term)


def test_another_leads_when_the_leader_is_gone_section_5_2() -> None:
    """A leader that crashed is replaced by a majority of the others."""
    cluster = _three()
    cluster.crash(1)

    cluster.pass_time(4 * TICKS)

    assert cluster.leader in {2, 3}
    assert cluster.node(cluster.leader).term == 2


def test_minority_elects_nobody_section_5_2() -> None:
    """Two of five elect nobody, and do not even begin a term."""
    cluster = Cluster((1, 2, 3, 4, 5))
    for member in (3, 4, 5):
        cluster.crash(member)

    cluster.pass_time(10 * TICKS)

    assert cluster.leader == 0
    assert {cluster.node(member).term for member in (1, 2)} == {0}


def test_vote_is_told_only_when_durable_section_5_2() -> None:
    """A vote stays with who gives it until the disk has it."""
    cluster = Cluster((1, 2, 3))
    cluster.stuck_disks = {2}
    node = cluster.node(2)

    node.step(Vote(MemberId(1), MemberId(2), Term(1), Index(0), Term(0), is_transfer=False))
    before = node.take_messages()
    cluster.stuck_disks = set()
    cluster.persist(2)

    assert before == []
    assert cluster.wire == [VoteReply(MemberId(2), MemberId(1), Term(1), granted=True)]
    assert cluster.disks[2].hard_state[:2] == (1, 1)


def test_vote_of_a_term_that_is_past_is_not_told_section_5_2() -> None:
    """A vote that was never durable in its term is not told once the term is another."""
    cluster = Cluster((1, 2, 3))
    node = cluster.node(2)
    node.step(Vote(MemberId(1), MemberId(2), Term(1), Index(0), Term(0), is_transfer=False))
    node.step(Heartbeat(MemberId(3), MemberId(2), Term(2), Index(0), Term(0), 0))
    cluster.persist(2)

    assert [type(message) for message in cluster.wire] == [HeartbeatReply]


def test_candidate_asks_only_when_its_own_vote_is_durable_section_5_2() -> None:
    """Nobody is asked for a vote in a term that the candidate could forget."""
    cluster = Cluster((1, 2, 3))
    cluster.stuck_disks = {1}
    cluster.tick(1, 2 * TICKS)

    cluster.settle()
    before = [message for message in cluster.wire if isinstance(message, Vote)]
    state = cluster.node(1).role
    cluster.stuck_disks = set()
    cluster.persist(1)

    assert (before, state) == ([], Role.CANDIDATE)
    assert [message.to for message in cluster.wire if isinstance(message, Vote)] == [2, 3]


def test_member_votes_once_in_a_term_section_5_2() -> None:
    """The first who asks in a term has the vote, also after a restart; asking again is no other."""
    cluster = Cluster((1, 2, 3))

    def ask(sender: int) -> bool:
        cluster.hand_over(
            Vote(MemberId(sender), MemberId(2), Term(1), Index(0), Term(0), is_transfer=False)
        )
        cluster.persist(2)
        reply = cluster.wire.pop()
        assert isinstance(reply, VoteReply)
        return reply.granted

    said = [ask(1), ask(3), ask(1)]
    cluster.crash(2)
    cluster.start(2)
    said += [ask(3), ask(1)]

    assert said == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("term", "index", "granted"),
    [(1, 9, False), (2, 1, False), (2, 2, True), (2, 3, True), (3, 1, True)],
)
@pytest.mark.parametrize("asked", [Vote, PreVote])
def test_candidate_must_be_up_to_date_section_5_4_1(
    asked: type[Vote] | type[PreVote], term: int, index: int, *, granted: bool
) -> None:
    """A log with an earlier last term, or as late and shorter, gets no vote."""
    cluster = Cluster((1, 2, 3))
    disk = cluster.disks[2]
    disk.entries = [(1, b""), (2, b"")]
    cluster.crash(2)
    cluster.start(2)
    fields = (MemberId(1), MemberId(2), Term(5), Index(index), Term(term))

    cluster.hand_over(Vote(*fields, is_transfer=False) if asked is Vote else PreVote(*fields))
    cluster.persist(2)

    reply = cluster.wire.pop()
    assert isinstance(reply, VoteReply | PreVoteReply)
    assert reply.granted is granted


def test_pre_vote_changes_no_term_thesis_9_6() -> None:
    """A member that is cut off asks again and again, and is in the same term when it is back."""
    cluster = _three()
    cluster.isolate([3])

    cluster.pass_time(10 * TICKS)
    alone = cluster.node(3)
    cut_off = (alone.term, alone.role)
    cluster.heal()
    cluster.pass_time(2 * TICKS)

    assert cut_off == (1, Role.PRE_CANDIDATE)
    assert (cluster.leader, cluster.node(1).term) == (1, 1)
    assert cluster.node(3).leader == 1


def test_pre_vote_promises_nothing_thesis_9_6() -> None:
    """Who says it would vote for one may say so of another, and may vote for either."""
    cluster = Cluster((1, 2, 3))
    for sender in (1, 3):
        cluster.hand_over(PreVote(MemberId(sender), MemberId(2), Term(1), Index(0), Term(0)))
    said = [message for message in cluster.wire if isinstance(message, PreVoteReply)]

    assert [reply.granted for reply in said] == [True, True]
    assert (cluster.node(2).term, cluster.node(2).vote) == (0, 0)


def test_nobody_votes_while_a_leader_is_heard_thesis_4_2_3() -> None:
    """A removed member that asks for votes does not move the term of who hears a leader."""
    cluster = _three()
    for member in (1, 2):
        cluster.hand_over(
            Vote(MemberId(9), MemberId(member), Term(8), Index(99), Term(7), is_transfer=False)
        )
        cluster.hand_over(PreVote(MemberId(9), MemberId(member), Term(8), Index(99), Term(7)))
    cluster.settle()

    assert (cluster.leader, cluster.node(1).term, cluster.node(2).term) == (1, 1, 1)
    assert cluster.node(2).status().dropped[Dropped.DISTURBING] == 2


def test_suspicion_makes_a_follower_stand_at_once_thesis_9_6() -> None:
    """Who has reason to think that the leader is gone does not wait for the timeout."""
    cluster = _three()
    cluster.crash(1)
    for member in (2, 3):
        cluster.node(member).suspect_leader()

    cluster.pass_time(4)

    assert cluster.leader in {2, 3}
    assert cluster.node(cluster.leader).term == 2


def test_suspicion_ends_when_the_leader_is_heard_section_5_2() -> None:
    """A heartbeat is better evidence than a connection that broke."""
    cluster = _three()
    cluster.node(3).suspect_leader()
    cluster.hand_over(Heartbeat(MemberId(1), MemberId(3), Term(1), Index(0), Term(0), 0))
    cluster.hand_over(PreVote(MemberId(2), MemberId(3), Term(2), Index(9), Term(1)))
    cluster.isolate([3])

    cluster.tick(3, TICKS - 1)

    assert cluster.node(3).role is Role.FOLLOWER
    assert cluster.node(3).status().dropped[Dropped.DISTURBING] == 1


def test_suspicion_of_one_moves_nobody_thesis_4_2_3() -> None:
    """Those who hear the leader vote for nobody, and who stood in vain follows it again."""
    cluster = _three()
    cluster.node(3).suspect_leader()

    cluster.tick(3, 2)
    stands = cluster.node(3).role
    cluster.pass_time(2 * TICKS)

    assert stands is Role.PRE_CANDIDATE
    assert (cluster.leader, cluster.node(1).term, cluster.node(3).leader) == (1, 1, 1)


def test_who_suspects_the_leader_votes_for_who_stands_thesis_4_2_3() -> None:
    """A leader that seems to be gone is not heard, however short ago it was."""
    cluster = _three()
    cluster.crash(1)
    cluster.node(2).suspect_leader()

    cluster.hand_over(PreVote(MemberId(3), MemberId(2), Term(2), Index(9), Term(1)))

    assert cluster.wire[-1:] == [PreVoteReply(MemberId(2), MemberId(3), Term(2), granted=True)]


def test_who_has_granted_a_pre_vote_does_not_hurry_section_5_2() -> None:
    """Of two who suspect the leader the second leaves it to the first: both at once may lose."""
    cluster = _three()
    cluster.crash(1)
    cluster.node(2).suspect_leader()
    cluster.hand_over(PreVote(MemberId(3), MemberId(2), Term(2), Index(9), Term(1)))

    cluster.tick(2, TICKS - 1)

    assert cluster.node(2).role is Role.FOLLOWER


def test_who_follows_nobody_has_nobody_to_suspect_section_5_2() -> None:
    """A member that has just started waits for the timeout."""
    cluster = Cluster((1, 2, 3))
    cluster.node(2).suspect_leader()

    cluster.tick(2, TICKS - 1)

    assert cluster.node(2).role is Role.FOLLOWER


def test_learner_that_suspects_the_leader_never_stands_thesis_4_2_1() -> None:
    """It knows of no leader from then on, and waits."""
    cluster = Cluster((1, 2), learners=(3,))
    cluster.elect(1)
    cluster.isolate([3])
    cluster.node(3).suspect_leader()

    cluster.tick(3, 2)

    assert (cluster.node(3).role, cluster.node(3).leader) == (Role.FOLLOWER, 0)


def test_leader_without_followers_steps_down_thesis_6_2() -> None:
    """A leader that hears of no majority for an election timeout leads no more."""
    cluster = _three()
    cluster.isolate([1])

    cluster.pass_time(2 * TICKS + 1)

    assert cluster.node(1).role is not Role.LEADER
    with pytest.raises(NotLeader):
        cluster.propose(1, "x")


def test_leader_with_half_of_four_steps_down_thesis_6_2() -> None:
    """Half of the voters are no majority."""
    cluster = Cluster((1, 2, 3, 4))
    cluster.elect(1)
    cluster.isolate([1, 2])

    cluster.pass_time(2 * TICKS + 1)

    assert cluster.node(1).role is not Role.LEADER


@pytest.mark.parametrize("kind", [Append, Heartbeat])
def test_leader_of_an_earlier_term_is_told_thesis_9_6(kind: type) -> None:
    """A member in a later term that takes nothing says so, and the leader gives way."""
    cluster = _three()
    cluster.crash(3)
    cluster.disks[3].hard_state = cluster.disks[3].hard_state._replace(
        term=Term(7), vote=MemberId(3)
    )
    cluster.start(3)
    if kind is Append:
        cluster.propose(1, "x")
    else:
        cluster.tick(1)

    cluster.deliver()
    told = [message for message in cluster.wire if isinstance(message, AppendReply)]
    cluster.pass_time(5 * TICKS)

    assert any(reply.sender == 3 and reply.term == 7 and reply.is_rejected for reply in told)
    assert cluster.node(cluster.leader).term > 7
    assert {cluster.node(member).leader for member in (1, 2, 3)} == {cluster.leader}


def test_later_term_makes_a_follower_section_5_1() -> None:
    """A leader that meets a later term of a member's follows at once."""
    cluster = _three()
    cluster.hand_over(
        AppendReply(MemberId(2), MemberId(1), Term(4), Index(0), True, Index(0), Term(0))
    )

    assert (cluster.node(1).role, cluster.node(1).term) == (Role.FOLLOWER, 4)


def test_earlier_term_changes_nothing_section_5_1() -> None:
    """What was said in an earlier term is not looked at."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.elect(2)
    node = cluster.node(2)
    cluster.hand_over(VoteReply(MemberId(3), MemberId(2), Term(1), granted=False))
    cluster.hand_over(TimeoutNow(MemberId(1), MemberId(2), Term(1)))

    assert (node.role, node.term) == (Role.LEADER, 2)
    assert node.status().dropped[Dropped.STALE] >= 2


def test_second_leader_of_a_term_is_impossible_section_5_2() -> None:
    """Whoever claims to lead a term that another leads is not believed."""
    cluster = _three()
    for member in (1, 2):
        cluster.hand_over(Heartbeat(MemberId(3), MemberId(member), Term(1), Index(1), Term(1), 0))

        assert cluster.node(member).leader == 1
        assert cluster.node(member).status().dropped[Dropped.IMPOSSIBLE] == 1


def test_transfer_takes_no_timeout_thesis_3_10() -> None:
    """Another leads after a hand-over, with everything, without any time having passed."""
    cluster = _three()
    cluster.propose(1, "a")
    cluster.node(1).transfer(MemberId(2))

    cluster._collect(1)
    cluster.settle()

    assert (cluster.leader, cluster.node(2).term) == (2, 2)
    assert cluster.applied(2) == cluster.applied(3) == [b"\x01a"]


def test_transfer_waits_until_the_other_has_everything_thesis_3_10() -> None:
    """The other is told to stand when its log is the leader's, not before."""
    cluster = _three()
    cluster.stuck_disks = {2}
    cluster.propose(1, "a")
    cluster.node(1).transfer(MemberId(2))
    cluster.settle()
    before = cluster.leader

    cluster.stuck_disks = set()
    cluster.settle()

    assert (before, cluster.leader) == (1, 2)


def test_nothing_is_proposed_during_a_transfer_thesis_3_10() -> None:
    """A leader that hands over takes nothing that would keep the other behind."""
    cluster = _three()
    cluster.crash(2)
    cluster.node(1).transfer(MemberId(2))

    with pytest.raises(Transferring):
        cluster.propose(1, "a")
    with pytest.raises(Transferring):
        cluster.change(1, [1, 2])


def test_transfer_ends_after_an_election_timeout_thesis_3_10() -> None:
    """A leader whose heir does not stand goes on leading."""
    cluster = _three()
    cluster.crash(2)
    cluster.node(1).transfer(MemberId(2))

    cluster.pass_time(TICKS)
    cluster.propose(1, "a")
    cluster.settle()

    assert cluster.applied(1) == [b"\x01a"]


def test_only_another_voter_takes_over_thesis_3_10() -> None:
    """Neither the leader itself, nor a learner, nor a stranger can be handed to."""
    cluster = Cluster((1, 2, 3), (4,))
    cluster.elect(1)

    for other in (1, 4, 9):
        with pytest.raises(TransferRefused):
            cluster.node(1).transfer(MemberId(other))
    with pytest.raises(NotLeader):
        cluster.node(2).transfer(MemberId(3))


def test_only_the_leader_makes_others_stand_thesis_3_10() -> None:
    """A member that does not lead cannot start an election by saying so."""
    cluster = _three()
    cluster.hand_over(TimeoutNow(MemberId(3), MemberId(2), Term(1)))
    cluster.settle()

    assert (cluster.leader, cluster.node(2).term) == (1, 1)

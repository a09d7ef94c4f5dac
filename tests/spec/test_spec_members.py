"""Changes of members: Raft section 6; thesis 4.1 to 4.3."""

import pytest
from support.raft_cluster import TICKS, Cluster, command

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import Append, AppendReply, Heartbeat
from kvsecure.core.raft.refusals import ChangeRefused, NotLeader
from kvsecure.core.raft.status import Dropped, Role
from kvsecure.model.ids import Index, MemberId, Term

_NOBODY = Configuration(())


def _cluster(*voters: int, learners: tuple[int, ...] = ()) -> Cluster:
    cluster = Cluster(voters, learners)
    cluster.elect(voters[0])
    return cluster


def _voters(cluster: Cluster, member: int) -> tuple[int, ...]:
    return cluster.node(member).configuration.voters


def _ids(*members: int) -> tuple[MemberId, ...]:
    return tuple(map(MemberId, members))


def test_one_voter_more_is_one_step_thesis_4_1() -> None:
    """A voter that is added takes one entry, and is brought up to date by it."""
    cluster = _cluster(1, 2, 3)
    cluster.propose(1, "a")
    cluster.settle()
    cluster.start(4, configuration=_NOBODY)

    index = cluster.change(1, [1, 2, 3, 4])
    cluster.pass_time(2)

    assert cluster.node(1).log.last == index
    assert _voters(cluster, 4) == (1, 2, 3, 4)
    assert cluster.applied(4) == [command("a")]


def test_more_than_one_voter_is_a_joint_change_section_6() -> None:
    """Two voters at once go through a joint configuration, which is left by itself."""
    cluster = _cluster(1, 2, 3)
    for member in (4, 5):
        cluster.start(member, configuration=_NOBODY)

    index = cluster.change(1, [1, 2, 3, 4, 5])
    joint = cluster.node(1).configuration
    cluster.pass_time(2)

    assert joint == Configuration(_ids(1, 2, 3, 4, 5), _ids(1, 2, 3))
    assert cluster.node(1).log.last == index + 1
    for member in range(1, 6):
        assert cluster.node(member).configuration == Configuration(_ids(1, 2, 3, 4, 5))


def test_configuration_is_in_force_when_appended_section_6() -> None:
    """A member goes by the newest configuration in its log, committed or not."""
    cluster = _cluster(1, 2, 3)
    cluster.stuck_disks = {1, 2, 3}

    cluster.change(1, [1, 2])
    leader = _voters(cluster, 1)
    cluster.settle()

    assert cluster.node(2).log.committed == 1
    assert leader == _voters(cluster, 2) == (1, 2)


def test_configuration_that_is_cut_off_is_no_more_section_6() -> None:
    """When the newest configuration is cut off, the one before it is in force again."""
    cluster = _cluster(1, 2, 3)
    cluster.isolate([1])
    cluster.change(1, [1, 2, 3, 4])
    cluster.persist(1)
    during = _voters(cluster, 1)
    cluster.elect(2)
    cluster.propose(2, "a")
    cluster.settle()

    cluster.heal()
    cluster.pass_time(TICKS)

    assert during == (1, 2, 3, 4)
    assert _voters(cluster, 1) == (1, 2, 3)


def test_configuration_is_found_in_the_log_after_a_restart_section_6() -> None:
    """A member that restarts goes by the newest configuration that its disk has."""
    cluster = _cluster(1, 2, 3)
    cluster.change(1, [1, 2])
    cluster.settle()
    cluster.crash(2)

    cluster.start(2)

    assert _voters(cluster, 2) == (1, 2)


def test_configuration_survives_compaction_section_7() -> None:
    """A snapshot carries the configuration of its index, and hands it on."""
    cluster = _cluster(1, 2, 3)
    cluster.change(1, [1, 2, 3], [4])
    cluster.settle()
    cluster.compact(1)
    cluster.start(4, configuration=_NOBODY)

    cluster.pass_time(3)
    cluster.crash(4)
    cluster.start(4)

    assert cluster.disks[4].offset > 0
    assert cluster.node(4).configuration == Configuration(_ids(1, 2, 3), (), _ids(4))


@pytest.mark.parametrize("down", [(1, 2), (4, 5)])
def test_joint_change_takes_both_majorities_section_6(down: tuple[int, int]) -> None:
    """Neither the old nor the new voters alone commit anything while a change is joint."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(3)
    for member in (4, 5):
        cluster.start(member, configuration=_NOBODY)
    cluster.settle()
    for member in down:
        cluster.crash(member)

    index = cluster.change(3, [3, 4, 5])
    cluster.settle()
    for _ in range(3):
        cluster.tick(3)
        cluster.settle()

    assert cluster.node(3).configuration.is_joint
    assert cluster.node(3).log.committed < index


def test_election_takes_both_majorities_section_6() -> None:
    """While a change is joint, a candidate needs the old voters and the new ones."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    for member in (4, 5):
        cluster.start(member, configuration=_NOBODY)
    cluster.change(1, [3, 4, 5])
    cluster.persist(1)
    cluster.deliver()
    for member in (2, 3, 4, 5):
        cluster.persist(member)
    cluster.crash(1)
    cluster.crash(2)
    cluster.wire.clear()

    cluster.pass_time(6 * TICKS)
    without = cluster.leader
    cluster.start(2)
    cluster.pass_time(6 * TICKS)

    assert cluster.node(3).log.committed >= 1
    assert without == 0
    assert cluster.leader


def test_another_leader_leaves_the_joint_configuration_section_6() -> None:
    """Whoever leads next finishes a change that is half way."""
    cluster = _cluster(1, 2, 3)
    for member in (4, 5):
        cluster.start(member, configuration=_NOBODY)
    cluster.settle()
    cluster.change(1, [2, 3, 4, 5])
    cluster.persist(1)
    cluster.deliver(lambda message: isinstance(message, Append))
    for member in (2, 3, 4, 5):
        cluster.persist(member)
    cluster.crash(1)

    cluster.pass_time(6 * TICKS)

    assert cluster.leader in {2, 3, 4, 5}
    assert cluster.node(cluster.leader).configuration == Configuration(_ids(2, 3, 4, 5))


def test_one_change_at_a_time_thesis_4_1() -> None:
    """Until a change is committed, and left if it is joint, there is no other."""
    cluster = _cluster(1, 2, 3)
    cluster.change(1, [1, 2])

    with pytest.raises(ChangeRefused):
        cluster.change(1, [1, 2, 3])
    cluster.settle()
    cluster.change(1, [1, 2, 3])
    cluster.settle()

    assert _voters(cluster, 1) == (1, 2, 3)


def test_change_waits_for_an_entry_of_the_own_term_thesis_4_1() -> None:
    """A new leader changes nothing before it has committed something in its term."""
    cluster = Cluster((1, 2, 3))
    cluster.elect_bare(1, 2)

    with pytest.raises(ChangeRefused):
        cluster.change(1, [1, 2])


@pytest.mark.parametrize(
    ("voters", "learners"), [((), ()), ((1, 2, 3), (3,)), ((1, 2, 3), ()), ((1, 2, 0), ())]
)
def test_change_must_make_sense(voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
    """Nobody voting, somebody in two places, nothing new, or an impossible member is refused."""
    cluster = _cluster(1, 2, 3)

    with pytest.raises(ChangeRefused):
        cluster.change(1, voters, learners)
    with pytest.raises(NotLeader):
        cluster.change(2, [1, 2])


def test_learner_is_sent_everything_and_counts_for_nothing_thesis_4_2_1() -> None:
    """A learner applies what is committed; neither commit nor election waits for it."""
    cluster = _cluster(1, 2, 3, learners=(4,))
    cluster.propose(1, "a")
    cluster.settle()
    applied = cluster.applied(4)[:]
    for member in (2, 3):
        cluster.crash(member)
    cluster.propose(1, "b")
    cluster.settle()

    assert applied == [command("a")]
    assert cluster.node(1).log.committed == 2


def test_learner_never_stands_thesis_4_2_1() -> None:
    """A learner without a leader waits, and says that it knows of none."""
    cluster = _cluster(1, 2, 3, learners=(4,))
    cluster.settle()
    for member in (1, 2, 3):
        cluster.crash(member)

    cluster.tick(4, 10 * TICKS)

    assert (cluster.node(4).role, cluster.node(4).leader) == (Role.FOLLOWER, 0)
    assert cluster.node(4).term == 1


def test_learner_is_promoted_thesis_4_2_1() -> None:
    """A learner among the voters of a change votes from then on."""
    cluster = _cluster(1, 2, 3, learners=(4,))
    cluster.change(1, [1, 2, 3, 4])
    cluster.settle()

    cluster.elect(4)

    assert cluster.leader == 4


def test_voters_become_learners_after_the_joint_step_section_6() -> None:
    """Voters that are demoted vote until the joint configuration is left."""
    cluster = _cluster(1, 2, 3)
    cluster.change(1, [1], [2, 3])
    joint = cluster.node(1).configuration

    cluster.settle()

    assert joint == Configuration(_ids(1), _ids(1, 2, 3), (), _ids(2, 3))
    assert cluster.node(2).configuration == Configuration(_ids(1), (), _ids(2, 3))


def test_removed_leader_leads_until_it_is_committed_thesis_4_2_2() -> None:
    """A leader that is removed sees to it that the others agree, then follows; another leads."""
    cluster = _cluster(1, 2, 3)

    cluster.change(1, [2, 3])
    role = cluster.node(1).role
    cluster.settle()

    assert role is Role.LEADER
    assert cluster.node(1).role is Role.FOLLOWER
    assert cluster.leader in {2, 3}
    assert _voters(cluster, cluster.leader) == (2, 3)


def test_removed_leader_counts_itself_not_thesis_4_2_2() -> None:
    """What the others do not store is not committed, whatever the removed leader stores."""
    cluster = _cluster(1, 2, 3)
    cluster.crash(3)
    index = cluster.change(1, [2, 3])

    cluster.settle()

    assert cluster.node(1).log.committed < index


def test_member_that_is_being_removed_may_stand_thesis_4_2_2() -> None:
    """Who alone has the entry that removes it leads once more, to have it committed."""
    cluster = _cluster(1, 2)
    cluster.change(1, [2])
    cluster.persist(1)
    cluster.wire.clear()
    cluster.crash(1)
    cluster.start(1)

    cluster.pass_time(6 * TICKS)

    assert cluster.leader == 2
    assert _voters(cluster, 2) == (2,)
    assert cluster.node(2).log.term_of(cluster.node(2).log.committed) == cluster.node(2).term


def test_removed_member_learns_of_it_thesis_4_2_3() -> None:
    """Who is removed is sent the entry that says so, and that it is committed."""
    cluster = _cluster(1, 2, 3)
    index = cluster.change(1, [1, 2])

    cluster.settle()

    assert cluster.node(3).log.committed == index
    assert not cluster.node(3).configuration.can_vote(MemberId(3))
    assert 3 not in cluster.node(1).status().peers


def test_removed_member_disturbs_nobody_thesis_4_2_3() -> None:
    """A removed member that never heard of it asks in vain, and no term moves."""
    cluster = _cluster(1, 2, 3)
    cluster.isolate([3])
    cluster.change(1, [1, 2])
    cluster.settle()
    cluster.heal()

    cluster.pass_time(10 * TICKS)

    assert cluster.node(3).role is not Role.LEADER
    assert (cluster.leader, cluster.node(1).term) == (1, 1)


def test_answers_of_strangers_are_not_counted() -> None:
    """Only members answer: neither an index nor a term of a stranger's moves a leader."""
    cluster = _cluster(1, 2, 3)
    cluster.stuck_disks = {2, 3}
    cluster.propose(1, "a")
    for term in (1, 9):
        cluster.hand_over(
            AppendReply(MemberId(8), MemberId(1), Term(term), Index(2), False, Index(0), Term(0))
        )
    cluster.settle()

    assert (cluster.node(1).role, cluster.node(1).log.committed) == (Role.LEADER, 1)
    assert cluster.node(1).status().dropped[Dropped.UNKNOWN] == 2


def test_answers_about_what_was_never_sent_are_not_counted() -> None:
    """A member that claims to store more than there is moves nothing."""
    cluster = _cluster(1, 2, 3)
    cluster.settle()
    before = cluster.node(1).status().peers[MemberId(2)]
    for rejected in (False, True):
        cluster.hand_over(
            AppendReply(MemberId(2), MemberId(1), Term(1), Index(9), rejected, Index(0), Term(0))
        )

    assert cluster.node(1).status().peers[MemberId(2)] == before
    assert cluster.node(1).status().dropped[Dropped.IMPOSSIBLE] == 2


def test_leader_may_be_a_stranger_thesis_4_1() -> None:
    """A member follows a leader that its own configuration does not know of."""
    cluster = Cluster((1, 2, 3))
    cluster.hand_over(Heartbeat(MemberId(8), MemberId(2), Term(3), Index(0), Term(0), 0))

    assert (cluster.node(2).leader, cluster.node(2).term) == (8, 3)


def test_cluster_grows_and_shrinks_under_load_section_6() -> None:
    """From one to five and back to one that was not there at first, and nothing is lost."""
    cluster = _cluster(1)
    words = []
    for number, voters in enumerate(
        ([1], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5], [4, 5], [5])
    ):
        for member in voters:
            if member not in cluster.disks:
                cluster.start(member, configuration=_NOBODY)
        if number:
            cluster.change(cluster.leader, voters)
            if cluster.node(cluster.leader).configuration.can_vote(MemberId(cluster.leader)):
                cluster.propose(cluster.leader, f"{number}")
                words.append(command(f"{number}"))
        cluster.pass_time(5 * TICKS)
        cluster.check_logs()

    assert cluster.leader == 5
    assert cluster.applied(5) == words
    assert len(words) >= 4

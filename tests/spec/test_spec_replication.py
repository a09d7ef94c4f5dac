"""Replication: Raft sections 5.3, 5.4.2, 5.5 and 8; thesis 10.2."""

import random

import pytest
from support.raft_cluster import TICKS, Cluster, command

from kvsecure.core.raft.messages import Append, AppendReply, Heartbeat
from kvsecure.core.raft.progress import Sending
from kvsecure.core.raft.refusals import TooMuchUncommitted
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Dropped
from kvsecure.model.ids import Index, MemberId, Term


def _three(settings: Settings | None = None) -> Cluster:
    cluster = Cluster((1, 2, 3), settings=settings)
    cluster.elect(1)
    return cluster


def _appends(cluster: Cluster, to: int) -> list[Append]:
    return [message for message in cluster.wire if isinstance(message, Append) and message.to == to]


def test_entries_are_applied_everywhere_in_order_section_5_3() -> None:
    """What a majority stores is applied by all, in the order of the log."""
    cluster = _three()
    cluster.propose(1, "a", "b")
    cluster.propose(1, "c")

    cluster.settle()

    for member in (1, 2, 3):
        assert cluster.applied(member) == [command("a"), command("b"), command("c")]


def test_majority_commits_without_the_others_section_5_3() -> None:
    """One of three that is down keeps nobody waiting, and has everything once it is back."""
    cluster = _three()
    cluster.crash(3)
    cluster.propose(1, "a")
    cluster.settle()
    without = cluster.applied(2)[:]

    cluster.start(3)
    cluster.pass_time(2 * TICKS)

    assert without == [command("a")]
    assert cluster.applied(3) == [command("a")]


def test_minority_commits_nothing_section_5_3() -> None:
    """What less than a majority stores is never applied."""
    cluster = _three()
    cluster.crash(2)
    cluster.crash(3)
    cluster.propose(1, "a")

    cluster.settle()

    assert cluster.applied(1) == []


def test_commit_index_reaches_followers_at_once_section_5_3() -> None:
    """Followers learn what is committed without waiting for a heartbeat."""
    cluster = _three()
    cluster.propose(1, "a")

    cluster.settle()

    assert cluster.node(3).log.committed == cluster.node(1).log.committed == 2


def test_old_term_is_not_committed_by_counting_figure_8() -> None:
    """An entry of an earlier term on a majority is not committed until one of the own term is."""
    cluster = Cluster((1, 2, 3))
    for member in (1, 2):
        cluster.crash(member)
        cluster.disks[member].entries = [(1, command("old"))]
        cluster.disks[member].hard_state = cluster.disks[member].hard_state._replace(term=Term(1))
        cluster.start(member)
    cluster.crash(3)
    node = cluster.node(1)
    cluster.elect_bare(1, 2)
    cluster.stuck_disks = {1, 2}

    reply = AppendReply(MemberId(2), MemberId(1), node.term, Index(1), False, Index(0), Term(0))
    node.step(reply)
    before = node.log.committed
    node.step(reply._replace(through=Index(2)))
    counted = node.log.committed
    cluster.stuck_disks = set()
    cluster.persist(1)

    assert (before, counted) == (0, 0)
    assert node.log.committed == 2


def test_leader_begins_with_an_entry_of_its_term_section_8() -> None:
    """A new leader commits what its predecessor could not tell, by an empty entry of its own."""
    cluster = _three()
    cluster.propose(1, "a")
    cluster.persist(1)
    cluster.deliver()
    cluster.persist(2)
    cluster.crash(1)
    cluster.wire.clear()

    cluster.elect(2)

    assert cluster.applied(2) == cluster.applied(3) == [command("a")]


def test_conflicting_suffix_is_cut_off_section_5_3() -> None:
    """Entries that another leader never had give way to those that it has, on the disk as well."""
    cluster = _three()
    cluster.isolate([1])
    cluster.propose(1, "lost", "lost too")
    cluster.persist(1)
    cluster.elect(2)
    cluster.propose(2, "kept")
    cluster.settle()

    cluster.heal()
    cluster.pass_time(TICKS)

    assert cluster.applied(1) == [command("kept")]
    assert cluster.disks[1].entries == cluster.disks[2].entries
    cluster.crash(1)
    assert cluster.start(1).log.last == 3


def test_work_order_that_was_cut_off_makes_nothing_durable_section_5_3() -> None:
    """Entries that were replaced while the disk wrote them are written again, not acknowledged."""
    cluster = _three()
    node = cluster.node(3)
    node.step(
        Append(
            *(MemberId(1), MemberId(3), Term(1), Index(1), Term(1), Term(1), Index(1)),
            [command("old"), command("older")],
        )
    )
    order = node.ready()
    assert order is not None
    node.step(
        Append(
            *(MemberId(2), MemberId(3), Term(2), Index(1), Term(1), Term(2), Index(1)),
            [command("new")],
        )
    )
    cluster.disks[3].write(*order)
    node.persisted()
    early = node.take_messages()
    cluster.persist(3)

    assert [m for m in early if isinstance(m, AppendReply) and not m.is_rejected] == []
    assert cluster.disks[3].entries == [(1, b""), (2, command("new"))]
    assert [m.through for m in cluster.wire if isinstance(m, AppendReply)] == [2]


def test_committed_entries_are_never_cut_off_section_5_4() -> None:
    """Nobody is believed who says that a committed entry was another."""
    cluster = _three()
    cluster.propose(1, "a", "b")
    cluster.settle()
    node = cluster.node(2)
    for prev, prev_term in ((0, 0), (1, 1), (2, 1)):
        cluster.hand_over(
            Append(
                *(MemberId(1), MemberId(2), Term(5), Index(prev), Term(prev_term), Term(5)),
                Index(9),
                [command("x")] * (3 - prev),
            )
        )

    assert [term for term, _ in cluster.disks[2].entries] == [1, 1, 1]
    assert node.log.entries(Index(1), Index(3)) == [command("a"), command("b")]


def test_terms_in_a_log_never_fall_section_5_3() -> None:
    """Entries of an earlier term than a committed one before them are not believed."""
    cluster = Cluster((1, 2, 3))
    node = cluster.node(2)
    head = (MemberId(1), MemberId(2), Term(5))
    node.step(Append(*head, Index(0), Term(0), Term(3), Index(3), [b"", b"", b""]))
    node.step(Append(*head, Index(1), Term(1), Term(2), Index(3), [b"", b"", b"", b""]))

    assert node.log.last == 3
    assert node.status().dropped[Dropped.IMPOSSIBLE] == 1


def test_entries_of_this_leader_are_never_cut_off_section_5_3() -> None:
    """A leader's log only grows: who says that it had others in the same term is not believed."""
    cluster = Cluster((1, 2, 3))
    node = cluster.node(2)
    first = Append(
        *(MemberId(1), MemberId(2), Term(5), Index(0), Term(0), Term(3), Index(0)),
        [command("a"), command("b")],
    )
    node.step(first)
    node.step(first._replace(entry_term=Term(4)))

    assert node.log.term_of(Index(1)) == 3
    assert node.status().dropped[Dropped.IMPOSSIBLE] == 1


def test_late_duplicates_shorten_nothing_section_5_3() -> None:
    """Entries that come again, or late, are answered, and leave those behind them in place."""
    cluster = _three()
    cluster.crash(3)
    cluster.stuck_disks = {1}
    cluster.propose(1, "a")
    early = _appends(cluster, 2)
    cluster.propose(1, "b")
    cluster.settle()
    assert cluster.node(2).log.committed == 1

    for message in early:
        cluster.hand_over(message)
    answers = [message.through for message in cluster.wire if isinstance(message, AppendReply)]
    cluster.settle()

    assert answers == [3]
    assert cluster.node(2).log.last == 3


@pytest.mark.parametrize("seed", range(8))
def test_conflict_is_found_in_few_steps_section_5_3(seed: int) -> None:
    """With the term as a hint, one rejection a term of conflict is enough, however long it is."""
    rng = random.Random(seed)
    shared = [(1, command("s"))] * 3
    # What a leader has seen of some terms, and a follower of others.
    mine = [(term, b"") for term in (2, 4, 6) for _ in range(rng.randint(1, 30))]
    theirs = [(term, b"") for term in (3, 5) for _ in range(rng.randint(1, 30))]
    cluster = Cluster((1, 2, 3))
    for member, entries in ((1, mine), (2, theirs), (3, mine)):
        cluster.crash(member)
        cluster.disks[member].entries = shared + entries
        cluster.start(member)
    rejections = 0
    cluster.elect(3)
    for _ in range(50):
        cluster.tick(3)
        for member in (1, 2, 3):
            cluster.persist(member)
        rejections += sum(
            isinstance(message, AppendReply) and message.is_rejected and message.sender == 2
            for message in cluster.wire
        )
        cluster.deliver()

    cluster.check_logs()
    assert cluster.node(2).log.last == cluster.node(3).log.last
    assert cluster.leaders
    assert rejections <= 5


def test_nothing_is_acknowledged_before_it_is_durable_figure_2() -> None:
    """A follower answers for entries when its disk has them."""
    cluster = _three()
    cluster.stuck_disks = {2, 3}
    cluster.propose(1, "a")
    cluster.settle()
    before = cluster.node(1).log.committed

    cluster.stuck_disks = {3}
    cluster.settle()

    assert (before, cluster.node(1).log.committed) == (1, 2)


def test_answer_speaks_of_durable_entries_only_figure_2() -> None:
    """An answer to what is durable says nothing of what came after it and is not."""
    cluster = _three()
    cluster.propose(1, "a")
    first = _appends(cluster, 2)
    cluster.settle()
    cluster.stuck_disks = {1, 2, 3}
    cluster.propose(1, "b")
    cluster.deliver()
    for message in first:
        cluster.hand_over(message)

    assert [m.through for m in cluster.wire if isinstance(m, AppendReply)] == [2]


def test_entries_of_two_terms_are_acknowledged_as_they_become_durable_figure_2() -> None:
    """Between two work orders an answer says what the first of them has made durable."""
    cluster = Cluster((1, 2, 3))
    node = cluster.node(2)
    head = (MemberId(1), MemberId(2), Term(3))
    node.step(Append(*head, Index(0), Term(0), Term(1), Index(0), [command("a")]))
    node.step(Append(*head, Index(1), Term(1), Term(3), Index(0), [command("b")]))
    node.ready()
    node.persisted()
    between = node.take_messages()
    node.ready()
    node.persisted()

    assert [m.through for m in between if isinstance(m, AppendReply)] == [1]
    assert [m.through for m in node.take_messages() if isinstance(m, AppendReply)] == [2]


def test_leader_writes_while_it_sends_thesis_10_2_1() -> None:
    """Others get entries before the leader's disk has them, and can commit them without it."""
    cluster = _three()
    cluster.stuck_disks = {1}
    cluster.propose(1, "a")

    cluster.settle()

    assert cluster.disks[1].last == 1
    assert cluster.node(1).log.committed == 2
    assert cluster.applied(2) == [command("a")]


def test_only_what_is_durable_here_is_applied_thesis_10_2_1() -> None:
    """A member's applied state is never ahead of its own disk, so that a restart finds no gap."""
    cluster = _three()
    cluster.stuck_disks = {1}
    cluster.propose(1, "a")
    cluster.settle()
    before = cluster.applied(1)[:]

    cluster.stuck_disks = set()
    cluster.settle()

    assert (before, cluster.applied(1)) == ([], [command("a")])


def test_own_entry_counts_only_when_durable_thesis_10_2_1() -> None:
    """A leader that is half of a majority waits for its own disk."""
    cluster = _three()
    cluster.crash(3)
    cluster.stuck_disks = {1}
    cluster.propose(1, "a")
    cluster.settle()

    assert cluster.node(1).log.committed == 1


def test_entries_are_sent_ahead_of_answers_thesis_10_2_2() -> None:
    """A leader does not wait for an answer before it sends what comes next."""
    cluster = _three()
    for word in ("a", "b", "c"):
        cluster.propose(1, word)

    assert [message.prev_index for message in _appends(cluster, 2)] == [1, 2, 3]


def test_messages_are_bounded_in_bytes() -> None:
    """Entries that are too many for one message go in several; one that is too large goes alone."""
    cluster = _three(Settings(election_ticks=TICKS, append_bytes_max=10))
    cluster.propose(1, b"1234", b"1234", b"1", b"x" * 40, b"1")

    counts = [len(message.entries) for message in _appends(cluster, 2)]
    cluster.settle()

    assert counts == [2, 1, 1, 1]
    assert len(cluster.applied(3)) == 5


@pytest.mark.parametrize(
    "settings",
    [
        Settings(election_ticks=TICKS, append_bytes_max=3, in_flight_max=2),
        Settings(election_ticks=TICKS, append_bytes_max=3, in_flight_bytes_max=4),
    ],
)
def test_what_is_not_answered_is_bounded(settings: Settings) -> None:
    """Messages and bytes that a peer has not answered are bounded; answers let more through."""
    cluster = _three(settings)
    cluster.propose(1, *["ab"] * 20)

    sent = len(_appends(cluster, 2))
    cluster.settle()

    assert sent == 2
    assert len(cluster.applied(2)) == 20


def test_uncommitted_bytes_are_bounded() -> None:
    """A leader that commits nothing takes only so much, and goes on when it commits again."""
    cluster = _three(Settings(election_ticks=TICKS, uncommitted_bytes_max=100))
    cluster.isolate([1])
    cluster.propose(1, b"x" * 90)
    with pytest.raises(TooMuchUncommitted):
        cluster.propose(1, b"x" * 20)

    cluster.heal()
    cluster.pass_time(2)
    cluster.propose(1, b"x" * 200)
    cluster.settle()

    assert len(cluster.applied(3)) == 2
    assert cluster.node(1).status().uncommitted_bytes == 0


def test_lost_messages_are_sent_again_section_5_5() -> None:
    """Whatever is lost of entries and answers, heartbeats find it out."""
    cluster = _three()
    cluster.propose(1, "a")
    cluster.persist(1)
    cluster.wire.clear()
    cluster.propose(1, "b")
    cluster.wire.clear()

    cluster.pass_time(3)

    assert cluster.applied(3) == [command("a"), command("b")]


def test_late_answer_opens_no_window_section_5_3() -> None:
    """A leader that probes takes an answer that tells nothing for no answer to its probe."""
    cluster = _three()
    for word in ("a", "b"):
        cluster.propose(1, word)
        cluster.settle()
    leader = cluster.node(1)
    progress = leader._replication.peers[MemberId(2)]
    stored = progress.match
    late = AppendReply(
        MemberId(2), MemberId(1), leader.term, Index(stored - 1), False, Index(0), Term(0)
    )
    progress.probe(Index(stored + 1))

    leader.step(late)
    before = progress.sending
    leader.step(late._replace(through=stored))

    assert (before, progress.sending) == (Sending.PROBE, Sending.REPLICATE)


def test_lost_answers_free_the_window_section_5_5() -> None:
    """A window that is full of what came and was answered in vain opens again."""
    cluster = _three(Settings(election_ticks=TICKS, append_bytes_max=3, in_flight_max=2))
    cluster.propose(1, *["ab"] * 9)
    for _ in range(3):
        cluster.persist(1)
        cluster.deliver(lambda message: isinstance(message, Append))
        cluster.persist(2)
        cluster.persist(3)
        cluster.wire.clear()

    cluster.pass_time(6)

    assert len(cluster.applied(2)) == 9


def test_news_of_a_commit_is_not_answered_section_5_3() -> None:
    """What is committed need not be acknowledged; a question without news is answered."""
    cluster = _three()
    cluster.propose(1, "a")
    for member in (1, 2):
        cluster.persist(member)
        cluster.deliver(lambda message: isinstance(message, Append) and bool(message.entries))
    cluster.persist(2)
    cluster.deliver(lambda message: isinstance(message, AppendReply))
    (news,) = [message for message in cluster.wire if message.to == 2]
    follower = cluster.node(2)

    follower.step(news)
    told = follower.log.committed, follower.take_messages()
    follower.step(news)

    assert isinstance(news, Append)
    assert told == (news.committed, [])
    assert [type(message) for message in follower.take_messages()] == [AppendReply]


def test_heartbeat_never_commits_what_is_not_verified_section_5_3() -> None:
    """A commit index whose entry is another here, or not here, is not taken."""
    cluster = Cluster((1, 2, 3))
    cluster.disks[2].entries = [(1, command("mine"))] * 3
    cluster.crash(2)
    cluster.start(2)

    for index, term in ((3, 2), (4, 1), (9, 4)):
        cluster.hand_over(Heartbeat(MemberId(1), MemberId(2), Term(4), Index(index), Term(term), 0))

    assert cluster.node(2).log.committed == 0


def test_heartbeat_tells_who_restarted_what_is_committed_section_5_3() -> None:
    """A member that has everything and forgot what was committed learns it without an entry."""
    cluster = _three()
    cluster.propose(1, "a")
    cluster.settle()
    cluster.crash(3)
    cluster.start(3)
    before = cluster.node(3).log.committed

    cluster.tick(1)
    cluster.deliver()

    assert before < cluster.node(3).log.committed == 2
    assert cluster.applied(3) == [command("a")]

"""One member's part in consensus, by the sections of the Raft paper that it obeys."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.raft.quorum import agreed, has_majority
from kvsecure.core.raft.refusals import NotLeader
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.model.errors import Broken
from kvsecure.model.ids import Index, MemberId, Term

_US = MemberId(7)
_TICKS = 10


def _node(
    *,
    voters: Sequence[int] = (7,),
    log: RaftLog | None = None,
    hard: HardState | None = None,
    seed: int = 1,
) -> Node:
    return Node(
        _US,
        log or RaftLog(Index(0), Term(0)),
        hard or HardState(Term(0), MemberId(0), Index(0)),
        Configuration(tuple(MemberId(voter) for voter in voters)),
        Settings(election_ticks=_TICKS),
        random.Random(seed),
    )


def _persist(node: Node) -> list[Ready]:
    """Carry out work orders until there are none."""
    done = []
    while (ready := node.ready()) is not None:
        done.append(ready)
        node.persisted()
    return done


def _leader() -> Node:
    node = _node()
    node.tick()
    _persist(node)
    return node


def test_single_voter_leads_after_one_tick_section_5_2() -> None:
    """A voter without others has nobody to wait for, and leads once its vote is durable."""
    node = _node()

    node.tick()
    first = node.ready()

    assert first is not None
    assert first.hard_state == HardState(Term(1), _US, Index(0))
    assert first.entries == []
    assert node.role is Role.CANDIDATE
    node.persisted()
    assert (node.role, node.leader) == (Role.LEADER, _US)


def test_vote_counts_only_once_durable_section_5_2() -> None:
    """A vote of an earlier term that becomes durable late does not win a later election."""
    node = _node()
    node.tick()
    assert node.ready() is not None
    for _ in range(2 * _TICKS):
        node.tick()
    assert node.term > 1

    node.persisted()

    assert node.role is Role.CANDIDATE
    later = node.ready()
    assert later is not None
    assert later.hard_state.term == node.term
    node.persisted()
    assert node.role is Role.LEADER
    assert node.log.last_term == node.term


def test_leader_begins_with_an_entry_of_its_term_section_8() -> None:
    """A new leader appends an empty entry of its own term, to commit what came before."""
    node = _leader()

    assert node.log.last_term == node.term
    assert node.log.entries(Index(0), node.log.last) == [b""]


def test_old_entries_commit_only_with_one_of_own_term_section_5_4_2() -> None:
    """Entries of earlier terms are not committed by counting, only below one of the own term."""
    log = RaftLog(Index(0), Term(0))
    log.append(Term(3), [b"a", b"b"])
    log.durable = log.last
    node = _node(log=log, hard=HardState(Term(3), _US, Index(0)))

    node.tick()
    node.ready()
    node.persisted()

    assert node.role is Role.LEADER
    assert node.log.committed == 0
    _persist(node)
    assert node.log.committed == 3


def test_nothing_commits_before_it_is_durable_section_5_3() -> None:
    """An entry that has not been written is not committed, however long it waits."""
    node = _leader()
    node.propose([b"a"])
    ready = node.ready()

    assert ready is not None
    assert ready.entries == [b"a"]
    assert node.log.committed == 1
    node.persisted()
    assert node.log.committed == 2


def test_work_order_is_one_at_a_time() -> None:
    """While a work order is out there is no other; what came since is in the next."""
    node = _leader()
    node.propose([b"a"])
    first = node.ready()
    node.propose([b"b"])
    node.propose([b"c"])

    assert node.ready() is None
    node.persisted()
    second = node.ready()

    assert first is not None
    assert second is not None
    assert (second.first, second.entries) == (first.first + 1, [b"b", b"c"])


def test_work_order_holds_entries_of_one_term() -> None:
    """Entries of two terms are two work orders: a frame has one term."""
    log = RaftLog(Index(0), Term(0))
    log.append(Term(1), [b"a"])
    node = _node(log=log, hard=HardState(Term(1), _US, Index(0)))
    node.tick()

    orders = _persist(node)

    assert [(order.term, order.entries) for order in orders] == [(1, [b"a"]), (2, [b""])]


def test_persisted_without_order_is_broken() -> None:
    """A report for a work order that is not out is an error of ours."""
    with pytest.raises(Broken):
        _node().persisted()


def test_follower_cannot_propose_section_5_1() -> None:
    """Only a leader takes entries."""
    with pytest.raises(NotLeader):
        _node().propose([b"a"])


def test_reads_wait_for_an_entry_of_own_term_thesis_6_4() -> None:
    """A leader answers no read before it has committed an entry of its own term."""
    node = _node()
    before = node.read_index()
    node.tick()
    node.ready()
    node.persisted()
    leading = node.read_index()

    _persist(node)

    assert (before, leading) == (None, None)
    assert node.read_index() == node.log.committed == 1


def test_read_index_covers_what_was_acknowledged_thesis_6_4() -> None:
    """A read after a commit has to see it."""
    node = _leader()
    node.propose([b"a", b"b"])
    _persist(node)

    assert node.read_index() == 3


@given(restarts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_terms_rise_across_restarts_section_5_1(restarts: list[int]) -> None:
    """Every start is a term of its own, higher than any before, whatever was durable."""
    log, hard = RaftLog(Index(0), Term(0)), HardState(Term(0), MemberId(0), Index(0))
    terms = []
    for proposals in restarts:
        node = _node(log=log, hard=hard)
        node.tick()
        for _ in range(proposals):
            _persist(node)
            node.propose([b"x"])
        orders = _persist(node)
        terms.append(node.term)
        hard = orders[-1].hard_state if orders else HardState(node.term, node.vote, Index(0))
        log = node.log

    assert terms == sorted(set(terms))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_one_voice_of_several_is_no_majority_section_5_2(count: int) -> None:
    """A voter among others does not lead by its own vote, and confirms no read."""
    node = _node(voters=[7, *range(20, 19 + count)])
    for _ in range(2 * _TICKS):
        node.tick()
    _persist(node)

    assert node.role is Role.PRE_CANDIDATE
    assert node.read_index() is None


@pytest.mark.parametrize("seed", range(20))
def test_election_timeout_is_drawn_between_one_and_two_section_5_2(seed: int) -> None:
    """A voter among others waits at least the election timeout and less than twice of it."""
    node = _node(voters=[7, 8, 9], seed=seed)
    waited = 0
    while node.role is Role.FOLLOWER:
        node.tick()
        waited += 1

    assert _TICKS <= waited < 2 * _TICKS


def test_member_without_a_vote_never_stands_section_6() -> None:
    """Whoever is not one of those whose votes count waits for a leader for ever."""
    node = _node(voters=[8])
    for _ in range(10 * _TICKS):
        node.tick()

    assert (node.role, node.term) == (Role.FOLLOWER, 0)
    assert node.take_messages() == []


@settings(deadline=None)
@given(
    stored=st.dictionaries(st.integers(1, 5), st.integers(0, 9)),
    voters=st.sets(st.integers(1, 5), min_size=1),
)
def test_agreed_index_is_what_a_majority_stores_section_5_3(
    stored: dict[int, int], voters: set[int]
) -> None:
    """The agreed index is the highest one that more than half of the voters store."""
    match = {MemberId(member): Index(index) for member, index in stored.items()}
    members = [MemberId(voter) for voter in voters]

    index = agreed(match, members, Index(0))

    def holders(index: int) -> list[MemberId]:
        return [m for m in members if match.get(m, 0) >= index]

    assert has_majority(holders(index), members)
    assert not has_majority(holders(index + 1), members)

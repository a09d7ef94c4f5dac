"""How much of the log stays in memory for members that are behind."""

import random

from kvsecure.core.log_memory import LogMemory
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node
from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import Index, MemberId, Term
from kvsecure.model.limits import LOG_KEPT_BYTES_MAX


def _node(voters: int, offset: int, entries: list[bytes]) -> Node:
    """Return a member that has stored and applied some entries."""
    log = RaftLog(Index(offset), Term(1))
    log.append(Term(1), entries)
    log.durable = log.applied = log.last
    log.commit(log.last)
    members = tuple(MemberId(number) for number in range(1, voters + 1))
    hard_state = HardState(Term(1), MemberId(0), log.last)
    return Node(members[0], log, hard_state, Configuration(members), Settings(), random.Random(1))


def test_member_that_is_alone_keeps_nothing() -> None:
    """Where nobody can be behind, everything that the tables hold is forgotten."""
    node = _node(1, 5, [b"\x01x"] * 10)

    LogMemory(node).flushed(Index(12))

    assert node.log.offset == 12


def test_newest_entries_are_kept_up_to_a_bound() -> None:
    """Entries stay while they are together within the bound, and the oldest go first."""
    size = LOG_KEPT_BYTES_MAX // 10
    node = _node(3, 5, [bytes([1]) * size] * 15)
    memory = LogMemory(node)

    for through in range(6, 21):
        memory.flushed(Index(through))

    assert node.log.last - node.log.offset == 10


def test_first_entries_of_a_cluster_are_not_kept() -> None:
    """Nobody is sent a log from its first entry on: what is founded is not in it."""
    node = _node(3, 0, [b"\x01x"] * 10)

    LogMemory(node).flushed(Index(4))

    assert node.log.offset == 4

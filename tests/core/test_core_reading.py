"""Who waits to read, and when they are told."""

import random

import pytest

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node
from kvsecure.core.raft.settings import Settings
from kvsecure.core.reading import Reading
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index, MemberId, Term


def _leader() -> Node:
    """Return a member that is alone, and leads."""
    member = MemberId(1)
    hard_state = HardState(Term(0), MemberId(0), Index(0))
    log = RaftLog(Index(0), Term(0))
    node = Node(member, log, hard_state, Configuration((member,)), Settings(), random.Random(1))
    node.tick()
    while node.ready() is not None:
        node.persisted()
    return node


def test_reader_is_told_when_its_index_is_applied_and_not_before() -> None:
    """Who asks is told once everything that was committed when it asked is applied."""
    node = _leader()
    reading, told = Reading(node), []
    reading.add(0, lambda: told.append(reading.is_fresh), None)
    reading.ask()
    reading.confirm()

    assert not reading.tell(Index(0))
    assert reading.tell(node.log.committed)

    assert told == [True]
    assert not reading.is_fresh
    assert reading.is_empty


def test_reader_that_fails_leaves_the_others_their_turn() -> None:
    """What goes wrong with one who is told is its own affair: the others are told next."""
    node = _leader()
    reading, told = Reading(node), []

    def fails() -> None:
        raise ZeroDivisionError

    reading.add(0, fails, None)
    reading.add(0, lambda: told.append(1), None)
    reading.ask()
    reading.confirm()

    with pytest.raises(ZeroDivisionError):
        reading.tell(node.log.committed)
    assert not reading.is_fresh
    assert reading.tell(node.log.committed)

    assert told == [1]


def test_reader_that_waits_too_long_is_refused_and_others_wait_on() -> None:
    """Those who wait since before a time are refused, wherever they are, but for the patient."""
    node = _leader()
    reading, refused, told = Reading(node), [], []

    def add(name: str, since_ns: int, *, is_patient: bool = False) -> None:
        fail = None if is_patient else lambda why: refused.append((name, why.failure))
        reading.add(since_ns, lambda: told.append(name), fail)

    add("confirmed", 1)
    add("patient", 1, is_patient=True)
    reading.ask()
    reading.confirm()
    add("collected", 2)
    add("young", 9)

    assert reading.expire(5)
    assert not reading.expire(5)
    reading.ask()
    reading.confirm()
    reading.tell(node.log.committed)

    assert refused == [("collected", Failure.TIMEOUT), ("confirmed", Failure.TIMEOUT)]
    assert told == ["patient", "young"]
    assert isinstance(Refused(Failure.TIMEOUT), Exception)

"""Standing alone: what a member keeps of its log, and that nobody else has a say any more."""

import time
from pathlib import Path
from random import Random
from typing import Final

import pytest
from core.engine_lab import KEK, WANTED, value_of
from core.stored_tables import MemoryTables, reload

from kvsecure.core.entry import encode, envelope
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.core.replica import Replica, decode_frame
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT, SYSTEM_TENANT, Index, MemberId, TenantId, Term
from kvsecure.proto import kv_pb2, state_pb2
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.standing_alone import Alone, stand_alone
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import NO_LINK, Tail, frames_of, list_segments

_OWN: Final = WANTED.member
_OTHERS: Final = (MemberId(7), MemberId(0xFFFF_0000))
_ALL: Final = Configuration(tuple(sorted((_OWN, *_OTHERS))))
_NEW: Final = Tail(0, NO_LINK, 1, 0)


def _entry(
    command: kv_pb2.PutRequest | state_pb2.MemberAdd | state_pb2.MemberRemove,
    tenant: TenantId = SYSTEM_TENANT,
) -> bytes:
    caller = envelope(Caller(tenant, Origin.SYSTEM, "", 0))
    return encode(type(command), caller, command.SerializeToString())


def _put(key: bytes) -> bytes:
    return _entry(kv_pb2.PutRequest(key=key, value=key), DEFAULT_TENANT)


def _adding(member: int) -> bytes:
    record = state_pb2.Member(id=member, peer_urls=[f"https://m{member}:2380"])
    return _entry(state_pb2.MemberAdd(member=record, learners_max=1))


def _state(learners: tuple[int, ...] = ()) -> State:
    state = reload(MemoryTables())
    state.found(
        [
            state_pb2.Member(
                id=each,
                name=f"m{each}",
                peer_urls=[f"https://m{each}:2380"],
                is_learner=each in learners,
            )
            for each in _ALL.voters
        ]
    )
    return state


class _Member:
    """A member that was read back: its log is durable, and a part of it known to be committed."""

    def __init__(self, path: Path, state: State, entries: list[bytes], committed: int) -> None:
        self.directory = DataDirectory(path / "state", WANTED, KEK)
        self.state = state
        log = RaftLog(Index(0), Term(0))
        log.append(Term(4), entries)
        log.durable = log.last
        self.before = HardState(Term(6), _OTHERS[0], Index(committed))
        self.replica = Replica(self.node(log, self.before), state)

    def node(self, log: RaftLog, durable: HardState) -> Node:
        return Node(_OWN, log, durable, _ALL, Settings(), Random(3))

    def stand_alone(self, replica: Replica | None = None, tail: Tail = _NEW) -> Alone:
        return stand_alone(
            self.directory, replica or self.replica, tail, self.node, time.monotonic_ns()
        )


def _written(member: _Member) -> int:
    """Return how many frames are in the log."""
    place = member.directory.place(Kind.WAL)
    return sum(
        len(list(frames_of(place, member.directory.keyring, segment)))
        for segment in list_segments(place)
    )


@pytest.mark.parametrize("committed", [0, 1, 3])
def test_member_that_stands_alone_keeps_all_of_its_log_and_nobody_else(
    tmp_path: Path, committed: int
) -> None:
    """What it did not know to be committed may have been acknowledged; it leads at once."""
    keys = [b"a", b"b", b"c"]
    member = _Member(tmp_path, _state(), [_put(key) for key in keys], committed)

    alone = member.stand_alone()

    assert alone.left_behind == tuple(sorted(_OTHERS))
    assert [value_of(member.state, key) for key in keys] == keys
    assert [each.id for each in member.state.members] == [_OWN]
    assert member.state.members.removed == frozenset(_OTHERS)
    node = alone.replica.node
    assert node.configuration == Configuration((_OWN,))
    node.tick()
    while node.ready() is not None:
        node.persisted()
    assert (node.role, node.log.committed) == (Role.LEADER, node.log.last)


def test_what_makes_a_member_stand_alone_is_in_its_log(tmp_path: Path) -> None:
    """A start without the flag finds the same: one frame, of a term that nobody else has led."""
    member = _Member(tmp_path, _state(), [_put(b"a")], 0)

    alone = member.stand_alone()

    place = member.directory.place(Kind.WAL)
    (segment,) = list_segments(place)
    (frame,) = frames_of(place, member.directory.keyring, segment)
    hard_state, term, entries, _ = decode_frame(frame.text, frame.count)
    assert (frame.first, frame.count) == (2, 3)
    assert term == hard_state.term == member.before.term + 1
    assert (hard_state.vote, hard_state.committed) == (_OWN, 4)
    assert alone.tail.following == 5
    log = RaftLog(Index(0), Term(0))
    log.append(Term(4), [_put(b"a")])
    log.append(term, entries)
    log.durable = log.last
    again = Replica(member.node(log, hard_state), _state())
    for _ in again.apply_committed(0):
        pass
    assert [each.id for each in again.state.members] == [_OWN]
    assert again.node.configuration == Configuration((_OWN,))


def test_members_that_the_tail_of_the_log_brings_are_left_behind_as_well(tmp_path: Path) -> None:
    """Neither a member nor a joint step that was never committed comes back."""
    joint = Configuration(voters=(*_ALL.voters, MemberId(9)), outgoing=_ALL.voters).encode()
    member = _Member(tmp_path, _state(), [_put(b"a"), _adding(9), joint], 1)

    alone = member.stand_alone()

    assert alone.left_behind == tuple(sorted((*_OTHERS, 9)))
    assert alone.replica.node.configuration == Configuration((_OWN,))


def test_learner_that_stands_alone_votes(tmp_path: Path) -> None:
    """Whatever the last one was, it has to lead now."""
    member = _Member(tmp_path, _state(learners=(_OWN,)), [_put(b"a")], 0)

    member.stand_alone()

    assert member.state.members.voters == (_OWN,)


def test_member_that_is_alone_already_writes_nothing(tmp_path: Path) -> None:
    """A start that is told again to stand alone changes nothing."""
    member = _Member(tmp_path, _state(), [_put(b"a")], 0)
    alone = member.stand_alone()
    written = _written(member)

    again = member.stand_alone(alone.replica, alone.tail)

    assert (again.left_behind, again.tail) == ((), alone.tail)
    assert _written(member) == written == 1


@pytest.mark.parametrize(
    ("state", "entries", "why"),
    [
        (reload(MemoryTables()), [], "never sent the cluster's state"),
        (_state(), [_entry(state_pb2.MemberRemove(id=_OWN))], "was removed from its cluster"),
    ],
)
def test_member_that_is_none_cannot_stand_alone(
    tmp_path: Path, state: State, entries: list[bytes], why: str
) -> None:
    """Without a state, or in one that has removed it, there is nothing to go on with."""
    member = _Member(tmp_path, state, entries, 0)

    with pytest.raises(StorageError, match=why):
        member.stand_alone()

    assert not list_segments(member.directory.place(Kind.WAL))

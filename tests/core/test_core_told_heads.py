"""What members have told of their audit trails, as the log makes it."""

import pytest
from core.stored_tables import MemoryTables, flush, reload
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.apply import apply
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import state_pb2

_SYSTEM = Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0)


def _state() -> State:
    state = State(MemoryTables())
    state.found([state_pb2.Member(id=member, peer_urls=[f"u{member}"]) for member in (1, 2)])
    return state


def _do(state: State, *commands: Message) -> None:
    for command in commands:
        apply(state, _SYSTEM, command, 0)


def _tell(seq: int, *, member: int = 1, letter: bytes = b"h") -> state_pb2.AuditHeadTell:
    return state_pb2.AuditHeadTell(
        member_id=member, seq=seq, hash=letter * 32, signature=b"s" * 64, time_s=seq
    )


def _miss(seq: int) -> state_pb2.AuditHeadMiss:
    return state_pb2.AuditHeadMiss(member_id=1, seq=seq)


@given(seqs=st.lists(st.integers(1, 20), min_size=1, max_size=10))
def test_numbers_only_go_up(seqs: list[int]) -> None:
    """In whatever order heads come, the one with the highest number stays, as first told."""
    state = _state()

    for place, seq in enumerate(seqs):
        _do(state, _tell(seq, letter=b"%c" % place))

    told = state.heads.of(1)
    assert told is not None
    assert told.seq == max(seqs)
    assert told.hash == b"%c" % seqs.index(max(seqs)) * 32


def test_head_is_stored_with_all_that_was_told() -> None:
    """It is there after a restart, and so is that it was found missing."""
    state, tables = _state(), MemoryTables()
    _do(state, _tell(3), _tell(4, member=2), _miss(3))
    flush(state, tables)

    again = reload(tables)

    assert list(again.heads) == list(state.heads)
    assert [(head.member_id, head.seq, head.is_missing) for head in again.heads] == [
        (1, 3, True),
        (2, 4, False),
    ]
    assert again.heads.missing_count == 1


@pytest.mark.parametrize("seq", [2, 4])
def test_only_what_was_told_last_can_be_found_missing(seq: int) -> None:
    """What is said of another head is of another life of the member."""
    state = _state()

    _do(state, _tell(3), _miss(seq))

    assert state.heads.missing_count == 0


def test_who_tells_more_has_what_it_told() -> None:
    """A trail that was mended is missing nothing any more."""
    state = _state()

    _do(state, _tell(3), _miss(3), _tell(4))

    assert state.heads.missing_count == 0


@pytest.mark.parametrize(
    "command",
    [
        _tell(3, member=9),
        state_pb2.AuditHeadTell(member_id=1, seq=3, hash=b"h", signature=b"s" * 64),
        state_pb2.AuditHeadTell(member_id=1, seq=3, hash=b"h" * 32, signature=b"s"),
        _tell(0),
        _miss(3),
    ],
    ids=["nobody's", "no hash", "no signature", "no number", "nothing told"],
)
def test_what_is_no_head_is_not_taken(command: Message) -> None:
    """Nothing is kept of somebody who is no member, or of what pins no record."""
    state = _state()

    _do(state, command)

    assert list(state.heads) == []

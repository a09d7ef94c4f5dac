"""What a member asks of the leader for its clients, as bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.raft.messages import NUMBER_MAX
from kvsecure.core.relay_codec import (
    _FAILURES,
    RELAY_ENTRIES_MAX,
    RELAYED,
    Answer,
    Ask,
    DamagedRelay,
    Declined,
    Propose,
    Proposed,
    Reason,
    decode,
    encode,
)
from kvsecure.model.errors import Failure
from kvsecure.model.ids import Index, TenantId, Term
from kvsecure.proto.lease_pb2 import LeaseKeepAliveRequest, LeaseTimeToLiveRequest
from kvsecure.proto.state_pb2 import LearnerReadiness, MarkRequest, ToldHeadRequest

_NUMBERS = st.integers(0, 2**64 - 1)
_POSSIBLE = st.integers(0, NUMBER_MAX)
_REQUESTS = st.one_of(
    st.builds(LeaseKeepAliveRequest, ID=st.integers(-(2**63), 2**63 - 1)),
    st.builds(LeaseTimeToLiveRequest, ID=st.integers(-(2**63), 2**63 - 1), keys=st.booleans()),
    st.builds(LearnerReadiness, id=st.integers(0, 2**64 - 1)),
    st.builds(MarkRequest, index=st.integers(0, 2**64 - 1), versions=st.booleans()),
    st.builds(ToldHeadRequest, member_id=st.integers(0, 2**64 - 1)),
)
_TOLD = st.one_of(st.binary(max_size=40), st.sampled_from(list(_FAILURES.values())))
_SAID = st.one_of(
    st.builds(Propose, _NUMBERS, st.lists(st.binary(max_size=30), min_size=1, max_size=5)),
    st.builds(Proposed, _NUMBERS, _POSSIBLE.map(Term), _POSSIBLE.map(Index)),
    st.builds(Declined, _NUMBERS, st.sampled_from(Reason)),
    st.builds(Ask, _NUMBERS, st.integers(0, 2**32 - 1).map(TenantId), _REQUESTS),
    st.builds(Answer, _NUMBERS, _NUMBERS, _TOLD),
)


@given(_SAID)
def test_what_is_said_is_read_as_it_was_said(said: Any) -> None:
    """Whatever is encoded is decoded to the same, and begins with the byte that tells it apart."""
    text = encode(said)

    assert decode(text) == said
    assert text[0] == RELAYED


@given(_SAID, st.data())
def test_any_bytes_are_something_that_can_be_said_or_damaged(said: Any, data: Any) -> None:
    """Bytes that were changed, cut or made longer are something else that can be said, or none."""
    text = bytearray(encode(said))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for changed in (bytes(text), bytes(text[:cut]), bytes(text) + b"x"):
        try:
            read = decode(changed)
        except DamagedRelay:
            continue

        assert decode(encode(read)) == read


@pytest.mark.parametrize("entries", [[], [b""] * (RELAY_ENTRIES_MAX + 1)], ids=["none", "many"])
def test_proposal_has_a_bounded_number_of_entries(entries: list[bytes]) -> None:
    """What proposes nothing, or too much at once, is not read."""
    text = encode(Propose(1, entries))

    with pytest.raises(DamagedRelay):
        decode(text)


def test_failure_without_a_number_of_its_own_is_told_as_one_that_has() -> None:
    """A leader that fails in a way that has no number tells the other member to try again."""
    text = encode(Answer(1, 2, Failure.CORRUPT))

    assert decode(text) == Answer(1, 2, Failure.TIMEOUT)

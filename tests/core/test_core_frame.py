"""Frames of the log: what is read back is what was written, or nothing."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.raft.node import HardState, Ready
from kvsecure.core.replica import DamagedFrame, decode_frame, encode_frame
from kvsecure.model.ids import Index, MemberId, Term

_NUMBERS: Final = st.integers(min_value=0, max_value=2**64 - 1)


@st.composite
def _orders(draw: st.DrawFn) -> Ready:
    term, vote, committed, first, of = (draw(_NUMBERS) for _ in range(5))
    return Ready(
        HardState(Term(term), MemberId(vote), Index(committed)),
        Index(first),
        Term(of),
        draw(st.lists(st.binary(max_size=40), max_size=5)),
    )


@given(ready=_orders(), carried=st.binary(max_size=60))
def test_frame_reads_back(ready: Ready, carried: bytes) -> None:
    """The entries, the state that must survive, and what it carries for others come back."""
    frame = decode_frame(encode_frame(ready, carried), len(ready.entries))

    assert frame.hard_state == ready.hard_state
    assert (frame.term, frame.entries, frame.carried) == (ready.term, ready.entries, carried)


@given(ready=_orders(), cut=st.integers(min_value=1, max_value=400))
def test_cut_frame_is_damage(ready: Ready, cut: int) -> None:
    """A frame without its end never passes for a shorter one, wherever it was cut."""
    text = encode_frame(ready)
    text = text[: max(0, len(text) - cut)]

    with pytest.raises(DamagedFrame):
        decode_frame(text, len(ready.entries))


@given(text=st.binary(max_size=200), count=st.integers(min_value=0, max_value=20))
def test_any_bytes_are_a_frame_or_damage(text: bytes, count: int) -> None:
    """No bytes raise anything else."""
    try:
        frame = decode_frame(text, count)
    except DamagedFrame:
        return

    assert len(frame.entries) == count

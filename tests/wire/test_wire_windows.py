"""The receive window: what a peer was promised, and when it is promised more (section 6.9)."""

from hypothesis import given
from hypothesis import strategies as st

from kvsecure.wire.h2.windows import ReceiveWindow


@given(st.integers(1, 2**31 - 1), st.lists(st.integers(0, 2**24), max_size=50))
def test_window_never_promises_more_than_its_size(size: int, lengths: list[int]) -> None:
    """What may still come is never more than the size, and what came is given back exactly."""
    window = ReceiveWindow(size)
    promised = size
    for length in lengths:
        taken = window.take(length)
        promised -= length

        assert taken is (promised >= 0)

        if not taken:
            return
        promised += window.reopen()

        assert promised == window.left
        assert 0 <= promised <= size


@given(st.integers(2, 2**31 - 1))
def test_window_reopens_at_half(size: int) -> None:
    """Many frames are answered with one update: not before half of the window is used."""
    window = ReceiveWindow(size)
    window.take((size - 1) // 2)

    early = window.reopen()
    window.take(1)

    assert early == 0
    assert window.reopen() == (size - 1) // 2 + 1


def test_window_takes_exactly_its_size() -> None:
    """The last promised byte is taken, and the next one is too much."""
    window = ReceiveWindow(10)

    assert window.take(10)
    assert not window.take(1)

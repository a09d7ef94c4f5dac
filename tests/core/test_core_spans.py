"""Spans by the keys they hold, against asking every span."""

import itertools
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvsecure.core.spans import SpanMap
from kvsecure.model.keys import Span

# Few bytes, so that spans touch, nest and overlap, and keys lie on their edges.
_ALL_KEYS: Final = [
    bytes(key) for size in range(3) for key in itertools.product(range(4), repeat=size)
]
_KEYS: Final = st.sampled_from(_ALL_KEYS)
_SPANS: Final = st.builds(Span, _KEYS, st.one_of(st.none(), _KEYS))


class _SpanMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.spans: SpanMap[Span] = SpanMap()
        self.model: set[Span] = set()

    @rule(spans=st.lists(_SPANS, max_size=5))
    def add(self, spans: list[Span]) -> None:
        """Add spans, those without any key among them too."""
        for span in spans:
            if span not in self.model:
                self.spans.add(span, span)
                self.model.add(span)

    @rule(data=st.data(), count=st.integers(1, 4))
    def remove(self, data: st.DataObject, count: int) -> None:
        """Remove some of them."""
        for _ in range(count):
            if self.model:
                span = data.draw(st.sampled_from(sorted(self.model, key=repr)))
                self.spans.remove(span)
                self.model.remove(span)

    @invariant()
    def keys_are_found_where_they_lie(self) -> None:
        """Compare with asking every span; each is found once."""
        for key in _ALL_KEYS:
            found = self.spans.holding(key)
            assert len(found) == len(set(found))
            assert set(found) == {span for span in self.model if span.holds(key)}
        assert set(self.spans.values()) == self.model
        assert len(self.spans) == len(self.model)


_SpanMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_spans_are_found_as_by_asking_each: Any = _SpanMachine.TestCase


@settings(max_examples=20, deadline=None)
@given(st.integers(200, 400), st.randoms(use_true_random=False))
def test_key_is_found_among_disjoint_spans_in_few_steps(count: int, random: Any) -> None:
    """Looking for a key among many spans compares it with a few of them."""
    spans: SpanMap[int] = SpanMap()
    order = list(range(count))
    random.shuffle(order)
    for number in order:
        spans.add(Span(b"%05d/" % number, b"%05d0" % number), number)

    looked = _Counted(b"%05d/key" % (count // 2))

    assert spans.holding(looked) == [count // 2]
    # Twice the depth that a tree of so many has on average is about 40.
    assert looked.comparisons < count


class _Counted(bytes):
    """A key that counts what it is compared with."""

    comparisons = 0

    def _note(self) -> None:
        self.comparisons += 1

    def __lt__(self, other: bytes) -> bool:
        self._note()
        return bytes.__lt__(self, other)

    def __gt__(self, other: bytes) -> bool:
        self._note()
        return bytes.__gt__(self, other)

    def __le__(self, other: bytes) -> bool:
        self._note()
        return bytes.__le__(self, other)

    def __ge__(self, other: bytes) -> bool:
        self._note()
        return bytes.__ge__(self, other)

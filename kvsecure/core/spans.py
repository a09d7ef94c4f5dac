"""Spans by the keys they hold: which of ten thousand a key lies in, without asking all of them.

Owns: one value for each span, and finding the values of all spans that hold a key.
Never: knows what a value is.
Follows: an interval tree that is kept balanced as a treap: nodes in the order of their starts, each
    with how far the spans below it reach.
Keeps: a span is found by every key that it holds and by no other; finding n of them takes about
    n times the depth, which grows with the logarithm of their number.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar, final

from sortedcontainers import SortedDict

from kvsecure.model.keys import Span

__all__ = ["SpanMap"]

T = TypeVar("T")


@final
class _Node(Generic[T]):
    """One span that has an end, above those with lower priorities."""

    __slots__ = ("end", "left", "priority", "reach", "right", "start", "value")

    def __init__(self, start: bytes, end: bytes, value: T) -> None:
        self.start = start
        self.end = end
        self.value = value
        # Nobody outside can tell what it is: the hashes of bytes are salted by the process.
        self.priority = hash((start, end))
        # The largest end here and below.
        self.reach = end
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None

    def measure(self) -> None:
        """Note how far it reaches after something below has changed."""
        reach = self.end
        if self.left is not None and self.left.reach > reach:
            reach = self.left.reach
        if self.right is not None and self.right.reach > reach:
            reach = self.right.reach
        self.reach = reach


@final
class SpanMap(Generic[T]):
    """Values by span."""

    __slots__ = ("_by_span", "_open", "_root")

    def __init__(self) -> None:
        """Make an empty one."""
        self._by_span: dict[Span, T] = {}
        self._root: _Node[T] | None = None
        # Spans without an end, by their starts: every key from there on lies in them.
        self._open: SortedDict[bytes, T] = SortedDict()

    def __len__(self) -> int:
        return len(self._by_span)

    def get(self, span: Span) -> T | None:
        """Return the value of exactly this span."""
        return self._by_span.get(span)

    def values(self) -> Iterable[T]:
        """Return the values of all spans."""
        return self._by_span.values()

    def add(self, span: Span, value: T) -> None:
        """Give a span that has none a value."""
        self._by_span[span] = value
        if span.end is None:
            self._open[span.start] = value
        elif not span.empty:
            node = _Node(span.start, span.end, value)
            before, behind = _split(self._root, span.start, span.end)
            self._root = _merge(_merge(before, node), behind)

    def remove(self, span: Span) -> None:
        """Forget a span that has a value."""
        del self._by_span[span]
        if span.end is None:
            del self._open[span.start]
        elif not span.empty:
            self._root = _without(self._root, span.start, span.end)

    def holding(self, key: bytes) -> list[T]:
        """Return the values of all spans that hold a key, in no order."""
        found: list[T] = []
        if self._open:
            found += [self._open[start] for start in self._open.irange(maximum=key)]
        stack = [] if self._root is None else [self._root]
        while stack:
            node = stack.pop()
            if node.reach <= key:
                continue
            if node.start <= key:
                if node.end > key:
                    found.append(node.value)
                if node.right is not None:
                    stack.append(node.right)
            if node.left is not None:
                stack.append(node.left)
        return found


def _split(
    node: _Node[T] | None, start: bytes, end: bytes
) -> tuple[_Node[T] | None, _Node[T] | None]:
    """Return what is before a span, and what is behind it."""
    if node is None:
        return None, None
    if (node.start, node.end) < (start, end):
        node.right, behind = _split(node.right, start, end)
        node.measure()
        return node, behind
    before, node.left = _split(node.left, start, end)
    node.measure()
    return before, node


def _merge(before: _Node[T] | None, behind: _Node[T] | None) -> _Node[T] | None:
    """Return what holds both; everything in the one is before everything in the other."""
    if before is None or behind is None:
        return before or behind
    if before.priority > behind.priority:
        before.right = _merge(before.right, behind)
        before.measure()
        return before
    behind.left = _merge(before, behind.left)
    behind.measure()
    return behind


def _without(node: _Node[T] | None, start: bytes, end: bytes) -> _Node[T] | None:
    """Return what is left without a span."""
    if node is None:
        return None
    if (node.start, node.end) == (start, end):
        return _merge(node.left, node.right)
    if (start, end) < (node.start, node.end):
        node.left = _without(node.left, start, end)
    else:
        node.right = _without(node.right, start, end)
    node.measure()
    return node

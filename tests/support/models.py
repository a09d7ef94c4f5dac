"""What one copy of a thing does, for histories of clients.

    REGISTER    put(value), get() = value, swap(old, new) = whether it was old
    LIST        append(value), get() = all values in order
    SET         add(value), take(value) = whether it was there, get() = all values
    LOCK        acquire(owner) = its number or None, release(owner) and expire(owner) = whether it
                was held by it, holder() = its number or None

Owns: these four.
Never: keeps a state; each is a function of a state and an operation.
Keeps: the number of a lock that is acquired is above all before it, so that who has lost it can be
    told from who has it.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, final

from support.linearizability import IMPOSSIBLE, UNANSWERED, Model, Operation

__all__ = ["LIST", "LOCK", "REGISTER", "SET", "Rules"]

_Rule = Callable[[Any, tuple[Any, ...]], tuple[Hashable, Hashable]]


@final
class Rules:
    """A model of operations of which each has one answer in each state."""

    def __init__(self, initial: Hashable, reads: frozenset[str], rules: dict[str, _Rule]) -> None:
        self.initial = initial
        self.reads = reads
        self._rules = rules

    def knowing(self, operations: Sequence[Operation]) -> tuple[Model, Sequence[Operation]]:
        """Return the same: nothing is known of what one copy does with so much freedom."""
        return self, operations

    def after(self, state: Hashable, operation: Operation) -> Hashable:
        """Return the state after an operation, or IMPOSSIBLE."""
        following, answer = self._rules[operation.name](state, operation.arguments)
        if operation.answer is UNANSWERED or operation.answer == answer:
            return following
        return IMPOSSIBLE


@final
class _Lock:
    """Who holds it under which number, and the highest number there was; the next is above it.

    The number of an owner that was never answered is not known until somebody sees it.
    """

    initial: Hashable = (None, None, 0)
    reads = frozenset({"holder"})

    def knowing(self, operations: Sequence[Operation]) -> tuple[Model, Sequence[Operation]]:
        """Return the same."""
        return self, operations

    def after(self, state: Hashable, operation: Operation) -> Hashable:
        """Return the state after an operation, or IMPOSSIBLE."""
        assert isinstance(state, tuple)
        owner, number, highest = state
        answer = operation.answer
        if operation.name == "holder":
            if answer is UNANSWERED or answer == number:
                return state
            is_first_seen = owner is not None and number is None
            return _held(owner, answer, highest) if is_first_seen else IMPOSSIBLE
        (who,) = operation.arguments
        if operation.name == "acquire":
            if owner is not None:
                return state if answer in (UNANSWERED, None) else IMPOSSIBLE
            return (who, None, highest) if answer is UNANSWERED else _held(who, answer, highest)
        if answer not in (UNANSWERED, owner == who):
            return IMPOSSIBLE
        return (None, None, highest) if owner == who else state


def _held(owner: Hashable, number: Hashable, highest: int) -> Hashable:
    return (owner, number, number) if isinstance(number, int) and number > highest else IMPOSSIBLE


@final
class _List:
    """All values in the order in which they came: the longest that was read says much of it."""

    initial: Hashable = ()
    reads = frozenset({"get"})

    def __init__(self, longest: tuple[Hashable, ...] = ()) -> None:
        self._longest = longest

    def knowing(self, operations: Sequence[Operation]) -> tuple[Model, Sequence[Operation]]:
        """Leave out what was not answered and nobody has seen: it may as well come last."""
        seen: set[Hashable] = set()
        longest: tuple[Hashable, ...] = ()
        for operation in operations:
            if operation.name == "get" and isinstance(operation.answer, tuple):
                seen.update(operation.answer)
                longest = max(longest, operation.answer, key=len)
        left = [
            operation
            for operation in operations
            if operation.answer is not UNANSWERED or operation.arguments[0] in seen
        ]
        return _List(longest), left

    def after(self, state: Hashable, operation: Operation) -> Hashable:
        """Return the state after an operation, or IMPOSSIBLE."""
        assert isinstance(state, tuple)
        if operation.name == "get":
            return state if operation.answer in (UNANSWERED, state) else IMPOSSIBLE
        at = len(state)
        if at < len(self._longest) and self._longest[at] != operation.arguments[0]:
            # From here on nobody could read the longest.
            return IMPOSSIBLE
        return (*state, *operation.arguments)


REGISTER: Final = Rules(
    None,
    frozenset({"get"}),
    {
        "put": lambda state, asked: (asked[0], True),
        "get": lambda state, asked: (state, state),
        "swap": lambda state, asked: (asked[1], True) if state == asked[0] else (state, False),
    },
)

LIST: Final = _List()

SET: Final = Rules(
    frozenset(),
    frozenset({"get"}),
    {
        "add": lambda state, asked: (state | {asked[0]}, True),
        "take": lambda state, asked: (state - {asked[0]}, asked[0] in state),
        "get": lambda state, asked: (state, state),
    },
)

LOCK: Final = _Lock()

"""Whether a history of clients can be explained by one copy that does one thing at a time.

    check(model, operations)       the first key whose operations have no such order, with a text
    Operation                      what a client asked, when, and what it was told, if it was

Owns: the search for an order, key by key.
Never: knows what an operation does; a model does (`support.models`). Never runs for ever: a search
    that takes too many steps says that it does not know.
Follows: Wing and Gong (1993) for the search; Lowe (2017) for not visiting the same place twice.
Keeps: an operation without an answer may have happened at any time after it was called, or never.
"""

from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol, final

__all__ = [
    "IMPOSSIBLE",
    "UNANSWERED",
    "Finding",
    "Impossible",
    "Model",
    "Operation",
    "Verdict",
    "check",
]

_STEPS_MAX: Final = 200_000
_TOLD_MAX: Final = 12


class _Unanswered(Enum):
    """The answer of an operation that was never answered."""

    UNANSWERED = "?"


class Impossible(Enum):
    """The state after something that cannot have happened."""

    IMPOSSIBLE = "impossible"


UNANSWERED: Final = _Unanswered.UNANSWERED
IMPOSSIBLE: Final = Impossible.IMPOSSIBLE


@final
class Operation(NamedTuple):
    """What a client did."""

    client: int
    key: str
    # What was asked, and with what.
    name: str
    arguments: tuple[Hashable, ...]
    # In one unit of time that all clients share.
    called_at: int
    # None where there was no answer.
    returned_at: int | None = None
    answer: Hashable = UNANSWERED

    def __str__(self) -> str:
        arguments = ", ".join(map(repr, self.arguments))
        until = "" if self.returned_at is None else self.returned_at
        told = "?" if self.answer is UNANSWERED else repr(self.answer)
        return (
            f"[{self.called_at}..{until}] client {self.client}: "
            f"{self.name}({arguments}) of {self.key} = {told}"
        )


class Model(Protocol):
    """What one copy does with one key."""

    @property
    def initial(self) -> Hashable:
        """The state before anything has happened."""

    @property
    def reads(self) -> frozenset[str]:
        """The names of operations that change nothing."""

    def knowing(self, operations: Sequence[Operation]) -> tuple["Model", Sequence[Operation]]:
        """Return what a search takes in place of this model and a key's whole history.

        It may leave out operations without an answer that no answer depends on, and say of states
        that they lead to no answer there is; its verdict has to be the same.
        """

    def after(self, state: Hashable, operation: Operation) -> Hashable:
        """Return the state after an operation; IMPOSSIBLE if its answer is wrong in this state.

        Any answer is right for an operation whose answer is UNANSWERED.
        """


class Verdict(Enum):
    """What came of a search."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@final
class Finding(NamedTuple):
    """What came of all searches; of the worst, where it was and why."""

    verdict: Verdict
    text: str = ""


def check(model: Model, operations: Iterable[Operation], *, steps_max: int = _STEPS_MAX) -> Finding:
    """Look for an order in which one copy would have given all these answers, key by key.

    Args:
        model: What one copy does with one key.
        operations: In any order.
        steps_max: How many states are tried for a key before the search is given up.
    """
    keys: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.returned_at is not None or operation.name not in model.reads:
            keys.setdefault(operation.key, []).append(operation)
    unknown = Finding(Verdict.LINEARIZABLE)
    for key, found in sorted(keys.items()):
        finding = _Search(*model.knowing(found)).run(steps_max)
        if finding.verdict is Verdict.VIOLATED:
            return Finding(finding.verdict, f"key {key}: {finding.text}")
        if finding.verdict is Verdict.UNKNOWN:
            unknown = Finding(finding.verdict, f"key {key}: {finding.text}")
    return unknown


@final
class _Search:
    """A walk through all orders of one key's operations.

    Calls and returns are in one list, by time. An operation may come next if its call stands
    before the first return that is left: it had been called before anything had to be done.
    """

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        self._operations = sorted(operations, key=lambda operation: operation.called_at)
        events = [(each.called_at, 0, at) for at, each in enumerate(self._operations)]
        events += [
            (each.returned_at, 1, at)
            for at, each in enumerate(self._operations)
            if each.returned_at is not None
        ]
        events.sort()
        # The list is closed by a place that is no event.
        self._end = len(events)
        self._events = events
        self._after = [*range(1, self._end + 1), 0]
        self._before = [self._end, *range(self._end)]
        self._calls = [0] * len(self._operations)
        self._returns: list[int | None] = [None] * len(self._operations)
        for place, (_, is_return, at) in enumerate(events):
            if is_return:
                self._returns[at] = place
            else:
                self._calls[at] = place

    def run(self, steps_max: int) -> Finding:
        """Walk until all answers are explained, or every way has been tried."""
        left = sum(place is not None for place in self._returns)
        most = left
        stuck: tuple[Hashable, int] = (self._model.initial, 0)
        state, done, steps = self._model.initial, 0, 0
        seen = {(done, state)}
        path: list[tuple[int, Hashable]] = []
        after, events = self._after, self._events
        place = after[self._end]
        while left:
            _, is_return, at = events[place]
            if not is_return:
                steps += 1
                if steps > steps_max:
                    return Finding(Verdict.UNKNOWN, f"given up after {steps_max} steps")
                following = self._model.after(state, self._operations[at])
                key = (done | 1 << at, following)
                if following is not IMPOSSIBLE and key not in seen:
                    seen.add(key)
                    path.append((at, state))
                    done, state = key
                    left -= self._take_out(at)
                    place = after[self._end]
                    continue
                place = after[place]
                continue
            if left <= most:
                most, stuck = left, (state, done)
            if not path:
                return Finding(Verdict.VIOLATED, self._told(*stuck))
            at, state = path.pop()
            done &= ~(1 << at)
            left += self._put_back(at)
            place = after[self._calls[at]]
        return Finding(Verdict.LINEARIZABLE)

    def _take_out(self, at: int) -> bool:
        """Take an operation out of the list; tell whether it had an answer."""
        after, before = self._after, self._before
        answer = self._returns[at]
        for place in (self._calls[at],) if answer is None else (self._calls[at], answer):
            after[before[place]] = after[place]
            before[after[place]] = before[place]
        return answer is not None

    def _put_back(self, at: int) -> bool:
        """Put the operation back that was taken out last."""
        after, before = self._after, self._before
        answer = self._returns[at]
        for place in (self._calls[at],) if answer is None else (answer, self._calls[at]):
            after[before[place]] = place
            before[after[place]] = place
        return answer is not None

    def _told(self, state: Hashable, done: int) -> str:
        """Say how far the walk came at most, and what then fits no more."""
        count = done.bit_count()
        head = f"{count} of {len(self._operations)} operations can be put in an order, and then"
        lines = [f"{head} there is {state!r}; none of these can have come next:"]
        left = [each for at, each in enumerate(self._operations) if not done >> at & 1]
        lines += [f"  {operation}" for operation in left[:_TOLD_MAX]]
        return "\n".join(lines)

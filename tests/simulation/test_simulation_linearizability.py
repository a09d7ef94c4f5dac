"""The checker of histories says yes to what one copy could have done, and no to the rest.

Histories are written as one line each operation: who, from when to when, what, and its answer.
"""

import random
from collections.abc import Hashable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.linearizability import IMPOSSIBLE, UNANSWERED, Model, Operation, Verdict, check
from support.models import LIST, LOCK, REGISTER, SET

_Line = tuple[int, int, "int | None", str, tuple[Hashable, ...], Hashable]
_NEVER = None
# What is drawn at random of each kind of thing, and with which values.
_WORDS: dict[Model, list[tuple[str, list[Hashable]]]] = {
    REGISTER: [("put", [0, 1]), ("get", [0]), ("swap", [0, 1])],
    LIST: [("append", [3, 4, 5]), ("get", [0])],
    SET: [("add", [3, 4]), ("take", [3, 4]), ("get", [0])],
    LOCK: [("acquire", ["one", "two"]), ("release", ["one", "two"]), ("holder", [0])],
}

_GOOD: dict[str, tuple[Model, list[_Line]]] = {
    "nothing at all": (REGISTER, []),
    "a read beside a write sees either": (
        REGISTER,
        [
            (1, 0, 9, "put", ("a",), True),
            (2, 1, 3, "get", (), None),
            (3, 4, 6, "get", (), "a"),
        ],
    ),
    "a write without an answer happens late": (
        REGISTER,
        [
            (1, 0, _NEVER, "put", ("a",), UNANSWERED),
            (2, 1, 2, "get", (), None),
            (2, 3, 4, "put", ("b",), True),
            (2, 5, 6, "get", (), "b"),
            (2, 7, 8, "get", (), "a"),
        ],
    ),
    "a write without an answer never happens": (
        REGISTER,
        [(1, 0, _NEVER, "put", ("a",), UNANSWERED), (2, 1, 2, "get", (), None)],
    ),
    "one of two swaps wins": (
        REGISTER,
        [
            (1, 0, 5, "swap", (None, "a"), True),
            (2, 1, 4, "swap", (None, "b"), False),
            (3, 6, 7, "get", (), "a"),
        ],
    ),
    "values are in the order of their appends": (
        LIST,
        [
            (1, 0, 5, "append", (1,), True),
            (2, 1, 4, "append", (2,), True),
            (3, 6, 7, "get", (), (2, 1)),
        ],
    ),
    "what was taken is gone": (
        SET,
        [
            (1, 0, 1, "add", (1,), True),
            (1, 2, 3, "take", (1,), True),
            (2, 2, 5, "take", (1,), False),
            (2, 6, 7, "get", (), frozenset()),
        ],
    ),
    "a lock goes from one to the other": (
        LOCK,
        [
            (1, 0, 1, "acquire", ("one",), 5),
            (2, 2, 3, "acquire", ("two",), None),
            (1, 4, 5, "release", ("one",), True),
            (2, 6, 7, "acquire", ("three",), 9),
            (2, 8, 9, "holder", (), 9),
        ],
    ),
    "a lock that was taken without an answer is seen and expires": (
        LOCK,
        [
            (1, 0, _NEVER, "acquire", ("one",), UNANSWERED),
            (2, 2, 3, "holder", (), 4),
            (2, 4, 5, "acquire", ("two",), None),
            (0, 6, 7, "expire", ("one",), True),
            (2, 8, 9, "acquire", ("three",), 6),
        ],
    ),
}

_BAD: dict[str, tuple[Model, list[_Line]]] = {
    "a read of the past": (
        REGISTER,
        [(1, 0, 1, "put", ("a",), True), (2, 2, 3, "get", (), None)],
    ),
    "a write that was answered is lost": (
        REGISTER,
        [
            (1, 0, 1, "put", ("a",), True),
            (1, 2, 3, "put", ("b",), True),
            (2, 4, 5, "get", (), "a"),
        ],
    ),
    "a value that comes and goes": (
        REGISTER,
        [
            (1, 0, 9, "put", ("a",), True),
            (2, 1, 2, "get", (), "a"),
            (3, 3, 4, "get", (), None),
        ],
    ),
    "a value that nobody wrote": (REGISTER, [(1, 0, 1, "get", (), "a")]),
    "both swaps win": (
        REGISTER,
        [
            (1, 0, 5, "swap", (None, "a"), True),
            (2, 1, 4, "swap", (None, "b"), True),
        ],
    ),
    "a write happens twice": (
        REGISTER,
        [
            (1, 0, _NEVER, "put", ("a",), UNANSWERED),
            (2, 1, 2, "get", (), "a"),
            (2, 3, 4, "put", ("b",), True),
            (2, 5, 6, "get", (), "b"),
            (2, 7, 8, "get", (), "a"),
        ],
    ),
    "an append is missing": (
        LIST,
        [
            (1, 0, 1, "append", (1,), True),
            (1, 2, 3, "append", (2,), True),
            (2, 4, 5, "get", (), (2,)),
        ],
    ),
    "two reads see two orders": (
        LIST,
        [
            (1, 0, 1, "append", (1,), True),
            (2, 0, 1, "append", (2,), True),
            (3, 2, 3, "get", (), (1, 2)),
            (4, 2, 3, "get", (), (2, 1)),
        ],
    ),
    "the same is taken twice": (
        SET,
        [
            (1, 0, 1, "add", (1,), True),
            (1, 2, 5, "take", (1,), True),
            (2, 2, 5, "take", (1,), True),
        ],
    ),
    "two hold a lock": (
        LOCK,
        [
            (1, 0, 1, "acquire", ("one",), 5),
            (2, 2, 3, "acquire", ("two",), 6),
        ],
    ),
    "a number of a lock falls": (
        LOCK,
        [
            (1, 0, 1, "acquire", ("one",), 5),
            (1, 2, 3, "release", ("one",), True),
            (2, 4, 5, "acquire", ("two",), 4),
        ],
    ),
}


def _history(lines: list[_Line]) -> list[Operation]:
    return [
        Operation(client, "k", name, arguments, called_at, returned_at, answer)
        for client, called_at, returned_at, name, arguments, answer in lines
    ]


@pytest.mark.parametrize(("model", "lines"), _GOOD.values(), ids=_GOOD)
def test_a_history_that_one_copy_could_have_is_accepted(model: Model, lines: list[_Line]) -> None:
    """There is an order of these operations, so it is found."""
    assert check(model, _history(lines)).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize(("model", "lines"), _BAD.values(), ids=_BAD)
def test_a_history_that_no_copy_could_have_is_refused(model: Model, lines: list[_Line]) -> None:
    """There is no order of these operations, and the text names the key and one of them."""
    finding = check(model, _history(lines))

    assert finding.verdict is Verdict.VIOLATED
    assert "key k" in finding.text
    assert "client" in finding.text


def test_each_key_is_a_history_of_its_own() -> None:
    """A violation is found among keys that are right, and said of its own key only."""
    good = _history([(1, 0, 1, "put", ("a",), True), (2, 2, 3, "get", (), "a")])
    bad = [each._replace(key="bad") for each in _history([(1, 0, 1, "get", (), "b")])]

    finding = check(REGISTER, good + bad)

    assert finding.verdict is Verdict.VIOLATED
    assert finding.text.startswith("key bad")


def test_a_search_that_takes_too_long_says_so() -> None:
    """What was not searched to its end is neither right nor wrong."""
    lines: list[_Line] = [(at, 0, 9, "put", (at,), True) for at in range(9)]
    lines.append((9, 10, 11, "get", (), 9))

    finding = check(REGISTER, _history(lines), steps_max=100)

    assert finding.verdict is Verdict.UNKNOWN


@given(seed=st.integers(0, 1 << 30), model=st.sampled_from(list(_WORDS)), lie=st.booleans())
def test_the_search_agrees_with_trying_every_order(seed: int, model: Model, lie: bool) -> None:  # noqa: FBT001 - drawn
    """Of small histories, true or with one answer changed, the verdict is that of brute force."""
    chance = random.Random(seed)
    history = _drawn(chance, model)
    if lie and history:
        at = chance.randrange(len(history))
        if history[at].returned_at is not None:
            others = [each.answer for each in history if each.answer is not UNANSWERED]
            history[at] = history[at]._replace(answer=chance.choice([None, True, False, *others]))

    found = check(model, history).verdict

    assert (found is Verdict.LINEARIZABLE) == _has_order(model, history)


def test_many_appends_without_an_answer_are_searched() -> None:
    """Of twenty appends of which nobody knows, those that were seen are put in their order."""
    lines: list[_Line] = [(at, 0, None, "append", (at,), UNANSWERED) for at in range(20)]
    lines += [(20, 1, 5, "append", (20,), True), (21, 6, 7, "get", (), (7, 3, 20, 11))]
    wrong: list[_Line] = [*lines, (21, 8, 9, "get", (), (3, 7, 20, 11, 4))]

    assert check(LIST, _history(lines)).verdict is Verdict.LINEARIZABLE
    assert check(LIST, _history(wrong)).verdict is Verdict.VIOLATED


def test_a_long_history_of_a_busy_key_is_searched() -> None:
    """Five clients that do forty things each on one copy are found to be right."""
    chance = random.Random(11)
    history = _drawn(chance, REGISTER, count=200, clients=5)

    assert check(REGISTER, history).verdict is Verdict.LINEARIZABLE


def _drawn(
    chance: random.Random, model: Model, count: int = 5, clients: int = 3
) -> list[Operation]:
    """Let one copy do things at one moment each, between call and return."""
    state = model.initial
    free = [0] * clients
    history = []
    for moment in sorted(chance.sample(range(10 * count), count)):
        client = chance.randrange(clients)
        if free[client] >= moment:
            continue
        called_at = chance.randint(free[client], moment)
        returned_at = free[client] = moment + chance.randint(1, 30)
        name, values = chance.choice(_WORDS[model])
        arguments = tuple(chance.choice(values) for _ in range(2 if name == "swap" else 1))
        if name in model.reads:
            arguments = ()
        asked = Operation(client, "k", name, arguments, called_at, returned_at)
        parts = state if isinstance(state, tuple) else ()
        asked, state = next(
            (told, after)
            for answer in (state, *parts, None, True, False, moment)
            for told in [asked._replace(answer=answer)]
            if (after := model.after(state, told)) is not IMPOSSIBLE
        )
        is_answered = chance.random() < 0.8
        history.append(
            asked if is_answered else asked._replace(returned_at=None, answer=UNANSWERED)
        )
    chance.shuffle(history)
    return history


def _has_order(model: Model, history: list[Operation]) -> bool:
    """Try every order of every choice of the operations that were not answered."""
    answered = [each for each in history if each.returned_at is not None]
    open_ones = [each for each in history if each.returned_at is None]
    for choice in range(1 << len(open_ones)):
        chosen = answered + [each for at, each in enumerate(open_ones) if choice >> at & 1]
        if any(_is_right(model, order) for order in permutations(chosen)):
            return True
    return False


def _is_right(model: Model, order: tuple[Operation, ...]) -> bool:
    state = model.initial
    latest = 0
    for operation in order:
        if operation.returned_at is not None and operation.returned_at < latest:
            return False
        latest = max(latest, operation.called_at)
        state = model.after(state, operation)
        if state is IMPOSSIBLE:
            return False
    return True

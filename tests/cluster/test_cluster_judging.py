"""The judge of real clusters finds what it is there for."""

from collections.abc import Hashable

import pytest
from cluster.judging import judge
from cluster.watching import Change
from cluster.workload import Lease, Step, Told, Write
from support.linearizability import UNANSWERED, Operation

_REGISTER, _LIST, _SET, _LOCK = ("register/1/0", "list/1/0", "set/1/0", "lock/1/0")


def _step(
    key: str,
    at: tuple[int, int],
    name: str,
    *arguments: Hashable,
    answer: Hashable = True,
    write: Write | None = None,
) -> Step:
    is_known = answer is not UNANSWERED
    return Step(
        Operation(0, key, name, arguments, at[0], at[1] if is_known else None, answer), write
    )


def _put(at: tuple[int, int], value: str, revision: int) -> Step:
    write = Write(_REGISTER.encode(), value.encode(), revision)
    answer = True if revision else UNANSWERED
    return _step(_REGISTER, at, "put", value, answer=answer, write=write)


def _get(at: tuple[int, int], value: str | None) -> Step:
    return _step(_REGISTER, at, "get", answer=value)


def _change(revision: int, value: str) -> Change:
    return Change(revision, _REGISTER.encode(), value.encode())


_STEPS = [_put((1, 2), "a", 2), _get((3, 4), "a"), _put((5, 6), "b", 3), _get((7, 8), "b")]
_HISTORY = [_change(2, "a"), _change(3, "b")]


def test_judge_lets_what_is_right_pass() -> None:
    """Also what was not answered, whether it happened or not."""
    steps = [*_STEPS, _put((9, 9), "c", 0), _get((10, 11), "c"), _put((12, 12), "d", 0)]
    history = [*_HISTORY, _change(4, "c")]

    assert judge(Told(steps=steps), history, {"m1": history}) == []


@pytest.mark.parametrize(
    ("steps", "history", "watched", "words"),
    [
        pytest.param(_STEPS, _HISTORY[:1], _HISTORY[:1], "lost", id="a write that is not there"),
        pytest.param(
            _STEPS,
            [_HISTORY[0], _change(4, "b")],
            [_HISTORY[0], _change(4, "b")],
            "lost",
            id="a write at another revision",
        ),
        pytest.param(
            _STEPS,
            [*_HISTORY, _change(4, "z")],
            [*_HISTORY, _change(4, "z")],
            "phantom",
            id="a write that nobody asked for",
        ),
        pytest.param(
            _STEPS,
            [*_HISTORY, _change(4, "b")],
            [*_HISTORY, _change(4, "b")],
            "phantom",
            id="a write that was done twice",
        ),
        pytest.param(_STEPS, _HISTORY, _HISTORY[1:], "saw 1 of 2", id="a gap in a watch"),
        pytest.param(
            _STEPS, _HISTORY, [*_HISTORY, _HISTORY[1]], "saw 3 of 2", id="an event that came twice"
        ),
        pytest.param(_STEPS, _HISTORY, _HISTORY[::-1], "saw 2 of 2", id="events out of order"),
        pytest.param(
            [*_STEPS, _get((9, 10), "a")], _HISTORY, _HISTORY, "violated", id="a stale read"
        ),
        pytest.param(
            [*_STEPS, _put((9, 9), "c", 0), _get((10, 11), "c")],
            _HISTORY,
            _HISTORY,
            "violated",
            id="a read of what never happened",
        ),
    ],
)
def test_judge_finds_what_is_wrong(
    steps: list[Step], history: list[Change], watched: list[Change], words: str
) -> None:
    """One thing is wrong in each case, and it is told."""
    wrong = judge(Told(steps=steps), history, {"m1": watched})

    assert wrong
    assert words in wrong[0]


@pytest.mark.parametrize(("ends_at", "is_early"), [(5, False), (50, True)])
def test_judge_finds_a_lock_that_was_free_before_its_lease_ended(
    ends_at: int, *, is_early: bool
) -> None:
    """A second owner is right once the first one's lease may have ended, and wrong before."""
    steps = [
        _step(_LOCK, (1, 2), "acquire", "x", answer=7),
        _step(_LOCK, (10, 11), "acquire", "y", answer=9),
    ]
    leases = {"x": Lease(0, _LOCK, "x", ends_at)}

    wrong = judge(Told(steps=steps, leases=leases), [], {})

    assert bool(wrong) is is_early


@pytest.mark.parametrize(
    "steps",
    [
        [
            _step(_LIST, (1, 2), "append", "a", answer=()),
            _step(_LIST, (3, 4), "append", "b", answer=()),
            _step(_LIST, (5, 6), "get", answer=("b", "a")),
        ],
        [
            _step(_SET, (1, 2), "add", "a"),
            _step(_SET, (3, 4), "take", "a"),
            _step(_SET, (5, 6), "get", answer=frozenset({"a"})),
        ],
    ],
    ids=["a list out of order", "a set with what was taken"],
)
def test_judge_finds_what_no_copy_would_tell(steps: list[Step]) -> None:
    """Lists and sets are looked at like registers."""
    assert judge(Told(steps=steps), [], {})

"""Mistakes that are planted in consensus are found: a simulation that finds nothing has not looked.

Most of them are looked for by `-m campaign`, for they take longer to come upon.
"""

import pytest
from simulation.planted import MISTAKES, Mistake, planted
from simulation.running import Failed, run

_SOON_SEEDS = 60
_SEEDS = 600


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, marks=() if mistake.is_soon_found else pytest.mark.campaign)
        for mistake in MISTAKES.values()
    ],
    ids=MISTAKES,
)
@pytest.mark.timeout(900)
def test_a_planted_mistake_is_found(mistake: Mistake) -> None:
    """A cluster whose members do one step wrong breaks a rule in one of its runs."""
    with pytest.raises(Failed, match=r"seed \d+"), planted(mistake):
        _search(mistake, range(_SOON_SEEDS if mistake.is_soon_found else _SEEDS))


def test_what_is_replaced_is_put_back() -> None:
    """After a mistake was found the next run is right again."""
    for mistake in MISTAKES.values():
        before = [owner.__dict__[name] for owner, name, _ in mistake.replaced]

        with planted(mistake):
            assert [owner.__dict__[name] for owner, name, _ in mistake.replaced] != before

        assert [owner.__dict__[name] for owner, name, _ in mistake.replaced] == before


def _search(mistake: Mistake, seeds: range) -> None:
    for seed in seeds:
        run(seed, profile=mistake.profile(seed))

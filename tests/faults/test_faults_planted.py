"""Mistakes that are planted are found: a search that finds nothing has looked."""

import random

import pytest
from faults.exploring import Broken, Tally, explore, lived
from faults.planted import MISTAKES, Mistake
from faults.table_servant import TableServant
from faults.traced_disk import Fault

_LIVES_MAX = 60
_LENGTH = 12


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, marks=() if mistake.is_soon_found else pytest.mark.campaign)
        for mistake in MISTAKES.values()
    ],
    ids=MISTAKES,
)
def test_a_planted_mistake_is_found(servant: TableServant, mistake: Mistake) -> None:
    """A member that does one step wrong loses something in one of its crashes."""
    with pytest.raises(Broken, match=r"seed \d+"):
        _search(servant, mistake)


def _search(servant: TableServant, mistake: Mistake) -> None:
    for seed in range(_LIVES_MAX):
        chance = random.Random(seed)
        faults: dict[int, Fault] = {}
        if mistake.fault is not None:
            at = chance.randint(35, 90)
            faults[at] = mistake.fault
            if mistake.fault is Fault.SHORT:
                faults[at + 1] = Fault.FULL
        life = lived(
            seed,
            servant,
            length=_LENGTH,
            faults=faults,
            variant=mistake.variant,
            doing={"turn": 10, **mistake.doing},
        )
        explore(life, servant, Tally(), points_max=30, again=0)

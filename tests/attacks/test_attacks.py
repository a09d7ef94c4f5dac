"""Every attack of the table against a real member, while somebody else works with it.

How fast the others are served meanwhile is printed by `python tests/attacks/run.py`, not judged.
"""

import dataclasses
from collections.abc import Iterator

import pytest
from attacks.arena import Arena
from attacks.attack import Attack, Fight
from attacks.table import ATTACKS

# As long as it takes for the others to notice.
_DURATION_S = 0.5


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A member with something large to ask for."""
    with Arena(tmp_path_factory.mktemp("arena")) as open_arena:
        yield open_arena


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_hurts_nobody_else(arena: Arena, attack: Attack) -> None:
    """It meets with its bound, others have no failed request, and memory stays within a bound."""
    fight = arena.run(attack.identity, _DURATION_S)

    assert fight.complaints(attack) == []
    assert arena.serves
    assert b"Traceback" not in arena.member.process.log()


_WELL = Fight(
    met={"GOAWAY ENHANCE_YOUR_CALM": 3},
    requests=100,
    failures=[],
    p50_ms=1.0,
    p99_ms=2.0,
    memory_before_bytes=100_000_000,
    memory_peak_bytes=110_000_000,
)


@pytest.mark.parametrize(
    "change",
    [
        {"met": {"served": 1}},
        {"met": {}},
        {"failures": ["TimeoutError: "]},
        {"memory_peak_bytes": 900_000_000},
    ],
    ids=["not stopped", "nobody attacked", "others failed", "grown"],
)
def test_complaints_are_made_of_each_rule(change: dict[str, object]) -> None:
    """An attack that gets through, hurts others or fills the memory does not pass."""
    attack = ATTACKS["ping-flood"]

    assert _WELL.complaints(attack) == []
    assert len(dataclasses.replace(_WELL, **change).complaints(attack)) == 1

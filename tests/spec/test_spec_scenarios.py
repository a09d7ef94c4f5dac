"""The scenario files: what is done to a cluster, and what is seen of it."""

from pathlib import Path

import pytest
from support.raft_scenario import play

_SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", _SCENARIOS, ids=lambda path: path.stem)
def test_scenario_is_seen_as_it_is_told(path: Path) -> None:
    """What is seen of a cluster is, word for word, what the scenario says."""
    text = path.read_text()

    assert play(text) == text


def test_scenarios_are_there() -> None:
    """There are scenarios to play."""
    assert len(_SCENARIOS) >= 10

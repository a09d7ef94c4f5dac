"""The store equals the dumb one, whatever happens in whatever order."""

import pytest
from core.store_machine import StoreMachine
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

_QUICK = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    # Explaining takes minutes and tells less than the shortest program does.
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=list(HealthCheck),
)
_LONG = settings(_QUICK, max_examples=20_000, stateful_step_count=80)


def test_store_equals_the_dumb_one() -> None:
    """Every answer, every revision that can be read, and after a crash everything, is equal."""
    run_state_machine_as_test(StoreMachine, settings=_QUICK)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_store_equals_the_dumb_one_for_long() -> None:
    """Every answer, every revision that can be read, and after a crash everything, is equal."""
    run_state_machine_as_test(StoreMachine, settings=_LONG)

"""Whole clusters in one thread, with everything going wrong: no rule of Raft is ever broken.

    KVSECURE_CAMPAIGN_HOURS=8 pytest -s -m campaign tests/simulation
    PYTHONPATH=tests:. python -m simulation.replay SEED       one run again, with a trace

A text of `Failed` begins with the seed of the run.
"""

import os
import subprocess
import sys
import time

import pytest
from simulation.running import Tally, run
from support.seeds import seed_of

_STEPS = 120_000
_HOURS = float(os.environ.get("KVSECURE_CAMPAIGN_HOURS", "0.1"))
_SAY_EVERY_S = 60
# Runs of a fresh seed follow on each other.
_SEEDS_OF_A_RUN = 1_000_000


def test_fresh_seeds_break_no_rule(tally: Tally, pytestconfig: pytest.Config) -> None:
    """At every step every rule holds, clients are told one history, and calm brings rest."""
    seed = seed_of(pytestconfig) * _SEEDS_OF_A_RUN
    while tally.steps < _STEPS:
        tally.add(run(seed))
        seed += 1

    assert tally.committed
    assert tally.mishaps


def test_a_seed_is_the_same_run_anywhere() -> None:
    """Two processes whose hashes differ do the same, step by step, to the last message."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "simulation.replay", "7"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": salt},
            capture_output=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    ]

    assert told[0] == told[1]
    assert told[0].count(b"\n") > 1_000


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_seeds(tally: Tally, pytestconfig: pytest.Config) -> None:
    """As above, for as many hours as are wanted; says every minute how far it is."""
    seed = seed_of(pytestconfig) * _SEEDS_OF_A_RUN
    begun_s = said_s = time.monotonic()
    while time.monotonic() - begun_s < _HOURS * 3600:
        tally.add(run(seed))
        seed += 1
        if time.monotonic() - said_s > _SAY_EVERY_S:
            said_s = time.monotonic()
            print(f"{(said_s - begun_s) / 3600:.2f} h: {tally}", flush=True)

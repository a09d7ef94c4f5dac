"""The power fails after any step, on a disk that fails at any call: nothing that was said is lost.

    FAULT_LIVES=500 pytest -m campaign tests/faults
    PYTHONPATH=tests:. python -m faults.exploring SEED 1       one life again

What is visited is printed. A text of `Broken` begins with the seed of the life; its own tests are
in `test_faults_planted.py`.
"""

import os
import random
import re
import signal
import subprocess
import sys

import pytest
from faults.exploring import Tally, explore, faults_of, lived
from faults.table_servant import TableServant
from faults.traced_disk import Fault, Faults
from support.seeds import seed_of

_LIVES = int(os.environ.get("FAULT_LIVES", "200"))
_LENGTH, _CALLS = 25, 250


def test_no_crash_of_a_short_life_loses_anything(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """After every single step a crash leaves all that was acknowledged, and nothing half-done."""
    life = lived(seed_of(pytestconfig), servant, length=6)

    explore(life, servant, tally, again=0.1)

    assert tally.crashes == tally.steps + 1
    assert tally.refused == tally.lost == 0


def test_no_crash_of_lives_on_a_failing_disk_loses_anything(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """Calls that fail, processes that are killed, disks that are full: then still nothing is."""
    _live(servant, tally, range(seed_of(pytestconfig), seed_of(pytestconfig) + 5), points_max=16)

    assert tally.refused == tally.lost == 0


@pytest.mark.parametrize("kind", [Fault.KILL, Fault.BROKEN, Fault.SHORT])
def test_no_call_that_fails_in_a_short_life_loses_anything(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config, kind: Fault
) -> None:
    """Whichever call fails, is cut short, or is a process's last: nothing that was said is lost."""
    chance = random.Random(seed_of(pytestconfig))

    _fail_at(servant, tally, kind, sorted(chance.sample(range(1, 70), 3)), points_max=8)

    assert tally.refused == tally.lost == 0


def test_a_disk_that_lies_is_found_out(tally: Tally, pytestconfig: pytest.Config) -> None:
    """Where syncs keep nothing, a start finds a state that there once was, or says no."""
    _lie(tally, seed_of(pytestconfig), 2, share=0.3)

    assert tally.refused


# --- more of it -----------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_lives(
    servant: TableServant, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """As above, for as many lives as are wanted, at every step of each tenth."""
    first = seed_of(pytestconfig)
    _live(servant, tally, range(first, first + _LIVES), points_max=60)
    for seed in range(first, first + _LIVES, 10):
        explore(lived(seed, servant, length=_LENGTH), servant, tally, again=0.3)

    assert tally.refused == tally.lost == 0


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", [Fault.KILL, Fault.BROKEN, Fault.SHORT])
def test_campaign_of_every_call(servant: TableServant, tally: Tally, kind: Fault) -> None:
    """As above, at every call."""
    _fail_at(servant, tally, kind, list(range(1, 90)), points_max=30)

    assert tally.refused == tally.lost == 0


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_lies(tally: Tally, pytestconfig: pytest.Config) -> None:
    """As above, with disks that lie always, often and rarely."""
    for share in (1.0, 0.3, 0.05):
        _lie(tally, seed_of(pytestconfig), _LIVES // 3, share=share)


def _live(servant: TableServant, tally: Tally, seeds: range, *, points_max: int) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        faults = dict(faults_of(chance, _CALLS, chance.randint(0, 3)))
        life = lived(seed, servant, length=_LENGTH, faults=faults)
        explore(life, servant, tally, points_max=points_max)


def _fail_at(
    servant: TableServant, tally: Tally, kind: Fault, calls: list[int], *, points_max: int
) -> None:
    for call in calls:
        faults: Faults = {call: kind}
        if kind is Fault.SHORT:
            faults = {call: kind, **dict.fromkeys(range(call + 1, call + 4), Fault.FULL)}
        life = lived(7, servant, length=5, faults=faults)
        explore(life, servant, tally, points_max=points_max, again=0.2)


def _lie(tally: Tally, seed: int, count: int, *, share: float) -> None:
    """Explore in a process of its own: a page that was never written can be a signal."""
    done = subprocess.run(
        [sys.executable, "-m", "faults.exploring", str(seed), str(count), str(share)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT), done.stderr
    for line in done.stdout.splitlines()[-1:]:
        tally.add(Tally(*(int(number) for number in re.findall(r"\d+", line))))

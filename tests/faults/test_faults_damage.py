"""Every file, cut off and flipped anywhere: somebody is told, and nothing is made up."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.exploring import lived
from faults.table_servant import TableServant

_ROUNDS = int(os.environ.get("FAULT_FLIPS", "15"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a past."""
    path = tmp_path_factory.mktemp("damage") / "root"
    path.mkdir()
    servant = TableServant()
    life = lived(11, servant, length=30, keep=path)
    servant.close()
    assert life.trace.steps
    return path


def test_a_flipped_bit_is_never_read_silently(data: Path, pytestconfig: pytest.Config) -> None:
    """One bit anywhere: what is there afterwards is what was there, or somebody is told."""
    chance = random.Random(int(pytestconfig.getoption("randomly_seed", 0)))

    outcomes = _probe(data, [(chance.random(), 1 << chance.randrange(8)) for _ in range(_ROUNDS)])

    assert set(outcomes) <= {"same", "refused", "died"}
    assert outcomes.count("refused") >= _ROUNDS // 10


def test_a_file_that_is_cut_off_is_never_read_silently(
    data: Path, pytestconfig: pytest.Config
) -> None:
    """Cut anywhere, a file gives what was there, what was there earlier, or nothing."""
    chance = random.Random(int(pytestconfig.getoption("randomly_seed", 0)))

    outcomes = _probe(data, [(chance.random(), 0) for _ in range(_ROUNDS)])

    assert set(outcomes) <= {"same", "refused", "died", "shorter"}
    assert outcomes.count("refused") >= _ROUNDS // 10


def _probe(data: Path, damages: list[tuple[float, int]]) -> list[str]:
    """Damage a copy, look at it in a process of its own, and return what came of each."""
    done = []
    while len(done) < len(damages):
        run = subprocess.run(
            [sys.executable, "-m", "faults.damaging", str(data)],
            input="".join(f"{at} {flip}\n" for at, flip in damages[len(done) :]),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        done += run.stdout.split()
        if run.returncode:
            assert -run.returncode in (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT), run.stderr
            done.append("died")
    return done

"""The benchmark measures what it says, on a store that proves it; people judge how much."""

import json
import shutil

import pytest
from bench.contestants import Contestant
from bench.program import main
from bench.report import Figure, costs, table
from bench.soak import slope_per_hour

_H2LOAD = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")


def _figure(work: str, contestant: Contestant, value: float) -> Figure:
    return Figure(
        work=work,
        contestant=contestant,
        value=value,
        unit="call/s",
        processor_us=2.0 * value,
        resident_mib=50.0,
    )


def test_table_shows_medians_ratios_and_goals() -> None:
    """A goal is met or missed by the medians, and by both etcds where both are its measure."""
    figures = [
        *(_figure("put, 10 x 10", Contestant.ETCD, value) for value in (9.0, 10.0, 900.0)),
        *(_figure("put, 10 x 10", Contestant.KVSECURE, value) for value in (60.0, 50.0, 1.0)),
        _figure("put, 10 x 10", Contestant.PLAIN, 100.0),
    ]

    line = table(figures).splitlines()[1]

    assert line.split()[:4] == ["put,", "10", "x", "10"]
    assert "5.00x" in line
    assert "0.50x" in line
    assert ">= 5x met, >= 1x plain MISSED" in line
    assert "100.0 us, 50 MiB" in costs(figures)


def test_table_has_room_for_what_was_not_measured() -> None:
    """A contestant that was left out has no figure, and a ratio to it is none."""
    line = table([_figure("get, 10 x 10", Contestant.KVSECURE, 10.0)]).splitlines()[1]

    assert line.split()[5:8] == ["-", "-", "10"]


def test_slope_is_that_of_the_line_that_fits() -> None:
    """Memory that grows by a MiB a minute grows by 60 an hour, whatever it does in between."""
    grows = [(60.0 * minute, 100.0 + minute + (-1) ** minute) for minute in range(101)]

    assert 59 < slope_per_hour(grows) < 61
    assert slope_per_hour([(0.0, 5.0)]) == 0


@_H2LOAD
@pytest.mark.parametrize(
    "part",
    [
        "calls",
        "latency",
        "connections",
        "library",
        "watch",
        "watchers",
        "cold",
        "keys",
        "pauses",
        "soak",
        "cluster",
        "failover",
        "catchup",
    ],
)
def test_part_measures_etcd(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part runs against a real server, and its rates and times are above nothing."""
    main(
        [
            "--only=etcd",
            f"--part={part}",
            "--seconds=0.3",
            "--repeat=1",
            "--keys=2000",
            "--connections=50",
            "--watchers=50",
            "--runs=1",
            "--writes=200",
            "--json",
        ]
    )

    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures
    # What 50 connections take may be memory that the server has given free before.
    assert all(figure["value"] > 0 for figure in figures if figure["unit"] not in ("KiB", "MiB/h"))
    assert {figure["contestant"] for figure in figures} == {"ETCD"}

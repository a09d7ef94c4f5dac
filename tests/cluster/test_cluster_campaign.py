"""Real members on hosts of their own, with everything going wrong: clients are told one history.

    KVSECURE_CAMPAIGN_MINUTES=60 pytest -s -m campaign tests/cluster/test_cluster_campaign.py

It needs root, for network namespaces and small disks. The seed of pytest-randomly decides which
trouble comes when; what processes make of it is theirs. `KVSECURE_CAMPAIGN_MEMBERS` is how many
members there are, and `KVSECURE_CAMPAIGN_TROUBLE` a part of the name of the only troubles wanted.
Clocks are turned if apt's package `faketime` is installed.
"""

import contextlib
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import grpc
import pytest
from cluster.clocks import NEEDED, Clock, library
from cluster.judging import judge
from cluster.members import Place, RealCluster
from cluster.troubles import CLOCK_TROUBLES, TROUBLES, Scene
from cluster.watching import Watchers, history
from cluster.wire import Wire
from cluster.workload import Workload
from support.disk import small_disk_at
from support.linearizability import Verdict
from support.processes import ProcessFailedError
from support.seeds import seed_of

_MINUTES: Final = float(os.environ.get("KVSECURE_CAMPAIGN_MINUTES", "3"))
_MEMBERS: Final = int(os.environ.get("KVSECURE_CAMPAIGN_MEMBERS", "3"))
_WANTED: Final = os.environ.get("KVSECURE_CAMPAIGN_TROUBLE", "")
_DISK_BYTES: Final = 1 << 30
# How far the time of all members is ahead of ours.
_AHEAD_S: Final = 7_200.0
_ALL: Final = {**TROUBLES, **CLOCK_TROUBLES}
# How long clients work before a trouble, and after it was put right.
_CALM_S: Final = 1.0
_UNDECIDED: Final = Verdict.UNKNOWN.value
# More than so many violations say no more than these.
_VIOLATIONS_MAX: Final = 10


@final
@dataclass
class _Row:
    """What was seen of one trouble."""

    runs: int = 0
    answered: int = 0
    unanswered: int = 0
    gaps_s: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    # Histories for which the checker has found neither an order nor that there is none.
    undecided: list[str] = field(default_factory=list)


@pytest.fixture
def scene(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Scene]:
    """Members in namespaces of their own, on disks of their own."""
    if not Wire.is_possible():
        pytest.skip("hosts are namespaces on TUN devices: that takes root, ip and nsenter")
    seed = seed_of(pytestconfig)
    with contextlib.ExitStack() as opened:
        wire = opened.enter_context(Wire(_MEMBERS, seed))
        hosts = range(1, _MEMBERS + 1)
        directory = tmp_path / "cluster"
        directory.mkdir(mode=0o700)
        disks = {
            f"m{host}": opened.enter_context(small_disk_at(directory / f"m{host}", _DISK_BYTES))
            for host in hosts
        }
        places = [
            Place(
                host=wire.address(host),
                client_port=2379,
                peer_port=2380,
                prefix=wire.prefix(host),
            )
            for host in hosts
        ]
        clocks = {name: Clock(tmp_path / f"clock-{name}", _AHEAD_S) for name in disks if library()}
        environments = {name: clock.environment for name, clock in clocks.items()}
        cluster = RealCluster(directory, places, environments=environments)
        yield Scene(
            cluster=opened.enter_context(cluster),
            wire=wire,
            disks=disks,
            chance=random.Random(seed),
            clocks=clocks,
            ahead_s=_AHEAD_S,
        )


def _round(scene: Scene, name: str, number: int, row: _Row) -> None:
    """Let clients work, make trouble, put it right, and judge what they were told."""
    cluster = scene.cluster
    # For longer than a round is.
    cluster.log_in(cluster.leader().name)
    begun = cluster.put(cluster.answering[0].name, b"round", b"%d" % number)
    work = Workload(cluster, str(number), scene.chance.randrange(1 << 30))
    with Watchers(cluster, begun + 1) as watchers:
        with work:
            scene.hold(_CALM_S)
            trouble_at = time.monotonic_ns()
            _ALL[name](scene)
            scene.put_right()
            scene.hold(_CALM_S)
            over_at = time.monotonic_ns()
        scene.put_right()
        end = cluster.put(cluster.answering[0].name, b"round", b"over")
        watched = watchers.seen(end)
    cluster.assert_alike()
    told = work.told
    row.runs += 1
    row.answered += told.counts["answered"]
    row.unanswered += told.counts["unanswered"]
    row.gaps_s.append(told.longest_gap_s(trouble_at, over_at))
    row.violations += [f"a client: {error!r}" for error in work.errors]
    there = history(cluster, scene.any().name, begun + 1, end)
    for text in judge(told, there, watched):
        (row.undecided if text.startswith(_UNDECIDED) else row.violations).append(text)
    scene.compact(end)


def _table(rows: dict[str, _Row]) -> Iterator[str]:
    yield "| trouble | runs | answered | not | without a write, s | undecided | violations |"
    yield "|---|---|---|---|---|---|---|"
    for name in _ALL:
        if name in rows:
            row = rows[name]
            gaps = f"{statistics.median(row.gaps_s):.1f}, at most {max(row.gaps_s):.1f}"
            yield (
                f"| {name} | {row.runs} | {row.answered:,} | {row.unanswered:,} "
                f"| {gaps} | {len(row.undecided)} | {len(row.violations)} |"
            )
    runs = sum(row.runs for row in rows.values())
    answered = sum(row.answered for row in rows.values())
    unanswered = sum(row.unanswered for row in rows.values())
    undecided = sum(len(row.undecided) for row in rows.values())
    violations = sum(len(row.violations) for row in rows.values())
    yield f"| all | {runs} | {answered:,} | {unanswered:,} | | {undecided} | {violations} |"


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_campaign_of_troubles(scene: Scene, say: Callable[[str], None]) -> None:
    """No acknowledged write is lost, nothing is stale, twice or early, whatever is done to it."""
    rows: defaultdict[str, _Row] = defaultdict(_Row)
    begun_s, number = time.monotonic(), 0
    names: list[str] = []
    scene.put_right()
    if not scene.clocks:
        say(f"no clock was turned: {NEEDED}")

    while time.monotonic() - begun_s < _MINUTES * 60:
        if not names:
            possible = _ALL if scene.clocks else TROUBLES
            names = [name for name in possible if _WANTED in name]
            scene.chance.shuffle(names)
        name, number = names.pop(), number + 1
        row = rows[name]
        known = len(row.violations)
        try:
            _round(scene, name, number, row)
        except (AssertionError, TimeoutError, ProcessFailedError, grpc.RpcError) as error:
            row.violations.append(f"{type(error).__name__}: {error}")
            row.gaps_s.append(float("inf"))
            break
        finally:
            gap = f"{row.gaps_s[-1]:.1f} s without a write" if row.gaps_s else ""
            print(f"{number}: {name}: {gap}", *row.violations[known:], sep="\n   ", flush=True)
        if sum(len(each.violations) for each in rows.values()) > _VIOLATIONS_MAX:
            break

    for line in _table(rows):
        say(line)
    assert not [each for row in rows.values() for each in row.violations]

"""The checks behind `/health`, `/livez` and `/readyz`, on a real state."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from security.lab import MEMBER, World

from kvsecure.core.state import State
from kvsecure.model.ids import SYSTEM_TENANT, MemberId
from kvsecure.proto import kv_pb2, maintenance_pb2, state_pb2
from kvsecure.server.health import Health, Verdict
from kvsecure.telemetry.snapshot import HealthOutcome

_READY = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"


class Engine:
    """An engine that leads or not, and is behind or not, as a test says."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.has_leader = True
        self.is_behind = False

    def is_in_touch(self) -> bool:
        """Tell whether it is not behind."""
        return not self.is_behind


class Bench(NamedTuple):
    """The health of a state."""

    world: World
    engine: Engine
    health: Health

    def raise_alarm(self, *kinds: int) -> None:
        """Raise alarms of a member."""
        for kind in kinds:
            self.engine.state.alarms.add((7, kind))

    def declare_learner(self, member: MemberId) -> None:
        """Declare a member that has no vote."""
        record = state_pb2.Member(id=member, peer_urls=[f"https://m{member}:1"], is_learner=True)
        self.world.system(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)

    def damage(self) -> None:
        """Write a key, and lose its record."""
        self.world.ask(kv_pb2.PutRequest(key=b"a-secret-name", value=b"v"))
        self.world.lose_records()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A member that is well."""
    world = World(tmp_path)
    engine = Engine(world.state)
    yield Bench(world, engine, Health(engine, MEMBER))
    world.close()


# --- /health ----------------------------------------------------------------------------------


def test_health_is_well_where_everything_is(bench: Bench) -> None:
    """With keys and without."""
    assert bench.health.overall("") == ""
    bench.world.ask(kv_pb2.PutRequest(key=b"k", value=b"v"))
    assert bench.health.overall("") == ""


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "ALARM NOSPACE"),
        ("exclude=NOSPACE", "ALARM CORRUPT"),
        ("exclude=CORRUPT", "ALARM NOSPACE"),
        ("exclude=NOSPACE&exclude=CORRUPT", ""),
        ("exclude=nospace", "ALARM NOSPACE"),
        ("exclude=", "ALARM NOSPACE"),
        ("serializable=true", "ALARM NOSPACE"),
    ],
)
def test_health_tells_alarms_that_are_not_excluded(bench: Bench, query: str, reason: str) -> None:
    """Alarms come first, whatever kind of read is asked for."""
    bench.raise_alarm(maintenance_pb2.NOSPACE, maintenance_pb2.CORRUPT)

    assert bench.health.overall(query) == reason


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "RAFT NO LEADER"),
        ("serializable=false", "RAFT NO LEADER"),
        ("serializable=1", "RAFT NO LEADER"),
        ("serializable=true", ""),
        ("serializable=true&serializable=false", ""),
    ],
)
def test_health_of_a_member_without_a_leader(bench: Bench, query: str, reason: str) -> None:
    """Only who asks for the member alone is told that it is well."""
    bench.engine.has_leader = False

    assert bench.health.overall(query) == reason


def test_health_of_a_member_that_is_behind(bench: Bench) -> None:
    """What it has may be stale: a linearizable read would wait."""
    bench.engine.is_behind = True

    assert bench.health.overall("") == "RANGE ERROR:etcdserver: request timed out"
    assert bench.health.overall("serializable=true") == ""


@pytest.mark.parametrize("query", ["", "serializable=true"])
def test_health_reads_what_is_stored(bench: Bench, query: str) -> None:
    """A record that is lost is found out, and no name of a key is told."""
    bench.damage()

    assert bench.health.overall(query) == "RANGE ERROR:etcdserver: corrupt cluster"


def test_health_is_counted(bench: Bench) -> None:
    """The answers of `/health`, good and bad."""
    bench.health.overall("")
    bench.engine.has_leader = False
    bench.health.overall("")
    bench.health.overall("")

    assert (bench.health.counts.successes, bench.health.counts.failures) == (1, 2)


# --- /livez and /readyz -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        ("/livez", "", "ok\n"),
        ("/livez", "verbose", "[+]serializable_read ok\nok\n"),
        ("/livez", "verbose=false", "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", "verbose", "[+]serializable_read ok\nok\n"),
        ("/readyz", "", "ok\n"),
        ("/readyz", "verbose", f"{_READY}[+]non_learner ok\nok\n"),
        ("/readyz", "verbose&exclude=non_learner", f"{_READY}ok\n"),
        ("/readyz", "verbose&exclude=non_learner&exclude=of_another_version", f"{_READY}ok\n"),
        ("/readyz", "verbose&allowlist=non_learner", "[+]non_learner ok\nok\n"),
        (
            "/readyz",
            "verbose&allowlist=non_learner&allowlist=data_corruption",
            "[+]data_corruption ok\n[+]non_learner ok\nok\n",
        ),
        ("/readyz/data_corruption", "", "ok\n"),
        ("/readyz/linearizable_read", "verbose", "[+]linearizable_read ok\nok\n"),
        ("/readyz/serializable_read", "", "ok\n"),
        ("/readyz/non_learner", "", "ok\n"),
    ],
)
def test_checks_of_a_member_that_is_well(bench: Bench, path: str, query: str, text: str) -> None:
    """The checks are etcd's, by their names, all of them or those that are asked for."""
    assert bench.health.verdict(path, query) == Verdict(status=200, text=text)


@pytest.mark.parametrize(
    "path", ["/livez/", "/livez/non_learner", "/livezx", "/readyz/x", "/readyz/non_learner/", "/"]
)
def test_check_that_does_not_exist_is_no_page(bench: Bench, path: str) -> None:
    """It is not found, instead of being well."""
    assert bench.health.verdict(path, "") is None


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("allowlist=x", "the checks are data_corruption, serializable_read, "),
        ("allowlist=non_learner&allowlist=x", "the checks are "),
        ("allowlist=non_learner&exclude=non_learner", "exclude and allowlist cannot be used"),
    ],
)
def test_question_that_makes_no_sense_is_told_so(bench: Bench, query: str, text: str) -> None:
    """A probe that checks nothing by mistake does not pass."""
    verdict = bench.health.verdict("/readyz", query)

    assert verdict is not None
    assert (verdict.status, verdict.text[: len(text)]) == (400, text)


def _failing(bench: Bench, path: str, query: str = "") -> str:
    verdict = bench.health.verdict(path, query)
    assert verdict is not None
    assert (verdict.status == 200) == (verdict.text == "ok\n")
    return "" if verdict.status == 200 else verdict.text


def test_corruption_makes_unready_and_not_dead(bench: Bench) -> None:
    """Starting it again would not help."""
    bench.raise_alarm(maintenance_pb2.CORRUPT)

    assert "[-]data_corruption failed: alarm activated: CORRUPT\n" in _failing(bench, "/readyz")
    assert _failing(bench, "/readyz/data_corruption")
    assert not _failing(bench, "/readyz", "exclude=data_corruption")
    assert not _failing(bench, "/livez")


def test_want_of_space_is_no_reason_to_be_unready(bench: Bench) -> None:
    """Reads are still answered, as with etcd."""
    bench.raise_alarm(maintenance_pb2.NOSPACE)

    assert not _failing(bench, "/readyz")
    assert not _failing(bench, "/livez")


def test_want_of_a_leader_makes_unready_and_not_dead(bench: Bench) -> None:
    """Only the read that needs a majority fails; every other line says that it is well."""
    bench.engine.has_leader = False

    assert _failing(bench, "/readyz") == (
        "[+]data_corruption ok\n[+]serializable_read ok\n"
        "[-]linearizable_read failed: etcdserver: no leader\n[+]non_learner ok\n"
    )
    assert not _failing(bench, "/livez")


def test_member_that_is_behind_is_unready(bench: Bench) -> None:
    """Until it has applied what is committed."""
    bench.engine.is_behind = True

    assert "[-]linearizable_read failed: etcdserver: request timed out\n" in _failing(
        bench, "/readyz"
    )
    assert not _failing(bench, "/livez")


def test_learner_is_unready_and_not_dead(bench: Bench) -> None:
    """It has what the others have, and answers next to nobody; `/health` asks no such thing."""
    bench.declare_learner(MEMBER)

    assert _failing(bench, "/readyz") == (
        f"{_READY}[-]non_learner failed: not supported for learner\n"
    )
    assert _failing(bench, "/readyz/non_learner")
    assert not _failing(bench, "/readyz", "exclude=non_learner")
    assert not _failing(bench, "/livez")
    assert bench.health.overall("") == ""


def test_learner_that_votes_is_ready(bench: Bench) -> None:
    """What matters is whether this member has a vote by now, and no other one."""
    bench.declare_learner(MEMBER)
    bench.world.system(state_pb2.MemberPromote(id=MEMBER), SYSTEM_TENANT)
    bench.declare_learner(MemberId(MEMBER + 1))

    assert not _failing(bench, "/readyz")


def test_lost_record_is_neither_alive_nor_ready(bench: Bench) -> None:
    """The reads are real ones, and nobody learns the name of a key."""
    bench.damage()

    for path in ("/livez", "/readyz", "/livez/serializable_read", "/readyz/linearizable_read"):
        text = _failing(bench, path)
        assert "_read failed: etcdserver: corrupt cluster\n" in text
        assert "secret" not in text


def test_checks_are_counted_by_how_they_end(bench: Bench) -> None:
    """By page, name and outcome, and how each of them ended last."""
    bench.health.verdict("/livez", "")
    bench.health.verdict("/readyz/linearizable_read", "")
    bench.engine.has_leader = False
    bench.health.verdict("/readyz/linearizable_read", "")

    assert bench.health.counts.outcomes == {
        HealthOutcome("livez", "serializable_read", "success"): 1,
        HealthOutcome("readyz", "linearizable_read", "success"): 1,
        HealthOutcome("readyz", "linearizable_read", "error"): 1,
    }
    assert bench.health.counts.passing == {
        ("livez", "serializable_read"): True,
        ("readyz", "linearizable_read"): False,
    }

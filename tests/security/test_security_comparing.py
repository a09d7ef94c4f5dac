"""Members that compare what they have come to, and whom the alarm is raised for."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, final

import pytest
from core.cluster_lab import ClusterLab, cluster
from core.engine_lab import EngineLab, eventually
from security.log_gate import LogGate

from kvsecure.core.state import State
from kvsecure.model.errors import Refused
from kvsecure.model.ids import DEFAULT_TENANT, SYSTEM_TENANT, LeaseId, MemberId
from kvsecure.proto import kv_pb2, maintenance_pb2, state_pb2
from kvsecure.security.comparing import Comparing, suspects

_CORRUPT: Final = int(maintenance_pb2.CORRUPT)


@pytest.mark.parametrize(
    ("told", "voters", "expected"),
    [
        ({1: b"a", 2: b"a", 3: b"a"}, (1, 2, 3), ()),
        ({1: b"a", 2: b"a", 3: b"b"}, (1, 2, 3), (3,)),
        # Whoever asks may be the one.
        ({1: b"b", 2: b"a", 3: b"a"}, (1, 2, 3), (1,)),
        # Who cannot say is not accused, and is counted all the same.
        ({1: b"a", 2: b"a"}, (1, 2, 3), ()),
        ({1: b"a", 2: b"b"}, (1, 2, 3), (0,)),
        ({1: b"a", 2: b"b"}, (1, 2), (0,)),
        ({1: b"a", 2: b"b", 3: b"c"}, (1, 2, 3), (0,)),
        ({1: b"a", 2: b"a", 3: b"a", 4: b"b", 5: b"c"}, (1, 2, 3, 4, 5), (4, 5)),
        # A learner is compared, and is nobody's majority.
        ({1: b"a", 2: b"a", 3: b"a", 4: b"b"}, (1, 2, 3), (4,)),
        ({1: b"a", 2: b"b", 3: b"a", 4: b"b", 5: b"b"}, (1, 2, 3), (2, 4, 5)),
        ({}, (1, 2, 3), ()),
    ],
)
def test_whoever_differs_from_most_voters_is_suspected(
    told: dict[int, bytes], voters: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Where too few agree nobody is named, as by etcd."""
    assert suspects(told, voters) == frozenset(expected)


@final
class _Upkeep:
    """Hashes as a test says."""

    def __init__(self) -> None:
        self.digest = b"the same"
        self.asked: list[int] = []
        self.checks = 0
        # What happens meanwhile.
        self.meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def hash_through(self, revision: int) -> bytes:
        """Return what the test says."""
        self.asked.append(revision)
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.digest

    def check_soon(self) -> None:
        """Take note."""
        self.checks += 1


@final
class _Gate(LogGate):
    """Takes commands of the member itself to the log of a member on the bench."""

    def __init__(self, lab: EngineLab) -> None:
        super().__init__(lab)
        self.noted: list[tuple[str, dict[str, object]]] = []
        self.events = SimpleNamespace(note=lambda stage, **f: self.noted.append((stage, f)))


@final
class _Side:
    """One member, as far as it compares."""

    def __init__(self, lab: EngineLab) -> None:
        self.lab = lab
        self.gate = _Gate(lab)
        self.upkeep = _Upkeep()
        self.tasks: set[asyncio.Task[None]] = set()
        self.comparing = Comparing(
            self.gate,  # type: ignore[arg-type]  # all that comparing asks of it
            self.upkeep,  # type: ignore[arg-type]  # likewise
            spawn=self._spawn,
        )
        lab.engine.peering.answering[state_pb2.MarkRequest] = self.comparing.answer_member

    @property
    def member(self) -> MemberId:
        """Who it is."""
        return self.lab.engine.replica.node.member

    @property
    def state(self) -> State:
        """What it has applied."""
        return self.lab.state

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.ensure_future(work))


def _sides(lab: ClusterLab) -> tuple[_Side, list[_Side]]:
    """Return the one that leads, and the others."""
    sides = [_Side(member) for member in lab.members.values()]
    (leader,) = (side for side in sides if side.lab is lab.leader)
    return leader, [side for side in sides if side is not leader]


async def _compare(leader: _Side) -> None:
    await asyncio.wait_for(leader.comparing.compare(), 20)


async def _answer(side: _Side, index: int, *, versions: bool) -> bytes:
    """Return what a member answers about a mark."""
    told: asyncio.Future[bytes | Refused] = asyncio.get_running_loop().create_future()
    asked = state_pb2.MarkRequest(index=index, versions=versions)
    side.comparing.answer_member(SYSTEM_TENANT, asked, lambda _, came: told.set_result(came))
    came = await asyncio.wait_for(told, 20)
    assert isinstance(came, bytes)
    return state_pb2.MarkResponse.FromString(came).digest


def _play(path: Path, scene: Callable[[ClusterLab], Coroutine[Any, Any, None]]) -> None:
    async def act() -> None:
        async with cluster(path, 3, declared=True) as lab:
            await lab.leader.put(b"k", b"v")
            await scene(lab)

    asyncio.run(act())


def test_members_that_agree_are_left_alone(tmp_path: Path) -> None:
    """Marks and hashes are compared, of one revision, while writes go on; nobody is alarmed."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        for side in (leader, *others):
            side.upkeep.meanwhile = lambda: _put(lab.followers[0])
        await _compare(leader)

        assert [side.upkeep.asked for side in (leader, *others)] == [[2]] * 3
        assert leader.gate.noted == []
        await lab.settled()
        assert all(not side.state.alarms for side in (leader, *others))

    _play(tmp_path, scene)


async def _put(member: EngineLab) -> None:
    await member.put(b"k", b"w")


@pytest.mark.parametrize("is_leader", [False, True])
def test_member_that_has_other_accounts_or_leases_is_named(
    tmp_path: Path, *, is_leader: bool
) -> None:
    """One of three differs, the leader maybe: the alarm is raised for it, on all of them."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        wrong = leader if is_leader else others[0]
        wrong.state.store.space(DEFAULT_TENANT).leases.load(LeaseId(9), 60, 0, 0)

        await _compare(leader)

        assert [stage for stage, _ in leader.gate.noted] == ["members-differ"]
        assert leader.gate.noted[0][1]["members"] == [f"{wrong.member:x}"]
        await eventually(
            lambda: all(
                side.state.alarms == {(wrong.member, _CORRUPT)} for side in (leader, *others)
            )
        )
        # Versions are not read any more.
        assert leader.upkeep.asked == []

    _play(tmp_path, scene)


def test_member_that_has_other_versions_is_named(tmp_path: Path) -> None:
    """What the hash of the versions of keys says of one member is found out as well."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        others[1].upkeep.digest = b"another"

        await _compare(leader)

        await eventually(lambda: leader.state.alarms == {(others[1].member, _CORRUPT)})

    _play(tmp_path, scene)


def test_member_that_gave_up_versions_meanwhile_says_nothing(tmp_path: Path) -> None:
    """A hash of what was compacted while it was made accuses nobody, whatever it is."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        compaction = kv_pb2.CompactionRequest(revision=2)

        async def compact() -> None:
            await others[0].lab.do(compaction, SYSTEM_TENANT)

        others[0].upkeep.meanwhile = compact
        others[0].upkeep.digest = b"of less"

        await _compare(leader)

        await lab.settled()
        assert leader.gate.noted == []
        assert not leader.state.alarms

    _play(tmp_path, scene)


def test_member_is_asked_about_one_mark_and_no_other(tmp_path: Path) -> None:
    """What it came to at another index than is asked for is nothing that can be compared."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        await _compare(leader)
        mark = others[0].state.mark
        assert mark is not None

        said = [
            await _answer(others[0], index, versions=versions)
            for index in (mark.index - 1, mark.index)
            for versions in (False, True)
        ]

        assert said == [b"", b"", mark.digest, b"the same"]

    _play(tmp_path, scene)


def test_members_that_cannot_be_reached_are_not_waited_for(tmp_path: Path) -> None:
    """Who is cut off says nothing, and the others are compared."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        lab.cut(others[0].member)
        others[1].upkeep.digest = b"another"

        await _compare(leader)

        # Of three voters one says this and one says that.
        await eventually(lambda: leader.state.alarms == {(0, _CORRUPT)})

    _play(tmp_path, scene)


def test_comparing_is_the_leaders_and_ends_with_its_term(tmp_path: Path) -> None:
    """Whoever follows checks itself; a leader that is cut off gives up, and raises no alarm."""

    async def scene(lab: ClusterLab) -> None:
        leader, others = _sides(lab)
        others[0].comparing.begin()
        assert (others[0].upkeep.checks, others[0].tasks) == (1, set())

        lab.cut(leader.member)
        leader.comparing.begin()
        leader.comparing.begin()
        (first, second) = leader.tasks
        await eventually(lambda: any(side.lab.engine.leading.is_own for side in others))
        lab.cut()

        await asyncio.wait_for(asyncio.gather(first, second), 20)
        assert not leader.state.alarms
        assert leader.gate.noted == []

    _play(tmp_path, scene)

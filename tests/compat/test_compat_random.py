"""Random operations, asked of etcd and of the server under test: every answer is the same.

Owns: the runs, plain and under a tenant, and finding the few operations that make a difference.
Never: knows a right answer; etcd is the model.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, final

import pytest
from support.lockstep import Run, Told, reset, revision_of
from support.operations import Operation, draw_plan, moved
from support.rpc import Client
from support.seeds import seed_of
from support.servers import ROOT_PASSWORD, EtcdMember, Member

from kvsecure.proto import kv_pb2, tenant_pb2

# Long enough that watches see much, short enough that a difference is found in it.
_OPERATIONS_OF_A_PLAN: Final = 1_000
# CI asks for three times as many.
_PLANS: Final = int(os.environ.get("COMPARED_PLANS", "3"))
# A difference is made smaller for so long.
_SHRINK_S_MAX: Final = 60
_TENANT: Final = "acme"
_TENANT_ROOT: Final = "acme/root"
_MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES_MIN: Final = 2 << 30


@final
class _Side(NamedTuple):
    """One of the servers, as its client sees it."""

    name: str
    user: str
    client: Client
    # Who may compact.
    root: Client

    def log_in(self) -> None:
        """Get new tokens: they end while a campaign goes on."""
        self.client.login(self.user, ROOT_PASSWORD)
        self.root.login("root", ROOT_PASSWORD)

    def run(self, plan: list[Operation]) -> Told:
        """Carry out a plan on an empty key space."""
        return Run(self.client, self.root.kv.Compact).carry_out(plan)


@final
class _Sides:
    """Etcd and what has to answer like it, all at the same revision."""

    def __init__(self, *sides: _Side) -> None:
        self._sides = sides
        self._threads = ThreadPoolExecutor(len(sides))

    @property
    def compared_count(self) -> int:
        """How many are compared with etcd."""
        return len(self._sides) - 1

    def close(self) -> None:
        """End the clients."""
        self._threads.shutdown()
        for side in self._sides:
            side.client.close()
            side.root.close()

    def level(self) -> int:
        """Empty all, bring them to one revision and return it."""
        for side in self._sides:
            side.log_in()
            reset(side.client)
        newest = max(revision_of(side.client) for side in self._sides) + 1
        for side in self._sides:
            while revision_of(side.client) < newest:
                side.client.kv.Put(kv_pb2.PutRequest(key=b"a"))
            side.client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"a"))
        return newest + 1

    def difference(self, plan: list[Operation]) -> str:
        """Carry out a plan on all; return where one differs from etcd, or nothing."""
        told = list(self._threads.map(lambda side: side.run(plan), self._sides))
        for side, ours in zip(self._sides[1:], told[1:], strict=True):
            difference = _difference(plan, told[0], ours)
            if difference:
                return f"{side.name}: {difference}"
        return ""


def _difference(plan: list[Operation], theirs: Told, ours: Told) -> str:
    for number, (operation, *told) in enumerate(
        zip(plan, theirs.answers, ours.answers, strict=True)
    ):
        if told[0] != told[1]:
            return f"operation {number}: {operation}\netcd: {told[0]!r}\nours: {told[1]!r}"
    for number, seen in theirs.watches.items():
        if seen != (told := ours.watches[number]):
            at = next((at for at, (a, b) in enumerate(zip(seen, told, strict=False)) if a != b), -1)
            counts = f"{len(seen)} and {len(told)} responses"
            return f"watch {number}, {counts}\netcd: {seen[at]!r}\nours: {told[at]!r}"
    if theirs.revision != ours.revision:
        return f"revision {theirs.revision} and {ours.revision}"
    return ""


def _compare(sides: _Sides, seed: str) -> int:
    """Run one plan; return how many answers were compared with etcd's.

    Raises:
        AssertionError: They differ, with the fewest operations that still do.
    """
    base = sides.level()
    plan = draw_plan(seed, _OPERATIONS_OF_A_PLAN, base)
    difference = sides.difference(plan)
    if difference:
        plan, difference = _smaller(sides, plan, base, difference)
        lines = "\n".join(f"{method} {request!s}" for method, request in plan)
        raise AssertionError(f"seed {seed!r}\n{difference}\n--- of these operations:\n{lines}")
    return len(plan) * sides.compared_count


def _smaller(
    sides: _Sides, plan: list[Operation], base: int, difference: str
) -> tuple[list[Operation], str]:
    """Leave out what is not needed for a difference, half of it, a quarter of it, and so on."""
    deadline_s = time.monotonic() + _SHRINK_S_MAX
    size = len(plan) // 2
    while size and time.monotonic() < deadline_s:
        at = 0
        while at < len(plan) and time.monotonic() < deadline_s:
            shorter = plan[:at] + plan[at + size :]
            now = sides.level()
            found = sides.difference(moved(shorter, now - base))
            if found:
                plan, difference = shorter, found
            else:
                at += size
        size //= 2
    return plan, difference


def _plain(name: str, member: Member) -> _Side:
    return _Side(name, "root", member.client(), member.client())


def _under_a_tenant(member: Member) -> _Side:
    """Return a tenant, whose users see nothing of there being others."""
    root = member.client()
    root.tenants.TenantAdd(tenant_pb2.TenantAddRequest(name=_TENANT, root_password=ROOT_PASSWORD))
    return _Side("tenant", _TENANT_ROOT, member.client(_TENANT_ROOT), root)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, if there is room for some: what is compared needs no disk."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES_MIN:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def sides(subject_type: type[Member], quick_path: Path) -> Iterator[_Sides]:
    """Etcd, the server under test, and a tenant of another one."""
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(EtcdMember(quick_path / "etcd"))
        plain = stack.enter_context(subject_type(quick_path / "plain"))
        found = [_plain("etcd", etcd), _plain("plain", plain)]
        if subject_type is not EtcdMember:
            member = stack.enter_context(subject_type(quick_path / "tenant"))
            found.append(_under_a_tenant(member))
        sides = _Sides(*found)
        stack.callback(sides.close)
        yield sides


@pytest.mark.timeout(_SHRINK_S_MAX + 300)
def test_random_operations_answer_like_etcd(
    sides: _Sides, pytestconfig: pytest.Config, say: Callable[[str], None]
) -> None:
    """Random operations, and watches meanwhile, are answered alike, plain and under a tenant."""
    seed = seed_of(pytestconfig)

    count = sum(_compare(sides, f"{seed}/{number}") for number in range(_PLANS))

    assert count == _PLANS * _OPERATIONS_OF_A_PLAN * sides.compared_count
    say(f"compared with etcd: {count} answers, and the events of all watches; no difference")


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_random_campaign_answers_like_etcd(
    sides: _Sides, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """For hours (KVSECURE_CAMPAIGN_HOURS, or one minute) all is answered alike."""
    seed = seed_of(pytestconfig)
    end_s = time.monotonic() + 3600 * float(os.environ.get("KVSECURE_CAMPAIGN_HOURS", "0.02"))
    count = plans = 0

    while time.monotonic() < end_s:
        count += _compare(sides, f"{seed}/{plans}")
        plans += 1
        with capsys.disabled():
            print(f"\rseed {seed}: {count} answers, no difference", end="", flush=True)

    assert count

"""Leases over restarts: they go on where their last checkpoint has them, not from the beginning."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from core.engine_lab import EngineLab, running

from kvsecure.core.lease import LeaseTable
from kvsecure.model.ids import DEFAULT_TENANT, LeaseId
from kvsecure.proto import lease_pb2

_NS = 1_000_000_000
_LEASE = LeaseId(7)
_LONG = LeaseId(8)


def _run(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(play)


def _leases(lab: EngineLab) -> LeaseTable:
    return lab.state.store.space(DEFAULT_TENANT).leases


async def _do(lab: EngineLab, *commands: Any) -> None:
    told = [lab.submit(command) for command in commands]
    lab.engine.end_turn()
    await asyncio.gather(*told)


def _grant(lease: int) -> lease_pb2.LeaseGrantRequest:
    return lease_pb2.LeaseGrantRequest(ID=lease, TTL=1_000)


def _checkpoint(lease: int, remaining_s: int) -> lease_pb2.LeaseCheckpointRequest:
    checkpoint = lease_pb2.LeaseCheckpoint(ID=lease, remaining_TTL=remaining_s)
    return lease_pb2.LeaseCheckpointRequest(checkpoints=[checkpoint])


def _has(lab: EngineLab, lease: LeaseId, remaining_s: int) -> bool:
    """Tell whether a lease has so long to live, but for the minute that the test may take."""
    view = _leases(lab).view(lease, lab.engine._now_ns())
    assert view is not None
    assert view.ttl_s == 1_000
    return remaining_s - 60 <= view.remaining_s <= remaining_s


@pytest.mark.parametrize("flushed", [True, False], ids=["from-the-tables", "from-the-log"])
def test_start_gives_a_lease_what_its_checkpoint_says(tmp_path: Path, *, flushed: bool) -> None:
    """A lease with a checkpoint goes on from there, and one without has its whole time."""

    async def play() -> None:
        async with running(tmp_path / "data") as lab:
            await _do(lab, _grant(_LEASE), _grant(_LONG), _checkpoint(_LEASE, 400))
            # What is known better stays as it is.
            assert _has(lab, _LEASE, 1_000)
            if flushed:
                await lab.flushed()
        async with running(tmp_path / "data") as lab:
            assert _has(lab, _LEASE, 400)
            assert _has(lab, _LONG, 1_000)
        async with running(tmp_path / "data") as lab:
            assert _has(lab, _LEASE, 400)

    _run(play())


@pytest.mark.parametrize("flushed", [True, False], ids=["from-the-tables", "from-the-log"])
def test_start_gives_the_whole_time_when_a_checkpoint_was_taken_back(
    tmp_path: Path, *, flushed: bool
) -> None:
    """A checkpoint of nothing takes back the one before."""

    async def play() -> None:
        async with running(tmp_path / "data") as lab:
            await _do(lab, _grant(_LEASE), _checkpoint(_LEASE, 400))
            if flushed:
                await lab.flushed()
            await _do(lab, _checkpoint(_LEASE, 0))
            if flushed:
                await lab.flushed()
        async with running(tmp_path / "data") as lab:
            assert _has(lab, _LEASE, 1_000)

    _run(play())


def test_checkpoint_of_a_revoked_lease_leaves_nothing(tmp_path: Path) -> None:
    """A checkpoint that comes after the revocation does not bring a lease back."""

    async def play() -> None:
        async with running(tmp_path / "data") as lab:
            revoke = lease_pb2.LeaseRevokeRequest(ID=_LEASE)
            await _do(lab, _grant(_LEASE), revoke, _checkpoint(_LEASE, 400))
            await lab.flushed()
        async with running(tmp_path / "data") as lab:
            assert _LEASE not in _leases(lab)

    _run(play())

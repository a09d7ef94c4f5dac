"""Leases that end, that are noted, and that are kept alive: at the gate, on a clock set by hand."""

from collections import Counter
from typing import Final

import pytest
from security.lab import World

from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, LeaseId
from kvsecure.proto import lease_pb2

_LEASE: Final = LeaseId(5)


@pytest.fixture
def granted(world: World) -> World:
    """A world with a lease of 1,000 seconds."""
    world.ask(lease_pb2.LeaseGrantRequest(ID=_LEASE, TTL=1_000))
    return world


def _scan(world: World) -> None:
    world.gate.leases.scan()
    world.turn.end()


def _checkpoints(world: World) -> list[tuple[int, int]]:
    return [
        (each.ID, each.remaining_TTL)
        for command in world.engine.applied
        if isinstance(command, lease_pb2.LeaseCheckpointRequest)
        for each in command.checkpoints
    ]


def _revoked(world: World) -> list[int]:
    commands = world.engine.applied
    return [each.ID for each in commands if isinstance(each, lease_pb2.LeaseRevokeRequest)]


def _remaining_s(world: World) -> int:
    return world.state.store.space(DEFAULT_TENANT).leases.remaining_s(_LEASE)


def test_long_lease_is_noted_every_five_minutes(granted: World) -> None:
    """How long a lease has is written down by the member itself, and recorded as such."""
    _scan(granted)
    assert _checkpoints(granted) == []
    granted.clock.forward(300)
    _scan(granted)
    granted.clock.forward(300)
    _scan(granted)

    assert _checkpoints(granted) == [(_LEASE, 700), (_LEASE, 400)]
    intent, _ = granted.last(2)
    assert intent["actor"] == {"via": "system"}
    assert intent["op"] == {"rpc": "LeaseCheckpoint", "checkpoints_count": 1}


def test_keep_alive_takes_the_checkpoint_back_first(granted: World) -> None:
    """A renewal is not answered before a start would give the lease its whole time."""
    granted.clock.forward(300)
    _scan(granted)
    assert _remaining_s(granted) == 700

    asked = granted.begin(lease_pb2.LeaseKeepAliveRequest(ID=_LEASE))
    in_the_log = list(_checkpoints(granted))
    granted.turn.end()

    assert in_the_log == [(_LEASE, 700)]
    assert _checkpoints(granted) == [(_LEASE, 700), (_LEASE, 0)]
    assert asked.body is not None
    assert lease_pb2.LeaseKeepAliveResponse.FromString(asked.body).TTL == 1_000
    assert _remaining_s(granted) == 0
    view = granted.state.store.space(DEFAULT_TENANT).leases.view(_LEASE, granted.clock())
    assert view is not None
    assert view.remaining_s == 1_000


def test_keep_alive_that_cannot_be_logged_is_refused(granted: World) -> None:
    """If the checkpoint cannot be taken back, nobody is told that the lease has its whole time."""
    granted.clock.forward(300)
    _scan(granted)

    granted.engine.refusal = Refused(Failure.NO_SPACE)
    asked = granted.ask(lease_pb2.LeaseKeepAliveRequest(ID=_LEASE))

    assert asked.why == "NO_SPACE"
    assert _remaining_s(granted) == 700


def test_keep_alive_of_a_lease_without_checkpoint_is_answered_at_once(granted: World) -> None:
    """Nothing goes through the log for a lease that has its whole time there."""
    asked = granted.ask(lease_pb2.LeaseKeepAliveRequest(ID=_LEASE))

    assert asked.body is not None
    assert _checkpoints(granted) == []


@pytest.mark.parametrize("tenants", [1, 2, 5])
def test_five_hundred_leases_are_revoked_in_a_scan(world: World, tenants: int) -> None:
    """However many tenants' leases end, one scan revokes 500 of them, none at the others' cost."""
    names = [f"t{number}" for number in range(tenants)]
    for name in names:
        world.tenant(name)
        number = world.state.accounts.tenant_named(name).id
        for lease in range(1, 601):
            world.system(lease_pb2.LeaseGrantRequest(ID=lease, TTL=5), number)
    world.clock.forward(6)

    _scan(world)

    assert len(_revoked(world)) == 500
    assert set(Counter(_revoked(world)).values()) == {tenants}
    for _ in range(tenants + 1):
        _scan(world)
    assert len(_revoked(world)) == 600 * tenants


def test_few_leases_of_one_tenant_do_not_wait_for_many_of_another(world: World) -> None:
    """A tenant with one lease that ends is served in the same scan as one with thousands."""
    for name, count in (("many", 2_000), ("few", 1)):
        world.tenant(name)
        number = world.state.accounts.tenant_named(name).id
        for lease in range(1, count + 1):
            world.system(lease_pb2.LeaseGrantRequest(ID=lease, TTL=5), number)
    world.clock.forward(6)

    _scan(world)

    few = world.state.accounts.tenant_named("few").id
    assert len(world.state.store.space(few).leases) == 0
    assert len(_revoked(world)) == 500


def test_lease_whose_revocation_failed_is_revoked_later(granted: World) -> None:
    """A lease that could not be revoked is not forgotten, and not tried without end: after 3 s."""
    granted.clock.forward(1_001)
    granted.engine.refusal = Refused(Failure.NO_SPACE)
    _scan(granted)
    granted.engine.refusal = None
    granted.clock.forward(2)
    _scan(granted)
    assert _revoked(granted) == []

    granted.clock.forward(1)
    _scan(granted)

    assert _revoked(granted) == [_LEASE]

"""Leases through the client, on a real server."""

import threading

import pytest
from support.processes import wait_until

from kvsecure.client import Client, ClientError
from kvsecure.model.errors import Failure

__all__: list[str] = []


def test_lease_is_granted_listed_and_revoked(root: Client) -> None:
    """A lease is known until it is revoked, and takes its keys with it."""
    granted = root.lease.grant(60)
    root.kv.put(b"/lease/a", b"1", lease=granted.lease)

    state = root.lease.ttl(granted.lease, keys=True)
    listed = root.lease.list()
    root.lease.revoke(granted.lease)

    assert state is not None
    assert (state.granted_ttl_s, state.keys) == (60, (b"/lease/a",))
    assert 0 < state.ttl_s <= 60
    assert granted.lease in listed
    assert root.lease.ttl(granted.lease) is None
    assert root.kv.get(b"/lease/a") is None


def test_lease_may_have_an_id_of_its_own(root: Client) -> None:
    """A lease is granted under the id that is asked for, once."""
    assert root.lease.grant(60, lease=77).lease == 77

    with pytest.raises(ClientError) as refused:
        root.lease.grant(60, lease=77)
    assert refused.value.failure is Failure.LEASE_EXISTS


def test_short_lives_are_raised(root: Client) -> None:
    """The life that counts is the one the server answers."""
    assert root.lease.grant(1).ttl_s == 2


def test_renewal_restores_the_whole_life(root: Client) -> None:
    """A renewed lease has its whole life again."""
    lease = root.lease.grant(60).lease

    assert root.lease.renew(lease) == 60


def test_unknown_lease_cannot_be_renewed_or_revoked(root: Client) -> None:
    """A lease that is gone is an error of the catalogue, also where the wire has only a zero."""
    for ask in (root.lease.renew, root.lease.revoke):
        with pytest.raises(ClientError) as refused:
            ask(4242)
        assert refused.value.failure is Failure.LEASE_NOT_FOUND


def test_keep_alive_renews_until_it_is_stopped(root: Client) -> None:
    """A lease of two seconds lives on while it is kept alive, and the end is prompt."""
    lease = root.lease.grant(2).lease
    stop = threading.Event()
    renewals: list[int] = []

    def renew() -> None:
        for ttl_s in root.lease.keep_alive(lease, stop=stop):
            renewals.append(ttl_s)  # noqa: PERF402 - each one is to be seen when it happens

    thread = threading.Thread(target=renew)
    thread.start()

    # Four renewals take longer than the lease would live without them.
    wait_until(lambda: len(renewals) >= 4, deadline_s=20, what="four renewals")
    state = root.lease.ttl(lease)
    stop.set()
    thread.join(5)

    assert state is not None
    assert not thread.is_alive()
    assert set(renewals) == {2}


def test_keep_alive_ends_with_the_lease(root: Client) -> None:
    """When the lease is revoked elsewhere, keeping it alive fails."""
    lease = root.lease.grant(2).lease
    renewals = root.lease.keep_alive(lease)
    next(renewals)
    root.lease.revoke(lease)

    with pytest.raises(ClientError) as refused:
        next(renewals)

    assert refused.value.failure is Failure.LEASE_NOT_FOUND

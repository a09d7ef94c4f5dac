"""Locks and elections through the client, on a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from support.processes import wait_until
from support.servers import Member

from kvsecure.client import Client, ClientError, Keys, KeyValue, Secret
from kvsecure.client.lock import Lock
from kvsecure.model.errors import Code, Failure

__all__: list[str] = []

_DEADLINE_S = 10.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that wait."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def name(request: pytest.FixtureRequest) -> bytes:
    """A queue for each test of its own."""
    return f"/{request.node.name}".encode()


def _places(root: Client, name: bytes) -> list[KeyValue]:
    return list(root.kv.range(Keys.prefix(name + b"/")).kvs)


def _in_queue(root: Client, name: bytes, count: int) -> None:
    wait_until(
        lambda: len(_places(root, name)) == count, deadline_s=_DEADLINE_S, what=f"{count} places"
    )


def test_lock_is_held_and_let_go(root: Client, name: bytes) -> None:
    """Within the `with` the key is there, under a lease of its own; afterwards neither is."""
    with root.lock(name, ttl_s=30) as held:
        (place,) = _places(root, name)
        assert (place.key, place.lease) == (held.key, held.lease)

    assert _places(root, name) == []
    assert root.lease.ttl(held.lease) is None


def test_lock_is_had_by_one_after_another(
    root: Client, name: bytes, pool: ThreadPoolExecutor
) -> None:
    """Each holder's number is higher than those before it, and nobody is within with another."""
    fences: list[int] = []
    within = threading.Semaphore(1)

    def work() -> None:
        for _ in range(3):
            with root.lock(name, ttl_s=30) as held:
                assert within.acquire(blocking=False)
                fences.append(held.fence)
                within.release()

    for each in [pool.submit(work) for _ in range(4)]:
        each.result(timeout=60)

    assert len(fences) == 12
    assert fences == sorted(set(fences))


def test_wait_is_cancelled_by_another_thread(
    root: Client, name: bytes, pool: ThreadPoolExecutor
) -> None:
    """A wait that is cancelled says so, and leaves no place."""
    with root.lock(name, ttl_s=30):
        lock = root.lock(name, ttl_s=30)
        waiting = pool.submit(lock.acquire)
        _in_queue(root, name, 2)

        lock.cancel()

        assert _error(waiting).code is Code.CANCELLED
        _in_queue(root, name, 1)


def test_lock_is_lost_with_its_lease(root: Client, name: bytes) -> None:
    """A holder whose lease is gone is told, and letting go is no error."""
    lost = threading.Event()
    lock = root.lock(name, ttl_s=3)
    held = lock.acquire()
    lock.when_lost(lost.set)
    assert not lock.is_lost

    root.lease.revoke(held.lease)

    assert lost.wait(_DEADLINE_S)
    assert lock.is_lost
    lock.release()


def test_waiter_without_a_lease_is_told(
    root: Client, name: bytes, pool: ThreadPoolExecutor
) -> None:
    """Whoever waits and has lost its lease has etcd's error for it."""
    with root.lock(name, ttl_s=30) as held:
        waiting = pool.submit(root.lock(name, ttl_s=3).acquire)
        _in_queue(root, name, 2)
        (lease,) = {kv.lease for kv in _places(root, name)} - {held.lease}

        root.lease.revoke(lease)

        assert _error(waiting).failure is Failure.SESSION_EXPIRED


@pytest.mark.campaign
def test_lock_outlives_its_first_lease_time(root: Client, name: bytes) -> None:
    """A lock that is held is renewed, however long it is held."""
    with root.lock(name, ttl_s=2) as held:
        until = time.monotonic() + 3.0
        wait_until(
            lambda: time.monotonic() > until, deadline_s=_DEADLINE_S, what="more than a life"
        )

        assert [kv.key for kv in _places(root, name)] == [held.key]


def test_error_within_lets_go_and_is_what_comes_out(root: Client, name: bytes) -> None:
    """What goes wrong while a lock is held ends the lock and is not hidden."""
    with pytest.raises(ZeroDivisionError), root.lock(name):
        raise ZeroDivisionError

    assert _places(root, name) == []


@pytest.mark.campaign
def test_wait_goes_on_after_a_restart(
    member: Member, root: Client, name: bytes, pool: ThreadPoolExecutor
) -> None:
    """A waiter whose server was killed waits on when it is back."""
    holder: Lock = root.lock(name, ttl_s=60)
    holder.acquire()
    waiting = pool.submit(root.lock(name, ttl_s=60).acquire)
    _in_queue(root, name, 2)

    member.kill9()
    member.restart()
    assert not waiting.done()
    holder.release()

    assert waiting.result(timeout=_DEADLINE_S).key


def test_leader_is_elected_proclaims_and_resigns(root: Client, name: bytes) -> None:
    """Who campaigns leads, says what it likes, and is followed by nobody."""
    election = root.election(name, ttl_s=30)
    assert election.leader() is None

    with election.campaign(b"one") as leading:
        first = election.leader()
        leading.proclaim(b"two")
        second = election.leader()

    assert first is not None
    assert second is not None
    assert (first.key, first.value, first.create_revision) == (leading.key, b"one", leading.fence)
    assert second.value == b"two"
    assert election.leader() is None
    with pytest.raises(ClientError) as refused:
        leading.proclaim(b"three")
    assert refused.value.failure is Failure.NOT_ELECTED


def test_observer_sees_leaders_come_and_go(
    root: Client, name: bytes, pool: ThreadPoolExecutor
) -> None:
    """Each leader and each proclamation is seen, in order."""
    election = root.election(name, ttl_s=30)
    leaders = election.observe()
    first = election.campaign(b"one")
    assert next(leaders).value == b"one"
    waiting = pool.submit(election.campaign, b"next")
    _in_queue(root, name, 2)

    first.proclaim(b"two")
    assert next(leaders).value == b"two"
    first.resign()

    assert next(leaders).value == b"next"
    with waiting.result(timeout=_DEADLINE_S) as second:
        assert second.fence > first.fence
    leaders.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.parametrize("what", ["lock", "campaign", "observe", "leader"])
def test_who_may_not_is_refused(
    root: Client,
    as_user: Callable[[str, str], Client],
    name: bytes,
    what: str,
) -> None:
    """Whoever may not use the queue gets an error, and has no lease left behind."""
    password = "a-password-of-nobody-1234"
    root.users.add("nobody", Secret.of_text(password))
    try:
        client = as_user("nobody", password)
        leases = set(root.lease.list())
        act: dict[str, Callable[[], Any]] = {
            "lock": lambda: client.lock(name).acquire(),
            "campaign": lambda: client.election(name).campaign(b"v"),
            "observe": lambda: next(client.election(name).observe()),
            "leader": lambda: client.election(name).leader(),
        }

        with pytest.raises(ClientError):
            act[what]()

        assert set(root.lease.list()) <= leases
    finally:
        root.users.delete("nobody")


def _error(waiting: "Future[Any]") -> ClientError:
    with pytest.raises(ClientError) as raised:
        waiting.result(timeout=_DEADLINE_S)
    return raised.value

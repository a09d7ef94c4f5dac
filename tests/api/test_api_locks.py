"""Locks and campaigns: the order of a queue, who is told what, and what is left behind."""

from typing import Any

import pytest
from api.waiting import Queue
from api.watching import Bench

from kvsecure.model.errors import Code
from kvsecure.model.ids import LeaseId
from kvsecure.proto import auth_pb2, authstore_pb2, election_pb2, kv_pb2, lock_pb2

_LOCK = "/v3lockpb.Lock/Lock"
# What the bench's random numbers come to.
_NEXT_LEASE = 1


@pytest.fixture
def queue(bench: Bench) -> Queue:
    """A bench with four leases, and `web` who may do anything in /app/."""
    queue = Queue(bench)
    queue.grant(1, 2, 3, 4)
    bench.world.user("web")
    bench.world.role("app", b"/app/", b"/app0")
    return queue


@pytest.fixture
def web(queue: Queue) -> Queue:
    """The same, with `web` in the role."""
    queue.world.system(auth_pb2.AuthUserGrantRoleRequest(user="web", role="app"))
    queue.settle()
    return queue


def _records(queue: Queue, **op: Any) -> list[dict[str, Any]]:
    """Return the records of the trail that are of such an operation."""
    return [
        record
        for record in queue.world.records()
        if "op" in record and all(record["op"].get(name) == each for name, each in op.items())
    ]


# --- order --------------------------------------------------------------------------------------


def test_lock_is_handed_over_in_the_order_of_arrival(queue: Queue) -> None:
    """Whoever came first gets it next, whatever the order of the keys is."""
    callers = {lease: queue.lock(lease) for lease in (3, 1, 4, 2)}
    order = []

    for _ in range(4):
        (held,) = [lease for lease, each in callers.items() if not each.is_waiting]
        order.append(held)
        queue.unlock(callers.pop(held).answer.key)

    assert order == [3, 1, 4, 2]


def test_lock_that_is_free_by_the_time_it_is_looked_at_says_when(queue: Queue) -> None:
    """What was another's when the place was taken is not said to be held at that revision."""
    first, engine = queue.lock(1), queue.world.engine
    engine.is_alone = False
    second = queue.lock(2)
    queue.unlock(first.answer.key)

    engine.catch_up()
    queue.settle()

    assert second.revision == queue.bench.revision


def test_unlocking_wakes_one_alone(queue: Queue) -> None:
    """A release lets the next one in, and the others still wait."""
    first, second, third = queue.lock(1), queue.lock(2), queue.lock(3)

    queue.unlock(first.answer.key)

    assert not second.is_waiting
    assert third.is_waiting


def test_everybody_waits_for_the_one_ahead(queue: Queue) -> None:
    """A release is heard of by one waiter, however many there are behind it."""
    for lease in (1, 2, 3, 4):
        queue.lock(lease)

    watched = sorted(watcher.span.start for watcher in queue.watchers)

    # Each its own key, and that of the one before it.
    assert watched == [b"l/1", b"l/2", b"l/2", b"l/3", b"l/3", b"l/4"]


def test_one_that_leaves_the_middle_lets_nobody_in(queue: Queue) -> None:
    """When a waiter goes, who is behind it waits for who is ahead of it."""
    first, second, third = queue.lock(1), queue.lock(2), queue.lock(3)

    second.leave()
    queue.settle()

    assert third.is_waiting
    queue.unlock(first.answer.key)
    assert not third.is_waiting


def test_everything_older_in_the_queue_is_waited_for(queue: Queue) -> None:
    """Keys that others have put below the name are places as good as ours."""
    queue.bench.put(b"l/older")
    queue.bench.put(b"l/oldest-but-one")
    waiting = queue.lock(1)
    queue.bench.put(b"l/a-younger-one")

    queue.delete(b"l/oldest-but-one")
    assert waiting.is_waiting
    queue.delete(b"l/older")

    assert not waiting.is_waiting


def test_a_key_put_again_is_a_younger_place(queue: Queue) -> None:
    """A holder that let go and came back is behind those who waited."""
    first, second = queue.lock(1), queue.lock(2)

    queue.unlock(first.answer.key)
    again = queue.lock(1)

    assert not second.is_waiting
    assert again.is_waiting


def test_queues_of_other_names_are_others(queue: Queue) -> None:
    """A name that begins like another, or contains it, is no part of its queue."""
    queue.lock(1, b"l")

    others = [queue.lock(2, name) for name in (b"", b"l/", b"l0", b"k", b"ll", b"L")]

    assert [each.is_waiting for each in others] == [False] * 6


def test_same_lease_locks_again(queue: Queue) -> None:
    """A lock is re-entrant for its lease: the key and its revision stay."""
    first = queue.lock(1)
    made = queue.bench.revision

    again = queue.lock(1)

    assert again.answer.key == first.answer.key == b"l/1"
    assert again.revision == made == queue.bench.revision


def test_queue_of_many_keys_is_searched_to_its_end(queue: Queue) -> None:
    """A queue that is not looked at in one go is looked at in steps, and nothing of it missed."""
    for number in range(300):
        queue.world.system(kv_pb2.PutRequest(key=b"l/%04d" % number))
    queue.settle()
    waiting = queue.lock(1)
    for number in (*range(0, 300, 2), *range(299, 1, -2)):
        queue.world.system(kv_pb2.DeleteRangeRequest(key=b"l/%04d" % number))
    queue.settle()

    assert waiting.is_waiting
    queue.delete(b"l/0001")

    assert not waiting.is_waiting


# --- answers ------------------------------------------------------------------------------------


def test_lock_without_a_lease_has_one_of_a_minute(queue: Queue) -> None:
    """Without a lease the server grants one; the key ends with it."""
    queue.revoke(_NEXT_LEASE)

    caller = queue.lock()

    (key,) = queue.places()
    lease = LeaseId(int(key.rpartition(b"/")[2], 16))
    view = queue.world.state.store.space(
        queue.world.state.accounts.tenant_named("default").id
    ).leases.view(lease, queue.world.clock())
    assert caller.answer.key == key
    assert view is not None
    assert (view.ttl_s, view.keys) == (60, (key,))


def test_lock_of_an_unknown_lease_is_refused(queue: Queue) -> None:
    """A lease that is not there is named, and nothing waits or is left behind."""
    caller = queue.lock(99)

    assert caller.why == "LEASE_NOT_FOUND"
    assert queue.places() == []


def test_unlocking_what_is_not_locked_succeeds(queue: Queue) -> None:
    """An absent key is unlocked; no key at all is refused."""
    assert not queue.unlock(b"l/77").why
    assert queue.unlock(b"").why == "EMPTY_KEY"


def test_names_of_any_size_that_a_request_may_have(queue: Queue) -> None:
    """A name that makes too large a transaction is refused before anything is written."""
    caller = queue.lock(1, bytes(1_000_001))

    assert caller.why == "REQUEST_TOO_LARGE"
    assert queue.watcher_count == 0


# --- the end of a wait --------------------------------------------------------------------------


def test_waiter_whose_lease_ends_is_told_at_once(queue: Queue) -> None:
    """A place that is gone is not waited with any longer."""
    queue.lock(1)
    waiting = queue.lock(2)

    queue.revoke(2)

    assert waiting.why == "SESSION_EXPIRED"
    assert queue.watcher_count == 0
    assert _records(queue, rpc="Lock", lease=2)[-1]["result"] == {"code": "UNKNOWN", "part": "end"}


def test_candidate_whose_lease_ends_is_never_elected(queue: Queue) -> None:
    """One whose key is gone is told that it does not lead, where etcd would say that it does."""
    queue.campaign(1)
    waiting = queue.campaign(2)

    queue.revoke(2)

    assert waiting.why == "NOT_ELECTED"


def test_a_place_taken_anew_by_somebody_else_is_another(queue: Queue) -> None:
    """Who waits with a key is told when that key has been put again by others."""
    queue.lock(1)
    waiting = queue.lock(2)

    queue.world.system(kv_pb2.DeleteRangeRequest(key=b"l/2"))
    queue.world.system(kv_pb2.PutRequest(key=b"l/2"))
    queue.settle()

    assert waiting.why == "SESSION_EXPIRED"
    assert queue.places() == [b"l/1", b"l/2"]


@pytest.mark.parametrize("code", [Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE])
def test_caller_that_goes_away_leaves_nothing_behind(queue: Queue, code: Code) -> None:
    """Its place and its watchers are gone, and the record says how the wait ended."""
    queue.lock(1)
    waiting = queue.lock(2)
    assert queue.watcher_count == 2

    waiting.leave(code)
    queue.settle()

    assert queue.places() == [b"l/1"]
    assert queue.watcher_count == 0
    (record,) = [one for one in _records(queue, rpc="Lock", lease=2) if one["stage"] == "read"]
    assert record["result"] == {"code": code.name, "part": "end"}


def test_caller_that_goes_before_its_place_is_there_leaves_nothing(queue: Queue) -> None:
    """What was on its way to the log when the caller went is taken back behind it."""
    caller = queue.begin(_LOCK, lock_pb2.LockRequest(name=b"l", lease=1))

    caller.leave()
    queue.settle()

    assert caller.is_waiting
    assert queue.places() == []


def test_holder_is_not_let_go_by_another_of_its_lease(queue: Queue) -> None:
    """What one caller gives up is the place of that time, not one that came later."""
    queue.lock(1)
    waiting = queue.lock(2)
    queue.world.system(kv_pb2.DeleteRangeRequest(key=b"l/2"))
    queue.world.system(kv_pb2.PutRequest(key=b"l/2"))

    waiting.leave()
    queue.settle()

    assert b"l/2" in queue.places()


# --- rights -------------------------------------------------------------------------------------


def test_user_without_rights_has_no_place(queue: Queue) -> None:
    """Nothing is written for somebody who may not, not even a lease."""
    leases = len(queue.world.state.store.space(_tenant(queue)).leases)

    refused = [queue.lock(0, b"/app/l", "web"), queue.lock(1, b"l", "web")]

    assert [each.why for each in refused] == ["PERMISSION_DENIED"] * 2
    assert queue.places(b"/app/l") == queue.places() == []
    assert len(queue.world.state.store.space(_tenant(queue)).leases) == leases


def test_stranger_has_no_place(queue: Queue) -> None:
    """Without an identity there is no lock."""
    assert queue.lock(1, b"l", "").why == "USER_EMPTY"
    assert queue.places() == []


_ENDS: dict[str, Any] = {
    "role revoked": auth_pb2.AuthUserRevokeRoleRequest(name="web", role="app"),
    "user deleted": auth_pb2.AuthUserDeleteRequest(name="web"),
    "write revoked": auth_pb2.AuthRoleGrantPermissionRequest(
        name="app",
        perm=authstore_pb2.Permission(
            permType=authstore_pb2.Permission.READ, key=b"/app/", range_end=b"/app0"
        ),
    ),
}


@pytest.mark.parametrize("why", list(_ENDS))
def test_waiter_that_loses_its_rights_is_sent_away(web: Queue, why: str) -> None:
    """A wait ends when its right does, in the trail as well, and its place is taken back."""
    web.lock(1, b"/app/l")
    waiting = web.lock(2, b"/app/l", "web")
    assert waiting.is_waiting

    web.world.system(_ENDS[why])
    web.bench.services.queues.wake_stale()
    web.settle()

    assert waiting.why == "PERMISSION_DENIED"
    assert web.places(b"/app/l") == [b"/app/l/1"]
    assert web.watcher_count == 0
    assert [one["stage"] for one in _records(web, rpc="Lock", lease=2)][-1] == "denied"
    assert web.world.records()[-1]["stage"] == "outcome"


def test_place_that_somebody_else_took_is_not_taken_back(web: Queue) -> None:
    """The member undoes what was done for the caller, not what the caller had found."""
    web.lock(1, b"/app/l")
    others = web.lock(2, b"/app/l")
    waiting = web.lock(2, b"/app/l", "web")
    assert waiting.is_waiting

    web.world.system(_ENDS["role revoked"])
    web.bench.services.queues.wake_stale()
    web.settle()

    assert waiting.why == "PERMISSION_DENIED"
    assert others.is_waiting
    assert web.places(b"/app/l") == [b"/app/l/1", b"/app/l/2"]


def test_other_changes_of_accounts_leave_a_waiter_alone(web: Queue) -> None:
    """A waiter whose right has not changed goes on when accounts have."""
    held = web.lock(1, b"/app/l")
    waiting = web.lock(2, b"/app/l", "web")

    web.world.user("other")
    web.bench.services.queues.wake_stale()
    web.settle()
    assert waiting.is_waiting
    web.unlock(held.answer.key)

    assert waiting.answer.key == b"/app/l/2"


def test_right_that_ends_with_the_one_ahead_lets_nobody_in(web: Queue) -> None:
    """Who loses its right in the moment the lock is free does not get it."""
    held = web.lock(1, b"/app/l")
    waiting = web.lock(2, b"/app/l", "web")

    web.world.system(_ENDS["role revoked"])
    web.unlock(held.answer.key)

    assert waiting.why == "PERMISSION_DENIED"


# --- the trail ----------------------------------------------------------------------------------


def test_lock_has_an_intent_an_outcome_and_an_end(queue: Queue) -> None:
    """The intent says who asked for which lock; its outcome is the place, its end the lock."""
    held, waiting = queue.lock(1), queue.lock(2)
    queue.unlock(held.answer.key)

    uncontended = _records(queue, rpc="Lock", lease=1)
    contended = _records(queue, rpc="Lock", lease=2)

    assert [one["stage"] for one in uncontended] == ["intent"]
    assert [one["stage"] for one in contended] == ["intent", "read"]
    assert contended[0]["op"] == {"lease": 2, "name": "l", "rpc": "Lock"}
    assert contended[1]["result"] == {"code": "OK", "part": "end", "rev": waiting.revision}
    done = {each["intent"] for one in queue.world.records() for each in one.get("done", [])}
    assert {uncontended[0]["seq"], contended[0]["seq"]} <= done


def test_unlock_is_recorded_by_its_name(queue: Queue) -> None:
    """What is in the log as a deletion is in the trail as what was asked."""
    queue.unlock(b"l/1")

    (record,) = _records(queue, rpc="Unlock")

    assert record["op"] == {"key": "l/1", "rpc": "Unlock"}


def test_nothing_more_is_done_in_the_name_of_a_cut_certificate(web: Queue) -> None:
    """A waiter whose certificate was revoked is taken out of the queue by the member."""
    web.lock(1, b"/app/l")
    peer = web.world.peer("web")
    waiting = web.begin(_LOCK, lock_pb2.LockRequest(name=b"/app/l", lease=2), peer=peer)
    web.settle()

    peer.cut()
    waiting.leave()
    web.settle()

    (record,) = [one for one in _records(web, rpc="Txn") if one["stage"] == "intent"]
    assert record["actor"] == {"via": "system"}
    assert web.places(b"/app/l") == [b"/app/l/1"]


def test_value_of_a_candidate_is_not_in_the_trail(queue: Queue) -> None:
    """A value is shown by its length, as any."""
    queue.campaign(1, b"very secret")

    (record,) = _records(queue, rpc="Campaign")

    assert record["op"] == {"lease": 1, "name": "e", "rpc": "Campaign", "value_bytes": 11}
    assert not any("very secret" in str(one) for one in queue.world.records())


def test_withdrawal_of_a_revoked_caller_is_the_members_own(web: Queue) -> None:
    """What the member takes back is recorded as its own doing."""
    web.lock(1, b"/app/l")
    web.lock(2, b"/app/l", "web")

    web.world.system(_ENDS["user deleted"])
    web.bench.services.queues.wake_stale()
    web.settle()

    (record,) = [one for one in _records(web, rpc="Txn") if one["stage"] == "intent"]
    assert record["actor"] == {"via": "system"}


# --- elections ----------------------------------------------------------------------------------


def test_campaign_again_proclaims_what_is_new(queue: Queue) -> None:
    """The same lease with another value has the same key with that value, in one transaction."""
    first = queue.campaign(1, b"one").answer.leader
    made = queue.bench.revision

    again = queue.campaign(1, b"two")

    assert again.answer.leader == first
    assert (first.key, first.rev, first.lease, first.name) == (b"e/1", made, 1, b"e")
    assert queue.bench.revision == made + 1
    assert _leader(queue).answer.kv.value == b"two"


def test_campaign_again_with_the_same_value_writes_nothing(queue: Queue) -> None:
    """What is proclaimed already is not written again."""
    queue.campaign(1, b"one")
    made = queue.bench.revision

    queue.campaign(1, b"one")

    assert queue.bench.revision == made


def test_proclaiming_needs_the_term_of_the_key(queue: Queue) -> None:
    """A leader of another revision is none; the value stays."""
    leads = queue.campaign(1, b"one").answer.leader
    before = election_pb2.LeaderKey(name=b"e", key=leads.key, rev=leads.rev - 1, lease=1)

    refused = _proclaim(queue, before, b"two")
    taken = _proclaim(queue, leads, b"three")

    assert refused.why == "NOT_ELECTED"
    assert not taken.why
    assert _leader(queue).answer.kv.value == b"three"


def test_proclaiming_without_a_lease_ties_the_key_to_a_new_one(queue: Queue) -> None:
    """As with a campaign, no lease is one of the server's (etcd)."""
    queue.revoke(_NEXT_LEASE)
    leads = queue.campaign(2, b"one").answer.leader
    leads.lease = 0

    _proclaim(queue, leads, b"two")

    assert _leader(queue).answer.kv.lease == _NEXT_LEASE


def test_resigning_twice_succeeds(queue: Queue) -> None:
    """A term that has ended is ended as well."""
    leads = queue.campaign(1).answer.leader

    answers = [
        queue.call("/v3electionpb.Election/Resign", election_pb2.ResignRequest(leader=leads))
        for _ in range(2)
    ]

    assert [each.why for each in answers] == ["", ""]
    assert _leader(queue).why == "NO_ELECTED_LEADER"


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v3electionpb.Election/Proclaim", election_pb2.ProclaimRequest(value=b"v")),
        ("/v3electionpb.Election/Resign", election_pb2.ResignRequest()),
    ],
)
def test_leader_has_to_be_given(queue: Queue, path: str, request_: Any) -> None:
    """A request without a leader is refused, and so is one of a leader without a key."""
    empty = type(request_)(leader=election_pb2.LeaderKey(lease=1))

    assert queue.call(path, request_).why == "LEADER_NOT_GIVEN"
    assert queue.call(path, empty).why == "EMPTY_KEY"


def test_leader_is_the_oldest_of_any_number(queue: Queue) -> None:
    """Who leads is found in a queue that is read in steps as well."""
    queue.campaign(1, b"oldest")
    for number in range(200):
        queue.world.system(kv_pb2.PutRequest(key=b"e/0%03d" % number, value=b"younger"))
    queue.settle()

    assert _leader(queue).answer.kv.value == b"oldest"


def _leader(queue: Queue) -> Any:
    return queue.call("/v3electionpb.Election/Leader", election_pb2.LeaderRequest(name=b"e"))


def _proclaim(queue: Queue, leader: election_pb2.LeaderKey, value: bytes) -> Any:
    request = election_pb2.ProclaimRequest(leader=leader, value=value)
    return queue.call("/v3electionpb.Election/Proclaim", request)


def _tenant(queue: Queue) -> Any:
    return queue.world.state.accounts.tenant_named("default").id

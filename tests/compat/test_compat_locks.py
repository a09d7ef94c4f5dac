"""Locks and elections, rule by rule: each script is played on etcd and on the server under test.

Owns: the scripts, the refusals that etcd gives under another code, and what is better than etcd's.
Never: compares ids that a server has chosen; revisions are counted from where a script began.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, final

import grpc
import pytest
from support.pair import Pair
from support.processes import wait_until
from support.rpc import Client, Refusal, refusal_of

from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2
from kvsecure.proto.election_pb2 import (
    CampaignRequest,
    LeaderKey,
    LeaderRequest,
    ProclaimRequest,
    ResignRequest,
)
from kvsecure.proto.lock_pb2 import LockRequest, UnlockRequest

_ALL: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}
_DEADLINE_S: Final = 10.0
_PASSWORD: Final = "a-password-of-web-1234"
_LEASES: Final = (0xA1, 0xA2, 0xA3, 0xA4)


@final
class _Script:
    """One client, and what it was told, without what differs between two right servers."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self.told: list[Any] = []
        self._pool = pool
        self.base = int(client.kv.Put(kv_pb2.PutRequest(key=b"base")).header.revision)

    def tell(self, *facts: Any) -> None:
        """Keep something to be compared."""
        self.told.append(facts)

    def count(self, revision: int) -> int:
        """Return a revision as it is compared."""
        return revision - self.base

    def begin(self, method: str, request: Any, timeout_s: float = _DEADLINE_S) -> Future[Any]:
        """Begin a call that waits, and return when it has its place."""
        key = b"%b/%x" % (request.name, request.lease)
        call = getattr(getattr(self.client, _SERVICES[method]), method)
        future = self._pool.submit(_result, lambda: call(request, timeout=timeout_s))
        wait_until(lambda: self.has(key), deadline_s=_DEADLINE_S, what="its place")
        return future

    def has(self, key: bytes) -> bool:
        """Tell whether a key is there."""
        return bool(self.client.kv.Range(kv_pb2.RangeRequest(key=key, keys_only=True)).count)

    def lock(self, lease: int, name: bytes = b"l") -> Any:
        """Lock at once and keep the answer."""
        answer = _result(lambda: self.client.lock.Lock(LockRequest(name=name, lease=lease)))
        self.tell("lock", self.of_lock(answer))
        return answer

    def of_lock(self, answer: Any) -> Any:
        """Return what is compared of the answer to a lock."""
        if isinstance(answer, Refusal):
            return answer.text
        return self.count(answer.header.revision), answer.key

    def unlock(self, key: bytes) -> None:
        """Unlock and keep the answer."""
        answer = _result(lambda: self.client.lock.Unlock(UnlockRequest(key=key)))
        self.tell("unlock", self._header(answer))

    def campaign(self, lease: int, value: bytes) -> LeaderKey:
        """Campaign at once and keep the answer."""
        request = CampaignRequest(name=b"e", lease=lease, value=value)
        answer = self.client.election.Campaign(request)
        self.tell("campaign", self.of_campaign(answer))
        leader: LeaderKey = answer.leader
        return leader

    def of_campaign(self, answer: Any) -> Any:
        """Return what is compared of the answer to a campaign."""
        leader = answer.leader
        revision = self.count(answer.header.revision)
        return revision, leader.name, leader.key, self.count(leader.rev), leader.lease

    def elect(self, method: str, request: Any) -> None:
        """Make another call of an election and keep the answer."""
        answer = _result(lambda: getattr(self.client.election, method)(request))
        self.tell(method, self._header(answer))

    def leader(self, name: bytes = b"e") -> None:
        """Ask who leads and keep the answer."""
        answer = _result(lambda: self.client.election.Leader(LeaderRequest(name=name)))
        self.tell("leader", self.of_leader(answer))

    def of_leader(self, answer: Any) -> Any:
        """Return what is compared of who leads."""
        if isinstance(answer, Refusal):
            return answer.text
        kv = answer.kv
        revisions = (answer.header.revision, kv.create_revision, kv.mod_revision)
        return [self.count(one) for one in revisions], kv.key, kv.value, kv.version, kv.lease

    def places(self, name: bytes = b"l") -> None:
        """List the queue and keep the list."""
        request = kv_pb2.RangeRequest(key=name + b"/", range_end=name + b"0", keys_only=True)
        self.tell("places", [kv.key for kv in self.client.kv.Range(request).kvs])

    def revoke(self, lease: int) -> None:
        """End a lease."""
        self.client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=lease))

    def _header(self, answer: Any) -> Any:
        # etcd hides the codes of what its own client was told.
        return answer.text if isinstance(answer, Refusal) else self.count(answer.header.revision)


_SERVICES: Final = {"Lock": "lock", "Campaign": "election"}


def _result(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except grpc.RpcError as error:
        return refusal_of(error)


# --- locks --------------------------------------------------------------------------------------


def handed_over_in_order(script: _Script) -> None:
    """Whoever came first has it next; the header tells the revision at which it was free."""
    script.lock(0xA3)
    waiting = [script.begin("Lock", LockRequest(name=b"l", lease=lease)) for lease in (0xA1, 0xA4)]
    script.places()
    for key, future in zip((b"l/a3", b"l/a1"), waiting, strict=True):
        script.unlock(key)
        script.tell("handed over", script.of_lock(future.result()))
    script.places()


def locked_again(script: _Script) -> None:
    """The same lease has the same key at the same revision, as often as it asks."""
    script.lock(0xA1)
    script.lock(0xA1)
    script.client.kv.Put(kv_pb2.PutRequest(key=b"other"))
    script.lock(0xA1)
    script.places()


def waited_twice(script: _Script) -> None:
    """Two calls of one lease that wait have one place, and both get the lock."""
    script.lock(0xA1)
    request = LockRequest(name=b"l", lease=0xA2)
    both = [script.begin("Lock", request) for _ in range(2)]
    script.unlock(b"l/a1")
    script.tell(sorted(script.of_lock(future.result()) for future in both))


def unlocked_what_is_not_there(script: _Script) -> None:
    """An absent key is unlocked, no key is refused."""
    script.unlock(b"l/none")
    script.unlock(b"")
    script.unlock(b"base")
    script.tell(script.has(b"base"))


def locked_by_other_keys(script: _Script) -> None:
    """Whatever is below the name and older is waited for, and nothing else is."""
    for key in (b"l/x/y", b"l", b"l0", b"l."):
        script.client.kv.Put(kv_pb2.PutRequest(key=key))
    waiting = script.begin("Lock", LockRequest(name=b"l", lease=0xA1))
    script.client.kv.Put(kv_pb2.PutRequest(key=b"l/0-younger"))
    script.client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"l/x/y"))
    script.tell(script.of_lock(waiting.result()))


def locked_names(script: _Script) -> None:
    """Any name is one, the empty one as well."""
    for name in (b"", b"/", b"\0", b"\xff", b"a/b/", "ü".encode()):
        script.lock(0xA1, name)


def locked_under_unknown_leases(script: _Script) -> None:
    """A lease that is not there is refused, whatever its number."""
    for lease in (4711, -31, 2**63 - 1, -(2**63)):
        script.lock(lease)
    script.places()


def locked_without_a_lease(script: _Script) -> None:
    """The server grants a lease of a minute."""
    key = script.client.lock.Lock(LockRequest(name=b"l")).key
    request = lease_pb2.LeaseTimeToLiveRequest(ID=int(key.rpartition(b"/")[2], 16), keys=True)
    lease = script.client.lease.LeaseTimeToLive(request)
    script.tell(lease.grantedTTL, lease.TTL >= 58, list(lease.keys) == [key], lease.ID > 0)


def locked_too_large(script: _Script) -> None:
    """A name that makes too large a request is refused."""
    script.lock(0xA1, bytes(1_600_000))


# --- elections ----------------------------------------------------------------------------------


def elected_in_order(script: _Script) -> None:
    """Whoever came first leads next; the answer is that of the revision of its own key."""
    first = script.campaign(0xA3, b"three")
    waiting = [
        script.begin("Campaign", CampaignRequest(name=b"e", lease=lease, value=b"%x" % lease))
        for lease in (0xA1, 0xA4)
    ]
    script.leader()
    script.elect("Resign", ResignRequest(leader=first))
    second = waiting[0].result()
    script.tell(script.of_campaign(second))
    script.leader()
    script.elect("Resign", ResignRequest(leader=second.leader))
    script.tell(script.of_campaign(waiting[1].result()))
    script.leader()


def campaigned_again(script: _Script) -> None:
    """The same lease has the same key; another value is proclaimed, the same one is not."""
    for value in (b"one", b"two", b"two", b""):
        script.campaign(0xA1, value)
        script.leader()


def proclaimed(script: _Script) -> None:
    """Only who leads proclaims, and its lease is that of the leader that is given."""
    leader = script.campaign(0xA1, b"one")
    script.elect("Proclaim", ProclaimRequest(leader=leader, value=b"two"))
    script.leader()
    script.elect("Proclaim", ProclaimRequest(leader=_with(leader, rev=leader.rev + 1), value=b"-"))
    script.elect("Proclaim", ProclaimRequest(leader=_with(leader, key=b"e/none"), value=b"-"))
    script.elect("Proclaim", ProclaimRequest(leader=_with(leader, lease=4711), value=b"-"))
    script.leader()
    script.elect("Proclaim", ProclaimRequest(leader=_with(leader, lease=0xA2), value=b"three"))
    script.leader()


def resigned(script: _Script) -> None:
    """A term is ended once, and ending it again is no error."""
    leader = script.campaign(0xA1, b"one")
    script.elect("Resign", ResignRequest(leader=_with(leader, rev=leader.rev - 1)))
    script.leader()
    script.elect("Resign", ResignRequest(leader=leader))
    script.elect("Resign", ResignRequest(leader=leader))
    script.leader()
    script.elect("Proclaim", ProclaimRequest(leader=leader, value=b"late"))


def led_by_nobody(script: _Script) -> None:
    """Without a leader, in the request or in the election, there is an error for each."""
    script.leader()
    script.leader(b"")
    script.elect("Proclaim", ProclaimRequest(value=b"v"))
    script.elect("Resign", ResignRequest())
    script.elect("Proclaim", ProclaimRequest(leader=LeaderKey(lease=0xA1), value=b"v"))
    script.elect("Resign", ResignRequest(leader=LeaderKey(lease=0xA1)))


def observed(script: _Script) -> None:
    """An observer is told of each value of each leader, one after another."""
    stream = script.client.election.Observe(LeaderRequest(name=b"e"))

    def see() -> None:
        script.tell("seen", script.of_leader(next(stream)))

    first = script.campaign(0xA1, b"one")
    see()
    waiting = script.begin("Campaign", CampaignRequest(name=b"e", lease=0xA2, value=b"next"))
    script.elect("Proclaim", ProclaimRequest(leader=first, value=b"two"))
    see()
    script.elect("Resign", ResignRequest(leader=first))
    waiting.result()
    see()
    script.revoke(0xA2)
    script.campaign(0xA3, b"last")
    see()
    stream.cancel()


_SCRIPTS: Final = (
    handed_over_in_order,
    locked_again,
    waited_twice,
    unlocked_what_is_not_there,
    locked_by_other_keys,
    locked_names,
    locked_under_unknown_leases,
    locked_without_a_lease,
    locked_too_large,
    elected_in_order,
    campaigned_again,
    proclaimed,
    resigned,
    led_by_nobody,
    observed,
)


def _with(leader: LeaderKey, **fields: Any) -> LeaderKey:
    changed = LeaderKey()
    changed.CopyFrom(leader)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _reset(client: Client) -> None:
    for status in client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases:
        client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=status.ID))
    client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(**_ALL))
    for lease in _LEASES:
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=60))


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that wait."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.mark.parametrize("play", _SCRIPTS, ids=lambda play: play.__name__)
def test_queues_answer_like_etcd(
    pair: Pair, pool: ThreadPoolExecutor, play: Callable[[_Script], None]
) -> None:
    """Each script is told what etcd tells."""

    def told_by(client: Client) -> list[Any]:
        _reset(client)
        script = _Script(client, pool)
        play(script)
        return script.told

    with ThreadPoolExecutor() as both:
        theirs, ours = both.map(told_by, pair.clients())

    assert theirs == ours


# --- refusals -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(pair: Pair) -> Pair:
    """The pair with `web`, who may do anything in /app/, only read in /r/ and only write in /w/."""
    pair.do("auth.RoleAdd", auth_pb2.AuthRoleAddRequest(name="app"))
    for kind, prefix in (("READWRITE", b"/app"), ("READ", b"/r"), ("WRITE", b"/w")):
        permission = authstore_pb2.Permission(
            permType=authstore_pb2.Permission.Type.Value(kind),
            key=prefix + b"/",
            range_end=prefix + b"0",
        )
        request = auth_pb2.AuthRoleGrantPermissionRequest(name="app", perm=permission)
        pair.do("auth.RoleGrantPermission", request)
    pair.do("auth.UserAdd", auth_pb2.AuthUserAddRequest(name="web", password=_PASSWORD))
    pair.do("auth.UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user="web", role="app"))
    pair.add_password("web", _PASSWORD)
    return pair


_FOREIGN: Final = LeaderKey(name=b"/app/e", key=b"/ops/e/1", rev=5, lease=1)
_READ_ONLY: Final = LeaderKey(name=b"/r/e", key=b"/r/e/1", rev=5, lease=1)
_FORBIDDEN: Final[dict[str, tuple[str, Any]]] = {
    "lock": ("lock.Lock", LockRequest(name=b"/ops/l")),
    "lock-read-only": ("lock.Lock", LockRequest(name=b"/r/l")),
    "lock-write-only": ("lock.Lock", LockRequest(name=b"/w/l")),
    "lock-beside": ("lock.Lock", LockRequest(name=b"/appl")),
    "lock-everything": ("lock.Lock", LockRequest()),
    "unlock": ("lock.Unlock", UnlockRequest(key=b"/ops/l/1")),
    "unlock-read-only": ("lock.Unlock", UnlockRequest(key=b"/r/l/1")),
    "campaign": ("election.Campaign", CampaignRequest(name=b"/ops/e", value=b"v")),
    "campaign-read-only": ("election.Campaign", CampaignRequest(name=b"/r/e", value=b"v")),
    "campaign-write-only": ("election.Campaign", CampaignRequest(name=b"/w/e", value=b"v")),
    "proclaim": ("election.Proclaim", ProclaimRequest(leader=_FOREIGN, value=b"v")),
    "proclaim-read-only": ("election.Proclaim", ProclaimRequest(leader=_READ_ONLY, value=b"v")),
    "resign": ("election.Resign", ResignRequest(leader=_FOREIGN)),
    "resign-read-only": ("election.Resign", ResignRequest(leader=_READ_ONLY)),
    "leader": ("election.Leader", LeaderRequest(name=b"/ops/e")),
    "leader-write-only": ("election.Leader", LeaderRequest(name=b"/w/e")),
}


@pytest.mark.parametrize("user", ["web", ""])
@pytest.mark.parametrize("case", _FORBIDDEN)
def test_who_may_not_is_refused_as_by_etcd(limited: Pair, case: str, user: str) -> None:
    """The texts are etcd's; its code is UNKNOWN, where ours is that of the refusal."""
    method, request = _FORBIDDEN[case]

    theirs, ours = (answer.refusal for answer in limited.ask(method, request, user))

    assert theirs is not None
    assert ours is not None
    assert theirs.text == ours.text
    if limited.subject.product == "kvsecure":
        codes = {"web": "PERMISSION_DENIED", "": "INVALID_ARGUMENT"}
        assert (theirs.code, ours.code) == ("UNKNOWN", codes[user])


def test_who_may_locks_and_leads(limited: Pair) -> None:
    """Rights on the prefix are enough, on both."""
    for client in limited.clients("web"):
        key = client.lock.Lock(LockRequest(name=b"/app/l")).key
        client.lock.Unlock(UnlockRequest(key=key))
        leads = client.election.Campaign(CampaignRequest(name=b"/app/e", value=b"v")).leader
        assert client.election.Leader(LeaderRequest(name=b"/app/e")).kv.key == leads.key
        client.election.Resign(ResignRequest(leader=leads))


def test_observer_who_may_not_is_refused(limited: Pair) -> None:
    """Where etcd's stream ends well, with nothing in it, ours says why."""
    request = LeaderRequest(name=b"/ops/e")

    theirs, ours = [
        _result(lambda client=client: list(client.election.Observe(request, timeout=_DEADLINE_S)))
        for client in limited.clients("web")
    ]

    assert theirs == []
    if limited.subject.product == "kvsecure":
        assert ours == Refusal("PERMISSION_DENIED", "etcdserver: permission denied")


# --- better than etcd's -------------------------------------------------------------------------


def test_place_of_who_went_away_is_given_up(pair: Pair, pool: ThreadPoolExecutor) -> None:
    """With authentication on, etcd 3.5.1 has no right to delete it, and lets the queue wait."""
    left = []
    for client in pair.clients():
        _reset(client)
        script = _Script(client, pool)
        script.lock(0xA1)
        start = client.prepared("/v3lockpb.Lock/Lock")
        waiting = start(LockRequest(name=b"l", lease=0xA2).SerializeToString())
        has_place = partial(script.has, b"l/a2")
        wait_until(has_place, deadline_s=_DEADLINE_S, what="its place")
        waiting.cancel()
        left.append(script)

    if pair.subject.product == "kvsecure":
        theirs, ours = left
        wait_until(lambda: not ours.has(b"l/a2"), deadline_s=_DEADLINE_S, what="its place gone")
        assert theirs.has(b"l/a2")


@pytest.mark.parametrize("method", ["Lock", "Campaign"])
def test_waiter_whose_lease_ends_is_told(pair: Pair, pool: ThreadPoolExecutor, method: str) -> None:
    """It is told at once; by etcd when it would have its turn, and a candidate not even then."""
    if pair.subject.product == "etcd":
        pytest.skip("etcd tells later, or never")
    client = pair.clients()[-1]
    _reset(client)
    script = _Script(client, pool)
    request = LockRequest if method == "Lock" else CampaignRequest
    script.begin(method, request(name=b"l", lease=0xA1)).result()
    waiting = script.begin(method, request(name=b"l", lease=0xA2))

    script.revoke(0xA2)

    texts = {"Lock": "mutex: session is expired", "Campaign": "election: not leader"}
    assert waiting.result() == Refusal("UNKNOWN", texts[method])


def test_expired_session_has_etcds_words(pair: Pair, pool: ThreadPoolExecutor) -> None:
    """Who loses its place before its turn is told so, by etcd when its turn comes."""
    told = []
    for client in pair.clients():
        _reset(client)
        script = _Script(client, pool)
        script.lock(0xA1)
        waiting = script.begin("Lock", LockRequest(name=b"l", lease=0xA2))
        # Until it watches the key ahead it would not notice the release.
        other = script.begin("Lock", LockRequest(name=b"l", lease=0xA3))
        script.revoke(0xA2)
        script.unlock(b"l/a1")
        told.append(waiting.result())
        script.tell(script.of_lock(other.result()))

    theirs, ours = told
    assert theirs == ours == Refusal("UNKNOWN", "mutex: session is expired")

"""Leases, rule by rule: each script is played on etcd and on the server under test.

Owns: one script for each rule of etcd's lease service that no other comparison plays.
Never: compares ids that a server has chosen, or more of a time than whole seconds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, final

import grpc
import pytest
from support.pair import Pair
from support.processes import wait_until
from support.rpc import Client, refusal_of
from support.streams import WatchScript

from kvsecure.proto import kv_pb2, lease_pb2

_ALL: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}


@final
class _Script:
    """One client, and what it was told, without what differs between two right servers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[Any] = []
        put = client.kv.Put(kv_pb2.PutRequest(key=b"base"))
        self.base = int(put.header.revision)

    def tell(self, *facts: Any) -> None:
        """Keep something to be compared."""
        self.told.append(facts)

    def grant(self, lease: int, ttl_s: int) -> None:
        """Grant a lease and keep the answer."""
        answer = self._answer("LeaseGrant", lease_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s))
        self.tell("grant", answer if isinstance(answer, str) else (answer.ID, answer.TTL))

    def revoke(self, lease: int) -> None:
        """Revoke a lease and keep the answer."""
        answer = self._answer("LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=lease))
        self.tell("revoke", answer if isinstance(answer, str) else self._revision(answer))

    def alive(self, *leases: int) -> None:
        """Keep leases alive over one stream and keep the answers."""
        self.tell("alive", sorted((answer.ID, answer.TTL) for answer in self.renew(*leases)))

    def renew(self, *leases: int) -> list[lease_pb2.LeaseKeepAliveResponse]:
        """Keep leases alive over one stream."""
        requests = [lease_pb2.LeaseKeepAliveRequest(ID=lease) for lease in leases]
        return list(self.client.lease.LeaseKeepAlive(iter(requests), timeout=10))

    def ttl(self, lease: int, *, keys: bool = True) -> lease_pb2.LeaseTimeToLiveResponse:
        """Ask for what a lease has left, and keep it roughly."""
        request = lease_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        answer: lease_pb2.LeaseTimeToLiveResponse = self.client.lease.LeaseTimeToLive(request)
        # Full seconds are told: at once after the grant one less than granted.
        left = answer.grantedTTL - answer.TTL if answer.TTL > 0 else answer.TTL
        self.tell("ttl", answer.ID, min(left, 2), answer.grantedTTL, sorted(answer.keys))
        return answer

    def put(self, key: bytes, lease: int = 0, **fields: Any) -> None:
        """Write a key and keep the answer."""
        try:
            request = kv_pb2.PutRequest(key=key, lease=lease, **fields)
            self.tell("put", self._revision(self.client.kv.Put(request)))
        except grpc.RpcError as error:
            self.tell("put", refusal_of(error))

    def leases(self) -> None:
        """List leases and keep the list."""
        answer = self.client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest())
        self.tell("leases", [status.ID for status in answer.leases])

    def _answer(self, method: str, request: Any) -> Any:
        try:
            return getattr(self.client.lease, method)(request)
        except grpc.RpcError as error:
            return str(refusal_of(error))

    def _revision(self, answer: Any) -> int:
        return int(answer.header.revision) - self.base


def least_time(script: _Script) -> None:
    """No time, negative time and too short a time become the least, two seconds."""
    for lease, ttl_s in ((11, 0), (12, -1), (13, 1), (14, 2), (15, 3)):
        script.grant(lease, ttl_s)


def most_time(script: _Script) -> None:
    """The longest time is taken as it is, and one second more is refused."""
    script.grant(21, 9_000_000_000)
    script.grant(22, 9_000_000_001)
    script.ttl(21)
    script.alive(21)


def identifiers(script: _Script) -> None:
    """Any number but zero is an id, also a negative one, and an id is taken once."""
    for lease in (-31, 31, 2**63 - 1, -(2**63)):
        script.grant(lease, 60)
        script.grant(lease, 60)
        script.ttl(lease)
    script.put(b"negative", -31)
    script.ttl(-31)
    script.revoke(-31)
    script.ttl(-31)


def chosen_identifier(script: _Script) -> None:
    """Without an id the server chooses a positive one, another each time."""
    answers = [
        script.client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=60)) for _ in range(20)
    ]
    script.tell(all(answer.ID > 0 for answer in answers), len({answer.ID for answer in answers}))
    script.tell({(answer.TTL, answer.error) for answer in answers})


def granted_again(script: _Script) -> None:
    """A lease that was revoked can be granted again, and has none of the old keys."""
    script.grant(41, 60)
    script.put(b"old", 41)
    script.revoke(41)
    script.grant(41, 90)
    script.ttl(41)


def revoked_at_once(script: _Script) -> None:
    """All keys of a revoked lease go in one revision; without keys there is no revision."""
    script.grant(51, 60)
    script.revoke(51)
    script.grant(51, 60)
    for key in (b"r/c", b"r/a", b"r/b"):
        script.put(key, 51)
    watch = WatchScript(script.client)
    try:
        watch.create(b"r/", range_end=b"r0", prev_kv=True)
        watch.wait(controls=1)
        script.revoke(51)
        watch.wait(controls=1, events=3)
        events = watch.observed().events[0]
        script.tell([(e.kv.key, e.kv.mod_revision - script.base, e.prev_kv.lease) for e in events])
    finally:
        watch.close()
    script.revoke(51)


def attached_to_the_newest(script: _Script) -> None:
    """A key hangs on the lease of its newest version alone."""
    script.grant(61, 60)
    script.grant(62, 60)
    script.put(b"k", 61)
    script.put(b"k", 62)
    script.ttl(61)
    script.ttl(62)
    script.put(b"k", ignore_lease=True, value=b"2")
    script.ttl(62)
    script.put(b"k", 61, ignore_value=True)
    script.ttl(61)
    script.ttl(62)
    script.put(b"k")
    script.ttl(61)
    script.revoke(61)
    script.put(b"k", 61)


def detached_by_deletion(script: _Script) -> None:
    """A key that is deleted hangs on nothing, also when it comes back."""
    script.grant(71, 60)
    script.put(b"d", 71)
    script.client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"d"))
    script.ttl(71)
    script.put(b"d")
    script.ttl(71)
    script.revoke(71)


def seconds_are_whole(script: _Script) -> None:
    """What is left is told in whole seconds, rounded down, with keys only where asked for."""
    script.grant(81, 100)
    script.put(b"t", 81)
    script.ttl(81)
    script.ttl(81, keys=False)
    script.alive(81)
    script.ttl(81)


def listed_by_expiry(script: _Script) -> None:
    """Leases are listed by when they end, the next one first."""
    for lease, ttl_s in ((91, 900), (92, 100), (93, 500), (94, 50)):
        script.grant(lease, ttl_s)
    script.leases()
    script.alive(91, 94)
    script.leases()
    script.revoke(92)
    script.leases()


def unknown_is_no_error(script: _Script) -> None:
    """Keeping alive, or asking about, a lease that is not there says so without an error."""
    for lease in (4711, 0, -1):
        script.alive(lease, lease)
        script.ttl(lease)
        script.revoke(lease)


def expired(script: _Script) -> None:
    """A lease that nobody keeps alive goes with its keys, in one revision, and for every call."""
    watch = WatchScript(script.client)
    try:
        watch.create(b"e/", range_end=b"e0")
        watch.wait(controls=1)
        script.grant(101, 2)
        script.grant(102, 2)
        for key in (b"e/b", b"e/a"):
            script.put(key, 101)
        wait_until(
            lambda: script.renew(102) and len(watch.observed().events[0]) == 4,
            deadline_s=15,
            what="the end of the lease",
        )
        events = watch.observed().events[0]
        script.tell([(e.type, e.kv.key, e.kv.mod_revision - script.base) for e in events])
    finally:
        watch.close()
    script.ttl(101)
    script.alive(101, 102)
    script.revoke(101)
    script.put(b"late", 101)
    script.leases()
    script.grant(101, 60)


_SCRIPTS = (
    least_time,
    most_time,
    identifiers,
    chosen_identifier,
    granted_again,
    revoked_at_once,
    attached_to_the_newest,
    detached_by_deletion,
    seconds_are_whole,
    listed_by_expiry,
    unknown_is_no_error,
    expired,
)


def _reset(client: Client) -> None:
    for status in client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases:
        client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=status.ID))
    client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(**_ALL))


@pytest.mark.parametrize("play", _SCRIPTS, ids=lambda play: play.__name__)
def test_leases_answer_like_etcd(pair: Pair, play: Callable[[_Script], None]) -> None:
    """Each script is told what etcd tells."""

    def told_by(client: Client) -> list[Any]:
        _reset(client)
        script = _Script(client)
        play(script)
        return script.told

    with ThreadPoolExecutor() as both:
        theirs, ours = both.map(told_by, pair.clients())

    assert theirs == ours

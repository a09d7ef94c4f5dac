"""A second opinion on the law: policies expanded to single keys, requests to the keys they touch.

    a policy    {"r": the keys that may be read, "w": the keys that may be written}
    a request   {"r": the keys it reads, "w": the keys it writes, with what it would bind or reveal}

Owns: the universe of keys, the expansion, random policies and requests, and the verdict.
Never: uses intervals, spans or anything else of `kvsecure.access`; that is what it judges.
Keeps: every bound that a policy or request can have is itself a key of the universe, so two sets
    of keys are equal here if and only if they are equal over all keys there are.
"""

import random
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final, NamedTuple, final

from kvsecure.model.keys import Span
from kvsecure.proto import kv_pb2, lease_pb2, watch_pb2

__all__ = [
    "LEASES",
    "READ",
    "READWRITE",
    "UNIVERSE",
    "WRITE",
    "LeaseBook",
    "Permission",
    "Policy",
    "keys_between",
    "may",
    "policy_of",
    "random_operation",
    "random_permission",
    "random_request",
]

READ, WRITE, READWRITE = 0, 1, 2

_STEMS: Final = tuple(
    b"".join(letters)
    for length in (1, 2)
    for letters in product((b"a", b"b", b"\xff"), repeat=length)
)
# Each stem and its neighbour, the first key there is, and one behind everything that is ever named.
UNIVERSE: Final = tuple(
    sorted({*_STEMS, *(stem + b"\0" for stem in _STEMS), b"", b"\0", b"\0\0", b"\xff\xff\xff"})
)
LEASES: Final = (1, 2, 3, 4)


class Permission(NamedTuple):
    """One permission, as it is granted."""

    kind: int
    key: bytes
    range_end: bytes


class Policy(NamedTuple):
    """The keys that a user may read and write."""

    read: frozenset[bytes]
    write: frozenset[bytes]


@final
class LeaseBook:
    """Which keys hang on which lease; it is what the law asks for facts."""

    def __init__(self, keys: Mapping[int, frozenset[bytes]]) -> None:
        self.keys = dict(keys)

    def lease_keys(self, lease: int) -> frozenset[bytes]:
        """Return the keys attached to a lease."""
        return self.keys.get(lease, frozenset())

    def lease_reach(self, lease: int) -> Span | None:
        """Return a span in which all keys attached to a lease lie, or None if there is none."""
        keys = self.lease_keys(lease)
        return Span(min(keys), max(keys) + b"\0") if keys else None

    def leases(self) -> list[int]:
        """Return all leases."""
        return list(self.keys)

    @classmethod
    def drawn(cls, rng: random.Random) -> "LeaseBook":
        """Return a book with some keys on some leases."""
        return cls(
            {
                lease: frozenset(rng.sample(_STEMS, rng.randrange(3)))
                for lease in LEASES
                if rng.random() < 0.7
            }
        )


def keys_between(key: bytes, range_end: bytes) -> frozenset[bytes]:
    """Return the keys of the universe that a pair of (key, range_end) names, as etcd has it."""
    if not range_end:
        return frozenset({key})
    if range_end == b"\0":
        return frozenset(each for each in UNIVERSE if each >= key)
    return frozenset(each for each in UNIVERSE if key <= each < range_end)


def policy_of(permissions: Iterable[Permission]) -> Policy:
    """Expand permissions to single keys."""
    read: set[bytes] = set()
    write: set[bytes] = set()
    for kind, key, range_end in permissions:
        keys = keys_between(key, range_end)
        if kind in (READ, READWRITE):
            read |= keys
        if kind in (WRITE, READWRITE):
            write |= keys
    return Policy(frozenset(read), frozenset(write))


def may(policy: Policy, request: Any, book: LeaseBook) -> bool:
    """Say whether a user with this policy may make a request of keys, leases or watches."""
    match request:
        case kv_pb2.TxnRequest():
            return all(
                may(policy, part, book)
                for part in (*request.compare, *request.success, *request.failure)
            )
        case kv_pb2.RequestOp():
            chosen = request.WhichOneof("request")
            return chosen is None or may(policy, getattr(request, chosen), book)
        case lease_pb2.LeaseLeasesRequest():
            return all(keys <= policy.read for keys in book.keys.values())
        case lease_pb2.LeaseGrantRequest():
            return True
    reads, writes = _touched(request, book)
    return reads <= policy.read and writes <= policy.write


def _touched(request: Any, book: LeaseBook) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return the keys that a request reads, and those it writes."""
    nothing: frozenset[bytes] = frozenset()
    match request:
        case kv_pb2.PutRequest():
            key = frozenset({request.key})
            bound = book.lease_keys(request.lease) if request.lease else nothing
            return (key if request.prev_kv else nothing), key | bound
        case lease_pb2.LeaseRevokeRequest() | lease_pb2.LeaseKeepAliveRequest():
            return nothing, book.lease_keys(request.ID)
        case lease_pb2.LeaseTimeToLiveRequest():
            return (book.lease_keys(request.ID) if request.keys else nothing), nothing
    key = request.key
    if not key and isinstance(request, watch_pb2.WatchCreateRequest):
        key = b"\0"
    # A range that nothing can lie in still asks about the place where it begins.
    asked = keys_between(key, request.range_end) or frozenset({key})
    if isinstance(request, kv_pb2.DeleteRangeRequest):
        return (asked if request.prev_kv else nothing), asked
    return asked, nothing


# --- drawing ------------------------------------------------------------------------------------


def random_permission(rng: random.Random) -> Permission:
    """Return a permission of a point, an interval, or from a key on; some hold nothing."""
    return Permission(rng.choice((READ, WRITE, READWRITE)), *_random_pair(rng))


def random_request(rng: random.Random) -> Any:
    """Return a request of any kind that is decided by keys."""
    kind = rng.randrange(10)
    if kind < 4:
        return random_operation(rng, rng.randrange(4))
    if kind < 6:
        return _random_txn(rng, rng.randrange(1, 4))
    if kind == 6:
        key, range_end = _random_pair(rng)
        return watch_pb2.WatchCreateRequest(
            key=rng.choice((key, b"")), range_end=range_end, prev_kv=rng.random() < 0.5
        )
    lease = rng.choice((*LEASES, 99))
    return rng.choice(
        (
            lease_pb2.LeaseRevokeRequest(ID=lease),
            lease_pb2.LeaseKeepAliveRequest(ID=lease),
            lease_pb2.LeaseTimeToLiveRequest(ID=lease, keys=rng.random() < 0.7),
            lease_pb2.LeaseLeasesRequest(),
            lease_pb2.LeaseGrantRequest(ID=lease, TTL=5),
        )
    )


def random_operation(rng: random.Random, kind: int) -> Any:
    """Return a range, put, deletion (kind 0 to 2) or small transaction (3)."""
    key, range_end = _random_pair(rng)
    if kind == 0:
        return kv_pb2.RangeRequest(
            key=key,
            range_end=range_end,
            serializable=rng.random() < 0.3,
            count_only=rng.random() < 0.3,
            limit=rng.randrange(3),
        )
    if kind == 1:
        return kv_pb2.PutRequest(
            key=key,
            value=b"v",
            prev_kv=rng.random() < 0.4,
            lease=rng.choice((0, 0, *LEASES)),
            ignore_value=rng.random() < 0.2,
        )
    if kind == 2:
        return kv_pb2.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=rng.random() < 0.4)
    return _random_txn(rng, 1)


def _random_txn(rng: random.Random, depth: int) -> kv_pb2.TxnRequest:
    txn = kv_pb2.TxnRequest()
    for _ in range(rng.randrange(3)):
        key, range_end = _random_pair(rng)
        txn.compare.add(key=key, range_end=rng.choice((b"", range_end)), version=1)
    for branch in (txn.success, txn.failure):
        for _ in range(rng.randrange(3)):
            if depth > 1 and rng.random() < 0.5:
                branch.add(request_txn=_random_txn(rng, depth - 1))
                continue
            operation = random_operation(rng, rng.randrange(3))
            match operation:
                case kv_pb2.RangeRequest():
                    branch.add(request_range=operation)
                case kv_pb2.PutRequest():
                    branch.add(request_put=operation)
                case _:
                    branch.add(request_delete_range=operation)
    return txn


def _random_pair(rng: random.Random) -> tuple[bytes, bytes]:
    key = rng.choice(_STEMS)
    kind = rng.randrange(10)
    if kind < 4:
        return key, b""
    if kind < 6:
        return key, key + b"\0"
    if kind == 6:
        return key, b"\0"
    # Some of these rise and some do not.
    return key, rng.choice(_STEMS)

"""Random operations of the key-value, lease and watch services, drawn from a seed.

Owns: what may be asked at random, how often, and the shift between revisions of two runs.
Never: sends anything.
Keeps: the same seed, count and base give the same plan; what etcd is known to answer otherwise, or
    leaves open, is not drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, final

from google.protobuf.message import Message

from kvsecure.proto import kv_pb2 as kv
from kvsecure.proto import lease_pb2 as lease
from kvsecure.proto import watch_pb2 as watch

__all__ = ["CANCEL", "CREATE", "KEEP_ALIVE", "LEASES", "Operation", "draw_plan", "moved", "shifted"]

# Calls that are no unary ones.
CREATE: Final = "watch.Create"
CANCEL: Final = "watch.Cancel"
KEEP_ALIVE: Final = "lease.LeaseKeepAlive"

# Six: Go's sort, with which etcd orders by something else than keys, is stable up to there.
_SORTED_KEYS: Final = (b"a", b"a\0", b"ab", b"b", b"b\xff", b"c")
_KEYS: Final = (*_SORTED_KEYS, b"\0", b"d/1", b"d/2", b"d/2/x", b"d/3", b"e", b"\xff", b"\xff\xff")
_SORTED_ENDS: Final = (b"a\0", b"ab", b"b", b"c", b"c\0", b"c\0")
# Before the first, between, and behind the last of the keys.
_CLOSED_ENDS: Final = (
    b"\0\0",
    b"a",
    b"ab",
    b"b",
    b"c",
    b"d",
    b"d0",
    b"e",
    b"\xff",
    b"\xff\xff\xff",
)
_ENDS: Final = (b"\0", *_CLOSED_ENDS)
_VALUES: Final = (b"", b"1", b"2", b"10", b"\xff\0", b"long" * 60)
# Long enough that no lease ends while its test runs.
_TTL_S: Final = 3_600
LEASES: Final = (101, 102, 103, -104)
_UNKNOWN_LEASE: Final = 999
# How many of a plan's first revisions a future watch may wait for.
_FUTURE_MAX: Final = 12
# Fields that hold revisions of the store.
_REVISIONS: Final = frozenset(
    {
        "revision",
        "create_revision",
        "mod_revision",
        "min_mod_revision",
        "max_mod_revision",
        "min_create_revision",
        "max_create_revision",
        "start_revision",
    }
)
_TXN_DEPTH_MAX: Final = 3


_M = TypeVar("_M", bound=Message)


@final
class Operation(NamedTuple):
    """One call: its method, like `kv.Put`, and its request."""

    method: str
    request: Any


def shifted(message: _M, by: int) -> _M:
    """Return a copy whose revisions are greater by that much; 0 and less mean no revision."""
    copy = type(message)()
    copy.CopyFrom(message)
    _shift(copy, by)
    return copy


def moved(plan: Sequence[Operation], by: int) -> list[Operation]:
    """Return a plan for a store whose revision is greater by that much."""
    return [Operation(method, shifted(request, by)) for method, request in plan]


def _shift(message: Message, by: int) -> None:
    for field, value in message.ListFields():
        if field.name in _REVISIONS:
            if value > 0:
                setattr(message, field.name, value + by)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _shift(inner, by)


def draw_plan(seed: str, count: int, base: int) -> list[Operation]:
    """Return so many operations for a store that is at this revision."""
    return list(_Drawing(Random(seed), base).operations(count))


@final
class _Drawing:
    """Draws one plan."""

    def __init__(self, random: Random, base: int) -> None:
        self._random = random
        self._base = base
        # About where the store is: most writes succeed.
        self._revision = base
        self._watches: list[int] = []
        self._watch_count = 0
        # As often as they are to be drawn.
        self._kinds: tuple[tuple[int, Callable[[], Operation]], ...] = (
            (300, lambda: self._written("kv.Txn", self._clear_txn())),
            (240, lambda: self._written("kv.Put", self._put())),
            (250, lambda: Operation("kv.Range", self._range())),
            (50, lambda: self._written("kv.DeleteRange", self._delete(_ENDS))),
            (6, lambda: Operation("kv.Compact", self._compaction())),
            (40, lambda: Operation("lease.LeaseGrant", self._grant())),
            (14, lambda: Operation("lease.LeaseRevoke", self._revoke())),
            (30, lambda: Operation("lease.LeaseTimeToLive", self._time_to_live())),
            (20, lambda: Operation(KEEP_ALIVE, self._keep_alive())),
            (10, lambda: Operation("lease.LeaseLeases", lease.LeaseLeasesRequest())),
            (14, lambda: Operation(CREATE, self._watch())),
            (6, self._cancel),
        )

    def operations(self, count: int) -> Iterator[Operation]:
        """Yield so many."""
        weights = [weight for weight, _ in self._kinds]
        draws = [draw for _, draw in self._kinds]
        for draw in self._random.choices(draws, weights, k=count):
            yield draw()

    # --- calls ----------------------------------------------------------------------------------

    def _written(self, method: str, request: Any) -> Operation:
        self._revision += self._random.random() < 0.7
        return Operation(method, request)

    def _put(self) -> kv.PutRequest:
        request = kv.PutRequest(key=self._key(), prev_kv=self._sometimes())
        if self._rarely():
            request.ignore_value = self._sometimes()
            request.ignore_lease = self._sometimes()
            if self._rarely():
                request.value = self._value()
                request.lease = self._lease()
            return request
        request.value = self._value()
        request.lease = self._lease()
        return request

    def _range(self) -> kv.RangeRequest:
        pick, some = self._random.choice, self._sparse
        target = pick((0, 0, 0, 0, 1, 2, 3, 4))
        request = kv.RangeRequest(
            sort_order=pick((0, 0, 1, 2)),
            sort_target=target,
            limit=some(lambda: pick((-1, 1, 2, 3, 5, 100))),
            revision=some(lambda: pick((-1, self._past(), self._past(), self._past()))),
            serializable=self._sometimes(),
            keys_only=self._rarely(),
            count_only=self._rarely(),
        )
        request.key, request.range_end = self._span(
            *((_SORTED_KEYS, _SORTED_ENDS) if target else (_KEYS, _ENDS))
        )
        if self._rarely():
            request.min_mod_revision = some(self._past)
            request.max_mod_revision = some(self._past)
            request.min_create_revision = some(self._past)
            request.max_create_revision = some(self._past)
        return request

    def _delete(self, ends: Sequence[bytes]) -> kv.DeleteRangeRequest:
        key, range_end = self._span(_KEYS, ends if self._rarely() else _SORTED_ENDS)
        return kv.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._sometimes())

    def _compare(self) -> kv.Compare:
        pick = self._random.choice
        key, range_end = self._span(_KEYS, _ENDS) if self._rarely() else (self._key(), b"")
        compare = kv.Compare(result=pick((0, 1, 2, 3)), key=key, range_end=range_end)
        match pick((0, 1, 2, 3, 4)):
            case 0:
                compare.target, compare.version = kv.Compare.VERSION, pick((0, 1, 2, 3))
            case 1:
                compare.target = kv.Compare.CREATE
                compare.create_revision = self._sparse(self._past)
            case 2:
                compare.target, compare.mod_revision = kv.Compare.MOD, self._sparse(self._past)
            case 3:
                compare.target, compare.value = kv.Compare.VALUE, self._value()
            case _:
                compare.target, compare.lease = kv.Compare.LEASE, self._lease()
        return compare

    def _clear_txn(self) -> kv.TxnRequest:
        while True:
            txn = self._txn(_TXN_DEPTH_MAX)
            if _is_clear(txn):
                return txn

    def _txn(self, depth: int) -> kv.TxnRequest:
        times = self._random.choice
        return kv.TxnRequest(
            compare=[self._compare() for _ in range(times((0, 0, 1, 1, 2)))],
            success=[self._inner(depth) for _ in range(times((0, 1, 2, 3)))],
            failure=[self._inner(depth) for _ in range(times((0, 0, 1, 2)))],
        )

    def _inner(self, depth: int) -> kv.RequestOp:
        kinds = ("put", "put", "range", "delete", *(("txn",) if depth > 1 else ()))
        match self._random.choice(kinds):
            case "put":
                return kv.RequestOp(request_put=self._put())
            case "range":
                return kv.RequestOp(request_range=self._range())
            case "delete":
                # etcd does not see that an open end meets a put of the same transaction; kvsecure
                # does.
                return kv.RequestOp(request_delete_range=self._delete(_CLOSED_ENDS))
            case _:
                return kv.RequestOp(request_txn=self._txn(depth - 1))

    def _compaction(self) -> kv.CompactionRequest:
        # Waiting for the bytes to be gone takes a while.
        return kv.CompactionRequest(revision=self._past(), physical=self._random.random() < 0.1)

    def _grant(self) -> lease.LeaseGrantRequest:
        return lease.LeaseGrantRequest(ID=self._random.choice(LEASES), TTL=_TTL_S)

    def _revoke(self) -> lease.LeaseRevokeRequest:
        return lease.LeaseRevokeRequest(ID=self._any_lease())

    def _time_to_live(self) -> lease.LeaseTimeToLiveRequest:
        return lease.LeaseTimeToLiveRequest(ID=self._any_lease(), keys=self._sometimes())

    def _keep_alive(self) -> lease.LeaseKeepAliveRequest:
        return lease.LeaseKeepAliveRequest(ID=self._any_lease())

    def _watch(self) -> watch.WatchCreateRequest:
        self._watch_count += 1
        self._watches.append(self._watch_count)
        key, range_end = self._span(_KEYS, _ENDS)
        if range_end > b"\0" and range_end <= key:
            range_end = b""
        future = self._base + self._random.randint(1, _FUTURE_MAX)
        filters: tuple[int, ...] = self._random.choice(((), (), (), (0,), (1,), (0, 1)))
        start = self._sparse(lambda: self._random.choice((self._past(), future)))
        return watch.WatchCreateRequest(
            key=key,
            range_end=range_end,
            # Of one that sees nothing nobody knows whether it is still behind.
            start_revision=0 if len(filters) > 1 else start,
            prev_kv=self._sometimes(),
            fragment=self._sometimes(),
            filters=filters,  # type: ignore[arg-type]  # enums are ints here
            watch_id=self._watch_count,
        )

    def _cancel(self) -> Operation:
        number = 0
        if self._watches:
            number = self._watches.pop(self._random.randrange(len(self._watches)))
        return Operation(CANCEL, watch.WatchCancelRequest(watch_id=number))

    # --- parts ----------------------------------------------------------------------------------

    def _rarely(self) -> bool:
        return self._random.random() < 0.2

    def _sometimes(self) -> bool:
        return self._random.random() < 0.5

    def _sparse(self, draw: Callable[[], int]) -> int:
        # Most requests leave an optional number out.
        return draw() if self._random.random() < 0.4 else 0

    def _key(self) -> bytes:
        # Mostly few of them, so that they meet.
        return self._random.choice(_KEYS if self._rarely() else _SORTED_KEYS)

    def _value(self) -> bytes:
        return self._random.choice(_VALUES)

    def _lease(self) -> int:
        if self._random.random() < 0.6:
            return 0
        return self._any_lease()

    def _any_lease(self) -> int:
        return _UNKNOWN_LEASE if self._random.random() < 0.05 else self._random.choice(LEASES)

    def _past(self) -> int:
        """Return a revision; mostly a late one, and sometimes one that is not there yet."""
        span = self._random.choice((5, 20, 200))
        return max(self._revision + 2 - self._random.randrange(span), 1)

    def _span(self, keys: Sequence[bytes], ends: Sequence[bytes]) -> tuple[bytes, bytes]:
        key = self._random.choice(keys)
        return key, self._random.choice(ends) if self._sometimes() else b""


def _is_clear(txn: kv.TxnRequest) -> bool:
    """Whether etcd and kvsecure agree that the puts and deletes of nested transactions go together.

    etcd overlooks a delete in a nested transaction that follows the put in another one, and finds
    it where it comes first; kvsecure finds both.
    """
    nested = [
        operation.request_txn
        for operation in (*txn.success, *txn.failure)
        if operation.HasField("request_txn")
    ]
    leaves = [leaf for inner in nested for leaf in _leaves(inner)]
    puts = [leaf.request_put.key for leaf in leaves if leaf.HasField("request_put")]
    deletes = [
        leaf.request_delete_range for leaf in leaves if leaf.HasField("request_delete_range")
    ]
    return not any(
        delete.key == key or delete.key <= key < delete.range_end
        for key in puts
        for delete in deletes
    )


def _leaves(txn: kv.TxnRequest) -> Iterator[kv.RequestOp]:
    for operation in (*txn.success, *txn.failure):
        if operation.HasField("request_txn"):
            yield from _leaves(operation.request_txn)
        else:
            yield operation

"""Random operations of the key-value and lease services, as hypothesis draws them.

Owns: what may be asked at random, and the shift between revisions of a test and of a server.
Never: sends anything.
Keeps: every revision in a drawn operation counts from the start of the test, 1 being the first.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar, final

from google.protobuf.message import Message
from hypothesis import strategies as st

from kvsecure.proto import kv_pb2 as kv
from kvsecure.proto import lease_pb2 as lease

__all__ = ["LEASES", "Operation", "operations", "shifted"]

# Six: Go's sort, with which etcd orders by something else than keys, is stable up to there.
_KEYS: Final = (b"a", b"a\0", b"ab", b"b", b"b\xff", b"\xff")
_ENDS: Final = (b"\0", b"a", b"ab", b"b", b"c", b"d", b"\xff\xff")
_CLOSED_ENDS: Final = tuple(end for end in _ENDS if end != b"\0")
_VALUES: Final = (b"", b"1", b"2", b"10", b"\xff\0")
# Long enough that no lease ends while its test runs.
_TTL_S: Final = 3_600
LEASES: Final = (101, 102, 103)
_UNKNOWN_LEASE: Final = 999
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
    }
)
_TXN_DEPTH_MAX: Final = 3
# As often as they are to be drawn.
_METHODS: Final = (
    *["kv.Txn"] * 8,
    *["kv.Put"] * 6,
    *["kv.Range"] * 5,
    *["kv.DeleteRange"] * 2,
    *["kv.Compact"] * 1,
    *["lease.LeaseGrant"] * 2,
    *["lease.LeaseRevoke"] * 1,
    *["lease.LeaseTimeToLive"] * 1,
    *["lease.LeaseLeases"] * 1,
)


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


def _shift(message: Message, by: int) -> None:
    for field, value in message.ListFields():
        if field.name in _REVISIONS:
            if value > 0:
                setattr(message, field.name, value + by)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _shift(inner, by)


@st.composite
def operations(draw: st.DrawFn, groups: int) -> list[Operation]:
    """Return the strategy for a run of operations on one small key space.

    Args:
        draw: Given by hypothesis.
        groups: About two and a half operations are drawn for each; in groups, because then a
            failing run shrinks to the operations that matter.
    """
    group = st.lists(_operation(), max_size=5)
    return [operation for _ in range(groups) for operation in draw(group)]


@st.composite
def _operation(draw: st.DrawFn) -> Operation:
    method = draw(st.sampled_from(_METHODS))
    match method:
        case "kv.Put":
            request: Any = draw(_puts())
        case "kv.Range":
            request = draw(_ranges())
        case "kv.DeleteRange":
            request = draw(_deletes())
        case "kv.Txn":
            request = draw(_txns(_TXN_DEPTH_MAX).filter(_is_clear))
        case "kv.Compact":
            request = draw(_compactions())
        case "lease.LeaseGrant":
            request = lease.LeaseGrantRequest(ID=draw(st.sampled_from(LEASES)), TTL=_TTL_S)
        case "lease.LeaseRevoke":
            request = lease.LeaseRevokeRequest(ID=draw(_any_lease()))
        case "lease.LeaseTimeToLive":
            request = lease.LeaseTimeToLiveRequest(ID=draw(_any_lease()), keys=draw(st.booleans()))
        case _:
            request = lease.LeaseLeasesRequest()
    return Operation(method, request)


def _any_lease() -> st.SearchStrategy[int]:
    return st.sampled_from((*LEASES, _UNKNOWN_LEASE))


def _bounds(ends: Sequence[bytes] = _ENDS) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "key": st.sampled_from(_KEYS),
        "range_end": st.one_of(st.just(b""), st.sampled_from(ends)),
    }


def _sparse(strategy: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    # Most requests leave an optional number out.
    return st.one_of(st.just(0), st.just(0), strategy)


def _revision() -> st.SearchStrategy[int]:
    # Mostly early ones: a revision that is not there yet is refused, which teaches little.
    early = st.integers(min_value=1, max_value=12)
    return st.one_of(early, early, early, st.integers(min_value=1, max_value=60))


def _revisions() -> st.SearchStrategy[int]:
    return st.one_of(st.just(0), _sparse(_revision()))


def _lease_ids() -> st.SearchStrategy[int]:
    return _sparse(st.sampled_from((*LEASES, _UNKNOWN_LEASE)))


def _puts() -> st.SearchStrategy[kv.PutRequest]:
    plain = st.builds(
        kv.PutRequest,
        key=st.sampled_from(_KEYS),
        value=st.sampled_from(_VALUES),
        lease=_lease_ids(),
        prev_kv=st.booleans(),
    )
    keeping = st.builds(
        kv.PutRequest,
        key=st.sampled_from(_KEYS),
        ignore_value=st.booleans(),
        ignore_lease=st.booleans(),
        prev_kv=st.booleans(),
    )
    return st.one_of(plain, plain, plain, keeping)


def _ranges() -> st.SearchStrategy[kv.RangeRequest]:
    return st.builds(
        kv.RangeRequest,
        **_bounds(),
        limit=_sparse(st.integers(min_value=1, max_value=4)),
        revision=st.one_of(_revisions(), _revisions(), st.sampled_from((-1, 0))),
        sort_order=st.sampled_from((0, 0, 1, 2)),
        sort_target=st.sampled_from((0, 0, 1, 2, 3, 4)),
        serializable=st.booleans(),
        keys_only=st.sampled_from((False, False, True)),
        count_only=st.sampled_from((False, False, True)),
        min_mod_revision=_revisions(),
        max_mod_revision=_revisions(),
        min_create_revision=_revisions(),
        max_create_revision=_revisions(),
    )


def _deletes(ends: Sequence[bytes] = _ENDS) -> st.SearchStrategy[kv.DeleteRangeRequest]:
    return st.builds(kv.DeleteRangeRequest, **_bounds(ends), prev_kv=st.booleans())


def _compares() -> st.SearchStrategy[kv.Compare]:
    shared = {
        "result": st.sampled_from((0, 1, 2, 3)),
        "key": st.sampled_from(_KEYS),
        "range_end": st.one_of(st.just(b""), st.just(b""), st.sampled_from(_ENDS)),
    }
    target = kv.Compare
    small = st.integers(min_value=0, max_value=3)
    return st.one_of(
        st.builds(kv.Compare, target=st.just(target.VERSION), version=small, **shared),
        st.builds(
            kv.Compare, target=st.just(target.CREATE), create_revision=_revisions(), **shared
        ),
        st.builds(kv.Compare, target=st.just(target.MOD), mod_revision=_revisions(), **shared),
        st.builds(
            kv.Compare, target=st.just(target.VALUE), value=st.sampled_from(_VALUES), **shared
        ),
        st.builds(kv.Compare, target=st.just(target.LEASE), lease=_lease_ids(), **shared),
    )


@st.composite
def _txns(draw: st.DrawFn, depth: int) -> kv.TxnRequest:
    branch = st.lists(_inner_operation(depth), max_size=2)
    return kv.TxnRequest(
        compare=draw(st.lists(_compares(), max_size=2)),
        success=draw(branch),
        failure=draw(branch),
    )


@st.composite
def _inner_operation(draw: st.DrawFn, depth: int) -> kv.RequestOp:
    kinds = ("put", "put", "range", "delete", *(("txn",) if depth > 1 else ()))
    match draw(st.sampled_from(kinds)):
        case "put":
            return kv.RequestOp(request_put=draw(_puts()))
        case "range":
            return kv.RequestOp(request_range=draw(_ranges()))
        case "delete":
            # etcd does not see that an open end meets a put of the same transaction; kvsecure does.
            return kv.RequestOp(request_delete_range=draw(_deletes(_CLOSED_ENDS)))
        case _:
            return kv.RequestOp(request_txn=draw(_txns(depth - 1)))


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


def _compactions() -> st.SearchStrategy[kv.CompactionRequest]:
    return st.builds(
        kv.CompactionRequest,
        revision=_revision(),
        physical=st.booleans(),
    )

"""Random requests over few keys, so that they meet.

Owns: the strategies; every request has a shape that the service lets through.
Never: knows what a request does.
"""

from typing import Any, Final

from hypothesis import strategies as st

from kvsecure.api.shape import check_txn
from kvsecure.model.errors import Refused
from kvsecure.model.limits import TXN_OPS_MAX_DEFAULT
from kvsecure.proto import kv_pb2

__all__ = [
    "KEYS",
    "LEASES",
    "compares",
    "deletes",
    "keys",
    "puts",
    "range_ends",
    "ranges",
    "spans",
    "txns",
]

KEYS: Final = (b"\0", b"a", b"a\0", b"ab", b"b", b"c", b"c/1", b"c/2", b"\xff", b"\xff\xff")
LEASES: Final = (0, 0, 0, 1, 2, -3)

keys: Final = st.sampled_from(KEYS)
range_ends: Final = st.sampled_from((b"", b"", b"\0", *KEYS))
spans: Final = st.tuples(keys, range_ends)
_values: Final = st.sampled_from((b"", b"v", b"w", b"long" * 50))
_revisions: Final = st.one_of(st.just(0), st.integers(-2, 60))
_bounds: Final = st.one_of(st.just(0), st.just(0), st.integers(1, 40))


@st.composite
def puts(draw: Any) -> kv_pb2.PutRequest:
    """Puts with every option."""
    request = kv_pb2.PutRequest(key=draw(keys), prev_kv=draw(st.booleans()))
    match draw(st.integers(0, 7)):
        case 0:
            request.ignore_value = True
            request.lease = draw(st.sampled_from(LEASES))
        case 1:
            request.ignore_lease = True
            request.value = draw(_values)
        case 2:
            request.ignore_value = request.ignore_lease = True
        case _:
            request.value = draw(_values)
            request.lease = draw(st.sampled_from(LEASES))
    return request


@st.composite
def deletes(draw: Any) -> kv_pb2.DeleteRangeRequest:
    """Deletions of one key or of many."""
    key, range_end = draw(spans)
    return kv_pb2.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=draw(st.booleans()))


@st.composite
def ranges(draw: Any) -> kv_pb2.RangeRequest:
    """Ranges; half of them with nothing but keys and a revision."""
    key, range_end = draw(spans)
    request = kv_pb2.RangeRequest(key=key, range_end=range_end, revision=draw(_revisions))
    if draw(st.booleans()):
        request.limit = draw(st.integers(-1, 4))
        request.sort_order = draw(st.sampled_from(kv_pb2.RangeRequest.SortOrder.values()))
        request.sort_target = draw(st.sampled_from(kv_pb2.RangeRequest.SortTarget.values()))
        request.keys_only = draw(st.booleans())
        request.count_only = draw(st.integers(0, 3)) == 0
        request.min_mod_revision = draw(_bounds)
        request.max_mod_revision = draw(_bounds)
        request.min_create_revision = draw(_bounds)
        request.max_create_revision = draw(_bounds)
    return request


@st.composite
def compares(draw: Any) -> kv_pb2.Compare:
    """Comparisons of every target with every operator, on a key or a range."""
    key, range_end = draw(spans)
    compare = kv_pb2.Compare(
        key=key,
        range_end=range_end,
        result=draw(st.sampled_from(kv_pb2.Compare.CompareResult.values())),
        target=draw(st.sampled_from(kv_pb2.Compare.CompareTarget.values())),
    )
    match compare.target:
        case kv_pb2.Compare.VALUE:
            compare.value = draw(_values)
        case kv_pb2.Compare.VERSION:
            compare.version = draw(st.integers(0, 3))
        case kv_pb2.Compare.CREATE:
            compare.create_revision = draw(st.integers(0, 30))
        case kv_pb2.Compare.MOD:
            compare.mod_revision = draw(st.integers(0, 30))
        case kv_pb2.Compare.LEASE:
            compare.lease = draw(st.sampled_from(LEASES))
    return compare


@st.composite
def _operations(draw: Any, depth: int) -> kv_pb2.RequestOp:
    kind = draw(st.integers(0, 7 if depth else 5))
    if kind <= 2:
        return kv_pb2.RequestOp(request_put=draw(puts()))
    if kind == 3:
        return kv_pb2.RequestOp(request_delete_range=draw(deletes()))
    if kind <= 5:
        return kv_pb2.RequestOp(request_range=draw(ranges()))
    return kv_pb2.RequestOp(request_txn=draw(_transactions(depth - 1)))


@st.composite
def _transactions(draw: Any, depth: int) -> kv_pb2.TxnRequest:
    return kv_pb2.TxnRequest(
        compare=draw(st.lists(compares(), max_size=2)),
        success=draw(st.lists(_operations(depth), max_size=3)),
        failure=draw(st.lists(_operations(depth), max_size=3)),
    )


def _fits(request: kv_pb2.TxnRequest) -> bool:
    try:
        check_txn(request, TXN_OPS_MAX_DEFAULT)
    except Refused:
        return False
    return True


def txns() -> st.SearchStrategy[kv_pb2.TxnRequest]:
    """Transactions, nested twice at most, as the shape check lets them through."""
    return _transactions(2).filter(_fits)

"""The shape of requests: what can be told wrong without looking at any state.

Owns: every check of a request's own fields.
Never: looks at rights, keys or revisions.
Follows: etcd's v3rpc checks (server/etcdserver/api/v3rpc/key.go), in their order; differs: unknown
    enum values of a comparison are refused, where etcd takes them for true.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvsecure.model.burst import PutTxn
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import FROM_KEY, Span, span_of
from kvsecure.model.limits import (
    AUTH_NAME_BYTES_MAX,
    LEASE_TTL_S_MAX,
    LEASE_TTL_S_MIN,
    PEER_URL_BYTES_MAX,
    PEER_URLS_MAX,
)
from kvsecure.proto.authstore_pb2 import Permission
from kvsecure.proto.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

__all__ = [
    "check_delete",
    "check_lease_ttl",
    "check_name",
    "check_peer_urls",
    "check_permission",
    "check_put",
    "check_range",
    "check_range_stream",
    "check_tenant_name",
    "check_txn",
    "plain_puts",
]

_SORT_ORDERS: Final = frozenset(RangeRequest.SortOrder.values())
_SORT_TARGETS: Final = frozenset(RangeRequest.SortTarget.values())
_RESULTS: Final = frozenset(Compare.CompareResult.values())
_TARGETS: Final = frozenset(Compare.CompareTarget.values())
# A tenant's name is a label of certificates' identities (docs/pki.md).
_LABEL_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LABEL_CHARACTERS_MAX: Final = 63
# etcd takes sockets of the file system too; no other machine has them.
_PEER_URL: Final = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+(%25[0-9A-Za-z]+)?\]|[0-9A-Za-z._~-]+):(?P<port>[0-9]{1,5})"
)
_RESERVED_TENANTS: Final = frozenset({"default", "system"})


def check_range(request: RangeRequest) -> None:
    """Check a range.

    Raises:
        Refused: It has no key, or asks for an order that there is not.
    """
    if not request.key:
        raise Refused(Failure.EMPTY_KEY)
    if (request.sort_order or request.sort_target) and (
        request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS
    ):
        raise Refused(Failure.INVALID_SORT_OPTION)


def check_range_stream(request: RangeRequest) -> None:
    """Check a range that is to be answered in chunks.

    Raises:
        Refused: It cannot be answered, or not in the order in which it is read.
    """
    check_range(request)
    if request.sort_order or request.sort_target:
        raise Refused(Failure.STREAM_SORT_ORDER)
    if (
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        raise Refused(Failure.STREAM_FILTERS)


def check_put(request: PutRequest) -> None:
    """Check a put.

    Raises:
        Refused: It has no key, or gives what it asks to be kept.
    """
    if not request.key:
        raise Refused(Failure.EMPTY_KEY)
    if request.ignore_value and request.value:
        raise Refused(Failure.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise Refused(Failure.LEASE_PROVIDED)


def check_delete(request: DeleteRangeRequest) -> None:
    """Check a deletion.

    Raises:
        Refused: It has no key.
    """
    if not request.key:
        raise Refused(Failure.EMPTY_KEY)


def check_txn(request: TxnRequest, ops_max: int) -> None:
    """Check a transaction and everything nested in it.

    Raises:
        Refused: It is too large, an operation of it is wrong, or it changes a key twice.
    """
    _check_txn(request, ops_max)
    for branch in (request.success, request.failure):
        _check_changes(branch)


def plain_puts(request: TxnRequest, ops_max: int) -> PutTxn | None:
    """Return a transaction's puts if it is nothing else, and passes `check_txn`; otherwise None."""
    success = request.success
    if not 0 < len(success) <= ops_max or len(request.compare) or len(request.failure):
        return None
    puts = []
    for operation in success:
        # Of another operation it is empty.
        put = operation.request_put
        key = put.key
        if not key or put.lease or put.prev_kv or put.ignore_value or put.ignore_lease:
            return None
        puts.append((key, put.value))
    return PutTxn(puts) if len({key for key, _ in puts}) == len(puts) else None


def check_lease_ttl(ttl_s: int) -> int:
    """Return the TTL that a lease gets: at least the minimum.

    Raises:
        Refused: It is too long.
    """
    if ttl_s > LEASE_TTL_S_MAX:
        raise Refused(Failure.LEASE_TTL_TOO_LARGE)
    return max(ttl_s, LEASE_TTL_S_MIN)


def check_peer_urls(urls: Sequence[str]) -> None:
    """Check where a member is to be reached: `https://host:port`, or http.

    Raises:
        Refused: It is nowhere, in too many places, or what is given is no such address.
    """
    if not 0 < len(urls) <= PEER_URLS_MAX or not all(map(_is_peer_url, urls)):
        raise Refused(Failure.MEMBER_BAD_URLS)


def _is_peer_url(url: str) -> bool:
    found = _PEER_URL.fullmatch(url)
    return found is not None and len(url) <= PEER_URL_BYTES_MAX and int(found["port"]) <= 0xFFFF


def check_permission(permission: Permission) -> None:
    """Check the range of a permission: a key, from a key on, or a rising interval.

    Raises:
        Refused: It is none of these, or of a type that there is not.
    """
    key, range_end = permission.key, permission.range_end
    rising = not range_end or range_end == FROM_KEY or range_end > key
    if not key or not rising or permission.permType not in Permission.Type.values():
        raise Refused(Failure.INVALID_AUTH_MANAGEMENT)


def check_name(name: str) -> None:
    """Check the name of a new user or role; that it is not empty is checked elsewhere.

    A slash would be taken for the mark between a tenant and its user.

    Raises:
        Refused: It cannot be a name.
    """
    if len(name.encode()) > AUTH_NAME_BYTES_MAX:
        raise Refused(Failure.NAME_REJECTED, f"more than {AUTH_NAME_BYTES_MAX} bytes")
    if "/" in name or not name.isprintable():
        raise Refused(Failure.NAME_REJECTED, "a slash or a control character")


def check_tenant_name(name: str) -> None:
    """Check the name of a new tenant.

    Raises:
        Refused: It cannot be a tenant's.
    """
    good = 0 < len(name) <= _LABEL_CHARACTERS_MAX and set(name) <= _LABEL_CHARACTERS
    if not good or name.startswith("-") or name.endswith("-"):
        raise Refused(Failure.NAME_REJECTED, "a tenant's is 1 to 63 of a-z, 0-9 and inner hyphens")
    if name in _RESERVED_TENANTS:
        raise Refused(Failure.TENANT_EXISTS)


def _check_txn(request: TxnRequest, ops_max: int) -> None:
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > ops_max:
        raise Refused(Failure.TOO_MANY_OPS)
    for compare in request.compare:
        if not compare.key:
            raise Refused(Failure.EMPTY_KEY)
        if compare.result not in _RESULTS or compare.target not in _TARGETS:
            raise Refused(Failure.INVALID_SORT_OPTION)
    for branch in (request.success, request.failure):
        for operation in branch:
            _check_operation(operation, ops_max - ops)


def _check_operation(operation: RequestOp, ops_left: int) -> None:
    match operation.WhichOneof("request"):
        case "request_range":
            check_range(operation.request_range)
        case "request_put":
            check_put(operation.request_put)
        case "request_delete_range":
            check_delete(operation.request_delete_range)
        case "request_txn":
            _check_txn(operation.request_txn, ops_left)
        case _:
            # An operation without a request (etcd answers so).
            raise Refused(Failure.KEY_NOT_FOUND)


class _Changes(NamedTuple):
    puts: set[bytes]
    deletes: list[Span]


def _check_changes(branch: Sequence[RequestOp]) -> _Changes:
    """Check that no key is put twice or both put and deleted; return what the branch changes.

    The branches of a nested transaction exclude each other: they may put the same key.
    """
    puts: set[bytes] = set()
    deletes: list[Span] = []
    for operation in branch:
        if operation.WhichOneof("request") == "request_delete_range":
            request = operation.request_delete_range
            deletes.append(span_of(request.key, request.range_end))
    for operation in branch:
        match operation.WhichOneof("request"):
            case "request_put":
                _add_put(operation.request_put.key, puts, deletes)
            case "request_txn":
                nested = operation.request_txn
                yes, no = _check_changes(nested.success), _check_changes(nested.failure)
                _check_apart(puts, deletes, yes)
                _check_apart(puts, deletes, no)
                puts |= yes.puts | no.puts
                deletes += yes.deletes + no.deletes
    return _Changes(puts, deletes)


def _add_put(key: bytes, puts: set[bytes], deletes: Sequence[Span]) -> None:
    if key in puts or any(span.holds(key) for span in deletes):
        raise Refused(Failure.DUPLICATE_KEY)
    puts.add(key)


def _check_apart(puts: set[bytes], deletes: Sequence[Span], nested: _Changes) -> None:
    """Check that a nested branch does not touch what its surroundings put or delete."""
    if puts & nested.puts:
        raise Refused(Failure.DUPLICATE_KEY)
    if any(span.holds(key) for span in deletes for key in nested.puts):
        raise Refused(Failure.DUPLICATE_KEY)
    if any(span.holds(key) for span in nested.deletes for key in puts):
        raise Refused(Failure.DUPLICATE_KEY)

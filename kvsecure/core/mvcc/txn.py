"""Transactions: compare, choose a path, and run it as one revision.

Owns: comparisons, the choice of branches at every level, the checks that must pass before the first
    write, and the answer in wire form.
Never: checks rights or shapes.
Follows: etcd's txn (server/etcdserver/txn/txn.go): every comparison of every level is evaluated on
    the state before the transaction, and the whole path is fixed before anything is written.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from kvsecure.core.mvcc.deletion import answer_deletion, keys_of
from kvsecure.core.mvcc.ranges import answer_range, check_revision
from kvsecure.core.mvcc.records import Records
from kvsecure.core.mvcc.space import Space, Writing
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import span_of
from kvsecure.proto.encode import bytes_field, varint
from kvsecure.proto.kv_pb2 import Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest
from kvsecure.proto.mvcc_pb2 import KeyValue

__all__ = [
    "Path",
    "answer_puts",
    "check_lease",
    "check_path",
    "check_put",
    "choose_path",
    "run_delete",
    "run_path",
    "run_put",
    "writes",
]

_HEADER: Final = b"\x0a"
_EMPTY_HEADER: Final = b"\x0a\x00"
_REVISION: Final = b"\x18"
_PREVIOUS: Final = b"\x12"
_SUCCEEDED: Final = b"\x10\x01"
_RESPONSE: Final = b"\x1a"
# Field keys of etcdserverpb.ResponseOp.
_RANGE_ANSWER: Final = b"\x0a"
_PUT_ANSWER: Final = b"\x12"
_DELETE_ANSWER: Final = b"\x1a"
_TXN_ANSWER: Final = b"\x22"

_NOTHING: Final = KeyValue()


class Path(NamedTuple):
    """The branch that is taken at one level, with the paths of the transactions nested in it."""

    succeeded: bool
    operations: tuple[RequestOp, ...]
    nested: dict[int, "Path"]


def choose_path(space: Space, records: Records, request: TxnRequest) -> Path:
    """Evaluate all comparisons on the state as it is, and fix the whole path."""
    succeeded = all(_holds(space, records, compare) for compare in request.compare)
    operations = tuple(request.success if succeeded else request.failure)
    nested = {
        number: choose_path(space, records, operation.request_txn)
        for number, operation in enumerate(operations)
        if operation.WhichOneof("request") == "request_txn"
    }
    return Path(succeeded, operations, nested)


def writes(path: Path) -> bool:
    """Tell whether a path holds a put or a delete."""
    return any(
        operation.WhichOneof("request") in ("request_put", "request_delete_range")
        for operation in path.operations
    ) or any(writes(nested) for nested in path.nested.values())


def check_path(space: Space, path: Path, current: int, compacted: int) -> None:
    """Check everything that could fail, before anything is written: all puts, then all ranges.

    Raises:
        Refused: A revision cannot be read, a lease or a key that must exist does not.
    """
    operations = tuple(_flat(path))
    for operation in operations:
        if operation.WhichOneof("request") == "request_put":
            check_put(space, operation.request_put)
    for operation in operations:
        revision = operation.request_range.revision
        if operation.WhichOneof("request") == "request_range" and revision:
            check_revision(revision, current, compacted)


def _flat(path: Path) -> Iterator[RequestOp]:
    """Yield the operations of a path and of the paths nested in it, in the order they run."""
    for number, operation in enumerate(path.operations):
        yield operation
        if number in path.nested:
            yield from _flat(path.nested[number])


def check_put(space: Space, request: PutRequest) -> None:
    """Check what a put needs to find.

    Raises:
        Refused: Its lease does not exist, or the key whose value or lease it keeps does not.
    """
    if (request.ignore_value or request.ignore_lease) and space.index.head(request.key) is None:
        raise Refused(Failure.KEY_NOT_FOUND)
    check_lease(space, request)


def check_lease(space: Space, request: PutRequest) -> None:
    """Check that there is the lease that a put names.

    Raises:
        Refused: There is none.
    """
    if request.lease and request.lease not in space.leases:
        raise Refused(Failure.LEASE_NOT_FOUND)


def run_put(space: Space, records: Records, writing: Writing, request: PutRequest) -> bytes:
    """Carry out a put that has been checked; return its answer without the header."""
    key, value, lease = request.key, request.value, request.lease
    if request.ignore_value or request.ignore_lease or request.prev_kv:
        previous = _record_of(space, records, key)
        if previous is not None and (request.ignore_value or request.ignore_lease):
            old = KeyValue.FromString(previous)
            value = old.value if request.ignore_value else value
            lease = old.lease if request.ignore_lease else lease
        writing.put(key, value, lease)
        if request.prev_kv and previous is not None:
            return bytes_field(_PREVIOUS, previous)
        return b""
    writing.put(key, value, lease)
    return b""


def run_delete(
    space: Space, records: Records, writing: Writing, request: DeleteRangeRequest
) -> bytes:
    """Carry out a deletion; return its answer without the header."""
    places = [writing.delete(key) for key in keys_of(space, request)]
    wanted = places if request.prev_kv else ()
    return answer_deletion(len(places), (records.get(place, space.tenant) for place in wanted))


def run_path(space: Space, records: Records, writing: Writing, path: Path, compacted: int) -> bytes:
    """Run a path that has been checked; return its answer without the header."""
    parts = [_SUCCEEDED] if path.succeeded else []
    for number, operation in enumerate(path.operations):
        answer = _run(space, records, writing, operation, path.nested.get(number), compacted)
        parts.append(bytes_field(_RESPONSE, answer))
    return b"".join(parts)


def answer_puts(count: int, revision: int) -> bytes:
    """Return what `run_path` does for so many plain puts that made a revision."""
    response = bytes_field(_PUT_ANSWER, _inner_header(revision))
    return _SUCCEEDED + bytes_field(_RESPONSE, response) * count


def _run(
    space: Space,
    records: Records,
    writing: Writing,
    operation: RequestOp,
    nested: Path | None,
    compacted: int,
) -> bytes:
    match operation.WhichOneof("request"):
        case "request_range":
            seen = _seen(writing)
            body = answer_range(space, records, operation.request_range, seen, compacted)
            return bytes_field(_RANGE_ANSWER, _inner_header(seen) + body)
        case "request_put":
            body = run_put(space, records, writing, operation.request_put)
            return bytes_field(_PUT_ANSWER, _inner_header(_seen(writing)) + body)
        case "request_delete_range":
            body = run_delete(space, records, writing, operation.request_delete_range)
            return bytes_field(_DELETE_ANSWER, _inner_header(_seen(writing)) + body)
        case _:
            assert nested is not None  # noqa: S101 - shapes are checked: only a txn is left
            body = run_path(space, records, writing, nested, compacted)
            # Its header is there, and empty (etcd).
            return bytes_field(_TXN_ANSWER, _EMPTY_HEADER + body)


def _seen(writing: Writing) -> int:
    """Return the revision that a reader inside the transaction sees."""
    return writing.main if writing.events else writing.main - 1


def _inner_header(revision: int) -> bytes:
    header = _REVISION + varint(revision)
    return _HEADER + varint(len(header)) + header


def _record_of(space: Space, records: Records, key: bytes) -> bytes | None:
    packed = space.index.heads.get(key)
    if packed is None or packed[8] & 0x80:
        return None
    return records.get(packed[:12], space.tenant)


def _holds(space: Space, records: Records, compare: Compare) -> bool:
    """Evaluate one comparison; with a range it must hold for every key, once for an empty one."""
    if compare.range_end:
        keys = list(space.index.keys_now(span_of(compare.key, compare.range_end)))
        if keys:
            return all(_holds_for(space, records, compare, key) for key in keys)
        return _compare(compare, None)
    return _holds_for(space, records, compare, compare.key)


def _holds_for(space: Space, records: Records, compare: Compare, key: bytes) -> bool:
    if compare.target == Compare.VALUE:
        record = _record_of(space, records, key)
        return _compare(compare, None if record is None else KeyValue.FromString(record))
    head = space.index.head(key)
    if head is None:
        return _compare(compare, None)
    version = KeyValue(
        create_revision=head.create, mod_revision=head.main, version=head.version, lease=head.lease
    )
    return _compare(compare, version)


def _compare(compare: Compare, version: KeyValue | None) -> bool:
    found = version or _NOTHING
    left: bytes | int
    right: bytes | int
    match compare.target:
        case Compare.VALUE:
            if version is None:
                # A key that is not there has no value, not even an unequal one (etcd).
                return False
            left, right = found.value, compare.value
        case Compare.VERSION:
            left, right = found.version, compare.version
        case Compare.CREATE:
            left, right = found.create_revision, compare.create_revision
        case Compare.MOD:
            left, right = found.mod_revision, compare.mod_revision
        case _:
            left, right = found.lease, compare.lease
    match compare.result:
        case Compare.EQUAL:
            return left == right
        case Compare.GREATER:
            return left > right  # type: ignore[operator]  # both are of the target's one type
        case Compare.LESS:
            return left < right  # type: ignore[operator]  # both are of the target's one type
        case _:
            return left != right

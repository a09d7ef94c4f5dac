"""Ranges: which versions a range request answers with.

Owns: revision, filters, sorting, limit, count and `more`, and the answer in wire form.
Never: checks rights or shapes; never waits.
Follows: etcd's executeRange (server/etcdserver/txn/range.go): count ignores filters and limit,
    `more` speaks of the limit alone, keys are sorted after filtering and cut last; without a sort
    order or a filter the limit also bounds what is sorted by something else than keys.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from kvsecure.core.mvcc.index import Head, position
from kvsecure.core.mvcc.records import Records
from kvsecure.core.mvcc.space import Space
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import span_of
from kvsecure.proto.encode import bytes_field, varint
from kvsecure.proto.kv_pb2 import RangeRequest
from kvsecure.proto.mvcc_pb2 import KeyValue

__all__ = ["answer_keys", "answer_range", "check_revision", "record_without_value"]

# Field keys of etcdserverpb.RangeResponse.
_KVS: Final = b"\x12"
_MORE: Final = b"\x18\x01"
_COUNT: Final = b"\x20"
_COUNT_OF_ONE: Final = b"\x20\x01"

# What is equal stays in the order of its keys, also where the rest descends (as in etcd, as far as
# its sort is stable).
_SORT_KEYS: Final[dict[int, Callable[[KeyValue], object]]] = {
    RangeRequest.KEY: lambda kv: kv.key,
    RangeRequest.VERSION: lambda kv: kv.version,
    RangeRequest.CREATE: lambda kv: kv.create_revision,
    RangeRequest.MOD: lambda kv: kv.mod_revision,
    RangeRequest.VALUE: lambda kv: kv.value,
}


def check_revision(revision: int, current: int, compacted: int) -> None:
    """Check that a revision can be read.

    Raises:
        Refused: It lies in the future, or what it held has been compacted.
    """
    if revision > current:
        raise Refused(Failure.FUTURE_REVISION)
    if revision < compacted:
        raise Refused(Failure.COMPACTED)


def answer_range(
    space: Space, records: Records, request: RangeRequest, current: int, compacted: int
) -> bytes:
    """Return the body of the answer to a range request: a RangeResponse without its header.

    Args:
        space: The caller's key space.
        records: Where records are.
        request: Its shape has been checked.
        current: The newest revision that may be seen.
        compacted: The newest compacted revision.

    Raises:
        Refused: The revision is in the future or compacted.
    """
    revision = request.revision
    if revision > 0:
        check_revision(revision, current, compacted)
    else:
        revision = current
    is_newest = revision >= current and not space.is_changing
    if _is_plain(request):
        return _one(space, records, request.key, None if is_newest else revision)
    span = span_of(request.key, request.range_end)
    index = space.index
    if is_newest:
        count = index.count_now(span)
        if request.count_only:
            return _counted(count)
        keys: Iterable[bytes] = index.keys_now(span)
    else:
        keys = [key for key in index.keys_ever(span) if index.at(key, revision)]
        count = len(keys)
        if request.count_only:
            return _counted(count)
    return _many(space, records, request, keys, count, revision)


def answer_keys(
    space: Space, records: Records, keys: list[bytes], current: int, bytes_max: int
) -> list[bytes]:
    """Return what `answer_range` would for each of these keys, newest versions, until it is much.

    The list ends early, behind the answer with which it has more than `bytes_max` bytes.
    """
    heads, tenant, get = space.index.heads, space.tenant, records.get
    answers = []
    if space.is_changing:
        for key in keys:
            answers.append(_one(space, records, key, current))
            bytes_max -= len(answers[-1])
            if bytes_max < 0:
                break
        return answers
    for key in keys:
        head = heads.get(key)
        if head is None or head[8] & 0x80:
            answers.append(b"")
            continue
        record = get(head[:12], tenant)
        length = len(record)
        answers.append(b"%b%b%b%b" % (_KVS, varint(length), record, _COUNT_OF_ONE))
        bytes_max -= length
        if bytes_max < 0:
            break
    return answers


def record_without_value(space: Space, records: Records, key: bytes, place: bytes) -> bytes:
    """Return the record of a key at a place, without its value."""
    head = space.index.head(key)
    if head is not None and position(head.main, head.sub) == place:
        return _without_value(key, head).SerializeToString()
    kv = KeyValue.FromString(records.get(place, space.tenant))
    kv.ClearField("value")
    return kv.SerializeToString()


def _is_plain(request: RangeRequest) -> bool:
    """Tell whether one key is asked for and nothing about it matters but its record."""
    return not (
        request.range_end
        or request.count_only
        or request.keys_only
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _one(space: Space, records: Records, key: bytes, revision: int | None) -> bytes:
    """Answer with one key, at a revision or as it is now."""
    if revision is None:
        head = space.index.heads.get(key)
        if head is None or head[8] & 0x80:
            return b""
        place = head[:12]
    else:
        found = space.index.at(key, revision)
        if found is None:
            return b""
        place = found
    record = records.get(place, space.tenant)
    return _KVS + varint(len(record)) + record + _COUNT_OF_ONE


def _counted(count: int) -> bytes:
    return _COUNT + varint(count) if count else b""


def _many(
    space: Space,
    records: Records,
    request: RangeRequest,
    keys: Iterable[bytes],
    count: int,
    revision: int,
) -> bytes:
    limit = request.limit
    filtered = bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )
    sorted_otherwise = request.sort_target != RangeRequest.KEY or (
        request.sort_order == RangeRequest.DESCEND
    )
    if limit > 0 and not filtered and request.sort_order == RangeRequest.NONE:
        # Also where it is then sorted by something else than keys (etcd).
        keys = islice(keys, limit + 1)
    if not filtered and not sorted_otherwise:
        encoded = list(_encoded(space, records, request, keys, revision))
    else:
        versions = _decoded(space, records, request, keys, revision)
        if filtered:
            versions = (kv for kv in versions if _passes(request, kv))
        chosen = list(versions)
        if sorted_otherwise:
            chosen.sort(
                key=_SORT_KEYS[request.sort_target],  # type: ignore[arg-type]  # orderable by target
                reverse=request.sort_order == RangeRequest.DESCEND,
            )
        if request.keys_only:
            for kv in chosen:
                kv.ClearField("value")
        encoded = [kv.SerializeToString() for kv in chosen]
    more = 0 < limit < len(encoded)
    if more:
        encoded = encoded[:limit]
    parts = [bytes_field(_KVS, kv) for kv in encoded]
    if more:
        parts.append(_MORE)
    parts.append(_counted(count))
    return b"".join(parts)


def _passes(request: RangeRequest, kv: KeyValue) -> bool:
    return not (
        (request.max_mod_revision and kv.mod_revision > request.max_mod_revision)
        or (request.min_mod_revision and kv.mod_revision < request.min_mod_revision)
        or (request.max_create_revision and kv.create_revision > request.max_create_revision)
        or (request.min_create_revision and kv.create_revision < request.min_create_revision)
    )


def _encoded(
    space: Space, records: Records, request: RangeRequest, keys: Iterable[bytes], revision: int
) -> Iterator[bytes]:
    if request.keys_only:
        for kv in _decoded(space, records, request, keys, revision):
            kv.ClearField("value")
            yield kv.SerializeToString()
        return
    index, tenant = space.index, space.tenant
    for key in keys:
        place = index.at(key, revision)
        if place is not None:
            yield records.get(place, tenant)


def _decoded(
    space: Space, records: Records, request: RangeRequest, keys: Iterable[bytes], revision: int
) -> Iterator[KeyValue]:
    index, tenant = space.index, space.tenant
    needs_value = not request.keys_only or request.sort_target == RangeRequest.VALUE
    for key in keys:
        place = index.at(key, revision)
        if place is None:
            continue
        head = None if needs_value else index.head(key)
        if head is not None and position(head.main, head.sub) == place:
            yield _without_value(key, head)
        else:
            yield KeyValue.FromString(records.get(place, tenant))


def _without_value(key: bytes, head: Head) -> KeyValue:
    return KeyValue(
        key=key,
        create_revision=head.create,
        mod_revision=head.main,
        version=head.version,
        lease=head.lease,
    )

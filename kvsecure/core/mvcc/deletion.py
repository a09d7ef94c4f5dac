"""Deletions: what they answer, and those of very many keys, written in steps and seen at once.

Owns: which keys a deletion finds, its steps, and its answer.
Never: makes its revision the newest, or tells who watches; whoever runs the steps does.
Follows: docs/adr/0020-deletions-in-steps.md.
"""

from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from kvsecure.core.mvcc.records import Records
from kvsecure.core.mvcc.space import Space
from kvsecure.model.keys import Span, span_of
from kvsecure.proto.encode import bytes_field, varint_field
from kvsecure.proto.kv_pb2 import DeleteRangeRequest

__all__ = ["Deleted", "answer_deletion", "delete_keys", "delete_range", "keys_of"]

# Field keys of etcdserverpb.DeleteRangeResponse.
_DELETED: Final = b"\x10"
_PREVIOUS: Final = b"\x1a"
# Reading what was there costs several times as much as deleting it.
_READING_COST: Final = 4
# What a step reads at most, and then one value more.
_READ_BYTES_MAX: Final = 1024 * 1024


class Deleted(NamedTuple):
    """What a deletion has deleted: how many keys, and the first and the last in their order."""

    key_count: int
    first: bytes
    last: bytes


def keys_of(space: Space, request: DeleteRangeRequest) -> Sequence[bytes]:
    """Return the keys that a deletion finds, in order."""
    if request.range_end:
        return list(space.index.keys_now(span_of(request.key, request.range_end)))
    return (request.key,) if space.index.head(request.key) else ()


def answer_deletion(count: int, previous: Iterable[bytes]) -> bytes:
    """Return the answer to a deletion, without the header.

    Args:
        count: How many keys it has deleted.
        previous: The records of what was there before, if they are wanted.
    """
    return varint_field(_DELETED, count) + b"".join(
        [bytes_field(_PREVIOUS, record) for record in previous]
    )


def delete_range(
    space: Space, records: Records, main: int, request: DeleteRangeRequest, keys_per_step: int
) -> Generator[None, None, tuple[Deleted, bytes]]:
    """Delete the keys of a range in steps; return what was deleted, and the answer.

    Args:
        space: The caller's.
        records: Where records are.
        main: The revision that is written.
        request: Names a range that holds keys.
        keys_per_step: How many keys are deleted in one step; fewer where they are read.

    Raises:
        DamagedRecord: What was there before cannot be read.
    """
    span = span_of(request.key, request.range_end)
    first = last = next(space.index.keys_now(span))
    if request.prev_kv:
        keys_per_step = max(1, keys_per_step // _READING_COST)
    count = 0
    previous: list[bytes] = []
    while keys := list(islice(space.index.keys_now(span), keys_per_step)):
        read_bytes = 0
        for key in keys:
            place = space.delete(records, key, main, count)
            last, count = key, count + 1
            if request.prev_kv:
                previous.append(records.get(place, space.tenant))
                read_bytes += len(previous[-1])
                if read_bytes > _READ_BYTES_MAX:
                    break
        span = Span(last + b"\0", span.end)
        yield
    return Deleted(count, first, last), answer_deletion(count, previous)


def delete_keys(
    space: Space, records: Records, main: int, keys: Sequence[bytes], keys_per_step: int
) -> Generator[None, None, Deleted]:
    """Delete keys in steps; return what was deleted.

    Args:
        space: Whose.
        records: Where records are.
        main: The revision that is written.
        keys: In their order; there is at least one, and all exist.
        keys_per_step: How many of them are deleted in one step.
    """
    for start in range(0, len(keys), keys_per_step):
        for number, key in enumerate(keys[start : start + keys_per_step], start):
            space.delete(records, key, main, number)
        yield
    return Deleted(len(keys), keys[0], keys[-1])

"""Ranges in chunks: how large the chunks are, and how much is done at once."""

from typing import Final

from core.store_machine import carry_out
from core.stored_tables import MemoryTables, reload

from kvsecure.core.mvcc.walk import Chunk, Walk
from kvsecure.core.state import State
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import kv_pb2

_TENANT: Final = int(DEFAULT_TENANT)


def _state(count: int, value: bytes = b"v") -> State:
    state = reload(MemoryTables())
    for number in range(count):
        put = kv_pb2.PutRequest(key=b"%06d" % number, value=value)
        carry_out(state, _TENANT, put)
    return state


def _walk(state: State, chunk_bytes_max: int = 1 << 20, **fields: int | bool) -> Walk:
    request = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0", **fields)  # type: ignore[arg-type]  # options only
    return state.store.walk(state.store.space(DEFAULT_TENANT), request, chunk_bytes_max)


def _steps(walk: Walk) -> list[Chunk | None]:
    steps: list[Chunk | None] = []
    while not (steps and steps[-1] is not None and steps[-1].is_last):
        steps.append(walk.step(-1))
    return steps


def _responses(walk: Walk) -> list[kv_pb2.RangeResponse]:
    return [kv_pb2.RangeResponse.FromString(each.body) for each in _steps(walk) if each]


def test_chunks_double_while_they_are_small() -> None:
    """The first chunk has ten keys, and each of the next twice as many."""
    responses = _responses(_walk(_state(1_000)))

    assert [len(each.kvs) for each in responses] == [10, 20, 40, 80, 160, 320, 370]


def test_chunks_stay_near_the_size_they_are_to_have() -> None:
    """A chunk ends with the key that makes it large enough, from the first on."""
    walk = _walk(_state(100, bytes(1_000)), 5_000)

    sizes = [len(each.body) for each in _steps(walk) if each]

    assert all(5_000 <= size < 6_100 for size in sizes[:-1])
    assert len(sizes) == 21


def test_only_the_last_chunk_tells_the_count() -> None:
    """Count and `more` are in the last chunk, and in no other."""
    responses = _responses(_walk(_state(100), limit=50))

    assert sum(len(each.kvs) for each in responses) == 50
    assert [(each.count, each.more) for each in responses] == [(0, False)] * 2 + [(100, True)]


def test_count_alone_is_one_chunk() -> None:
    """A count needs one message, also of the past, where all keys have to be looked at."""
    state = _state(3_000)

    (now,) = _responses(_walk(state, count_only=True))
    (past,) = _responses(_walk(state, count_only=True, revision=2_001))

    assert (now.count, past.count) == (3_000, 2_000)
    assert not now.kvs
    assert not past.kvs


def test_a_step_looks_at_few_keys() -> None:
    """However large the chunk, the keys of one step are few, also those that do not count."""
    state = _state(5_000)
    walk = _walk(state, 1 << 30, revision=2)

    steps = _steps(walk)

    # One key was there at that revision: the others were only looked at.
    assert len(steps) >= 50
    assert [each.body for each in steps[:-1] if each] == []


def test_a_step_reads_few_bytes() -> None:
    """A step ends when it has read much, whatever the chunk may hold."""
    walk = _walk(_state(20, bytes(100_000)), 1 << 30)

    first = [walk.step(-1) for _ in range(3)]

    assert first == [None, None, None]


def test_keys_that_are_deleted_meanwhile_stay_in_the_walk() -> None:
    """A walk goes on over keys that were deleted after it began, in the order of all keys."""
    state = _state(100)
    walk = _walk(state)
    chunks = [walk.step(-1)]
    for number in range(0, 100, 3):
        carry_out(state, _TENANT, kv_pb2.DeleteRangeRequest(key=b"%06d" % number))

    chunks += _steps(walk)

    content = b"".join(each.body for each in chunks if each)
    keys = [kv.key for kv in kv_pb2.RangeResponse.FromString(content).kvs]
    assert keys == [b"%06d" % number for number in range(100)]


def test_keys_that_are_gone_are_in_walks_over_the_past() -> None:
    """A walk over the past, and its count, hold keys that were deleted since."""
    state = _state(30)
    carry_out(state, _TENANT, kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"000010"))

    responses = _responses(_walk(state, revision=31))
    (count,) = _responses(_walk(state, revision=31, count_only=True))

    assert [len(each.kvs) for each in responses] == [10, 20, 0]
    assert responses[-1].count == count.count == 30

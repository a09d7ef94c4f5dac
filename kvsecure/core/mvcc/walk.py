"""A walk over a range: its versions at one revision, in pieces of bounded work.

Owns: which keys come next, how they are put into chunks, and what the last chunk says.
Never: checks rights or shapes; never waits; holds more than one chunk.
Follows: etcd's RangeStream: one revision from the first chunk to the last, ten keys in the first
    chunk and then twice as many each, count and `more` in the last one alone. Differs: a chunk ends
    with the key that makes it large enough, so that none has to be half as long as the one before.
Keeps: all chunks together are what `answer_range` would have answered.
"""

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple, final

from kvsecure.core.mvcc.index import KeyIndex
from kvsecure.core.mvcc.ranges import check_revision, record_without_value
from kvsecure.core.mvcc.records import Records
from kvsecure.core.mvcc.space import Space
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.keys import Span, span_of
from kvsecure.proto.encode import bytes_field, varint_field
from kvsecure.proto.kv_pb2 import RangeRequest

__all__ = ["Chunk", "Walk"]

# Field keys of etcdserverpb.RangeResponse.
_KVS: Final = b"\x12"
_MORE: Final = b"\x18\x01"
_COUNT: Final = b"\x20"

_FIRST_CHUNK_KEYS: Final = 10
# What is done at once: so many keys are looked at, and not much more than so many bytes read.
# About a millisecond each.
_STEP_KEYS: Final = 100
_STEP_BYTES: Final = 256 * 1024
_COUNTED_STEP_KEYS: Final = 1_000


class Chunk(NamedTuple):
    """A part of the answer."""

    # A RangeResponse without its header.
    body: bytes
    is_last: bool


@final
class Walk:
    """One range on its way."""

    __slots__ = (
        "_chunk_bytes",
        "_chunk_bytes_max",
        "_chunk_keys",
        "_chunk_keys_max",
        "_counted",
        "_destroyed",
        "_left",
        "_parts",
        "_records",
        "_request",
        "_space",
        "_span",
        "_total",
        "revision",
    )

    def __init__(
        self,
        space: Space,
        records: Records,
        request: RangeRequest,
        current: int,
        compacted: int,
        chunk_bytes_max: int,
    ) -> None:
        """Begin; nothing is read yet.

        Args:
            space: The caller's key space.
            records: Where records are.
            request: In the order of keys, without filters.
            current: The newest revision.
            compacted: The newest compacted revision.
            chunk_bytes_max: What a chunk is to come close to, in bytes.

        Raises:
            Refused: The revision is in the future or compacted.
        """
        self.revision = current
        if request.revision > 0:
            check_revision(request.revision, current, compacted)
            self.revision = request.revision
        self._space = space
        self._destroyed = space.index.destroyed_count
        self._records = records
        self._request = request
        self._span: Span | None = span_of(request.key, request.range_end)
        if self._span.empty:
            self._span = None
        self._chunk_bytes_max = chunk_bytes_max
        self._chunk_keys_max = _FIRST_CHUNK_KEYS
        self._parts: list[bytes] = []
        self._chunk_keys = 0
        self._chunk_bytes = 0
        # How many keys may still be answered.
        self._left = request.limit if request.limit > 0 else None
        # How many keys there were so far, and in all, where that is known without a walk.
        self._counted = 0
        self._total: int | None = None
        if self.revision >= current and not space.is_changing:
            self._total = space.index.count_now(span_of(request.key, request.range_end))

    def step(self, compacted: int) -> Chunk | None:
        """Do a bounded part of the work.

        Args:
            compacted: The newest compacted revision, as of now.

        Returns:
            A chunk, if one is complete.

        Raises:
            Refused: What is read has been compacted meanwhile, or a key of the space destroyed.
            DamagedRecord: What is stored cannot be read.
        """
        if self.revision < compacted or self._destroyed != self._space.index.destroyed_count:
            raise Refused(Failure.COMPACTED)
        if self._request.count_only or self._left == 0:
            return self._count()
        return self._read()

    def _read(self) -> Chunk | None:
        """Read on until the chunk or the step is full, or there are no more keys."""
        index, revision, parts = self._space.index, self.revision, self._parts
        step_bytes = 0
        keys_only = self._request.keys_only
        for key in self._next_keys(_STEP_KEYS):
            self._span = Span(key + b"\0", self._span.end) if self._span else None
            place = index.at(key, revision)
            if place is None:
                continue
            self._counted += 1
            if keys_only:
                record = record_without_value(self._space, self._records, key, place)
            else:
                record = self._records.get(place, self._space.tenant)
            parts.append(bytes_field(_KVS, record))
            self._chunk_keys += 1
            self._chunk_bytes += len(record)
            step_bytes += len(record)
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    # The chunk goes out when it is known whether it is the last.
                    return None
            if self._chunk_is_full:
                return self._end_chunk()
            if step_bytes >= _STEP_BYTES:
                return None
        return self._last() if self._span is None else None

    def _count(self) -> Chunk | None:
        """Count on; what was read waits until it is known how many there are."""
        if self._total is None:
            index, revision = self._space.index, self.revision
            for key in self._next_keys(_COUNTED_STEP_KEYS):
                self._span = Span(key + b"\0", self._span.end) if self._span else None
                self._counted += index.at(key, revision) is not None
            if self._span is not None:
                return None
        return self._last()

    def _next_keys(self, count: int) -> list[bytes]:
        """Return the next keys that have any version; behind the last the span is gone."""
        span = self._span
        if span is None:
            return []
        keys = list(islice(_keys_ever(self._space.index, span), count))
        if not keys:
            self._span = None
        return keys

    @property
    def _chunk_is_full(self) -> bool:
        return (
            self._chunk_keys >= self._chunk_keys_max or self._chunk_bytes >= self._chunk_bytes_max
        )

    def _end_chunk(self) -> Chunk:
        """Give out a chunk that is full, and say how many keys the next one has."""
        if 2 * self._chunk_bytes <= self._chunk_bytes_max:
            self._chunk_keys_max *= 2
        body = b"".join(self._parts)
        self._parts.clear()
        self._chunk_keys = self._chunk_bytes = 0
        return Chunk(body, is_last=False)

    def _last(self) -> Chunk:
        total = self._counted if self._total is None else self._total
        parts = self._parts
        if 0 < self._request.limit < total and not self._request.count_only:
            parts.append(_MORE)
        parts.append(varint_field(_COUNT, total))
        return Chunk(b"".join(parts), is_last=True)


def _keys_ever(index: KeyIndex, span: Span) -> Iterator[bytes]:
    """Yield the keys of a span that have any retained version, in order."""
    bounds = (span.start, span.end, (True, False))
    live, dead = index.live.irange(*bounds), index.dead.irange(*bounds)
    return merge(live, dead) if index.dead else live

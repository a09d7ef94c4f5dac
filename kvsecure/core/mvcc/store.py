"""The store: one revision counter over the key spaces of all tenants.

Owns: revisions, which tenants have a space, compaction, and reading the index back at start.
Never: checks rights or shapes; never waits. Long work is cut into slices that the caller runs.
Follows: etcd's store (server/storage/mvcc): an empty store is at revision 1, a transaction is one
    revision, one that changes nothing uses none.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final, final

from kvsecure.core.mvcc.deletion import Deleted, delete_keys, delete_range
from kvsecure.core.mvcc.index import POSITION_BYTES, is_tombstone, position, split
from kvsecure.core.mvcc.ranges import answer_keys, answer_range, check_revision
from kvsecure.core.mvcc.records import Records, decode_index_block, index_block
from kvsecure.core.mvcc.retention import Compaction, Destruction, Keep
from kvsecure.core.mvcc.space import Event, Space, Writing
from kvsecure.core.mvcc.timeline import Timeline
from kvsecure.core.mvcc.txn import (
    answer_puts,
    check_lease,
    check_path,
    check_put,
    choose_path,
    run_delete,
    run_path,
    run_put,
    writes,
)
from kvsecure.core.mvcc.walk import Walk
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import REVISION_EMPTY, TenantId
from kvsecure.model.keys import span_of
from kvsecure.proto.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from kvsecure.storage.rows import NO_SCOPE, Row, Table

__all__ = [
    "COMPACTION_KEY",
    "DESTRUCTION_KEY",
    "Store",
    "compaction_row",
    "destruction_row",
]

# First byte of the key of a compaction's row in the state table.
COMPACTION_KEY: Final = b"C"
# And of a destruction's.
DESTRUCTION_KEY: Final = b"D"

# Some four milliseconds of work.
_DELETED_AT_ONCE = 1_000
_COMPACT_KEYS_PER_SLICE = 2_000
# A key with very many versions counts for several.
_VERSIONS_PER_KEY = 64
_GIVEN_UP_AT_ONCE = 2_000
_BLOCK_BYTES_MERGED = 256 * 1024

type_publish = Callable[[Space, int, list[Event]], None]
type_publish_many = Callable[[Space, int, Deleted], None]


@final
class Store:
    """All key spaces."""

    def __init__(
        self,
        records: Records,
        publish: type_publish,
        publish_each: type_publish,
        publish_many: type_publish_many,
    ) -> None:
        """Make an empty store.

        Args:
            records: Where records are.
            publish: Told of a revision as it is written: space, revision, its events.
            publish_each: Told of several that have one event each: space, the first one, the
                events.
            publish_many: Told of one that deleted very many keys: space, revision, which keys.
        """
        self.records = records
        self.revision: int = REVISION_EMPTY
        # -1: nothing was ever compacted; etcd shows it so.
        self.compacted: int = -1
        # How often versions were given up in any other way since the start: a key's that was
        # destroyed, a tenant's that is gone.
        self.erasures = 0
        self.timeline = Timeline()
        self._spaces: dict[TenantId, Space] = {}
        # Of tenants that are gone, until all of their records are given up.
        self._erasing: dict[TenantId, Space] = {}
        self._publish = publish
        self._publish_each = publish_each
        self._publish_many = publish_many
        # What deletes more keys does it in steps of so many.
        self.deleted_at_once = _DELETED_AT_ONCE
        # Rows of the state and index tables that the next flush writes besides records.
        self.rows: list[Row] = []
        self.slices: deque[Iterator[None]] = deque()
        # By their names; until nothing of them is on the disk.
        self.destructions: dict[bytes, Destruction] = {}
        # Whether this member could not get rid of their bytes when it last tried.
        self.destruction_stalled = False
        self._is_rewrite_due = False
        # Compactions whose slices are not done.
        self._scrubbing: list[Compaction] = []
        # Compactions that have a row, oldest first.
        self._stored: list[Compaction] = []

    # --- spaces ---------------------------------------------------------------------------------

    def space(self, tenant: TenantId) -> Space:
        """Return a tenant's space."""
        return self._spaces[tenant]

    def spaces(self) -> Iterable[Space]:
        """Return every space."""
        return self._spaces.values()

    def add_space(self, tenant: TenantId) -> Space:
        """Make the empty space of a new tenant."""
        space = self._spaces[tenant] = Space(tenant)
        return space

    def drop_space(self, tenant: TenantId) -> None:
        """Forget a tenant's keys at once, and their bytes in slices."""
        space = self._erasing[tenant] = self._spaces.pop(tenant)
        self.erasures += 1
        self.slices.append(self._erase(space))

    # --- reading and writing --------------------------------------------------------------------

    def range(self, space: Space, request: RangeRequest) -> bytes:
        """Answer a range request (without header) on the newest state.

        Raises:
            Refused: The revision is in the future or compacted.
        """
        return answer_range(space, self.records, request, self.revision, self.compacted)

    def walk(self, space: Space, request: RangeRequest, chunk_bytes_max: int) -> Walk:
        """Begin to answer a range request, on the newest state, in chunks.

        Args:
            space: The caller's.
            request: In the order of keys, without filters.
            chunk_bytes_max: What a chunk is to come close to, in bytes.

        Raises:
            Refused: The revision is in the future or compacted.
        """
        return Walk(space, self.records, request, self.revision, self.compacted, chunk_bytes_max)

    def read_each(self, space: Space, burst: GetBurst, bytes_max: int) -> list[bytes]:
        """Answer the range requests of a burst (without headers) on the newest state.

        The list ends early, behind the answer with which it has more than `bytes_max` bytes.
        """
        return answer_keys(space, self.records, burst.keys, self.revision, bytes_max)

    def put_each(self, space: Space, burst: PutBurst) -> None:
        """Carry out the puts of a burst, each in a revision of its own."""
        records, write, before = self.records, space.write, self.revision
        events = [
            write(records, key, value, 0, revision, 0)
            for revision, (key, value) in enumerate(burst.puts, before + 1)
        ]
        self.revision = before + len(events)
        self._publish_each(space, before + 1, events)

    def put_together(self, space: Space, txn: PutTxn) -> bytes:
        """Carry out the puts of a transaction in one revision; return its answer."""
        records, write, revision = self.records, space.write, self.revision + 1
        events = [
            write(records, key, value, 0, revision, number)
            for number, (key, value) in enumerate(txn.puts)
        ]
        self.revision = revision
        self._publish(space, revision, events)
        return answer_puts(len(events), revision)

    def put(self, space: Space, request: PutRequest) -> bytes:
        """Carry out a put; return its answer without the header.

        Raises:
            Refused: Its lease, or the key it builds on, does not exist. Nothing was changed.
        """
        if request.lease or request.ignore_value or request.ignore_lease:
            # By itself its lease is looked for first, in a transaction its key (etcd).
            check_lease(space, request)
            check_put(space, request)
        writing = Writing(space, self.records, self.revision + 1)
        body = run_put(space, self.records, writing, request)
        self._finish(space, writing)
        return body

    def delete(self, space: Space, request: DeleteRangeRequest) -> bytes:
        """Carry out a deletion; return its answer without the header."""
        writing = Writing(space, self.records, self.revision + 1)
        body = run_delete(space, self.records, writing, request)
        self._finish(space, writing)
        return body

    def delete_keys(self, space: Space, keys: Iterable[bytes]) -> None:
        """Delete these keys, as far as they exist, in one revision and in this order."""
        writing = Writing(space, self.records, self.revision + 1)
        for key in keys:
            if space.index.head(key) is not None:
                writing.delete(key)
        self._finish(space, writing)

    def is_long(self, space: Space, request: DeleteRangeRequest) -> bool:
        """Tell whether a deletion finds so many keys that it is to be done in steps."""
        if not request.range_end:
            return False
        span = span_of(request.key, request.range_end)
        return space.index.count_now(span) > self.deleted_at_once

    def delete_in_steps(
        self, space: Space, request: DeleteRangeRequest
    ) -> Generator[None, None, bytes]:
        """Carry out a long deletion in steps; return its answer without the header.

        Until the last step readers see what was before, and nothing else may be written.

        Raises:
            DamagedRecord: What is stored cannot be read; the store is between two revisions.
        """
        main, steps = self.revision + 1, self.deleted_at_once
        space.is_changing = True
        done, body = yield from delete_range(space, self.records, main, request, steps)
        self._end_deletion(space, done)
        return body

    def delete_keys_in_steps(
        self, space: Space, keys: Sequence[bytes]
    ) -> Generator[None, None, None]:
        """Delete keys that exist, as `delete_keys` does, in steps as of `delete_in_steps`."""
        main, steps = self.revision + 1, self.deleted_at_once
        space.is_changing = True
        done = yield from delete_keys(space, self.records, main, keys, steps)
        self._end_deletion(space, done)

    def _end_deletion(self, space: Space, done: Deleted) -> None:
        space.is_changing = False
        self.revision += 1
        self._publish_many(space, self.revision, done)

    def transact(self, space: Space, request: TxnRequest) -> bytes:
        """Carry out a transaction; return its answer without the header.

        Raises:
            Refused: Something on its path cannot be done. Nothing was changed.
        """
        path = choose_path(space, self.records, request)
        check_path(space, path, self.revision, self.compacted)
        writing = Writing(space, self.records, self.revision + 1)
        body = run_path(space, self.records, writing, path, self.compacted)
        self._finish(space, writing)
        return body

    def would_write(self, space: Space, request: TxnRequest) -> bool:
        """Tell whether a transaction's path, chosen now, holds a put or a delete."""
        return writes(choose_path(space, self.records, request))

    # --- compaction -----------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Forget everything before a revision: at once for readers, in slices for the bytes.

        Raises:
            Refused: It has been compacted already, or lies in the future.
        """
        if revision <= self.compacted:
            raise Refused(Failure.COMPACTED)
        check_revision(revision, self.revision, self.compacted)
        self.compacted = revision
        compaction = self.compaction(revision)
        if not compaction.keeps:
            self.timeline.forget(revision)
        self.rows.append(compaction_row(compaction))
        self._begin_scrub(compaction)

    def compaction(self, revision: int) -> Compaction:
        """Return the compaction at a revision, with what is to be kept as of now."""
        now_s, through, expired = self.timeline.now_s, self.revision, self.timeline.surely_before
        return Compaction.under(
            revision,
            (
                (
                    space.tenant,
                    {
                        prefix: Keep.of(
                            policy, expired=expired(now_s - policy.for_s), through=through
                        )
                        for prefix, policy in space.retention.items()
                    },
                )
                for space in self._spaces.values()
            ),
        )

    # --- destruction ----------------------------------------------------------------------------

    def destroy(self, space: Space, key: bytes) -> bool:
        """Forget every version of a key: at once for readers, in slices for the bytes.

        Returns:
            Whether it existed; then it was deleted in a revision of its own.
        """
        exists = space.index.head(key) is not None
        self.erasures += 1
        writing = Writing(space, self.records, self.revision + 1)
        if exists:
            writing.delete(key)
            # Whoever watches is told that it is gone, and not what it was.
            writing.events[-1] = writing.events[-1]._replace(previous=None)
        self._finish(space, writing)
        destruction = Destruction(tenant=space.tenant, key=key, through=self.revision)
        self.rows.append(destruction_row(destruction))
        self._begin_destruction(destruction)
        return exists

    def end_destructions(self, gone: Iterable[Destruction]) -> None:
        """Take note that nothing of these is on the disk any more."""
        for destruction in gone:
            if self.destructions.get(destruction.name) is destruction:
                del self.destructions[destruction.name]
                self.rows.append(destruction_row(destruction, is_gone=True))

    def _begin_destruction(self, destruction: Destruction) -> None:
        self.destructions[destruction.name] = destruction
        space = self._spaces.get(TenantId(destruction.tenant))
        if space is not None:
            run = space.index.destroy(destruction.key, destruction.through, self.compacted)
            if len(run) > _GIVEN_UP_AT_ONCE * POSITION_BYTES:
                space.index.condemned.add(destruction.key)
                self.slices.append(self._give_up(space, destruction.key, run))
                return
            self.records.destroy(place for place in split(run) if not is_tombstone(place))
        if not self._is_rewrite_due:
            self._is_rewrite_due = True
            self.slices.append(self._rewrite_for_destruction())

    def _give_up(self, space: Space, key: bytes, run: bytes) -> Iterator[None]:
        """Give up the records of very many versions; until then their rows of the index stay."""
        size_bytes = _GIVEN_UP_AT_ONCE * POSITION_BYTES
        for start in range(0, len(run), size_bytes):
            places = split(run[start : start + size_bytes])
            self.records.destroy(place for place in places if not is_tombstone(place))
            yield
        space.index.condemned.discard(key)
        yield from self._rewrite_blocks()

    def _rewrite_for_destruction(self) -> Iterator[None]:
        # One that has not begun is for all that are destroyed until then.
        self._is_rewrite_due = False
        yield from self._rewrite_blocks()

    def history(self, space: Space, key: bytes, before: int, count_max: int) -> list[bytes]:
        """Return positions of a key before a revision, newest first.

        What a compaction gives up is not among them, also before its slices have come to it, and
        after a crash that has kept of a version its row in the index alone.
        """
        index, tenant = space.index, space.tenant
        doomed = 0
        for compaction in self._scrubbing:
            keeps = compaction.keeps.get(tenant)
            keep = keeps.find(key) if keeps else None
            doomed = index.doomed(key, compaction.revision, keep, doomed)
        return index.positions_before(key, before, doomed=doomed, count_max=count_max)

    def run_slice(self) -> bool:
        """Run one slice of the long work that is due; return whether any is left."""
        while self.slices:
            try:
                next(self.slices[0])
            except StopIteration:
                self.slices.popleft()
                continue
            return True
        return False

    # --- start ----------------------------------------------------------------------------------

    def load(
        self,
        blocks: Iterable[bytes],
        compactions: Sequence[Compaction],
        destructions: Iterable[Destruction],
    ) -> None:
        """Read the index back from its blocks; spaces of tenants must have been added.

        Rows of tenants that are gone, and versions that a compaction before the crash had already
        given up, are scrubbed again: scrubbing is idempotent.

        Args:
            blocks: In the order of their places.
            compactions: Those that have a row, oldest first.
            destructions: Those whose bytes may not be gone.
        """
        orphans = False
        for block in blocks:
            for tenant, head, key, _ in decode_index_block(block):
                space = self._spaces.get(tenant)
                if space is None:
                    self.records.obsolete.append(head[:12])
                    orphans = True
                else:
                    space.index.load(key, head)
        for space in self._spaces.values():
            for key, lease in space.index.end_load():
                space.leases.attach(lease, key)
        for destruction in destructions:
            self._begin_destruction(destruction)
        if compactions:
            for compaction in compactions:
                self._begin_scrub(compaction, freed=orphans)
        elif self.compacted > 0:
            self._begin_scrub(Compaction.plain(self.compacted), freed=orphans)
        elif orphans:
            self.slices.append(self._rewrite_blocks())

    # --- within ---------------------------------------------------------------------------------

    def _finish(self, space: Space, writing: Writing) -> None:
        if writing.events:
            self.revision = writing.main
            self._publish(space, writing.main, writing.events)

    def _begin_scrub(self, compaction: Compaction, *, freed: bool = False) -> None:
        self._scrubbing.append(compaction)
        self._stored.append(compaction)
        self.slices.append(self._scrub(compaction, freed=freed))

    def _scrub(self, compaction: Compaction, *, freed: bool) -> Iterator[None]:
        revision = compaction.revision
        for space in list(self._spaces.values()):
            keeps = compaction.keeps.get(space.tenant)
            keep = keeps.find if keeps else _keep_nothing
            keys = space.index.keys_with_past()
            past, left = space.index.past, _COMPACT_KEYS_PER_SLICE
            for key in keys:
                left -= 1 + len(past.get(key, b"")) // (_VERSIONS_PER_KEY * POSITION_BYTES)
                places = space.index.compact(key, revision, keep(key))
                if places:
                    freed = True
                    self.records.obsolete.extend(p for p in places if not is_tombstone(p))
                if left <= 0:
                    left = _COMPACT_KEYS_PER_SLICE
                    yield
            yield
        self._scrubbing.remove(compaction)
        if freed:
            yield from self._rewrite_blocks()
        self._end_scrub(compaction)

    def _end_scrub(self, compaction: Compaction) -> None:
        """Let go of the rows that a start does not need any more.

        The newest compaction that kept something is carried out again at each start, as it was.
        """
        done = self._stored.index(compaction) + 1
        gone = done - bool(compaction.keeps)
        self.rows += [compaction_row(each, is_gone=True) for each in self._stored[:gone]]
        del self._stored[:gone]

    def _erase(self, space: Space) -> Iterator[None]:
        index = space.index
        keys = [*index.heads]
        for start in range(0, len(keys), _COMPACT_KEYS_PER_SLICE):
            for key in keys[start : start + _COMPACT_KEYS_PER_SLICE]:
                places = index.positions(key)
                self.records.obsolete.extend(p for p in places if not is_tombstone(p))
            yield
        del self._erasing[space.tenant]
        yield from self._rewrite_blocks()

    def _rewrite_blocks(self) -> Iterator[None]:
        """Drop the rows of versions that are gone from the index blocks, and merge small blocks.

        What replaces a block and its deletion are appended together, and so are flushed together.
        Blocks are read from the tables, so these must hold what was written and rewritten before;
        otherwise a version could end up in two blocks.
        """
        yield from self._wait_flushed()
        through = position(self.revision + 1, 0)
        replaced: list[Row] = []
        kept: list[bytes] = []
        kept_bytes = 0
        found = self.records.next_block(b"")
        while found is not None and found[0] < through:
            place, block = found
            replaced.append(Row(Table.INDEX, place, NO_SCOPE, None))
            for tenant, head, key, row in decode_index_block(block):
                # The rows of a tenant that is gone name its records until these are given up: after
                # a crash nothing else does.
                space = self._spaces.get(tenant) or self._erasing.get(tenant)
                if space is not None and (
                    space.index.holds(key, head[:12]) or key in space.index.condemned
                ):
                    kept.append(row)
                    kept_bytes += len(row)
            if kept_bytes >= _BLOCK_BYTES_MERGED:
                self.rows += [*replaced, index_block(kept)]
                replaced, kept, kept_bytes = [], [], 0
            yield
            found = self.records.next_block(place + b"\0")
        self.rows += replaced
        if kept:
            self.rows.append(index_block(kept))
        # Whoever waits for the end of this waits for the bytes to be gone.
        yield from self._wait_flushed()

    def _wait_flushed(self) -> Iterator[None]:
        """Pause until the tables hold everything that has been written so far."""
        records = self.records
        unflushed = bool(self.rows or records.fresh_rows or records.obsolete)
        awaited = records.flushes_begun + unflushed
        while records.flushes_ended < awaited:
            yield


def compaction_row(compaction: Compaction, *, is_gone: bool = False) -> Row:
    """Return what is stored of a compaction, or its deletion."""
    key = COMPACTION_KEY + compaction.revision.to_bytes(8, "big")
    return Row(Table.STATE, key, NO_SCOPE, None if is_gone else compaction.encode())


def destruction_row(destruction: Destruction, *, is_gone: bool = False) -> Row:
    """Return what is stored of a destruction, or its deletion."""
    key = DESTRUCTION_KEY + destruction.name
    return Row(Table.STATE, key, NO_SCOPE, None if is_gone else destruction.encode())


def _keep_nothing(_: bytes) -> None:
    return None

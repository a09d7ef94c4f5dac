"""The store against the dumb one, with flushes, crashes and slices of long work in between.

Owns: what may happen in which order, and what must be equal when.
Never: knows how tables store anything; a subclass may bring the real ones.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest
from core import requests
from core.mvcc_model import DumbStore, Said
from core.stored_tables import MemoryTables, StoredTables, reload
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvsecure.core.apply import apply, type_steps
from kvsecure.core.entry import decode, encode, encode_puts, envelope
from kvsecure.core.history import answer_history
from kvsecure.core.mvcc.index import is_tombstone, main_of
from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.core.mvcc.walk import Walk
from kvsecure.core.state import State
from kvsecure.model.answer import Answer
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index, TenantId
from kvsecure.proto import kv_pb2, lease_pb2, mvcc_pb2, state_pb2, tenant_pb2, version_pb2
from kvsecure.storage.rows import NO_SCOPE, Table

__all__ = ["RESPONSES", "StoreMachine", "carry_out", "finish", "kept_positions"]

RESPONSES: Final[Mapping[type[Message], type[Message]]] = MappingProxyType(
    {
        kv_pb2.PutRequest: kv_pb2.PutResponse,
        kv_pb2.DeleteRangeRequest: kv_pb2.DeleteRangeResponse,
        kv_pb2.TxnRequest: kv_pb2.TxnResponse,
        kv_pb2.RangeRequest: kv_pb2.RangeResponse,
        kv_pb2.CompactionRequest: kv_pb2.CompactionResponse,
        lease_pb2.LeaseGrantRequest: lease_pb2.LeaseGrantResponse,
        lease_pb2.LeaseRevokeRequest: lease_pb2.LeaseRevokeResponse,
        version_pb2.RetentionSetRequest: version_pb2.RetentionSetResponse,
        version_pb2.RetentionDeleteRequest: version_pb2.RetentionDeleteResponse,
        version_pb2.DestroyRequest: version_pb2.DestroyResponse,
        # It is answered to nobody, with nothing.
        state_pb2.Clock: state_pb2.Clock,
        tenant_pb2.TenantAddRequest: tenant_pb2.TenantAddResponse,
        tenant_pb2.TenantDeleteRequest: tenant_pb2.TenantDeleteResponse,
    }
)
_SETTLING_MAX: Final = 2_000
_EVERYTHING: Final = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")

_TENANTS = st.sampled_from((1, 1, 1, 16, 17, 18))


def carry_out(
    state: State, tenant: int, command: Message, between: Callable[[], object] = bool
) -> tuple[bytes, Said]:
    """Apply a command of the member itself; return its log entry and what came of it.

    Args:
        state: Changed.
        tenant: Whose command.
        command: Which.
        between: Done after each step of a long one but the last.
    """
    caller = Caller(TenantId(tenant), Origin.SYSTEM, "", 0)
    entry = encode(type(command), envelope(caller), command.SerializeToString())
    try:
        answer = finish(state, tenant, apply(state, caller, command, 0), between)
    except Refused as refused:
        return entry, refused.failure
    assert answer.revision == state.store.revision
    return entry, RESPONSES[type(command)].FromString(answer.body)


def finish(
    state: State, tenant: int, came: Answer | type_steps, between: Callable[[], object] = bool
) -> Answer:
    """Return what a command has come to; if it is long, nobody sees its steps before the last."""
    if isinstance(came, Answer):
        return came
    before = _seen(state, tenant)
    while True:
        try:
            next(came)
        except StopIteration as end:
            return end.value
        assert _seen(state, tenant) == before
        between()


def _seen(state: State, tenant: int) -> list[object]:
    """Return what is to be seen of a tenant's keys, in each of the ways to read them."""
    space, store = state.store.space(TenantId(tenant)), state.store
    found = store.range(space, _EVERYTHING)
    keys = [kv.key for kv in kv_pb2.RangeResponse.FromString(found).kvs]
    walk = store.walk(space, _EVERYTHING, 1 << 20)
    while (chunk := walk.step(store.compacted)) is None:
        pass
    return [
        store.revision,
        found,
        store.range(space, kv_pb2.RangeRequest(key=b"\0", range_end=b"\0", count_only=True)),
        store.range(space, kv_pb2.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)),
        [store.range(space, kv_pb2.RangeRequest(key=key)) for key in keys],
        store.read_each(space, GetBurst([*keys, b"\xff no such key"]), 1 << 30),
        chunk.body,
    ]


def kept_positions(state: State, tenant: int) -> dict[bytes, list[tuple[int, int, bool]]]:
    """Return (main, sub, deleted) of every position that the index of a tenant holds."""
    index = state.store.space(TenantId(tenant)).index
    return {
        key: [_plain(place) for place in index.positions(key)] for key in [*index.live, *index.dead]
    }


def _version(main: int, kv: mvcc_pb2.KeyValue | None, second: int) -> version_pb2.Version:
    if kv is None:
        return version_pb2.Version(mod_revision=main, deleted=True, time_s=second)
    return version_pb2.Version(
        mod_revision=main,
        create_revision=kv.create_revision,
        version=kv.version,
        lease=kv.lease,
        time_s=second,
        value=kv.value,
        value_bytes=len(kv.value),
    )


def _plain(place: bytes) -> tuple[int, int, bool]:
    sub = int.from_bytes(place[8:12], "big") & 0x7FFF_FFFF
    return main_of(place), sub, is_tombstone(place)


class _Walking(NamedTuple):
    """A walk that has begun, what it has given, and what it has to give in all."""

    tenant: int
    walk: Walk
    bodies: list[bytes]
    expected: Said
    # How many keys of its space had been destroyed.
    destroyed_count: int


class StoreMachine(RuleBasedStateMachine):
    """One state over tables in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: StoredTables = self.make_tables()
        self.state = reload(self.tables)
        self.model = DumbStore()
        self.log: list[bytes] = []
        # Packed as late as can be.
        self.in_flight: Iterator[bytes] | None = None
        self.walks: list[_Walking] = []

    def make_tables(self) -> StoredTables:
        """Make empty tables."""
        return MemoryTables()

    @initialize(at_once=st.sampled_from((1, 2, 1_000)))
    def choose(self, at_once: int) -> None:
        """Say how many keys are deleted at once."""
        self.state.store.deleted_at_once = at_once

    # --- commands -------------------------------------------------------------------------------

    @rule(tenant=_TENANTS, command=st.one_of(requests.puts(), requests.deletes(), requests.txns()))
    def write(self, tenant: int, command: Message) -> None:
        """Put, delete or transact."""
        self._run(tenant, command)

    @rule(tenant=_TENANTS, written=st.lists(requests.keys, min_size=2, max_size=12))
    def put_many(self, tenant: int, written: list[bytes]) -> None:
        """Put plain values, one after the other."""
        for key in written:
            self._run(tenant, kv_pb2.PutRequest(key=key, value=b"v"))

    @rule(tenant=_TENANTS, written=st.lists(requests.keys, min_size=1, max_size=12))
    def put_together(self, tenant: int, written: list[bytes]) -> None:
        """Put plain values as one burst, which is as many puts."""
        puts = [kv_pb2.PutRequest(key=key, value=b"w") for key in written]
        caller = Caller(TenantId(tenant), Origin.SYSTEM, "", 0)
        self.log.append(encode_puts(envelope(caller), [put.SerializeToString() for put in puts]))
        try:
            burst = PutBurst([(put.key, put.value) for put in puts])
            came: Said = kv_pb2.PutResponse.FromString(apply(self.state, caller, burst, 0).body)
        except Refused as refused:
            came = refused.failure
        self.state.index = Index(len(self.log))
        expected = [self.model.run(tenant, put) for put in puts]
        assert [came] * len(puts) == expected

    @rule(tenant=_TENANTS, written=st.lists(requests.keys, min_size=1, max_size=12, unique=True))
    def put_in_one(self, tenant: int, written: list[bytes]) -> None:
        """Put plain values in one transaction, on the way that only such take."""
        puts = [kv_pb2.PutRequest(key=key, value=b"x") for key in written]
        txn = kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=put) for put in puts])
        caller = Caller(TenantId(tenant), Origin.SYSTEM, "", 0)
        self.log.append(encode(type(txn), envelope(caller), txn.SerializeToString()))
        try:
            plain = PutTxn([(put.key, put.value) for put in puts])
            came: Said = kv_pb2.TxnResponse.FromString(apply(self.state, caller, plain, 0).body)
        except Refused as refused:
            came = refused.failure
        self.state.index = Index(len(self.log))
        assert came == self.model.run(tenant, txn)

    @rule(tenant=_TENANTS, asked=st.lists(requests.keys, min_size=1, max_size=6))
    def get_together(self, tenant: int, asked: list[bytes]) -> None:
        """Read keys as one burst, which is as many gets."""
        if tenant in self.model.spaces:
            space = self.state.store.space(TenantId(tenant))
            bodies = self.state.store.read_each(space, GetBurst(asked), 1 << 30)
            assert [kv_pb2.RangeResponse.FromString(body) for body in bodies] == [
                self.model.range(tenant, kv_pb2.RangeRequest(key=key)) for key in asked
            ]

    @rule(later=st.sampled_from((-3, 0, 1, 1, 2, 50)))
    def tick(self, later: int) -> None:
        """Say which second it is; the machine's own time only ever goes on."""
        second = self.model.second + later
        entry, came = carry_out(self.state, 0, state_pb2.Clock(time_s=second))
        assert came == state_pb2.Clock()
        self.log.append(entry)
        self.state.index = Index(len(self.log))
        self.model.tick(second)

    @rule(back=st.sampled_from((-1, 0, 0, 0, 1, 1, 2, 3, 5, 8)), slices=st.integers(0, 6))
    def compact(self, back: int, slices: int) -> None:
        """Compact to near the newest revision, and begin with the work."""
        self._run(1, kv_pb2.CompactionRequest(revision=self.model.revision - back))
        self.slices(slices)

    @rule(tenant=_TENANTS, lease=st.sampled_from((1, 2, -3)), ttl_s=st.integers(0, 9))
    def lease(self, tenant: int, lease: int, ttl_s: int) -> None:
        """Grant a lease, or revoke one."""
        if ttl_s > 2:
            self._run(tenant, lease_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s))
        else:
            self._run(tenant, lease_pb2.LeaseRevokeRequest(ID=lease))

    @rule(name=st.sampled_from(("x", "y")), slices=st.integers(0, 6))
    def change_tenant(self, name: str, slices: int) -> None:
        """Make a tenant, or remove it if it is there."""
        if name in self.model.names:
            self._run(1, tenant_pb2.TenantDeleteRequest(name=name))
            self.slices(slices)
        else:
            self._run(1, tenant_pb2.TenantAddRequest(name=name, root_no_password=True))

    @rule(tenant=_TENANTS, key=requests.keys)
    def destroy(self, tenant: int, key: bytes) -> None:
        """Destroy a key, whether or not there is anything of it."""
        self._run(tenant, version_pb2.DestroyRequest(key=key))

    @rule()
    def end_destructions(self) -> None:
        """Take note that destroyed bytes are gone, as a member does once the slices are done."""
        if not self.state.store.slices:
            self.state.store.end_destructions(list(self.state.store.destructions.values()))

    @rule(
        tenant=_TENANTS,
        prefix=st.sampled_from((b"", b"", b"a", b"c", b"c/", b"c/1")),
        kept=st.sampled_from(((1, 0), (2, 0), (0, 1), (0, 3), (1, 2), (3, 60))),
        is_set=st.sampled_from((True, True, False)),
    )
    def retention(self, tenant: int, prefix: bytes, kept: tuple[int, int], is_set: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        """Set a retention policy, or delete one."""
        if is_set:
            versions, for_s = kept
            request = version_pb2.RetentionSetRequest(
                prefix=prefix, keep_versions=versions, keep_for_s=for_s
            )
            self._run(tenant, request)
        else:
            self._run(tenant, version_pb2.RetentionDeleteRequest(prefix=prefix))

    @rule(tenant=_TENANTS, asked=st.lists(requests.ranges(), min_size=1, max_size=4))
    def range(self, tenant: int, asked: list[kv_pb2.RangeRequest]) -> None:
        """Read."""
        if tenant in self.model.spaces:
            for request in asked:
                assert self._range(tenant, request) == self.model.range(tenant, request)

    @rule(tenant=_TENANTS, asked=requests.ranges(), bytes_max=st.sampled_from((1, 60, 10_000)))
    def open_walk(self, tenant: int, asked: kv_pb2.RangeRequest, bytes_max: int) -> None:
        """Begin to read a range in chunks; it has to be what is there now."""
        if tenant not in self.model.spaces:
            return
        request = kv_pb2.RangeRequest(
            key=asked.key,
            range_end=asked.range_end,
            revision=asked.revision,
            limit=asked.limit,
            keys_only=asked.keys_only,
            count_only=asked.count_only,
        )
        expected = self.model.range(tenant, request)
        space = self.state.store.space(TenantId(tenant))
        if isinstance(expected, Failure):
            with pytest.raises(Refused) as raised:
                self.state.store.walk(space, request, bytes_max)
            assert raised.value.failure is expected
        else:
            walk = self.state.store.walk(space, request, bytes_max)
            self.walks.append(_Walking(tenant, walk, [], expected, space.index.destroyed_count))

    @rule(count=st.integers(1, 4))
    def walk_on(self, count: int) -> None:
        """Go on with every range that is read in chunks."""
        for each in list(self.walks):
            for _ in range(count):
                if not self._walk(each):
                    self.walks.remove(each)
                    break

    def _walk(self, each: _Walking) -> bool:
        """Take a step; return whether there is more to come."""
        if each.tenant not in self.model.spaces:
            return False
        compacted = self.state.store.compacted
        destroyed_count = self.state.store.space(TenantId(each.tenant)).index.destroyed_count
        if each.walk.revision < compacted or each.destroyed_count != destroyed_count:
            with pytest.raises(Refused) as raised:
                each.walk.step(compacted)
            assert raised.value.failure is Failure.COMPACTED
            return False
        chunk = each.walk.step(compacted)
        if chunk is None:
            return True
        each.bodies.append(chunk.body)
        if chunk.is_last:
            assert kv_pb2.RangeResponse.FromString(b"".join(each.bodies)) == each.expected
        return not chunk.is_last

    # --- the disk -------------------------------------------------------------------------------

    @rule()
    def flush(self) -> None:
        """Bring the tables to the present state."""
        self.end_flush()
        self.begin_flush()
        self.end_flush()

    @rule(count=st.integers(1, 12))
    def slices(self, count: int) -> None:
        """Do some of the long work."""
        for _ in range(count):
            self.state.store.run_slice()

    @rule()
    def step_flush(self) -> None:
        """Hand what is new to the tables, which take their time, or let them finish."""
        if self.in_flight is None:
            self.begin_flush()
        else:
            self.end_flush()

    def begin_flush(self) -> None:
        """Hand what is new to the tables."""
        if self.in_flight is None and self.state.dirty:
            _, self.in_flight = self.state.begin_flush(0, b"", b"")

    def end_flush(self) -> None:
        """Let the tables finish."""
        if self.in_flight is not None:
            self.tables.write(b"".join(self.in_flight))
            self.in_flight = None
            self.state.end_flush()

    @rule(written=st.booleans())
    def crash(self, written: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        """Lose what is in memory; a flush on its way was written as a whole or not at all."""
        if written and self.in_flight is not None:
            self.tables.write(b"".join(self.in_flight))
        self.in_flight = None
        self.walks.clear()
        at_once = self.state.store.deleted_at_once
        self.state = reload(self.tables)
        self.state.store.deleted_at_once = at_once
        for index in range(self.state.index, len(self.log)):
            caller, command = decode(self.log[index])
            with contextlib.suppress(Refused):
                finish(self.state, caller.tenant, apply(self.state, caller, command, 0))
            self.state.index = Index(index + 1)

    @rule()
    def settle(self) -> None:
        """Finish all long work and flush it; then nothing is left that nobody names."""
        for _ in range(_SETTLING_MAX):
            if not self.state.dirty and not self.state.store.slices and self.in_flight is None:
                break
            self.begin_flush()
            self.end_flush()
            self.slices(4)
        else:
            raise AssertionError("the long work does not end")
        named = {tenant: kept_positions(self.state, tenant) for tenant in self.model.spaces}
        for tenant, space in self.model.spaces.items():
            assert named[tenant] == space.retained()
        self._assert_stored(named)

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def revisions_are_equal(self) -> None:
        """Compare the two counters."""
        assert self.state.store.revision == self.model.revision
        assert self.state.store.compacted == self.model.compacted

    def teardown(self) -> None:
        """Compare everything that can be read, then settle, then lose the memory, each time."""
        self._assert_readable()
        self.settle()
        while self.walks:
            self.walk_on(1)
        self._assert_readable()
        self.crash(written=False)
        self._assert_readable()

    def _run(self, tenant: int, command: Message) -> None:
        entry, came = carry_out(self.state, tenant, command)
        self.log.append(entry)
        self.state.index = Index(len(self.log))
        expected = self.model.run(tenant, command)
        if isinstance(came, tenant_pb2.TenantAddResponse):
            assert came.tenant.id == expected.tenant.id  # type: ignore[union-attr]  # as came is
            return
        assert came == expected

    def _range(self, tenant: int, request: kv_pb2.RangeRequest) -> Any:
        try:
            body = self.state.store.range(self.state.store.space(TenantId(tenant)), request)
        except Refused as refused:
            return refused.failure
        return kv_pb2.RangeResponse.FromString(body)

    def _assert_readable(self) -> None:
        self._assert_times()
        for tenant, dumb in self.model.spaces.items():
            for revision in range(max(self.model.compacted, 1), self.model.revision + 1):
                request = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
                assert self._range(tenant, request) == self.model.range(tenant, request)
            for key in dumb.changes:
                self._assert_history(tenant, key)
            early = kv_pb2.RangeRequest(key=b"a", revision=self.model.compacted - 1)
            if early.revision > 0:
                assert self._range(tenant, early) is Failure.COMPACTED
            leases = self.state.store.space(TenantId(tenant)).leases
            assert set(leases.by_expiry()) == set(dumb.leases)
            for lease in dumb.leases:
                assert sorted(leases.keys_of(lease)) == dumb.keys_of_lease(lease)

    def _assert_history(self, tenant: int, key: bytes) -> None:
        """Compare what is kept of a key, newest first, however far the slices have come."""
        assert self._history(tenant, key) == [
            _version(change.main, change.kv, self.model.seconds[change.main])
            for change in self.model.spaces[tenant].history(key)
        ]

    def _history(self, tenant: int, key: bytes) -> list[version_pb2.Version]:
        """Return what is left of a key's history, read in small pages."""
        space, found = self.state.store.space(TenantId(tenant)), []
        request = version_pb2.HistoryRequest(key=key, limit=2)
        while True:
            page = version_pb2.HistoryResponse.FromString(
                answer_history(self.state.store, space, request)
            )
            found += page.versions
            if not page.more:
                return found
            assert len(page.versions) == request.limit
            request.before_revision = found[-1].mod_revision

    def _assert_times(self) -> None:
        """Compare the revision of each second."""
        for second in range(self.model.second + 2):
            found = self.state.store.timeline.revision_at(second, self.state.store.revision)
            assert found == self.model.revision_at(second)

    def _assert_stored(self, named: dict[int, dict[bytes, list[tuple[int, int, bool]]]]) -> None:
        """Compare the tables with the index: every version once, and nothing else."""
        rows: dict[int, dict[bytes, list[tuple[int, int, bool]]]] = {t: {} for t in named}
        for _, block in self.tables.scan(Table.INDEX, NO_SCOPE):
            for tenant, head, key, _ in decode_index_block(block):
                rows.setdefault(tenant, {}).setdefault(key, []).append(_plain(head[:12]))
        assert rows == named
        records = sorted(
            (main, sub)
            for keys in named.values()
            for places in keys.values()
            for main, sub, deleted in places
            if not deleted
        )
        assert [_plain(place)[:2] for place in self.tables.keys(Table.RECORDS)] == records

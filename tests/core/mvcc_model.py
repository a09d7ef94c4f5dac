"""A deliberately dumb key-value store: every version of every key for ever, and plain loops.

Owns: what each command and each range must answer, and which versions compaction has to keep.
Never: shares code with the store that it is compared with; never forgets anything.
Follows: etcd-surface sections 1.3 and 1.5.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, final

from google.protobuf.message import Message

from kvsecure.model.errors import Failure
from kvsecure.proto import kv_pb2, lease_pb2, mvcc_pb2, tenant_pb2, version_pb2

__all__ = ["Change", "DumbSpace", "DumbStore", "Said", "in_span"]

# A response without its header, or why there is none.
Said = Message | Failure


class Change(NamedTuple):
    """One change of one key: what it is since then, or None when it was deleted."""

    main: int
    sub: int
    kv: mvcc_pb2.KeyValue | None


@final
@dataclass
class DumbSpace:
    """One tenant: the changes of every key in order, and its leases with their TTLs."""

    changes: dict[bytes, list[Change]] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    # By prefix: how many versions, and for how many seconds.
    policies: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    # Key and revision of what compactions have given up.
    gone: set[tuple[bytes, int]] = field(default_factory=set)

    def at(self, key: bytes, revision: int) -> mvcc_pb2.KeyValue | None:
        """Return what a key was at a revision."""
        found = None
        for change in self.changes.get(key, []):
            if change.main <= revision:
                found = change.kv
        return found

    def now(self, key: bytes) -> mvcc_pb2.KeyValue | None:
        """Return what a key is."""
        changes = self.changes.get(key)
        return changes[-1].kv if changes else None

    def history(self, key: bytes) -> list[Change]:
        """Return the changes of a key that are kept, newest first."""
        changes = self.changes.get(key, [])[::-1]
        return [change for change in changes if (key, change.main) not in self.gone]

    def keys_of_lease(self, lease: int) -> list[bytes]:
        """Return the keys whose newest version names a lease."""
        newest = {key: self.now(key) for key in self.changes}
        return sorted(key for key, kv in newest.items() if kv is not None and kv.lease == lease)

    def retained(self) -> dict[bytes, list[tuple[int, int, bool]]]:
        """Return (main, sub, deleted) of the changes that compactions have kept, by key."""
        kept = {
            key: [
                (change.main, change.sub, change.kv is None)
                for change in changes
                if (key, change.main) not in self.gone
            ]
            for key, changes in self.changes.items()
        }
        return {key: changes for key, changes in kept.items() if changes}

    def compact(self, revision: int, expired: Callable[[int, int], bool]) -> None:
        """Give up what a compaction does not have to keep.

        Args:
            revision: Where.
            expired: Tells whether what was superseded at a revision has been kept for so long.
        """
        for key, changes in self.changes.items():
            # What is gone already is nothing that a policy could keep, or keep a deletion for.
            left = [change for change in changes if (key, change.main) not in self.gone]
            kept = self._etcd_keeps(left, revision) | self._policy_keeps(key, left, expired)
            self.gone |= {(key, change.main) for change in left} - {(key, m) for m in kept}

    def _etcd_keeps(self, changes: list[Change], revision: int) -> set[int]:
        old = [change for change in changes if change.main <= revision]
        last = old[-1:]
        if last and last[0].kv is None and last[0].main != revision:
            last = []
        return {change.main for change in [*last, *changes[len(old) :]]}

    def _policy_keeps(
        self, key: bytes, changes: list[Change], expired: Callable[[int, int], bool]
    ) -> set[int]:
        meant = [prefix for prefix in self.policies if key.startswith(prefix)]
        if not meant:
            return set()
        count, for_s = self.policies[max(meant, key=len)]
        values = [change.main for change in changes if change.kv is not None]
        kept = set(values[len(values) - count :] if count < len(values) else values)
        for old, new in pairwise(changes):
            if old.kv is not None and for_s and not expired(new.main, for_s):
                kept.add(old.main)
        # A deletion behind a version that is kept says how long that was there.
        return kept | {
            change.main
            for change in changes
            if change.kv is None and change.main > min(kept, default=change.main)
        }


def in_span(key: bytes, start: bytes, end: bytes) -> bool:
    """Tell whether a key is meant by (key, range_end) as they are on the wire."""
    if not end:
        return key == start
    if end == b"\0":
        return key >= start
    return start <= key < end


@final
class _DumbRefusal(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


_COMPARISONS: Final[dict[int, Callable[[object, object], bool]]] = {
    kv_pb2.Compare.EQUAL: lambda a, b: a == b,
    kv_pb2.Compare.NOT_EQUAL: lambda a, b: a != b,
    kv_pb2.Compare.GREATER: lambda a, b: a > b,  # type: ignore[operator]  # of one type
    kv_pb2.Compare.LESS: lambda a, b: a < b,  # type: ignore[operator]  # of one type
}
_FIELDS: Final[dict[int, tuple[str, str]]] = {
    kv_pb2.Compare.VERSION: ("version", "version"),
    kv_pb2.Compare.CREATE: ("create_revision", "create_revision"),
    kv_pb2.Compare.MOD: ("mod_revision", "mod_revision"),
    kv_pb2.Compare.VALUE: ("value", "value"),
    kv_pb2.Compare.LEASE: ("lease", "lease"),
}
_ORDERS: Final = {
    kv_pb2.RangeRequest.KEY: "key",
    kv_pb2.RangeRequest.VERSION: "version",
    kv_pb2.RangeRequest.CREATE: "create_revision",
    kv_pb2.RangeRequest.MOD: "mod_revision",
    kv_pb2.RangeRequest.VALUE: "value",
}


@final
class DumbStore:
    """All tenants, by number."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.spaces: dict[int, DumbSpace] = {0: DumbSpace(), 1: DumbSpace()}
        self.names: dict[str, int] = {}
        self.next_tenant = 16
        # The second that the log was last told of, and that in which each revision was written.
        self.second = 0
        self.seconds: dict[int, int] = {}
        self._writes = 0

    def run(self, tenant: int, command: Message) -> Said:
        """Carry out a command; a refused one changes nothing."""
        if tenant not in self.spaces:
            return Failure.PERMISSION_DENIED
        self._writes = 0
        try:
            answer = self._run(self.spaces[tenant], command)
        except _DumbRefusal as refusal:
            assert not self._writes, "what can be refused is refused before anything is changed"
            return refusal.failure
        if self._writes:
            self.revision += 1
            self.seconds[self.revision] = self.second
        return answer

    def tick(self, second: int) -> None:
        """Take note of which second it is; it never becomes an earlier one."""
        self.second = max(self.second, second)

    def revision_at(self, second: int) -> int | None:
        """Return the newest revision of a second or before, None for what is before all of them."""
        known = [revision for revision, written in self.seconds.items() if written]
        first = min((self.seconds[revision] for revision in known), default=self.second)
        if not first or second < first:
            return None
        return max((r for r in known if self.seconds[r] <= second), default=self.revision)

    def range(self, tenant: int, request: kv_pb2.RangeRequest) -> Said:
        """Answer a range on the newest state."""
        self._writes = 0
        try:
            return self._range(self.spaces[tenant], request)
        except _DumbRefusal as refusal:
            return refusal.failure

    # --- commands -------------------------------------------------------------------------------

    def _run(self, space: DumbSpace, command: Message) -> Message:
        match command:
            case kv_pb2.PutRequest():
                if command.lease and command.lease not in space.leases:
                    raise _DumbRefusal(Failure.LEASE_NOT_FOUND)
                self._check_put(space, command)
                return self._put(space, command)
            case kv_pb2.DeleteRangeRequest():
                return self._delete(space, command)
            case kv_pb2.TxnRequest():
                chosen = self._choose(space, command)
                self._check_path(space, chosen)
                return self._path(space, chosen)
            case kv_pb2.CompactionRequest():
                return self._compact(command.revision)
            case lease_pb2.LeaseGrantRequest():
                if command.ID in space.leases:
                    raise _DumbRefusal(Failure.LEASE_EXISTS)
                space.leases[command.ID] = command.TTL
                return lease_pb2.LeaseGrantResponse(ID=command.ID, TTL=command.TTL)
            case lease_pb2.LeaseRevokeRequest():
                return self._revoke(space, command.ID)
            case tenant_pb2.TenantAddRequest():
                return self._add_tenant(command.name)
            case tenant_pb2.TenantDeleteRequest():
                if command.name not in self.names:
                    raise _DumbRefusal(Failure.TENANT_NOT_FOUND)
                del self.spaces[self.names.pop(command.name)]
                return tenant_pb2.TenantDeleteResponse()
        return self._run_versions(space, command)

    def _run_versions(self, space: DumbSpace, command: Message) -> Message:
        match command:
            case version_pb2.RetentionSetRequest():
                space.policies[command.prefix] = (command.keep_versions, command.keep_for_s)
                return version_pb2.RetentionSetResponse()
            case version_pb2.DestroyRequest():
                exists = space.now(command.key) is not None
                if exists:
                    self._change(space, command.key, None)
                changes = space.changes.pop(command.key, [])[-1:]
                if changes and changes[0].main >= self.compacted:
                    # As if nothing had ever been written but that it is not there.
                    space.changes[command.key] = changes
                return version_pb2.DestroyResponse(deleted=exists)
            case version_pb2.RetentionDeleteRequest():
                if command.prefix not in space.policies:
                    raise _DumbRefusal(Failure.RETENTION_NOT_FOUND)
                del space.policies[command.prefix]
                return version_pb2.RetentionDeleteResponse()
        raise AssertionError(command)

    def _add_tenant(self, name: str) -> Message:
        if name in self.names:
            raise _DumbRefusal(Failure.TENANT_EXISTS)
        number = self.names[name] = self.next_tenant
        self.next_tenant += 1
        self.spaces[number] = DumbSpace()
        tenant = tenant_pb2.Tenant(id=number, name=name, user_count=1, auth_revision=3)
        return tenant_pb2.TenantAddResponse(tenant=tenant)

    def _compact(self, revision: int) -> Message:
        if revision <= self.compacted:
            raise _DumbRefusal(Failure.COMPACTED)
        if revision > self.revision:
            raise _DumbRefusal(Failure.FUTURE_REVISION)
        self.compacted = revision
        samples = {*self.seconds.values(), self.second} - {0}

        def expired(superseded: int, for_s: int) -> bool:
            # The second that the clock last showed before that, if it ever did.
            bound = max((each for each in samples if each <= self.second - for_s), default=0)
            return self.seconds[superseded] < bound

        for space in self.spaces.values():
            space.compact(revision, expired)
        return kv_pb2.CompactionResponse()

    def _revoke(self, space: DumbSpace, lease: int) -> Message:
        if lease not in space.leases:
            raise _DumbRefusal(Failure.LEASE_NOT_FOUND)
        for key in space.keys_of_lease(lease):
            self._change(space, key, None)
        del space.leases[lease]
        return lease_pb2.LeaseRevokeResponse()

    def _change(self, space: DumbSpace, key: bytes, kv: mvcc_pb2.KeyValue | None) -> None:
        change = Change(self.revision + 1, self._writes, kv)
        space.changes.setdefault(key, []).append(change)
        self._writes += 1

    def _check_put(self, space: DumbSpace, request: kv_pb2.PutRequest) -> None:
        if (request.ignore_value or request.ignore_lease) and space.now(request.key) is None:
            raise _DumbRefusal(Failure.KEY_NOT_FOUND)
        if request.lease and request.lease not in space.leases:
            raise _DumbRefusal(Failure.LEASE_NOT_FOUND)

    def _put(self, space: DumbSpace, request: kv_pb2.PutRequest) -> Message:
        old = space.now(request.key)
        new = mvcc_pb2.KeyValue(
            key=request.key,
            value=old.value if old is not None and request.ignore_value else request.value,
            lease=old.lease if old is not None and request.ignore_lease else request.lease,
            mod_revision=self.revision + 1,
            create_revision=old.create_revision if old is not None else self.revision + 1,
            version=old.version + 1 if old is not None else 1,
        )
        self._change(space, request.key, new)
        return kv_pb2.PutResponse(prev_kv=old if request.prev_kv else None)

    def _delete(self, space: DumbSpace, request: kv_pb2.DeleteRangeRequest) -> Message:
        answer = kv_pb2.DeleteRangeResponse()
        for key in sorted(space.changes):
            old = space.now(key)
            if old is not None and in_span(key, request.key, request.range_end):
                self._change(space, key, None)
                answer.deleted += 1
                if request.prev_kv:
                    answer.prev_kvs.append(old)
        return answer

    # --- ranges ---------------------------------------------------------------------------------

    def _check_revision(self, revision: int, current: int) -> None:
        if revision > current:
            raise _DumbRefusal(Failure.FUTURE_REVISION)
        if revision < self.compacted:
            raise _DumbRefusal(Failure.COMPACTED)

    def _range(self, space: DumbSpace, request: kv_pb2.RangeRequest) -> kv_pb2.RangeResponse:
        current = self.revision + bool(self._writes)
        revision = current
        if request.revision > 0:
            self._check_revision(request.revision, current)
            revision = request.revision
        versions = [
            kv
            for key in sorted(space.changes)
            if in_span(key, request.key, request.range_end)
            and (kv := space.at(key, revision)) is not None
        ]
        answer = kv_pb2.RangeResponse(count=len(versions))
        if request.count_only:
            return answer
        chosen = [copy.deepcopy(kv) for kv in versions if _passes(request, kv)]
        filtered = (
            request.min_mod_revision
            or request.max_mod_revision
            or request.min_create_revision
            or request.max_create_revision
        )
        if request.limit > 0 and not filtered and not request.sort_order:
            # One more tells that there are more.
            chosen = chosen[: request.limit + 1]
        attribute = _ORDERS[request.sort_target]
        chosen.sort(
            key=lambda kv: getattr(kv, attribute),
            reverse=request.sort_order == kv_pb2.RangeRequest.DESCEND,
        )
        if 0 < request.limit < len(chosen):
            chosen = chosen[: request.limit]
            answer.more = True
        for kv in chosen:
            if request.keys_only:
                kv.value = b""
        answer.kvs.extend(chosen)
        return answer

    # --- transactions ---------------------------------------------------------------------------

    def _choose(self, space: DumbSpace, request: kv_pb2.TxnRequest) -> kv_pb2.TxnRequest:
        """Return the transaction with the branches that are not taken left out, at all levels."""
        holds = all(_holds(space, compare) for compare in request.compare)
        chosen = kv_pb2.TxnRequest()
        taken = chosen.success if holds else chosen.failure
        for operation in request.success if holds else request.failure:
            if operation.WhichOneof("request") == "request_txn":
                nested = self._choose(space, operation.request_txn)
                # An empty list of comparisons holds: this one says so where it did not.
                taken.add(request_txn=nested)
            else:
                taken.append(operation)
        if not holds:
            chosen.compare.add()
        return chosen

    def _check_path(self, space: DumbSpace, chosen: kv_pb2.TxnRequest) -> None:
        """Check all puts, then the revisions of all ranges (etcd)."""
        operations = list(_flat(chosen))
        for operation in operations:
            if operation.WhichOneof("request") == "request_put":
                self._check_put(space, operation.request_put)
        for operation in operations:
            if operation.request_range.revision:
                self._check_revision(operation.request_range.revision, self.revision)

    def _path(self, space: DumbSpace, chosen: kv_pb2.TxnRequest) -> kv_pb2.TxnResponse:
        answer = kv_pb2.TxnResponse(succeeded=not chosen.compare)
        for operation in (*chosen.success, *chosen.failure):
            response = answer.responses.add()
            match operation.WhichOneof("request"):
                case "request_range":
                    seen = self.revision + bool(self._writes)
                    response.response_range.CopyFrom(self._range(space, operation.request_range))
                    response.response_range.header.revision = seen
                case "request_put":
                    response.response_put.CopyFrom(self._put(space, operation.request_put))
                    response.response_put.header.revision = self.revision + 1
                case "request_delete_range":
                    deleted = self._delete(space, operation.request_delete_range)
                    response.response_delete_range.CopyFrom(deleted)
                    seen = self.revision + bool(self._writes)
                    response.response_delete_range.header.revision = seen
                case "request_txn":
                    nested = self._path(space, operation.request_txn)
                    response.response_txn.CopyFrom(nested)
                    # A nested answer has a header, and nothing in it (etcd).
                    response.response_txn.header.SetInParent()
        return answer


def _flat(chosen: kv_pb2.TxnRequest) -> Iterator[kv_pb2.RequestOp]:
    for operation in (*chosen.success, *chosen.failure):
        yield operation
        yield from _flat(operation.request_txn)


def _passes(request: kv_pb2.RangeRequest, kv: mvcc_pb2.KeyValue) -> bool:
    bounds: Iterable[tuple[int, int, int]] = (
        (request.min_mod_revision, kv.mod_revision, request.max_mod_revision),
        (request.min_create_revision, kv.create_revision, request.max_create_revision),
    )
    return all(low <= value and (not high or value <= high) for low, value, high in bounds)


def _holds(space: DumbSpace, compare: kv_pb2.Compare) -> bool:
    meant = [
        kv
        for key in space.changes
        if in_span(key, compare.key, compare.range_end) and (kv := space.now(key)) is not None
    ]
    ours, theirs = _FIELDS[compare.target]
    if not meant and compare.target == kv_pb2.Compare.VALUE:
        return False
    return all(
        _COMPARISONS[compare.result](getattr(kv, ours), getattr(compare, theirs))
        for kv in meant or [mvcc_pb2.KeyValue()]
    )

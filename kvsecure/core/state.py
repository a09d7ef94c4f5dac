"""The applied state: everything that the log's entries have made, and its stored form.

Owns: putting the parts together, and which rows of the state table stand for what.
Never: decides or changes anything by itself; `apply` does.
Keeps: the row that says how far the log is applied goes into the same transaction as what was
    applied, so the state on disk is always the state at exactly that index.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, final

from google.protobuf.message import DecodeError, Message

from kvsecure.core.accounts import Accounts, Tenant
from kvsecure.core.mark import Mark
from kvsecure.core.members import Members
from kvsecure.core.mvcc.records import Records, TableSource
from kvsecure.core.mvcc.retention import Compaction, Destruction, Policy
from kvsecure.core.mvcc.space import Space
from kvsecure.core.mvcc.store import COMPACTION_KEY, DESTRUCTION_KEY, Store
from kvsecure.core.mvcc.timeline import UnreadableChunk
from kvsecure.core.told_heads import ToldHeads
from kvsecure.core.watch import Hub
from kvsecure.model.ids import Index, LeaseId, TenantId, Term
from kvsecure.proto import maintenance_pb2, state_pb2, version_pb2
from kvsecure.storage.rows import NO_SCOPE, Row, Table, pack_rows

__all__ = ["MEMBERSHIP_KINDS", "State", "UnreadableState", "alarm_list"]

# First byte of a key of the state table.
_APPLIED: Final = b"A"
_TENANT: Final = b"T"
_USER: Final = b"U"
_ROLE: Final = b"R"
_LEASE: Final = b"L"
_ALARM: Final = b"M"
_TIMELINE: Final = b"W"
_RETENTION: Final = b"P"
_MEMBER: Final = b"N"
_REMOVED: Final = b"X"
_SIGNING_KEY: Final = b"K"
_TOLD_HEAD: Final = b"H"
# What is of this cluster's members, and no other's.
MEMBERSHIP_KINDS: Final = frozenset({_MEMBER, _REMOVED, _SIGNING_KEY, _TOLD_HEAD})
# Some milliseconds of packing.
_ROWS_PER_PIECE: Final = 4_000


@final
class UnreadableState(Exception):
    """A row of the state table is not of a form known here."""


@final
class State:
    """Key spaces, leases, watches, accounts, members and alarms at one index of the log."""

    def __init__(self, source: TableSource) -> None:
        self.index = Index(0)
        self.term = Term(0)
        self.records = Records(source)
        self.hub = Hub(self.records)
        hub = self.hub
        self.store = Store(self.records, hub.publish, hub.publish_each, hub.publish_many)
        self.accounts = Accounts()
        self.members = Members()
        self.heads = ToldHeads()
        # (member, alarm) pairs that are raised.
        self.alarms: set[tuple[int, int]] = set()
        # What the state came to when that was last asked for through the log.
        self.mark: Mark | None = None
        self._rows: dict[bytes, bytes | None] = {}
        # Through which entry the tables have it, or will have it when the flush that is on its way
        # has ended.
        self._stored_index = Index(0)

    # --- changes to be stored -------------------------------------------------------------------

    def touch_tenant(self, tenant: Tenant) -> None:
        """Note that a tenant's own record has changed."""
        self._note(_TENANT + _u32(tenant.id), tenant.record)

    def touch_user(self, tenant: Tenant, user: state_pb2.User, *, gone: bool = False) -> None:
        """Note that a user has changed, or is gone."""
        self._note(_USER + _u32(tenant.id) + _u32(user.id), None if gone else user)

    def touch_role(self, tenant: Tenant, role: state_pb2.Role, *, gone: bool = False) -> None:
        """Note that a role has changed, or is gone."""
        self._note(_ROLE + _u32(tenant.id) + _u32(role.id), None if gone else role)

    def touch_lease(self, tenant: TenantId, lease: LeaseId, ttl_s: int, remaining_s: int) -> None:
        """Note what is known of a lease: its TTL, and what its checkpoint says, 0 if nothing."""
        record = state_pb2.Lease(id=lease, ttl_s=ttl_s, remaining_s=remaining_s)
        self._note(_lease_key(tenant, lease), record)

    def forget_lease(self, tenant: TenantId, lease: LeaseId) -> None:
        """Note that a lease is gone."""
        self._note(_lease_key(tenant, lease), None)

    def touch_retention(self, space: Space) -> None:
        """Note that a tenant's retention policies have changed."""
        policies = [
            version_pb2.RetentionPolicy(
                prefix=prefix, keep_versions=policy.versions, keep_for_s=policy.for_s
            )
            for prefix, policy in sorted(space.retention.items())
        ]
        stored = state_pb2.Retention(policies=policies) if policies else None
        self._note(_RETENTION + _u32(space.tenant), stored)

    def touch_alarm(self, member: int, alarm: int, *, raised: bool) -> None:
        """Note that an alarm was raised or cleared."""
        key = _ALARM + member.to_bytes(8, "big") + _u32(alarm)
        record = state_pb2.Alarm(member_id=member, alarm=alarm)
        self._note(key, record if raised else None)

    def touch_member(self, member: state_pb2.Member, *, gone: bool = False) -> None:
        """Note that a member's record has changed, or that it is a member no more."""
        number = member.id.to_bytes(8, "big")
        self._note(_MEMBER + number, None if gone else member)
        if gone:
            left = state_pb2.Member(id=member.id, name=member.name, peer_urls=member.peer_urls)
            self._note(_REMOVED + number, left)

    def touch_signing_key(self, key: state_pb2.SigningKey, *, gone: bool = False) -> None:
        """Note that a member has a key that it signs tokens with, or has none."""
        self._note(_SIGNING_KEY + key.member_id.to_bytes(8, "big"), None if gone else key)

    def touch_told_head(self, head: state_pb2.ToldHead, *, gone: bool = False) -> None:
        """Note that a member has told more of its audit trail, or that it is a member no more."""
        self._note(_TOLD_HEAD + head.member_id.to_bytes(8, "big"), None if gone else head)

    def forget_tenant(self, tenant: Tenant) -> None:
        """Note that a tenant is gone, with its users, roles and leases."""
        self._rows[_TENANT + _u32(tenant.id)] = None
        if self.store.space(tenant.id).retention:
            self._rows[_RETENTION + _u32(tenant.id)] = None
        for user in tenant.users.values():
            self.touch_user(tenant, user, gone=True)
        for role in tenant.roles.values():
            self.touch_role(tenant, role, gone=True)
        for lease in self.store.space(tenant.id).leases.by_expiry():
            self.forget_lease(tenant.id, lease)

    def is_raised(self, alarm: int) -> bool:
        """Tell whether any member has raised an alarm."""
        return any(kind == alarm for _, kind in self.alarms)

    # --- the stored form ------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there is anything that the tables do not have.

        Entries that changed nothing count: the log is kept until the tables are past them.
        """
        return bool(
            self.index != self._stored_index
            or self._rows
            or self.store.rows
            or self.records.fresh_rows
            or self.records.obsolete
        )

    def begin_flush(
        self, audit_seq: int, audit_hash: bytes, configuration: bytes
    ) -> tuple[Index, Iterator[bytes]]:
        """Hand over what brings the tables to the present state, packed piece by piece.

        Args:
            audit_seq: Number of the newest audit record known to be on the disk.
            audit_hash: And its hash.
            configuration: The members at the present index, as in an entry of the log.

        Returns:
            The index of the state, and the pieces; whatever is written meanwhile is in none.
        """
        packed = self.records.begin_flush()
        rows, self.store.rows = self.store.rows, []
        rows += [Row(Table.STATE, key, NO_SCOPE, value) for key, value in self._rows.items()]
        self._rows = {}
        rows += [
            Row(Table.STATE, _TIMELINE + key, NO_SCOPE, value)
            for key, value in self.store.timeline.take_rows()
        ]
        applied = state_pb2.Applied(
            index=self.index,
            term=self.term,
            revision=self.store.revision,
            compact_revision=self.store.compacted,
            next_tenant_id=self.accounts.next_tenant_id,
            audit_seq=audit_seq,
            audit_hash=audit_hash,
            configuration=configuration,
        )
        rows.append(Row(Table.STATE, _APPLIED, NO_SCOPE, applied.SerializeToString()))
        self._stored_index = self.index
        return self.index, chain(packed, (pack_rows(some) for some in _batched(rows)))

    def end_flush(self) -> None:
        """Take note that what was handed over is durable."""
        self.records.end_flush()

    def found(self, founders: Sequence[state_pb2.Member] = ()) -> None:
        """Make the state of a new cluster.

        Args:
            founders: Who its members are; the same in the same order on every one of them.
        """
        self.found_members(founders)
        for tenant in self.accounts.found():
            self.store.add_space(tenant.id)
            self.touch_tenant(tenant)

    def found_members(self, founders: Sequence[state_pb2.Member]) -> None:
        """Name the members, where nobody is one yet: in a new cluster, or one of former days."""
        self.members.found(founders)
        for founder in founders:
            self.touch_member(founder)

    def load(
        self, rows: Iterable[tuple[bytes, bytes]], blocks: Iterable[bytes], now_ns: int
    ) -> state_pb2.Applied:
        """Read back a stored state.

        Args:
            rows: The state table, in key order.
            blocks: The index table's values, in key order.
            now_ns: From when the leases live on.

        Raises:
            UnreadableState: A row is not of a form known here.
        """
        by_kind: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for key, value in rows:
            by_kind.setdefault(key[:1], []).append((key, value))
        try:
            applied = self._load_applied(by_kind.pop(_APPLIED, []))
            self._load_accounts(by_kind)
            for key, value in by_kind.pop(_LEASE, []):
                lease = state_pb2.Lease.FromString(value)
                space = self.store.space(TenantId(int.from_bytes(key[1:5], "big")))
                space.leases.load(LeaseId(lease.id), lease.ttl_s, lease.remaining_s, now_ns)
            for _, value in by_kind.pop(_ALARM, []):
                alarm = state_pb2.Alarm.FromString(value)
                self.alarms.add((alarm.member_id, alarm.alarm))
            self._load_members(by_kind)
            for key, value in by_kind.pop(_RETENTION, []):
                space = self.store.space(TenantId(int.from_bytes(key[1:5], "big")))
                for policy in state_pb2.Retention.FromString(value).policies:
                    space.retention[policy.prefix] = Policy(policy.keep_versions, policy.keep_for_s)
            compactions = [Compaction.decode(value) for _, value in by_kind.pop(COMPACTION_KEY, [])]
            destructions = [
                Destruction.decode(value) for _, value in by_kind.pop(DESTRUCTION_KEY, [])
            ]
            for _, value in by_kind.pop(_TIMELINE, []):
                self.store.timeline.load_row(value)
        except (DecodeError, KeyError, UnreadableChunk) as error:
            raise UnreadableState(f"a row of the state table cannot be read: {error}") from None
        if by_kind:
            raise UnreadableState("the state table holds rows of a kind not known here")
        self.store.load(blocks, compactions, destructions)
        return applied

    def _load_applied(self, rows: list[tuple[bytes, bytes]]) -> state_pb2.Applied:
        if len(rows) != 1:
            raise UnreadableState("the state table does not say how far the log is applied")
        applied = state_pb2.Applied.FromString(rows[0][1])
        self.index = self._stored_index = Index(applied.index)
        self.term = Term(applied.term)
        self.store.revision = applied.revision
        self.store.compacted = self.hub.compacted = applied.compact_revision
        self.accounts.next_tenant_id = applied.next_tenant_id
        return applied

    def _load_accounts(self, by_kind: dict[bytes, list[tuple[bytes, bytes]]]) -> None:
        tenants: dict[int, Tenant] = {}
        for _, value in by_kind.pop(_TENANT, []):
            tenant = self.accounts.load_tenant(state_pb2.Tenant.FromString(value))
            tenants[tenant.id] = tenant
            self.store.add_space(tenant.id)
        for key, value in by_kind.pop(_USER, []):
            user = state_pb2.User.FromString(value)
            tenants[int.from_bytes(key[1:5], "big")].users[user.name] = user
        for key, value in by_kind.pop(_ROLE, []):
            role = state_pb2.Role.FromString(value)
            tenants[int.from_bytes(key[1:5], "big")].roles[role.name] = role

    def _load_members(self, by_kind: dict[bytes, list[tuple[bytes, bytes]]]) -> None:
        for _, value in by_kind.pop(_MEMBER, []):
            self.members.load(state_pb2.Member.FromString(value))
        for _, value in by_kind.pop(_REMOVED, []):
            self.members.load_removed(state_pb2.Member.FromString(value))
        for _, value in by_kind.pop(_SIGNING_KEY, []):
            self.members.load_key(state_pb2.SigningKey.FromString(value))
        for _, value in by_kind.pop(_TOLD_HEAD, []):
            self.heads.load(state_pb2.ToldHead.FromString(value))
        self.accounts.decide_anew(self.members.removed_count)

    def _note(self, key: bytes, record: Message | None) -> None:
        self._rows[key] = None if record is None else record.SerializeToString()


def _batched(rows: list[Row]) -> Iterator[list[Row]]:
    for start in range(0, len(rows), _ROWS_PER_PIECE):
        yield rows[start : start + _ROWS_PER_PIECE]


def alarm_list(state: State, member: int, alarm: int) -> list[maintenance_pb2.AlarmMember]:
    """Return the raised alarms of a member (0: any) and of a kind (NONE: any)."""
    return [
        maintenance_pb2.AlarmMember(memberID=who, alarm=kind)  # type: ignore[arg-type]  # an enum
        for who, kind in sorted(state.alarms)
        if member in (0, who) and alarm in (maintenance_pb2.NONE, kind)
    ]


def _lease_key(tenant: TenantId, lease: LeaseId) -> bytes:
    return _LEASE + _u32(tenant) + (lease & (1 << 64) - 1).to_bytes(8, "big")


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")

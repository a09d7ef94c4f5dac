"""Apply: one command at one index of the log changes the state, the same way on every member.

Owns: what every command does, and the second decision of the law where accounts have moved since
    the first.
Never: waits, reads a clock, or calls anything outside the state.
Follows: etcd's applierV3 (server/etcdserver/apply); differs: there is no chain of wrappers that an
    operation can slip past, only this table.
Keeps: a refused command changes nothing.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, final

from google.protobuf.message import Message

from kvsecure.access.decide import Decision, decide
from kvsecure.access.grants import Grants
from kvsecure.core.accounts import ROOT, Tenant
from kvsecure.core.comparison import COMPARISON_FORM, is_long, mark_in_steps
from kvsecure.core.declaring import DECLARATIONS
from kvsecure.core.mvcc.retention import Policy
from kvsecure.core.mvcc.space import Space
from kvsecure.core.state import State
from kvsecure.model.answer import Answer, answer
from kvsecure.model.burst import PutBurst, PutTxn
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import LeaseId, TenantId
from kvsecure.model.keys import Span
from kvsecure.model.limits import RETENTION_POLICIES_MAX
from kvsecure.proto import (
    auth_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
)
from kvsecure.proto.encode import bytes_field, varint_field

__all__ = ["LeaseFacts", "apply", "grants_for", "holds_put", "tenant_view"]

# What a command comes to whose work is cut into steps: it has come to it with the last one.
type_steps = Generator[None, None, Answer]

_ALARMS: Final = frozenset({maintenance_pb2.NOSPACE, maintenance_pb2.CORRUPT})


@final
class LeaseFacts:
    """The law's view of a tenant's leases."""

    __slots__ = ("_space",)

    def __init__(self, space: Space) -> None:
        self._space = space

    def lease_keys(self, lease: int) -> Collection[bytes]:
        """Return the keys attached to a lease."""
        return self._space.leases.keys_of(lease)

    def lease_reach(self, lease: int) -> Span | None:
        """Return a span in which all of them lie, or None if there is none."""
        return self._space.leases.reach_of(lease)

    def leases(self) -> Iterable[int]:
        """Return all leases."""
        return self._space.leases.by_expiry()


def apply(
    state: State, caller: Caller, command: Message | PutBurst | PutTxn, now_ns: int
) -> Answer | type_steps:
    """Carry out a command, or what is long of it in steps.

    Args:
        state: Changed in place.
        caller: From the log entry.
        command: From the log entry.
        now_ns: Monotonic time, for the deadlines of leases, which are this member's own.

    Returns:
        What it came to, or steps to it: until the last one no other command may be applied, what is
        in the state beside key ranges may be half done, and nothing of it may be stored.

    Raises:
        Refused: The command cannot be carried out; the state is as it was.
    """
    tenant = state.accounts.tenant(caller.tenant)
    if tenant is None:
        # It was deleted while the command was on its way.
        raise Refused(Failure.PERMISSION_DENIED)
    if caller.origin is not Origin.SYSTEM:
        _decide_again(state, tenant, caller, command)
    if type(command) is PutBurst and not state.alarms:
        # By far the most frequent one: spared the context (0.5 us each).
        state.store.put_each(state.store.space(caller.tenant), command)
        return answer((state.store.revision, b""))
    if type(command) is PutTxn and not state.alarms:
        body = state.store.put_together(state.store.space(caller.tenant), command)
        return answer((state.store.revision, body))
    return _COMMANDS[type(command)](_Context(state, caller.tenant, now_ns), command)


def grants_for(tenant: Tenant, caller: Caller) -> Grants | None:
    """Return what a caller may do now, or None if it is nobody any more."""
    if caller.origin is Origin.ANYBODY:
        return None if tenant.record.auth_enabled else tenant.open_grants()
    return tenant.grants_of(caller.user)


def _decide_again(
    state: State, tenant: Tenant, caller: Caller, command: Message | PutBurst | PutTxn
) -> None:
    """Decide on the state that the command runs against, if accounts moved since the gate did."""
    if tenant.law_revision == caller.law_revision and not _attaches(command):
        return
    grants = grants_for(tenant, caller)
    facts = LeaseFacts(state.store.space(tenant.id))
    if grants is None or decide(grants, command, facts) is not Decision.ALLOW:
        raise Refused(Failure.PERMISSION_DENIED)


def _attaches(command: Message | PutBurst | PutTxn) -> bool:
    """Tell whether a decision rests on which keys a lease has, which moves with every put."""
    if type(command) is PutBurst or type(command) is PutTxn:
        return False
    if isinstance(command, kv_pb2.PutRequest):
        return bool(command.lease)
    if isinstance(command, kv_pb2.TxnRequest):
        return _attaches_within(command)
    return isinstance(command, lease_pb2.LeaseRevokeRequest)


def _attaches_within(txn: kv_pb2.TxnRequest) -> bool:
    """Tell whether any put of a transaction, on any path and at any depth, names a lease."""
    return any(
        operation.request_put.lease
        or (operation.HasField("request_txn") and _attaches_within(operation.request_txn))
        for branch in (txn.success, txn.failure)
        for operation in branch
    )


@final
class _Context:
    """What a command works on."""

    __slots__ = ("now_ns", "state", "tenant_id")

    def __init__(self, state: State, tenant_id: TenantId, now_ns: int) -> None:
        self.state = state
        self.tenant_id = tenant_id
        self.now_ns = now_ns

    @property
    def space(self) -> Space:
        return self.state.store.space(self.tenant_id)

    @property
    def tenant(self) -> Tenant:
        tenant = self.state.accounts.tenant(self.tenant_id)
        if tenant is None:
            raise Refused(Failure.TENANT_NOT_FOUND)
        return tenant

    def answer(self, body: bytes = b"") -> Answer:
        return Answer(self.state.store.revision, body)

    def refuse_growth(self) -> None:
        if self.state.is_raised(maintenance_pb2.NOSPACE):
            raise Refused(Failure.NO_SPACE)

    def refuse_corrupt(self) -> None:
        if self.state.is_raised(maintenance_pb2.CORRUPT):
            raise Refused(Failure.CORRUPT)


# --- keys ---------------------------------------------------------------------------------------


def _put(context: _Context, command: kv_pb2.PutRequest) -> Answer:
    context.refuse_corrupt()
    context.refuse_growth()
    return context.answer(context.state.store.put(context.space, command))


def _put_burst(context: _Context, command: PutBurst) -> Answer:
    context.refuse_corrupt()
    context.refuse_growth()
    context.state.store.put_each(context.space, command)
    return context.answer()


def _put_txn(context: _Context, command: PutTxn) -> Answer:
    context.refuse_corrupt()
    context.refuse_growth()
    return context.answer(context.state.store.put_together(context.space, command))


def _delete_range(context: _Context, command: kv_pb2.DeleteRangeRequest) -> Answer | type_steps:
    context.refuse_corrupt()
    store, space = context.state.store, context.space
    if store.is_long(space, command):
        return _answered(context, store.delete_in_steps(space, command))
    return context.answer(store.delete(space, command))


def _answered(context: _Context, steps: Generator[None, None, bytes | None]) -> type_steps:
    body = yield from steps
    return context.answer(body or b"")


def _txn(context: _Context, command: kv_pb2.TxnRequest) -> Answer:
    context.refuse_corrupt()
    if holds_put(command):
        context.refuse_growth()
    return context.answer(context.state.store.transact(context.space, command))


def holds_put(txn: kv_pb2.TxnRequest) -> bool:
    """Tell whether any path of a transaction writes a value."""
    for operation in (*txn.success, *txn.failure):
        kind = operation.WhichOneof("request")
        if kind == "request_put" or (kind == "request_txn" and holds_put(operation.request_txn)):
            return True
    return False


def _compact(context: _Context, command: kv_pb2.CompactionRequest) -> Answer:
    context.refuse_corrupt()
    context.state.store.compact(command.revision)
    context.state.hub.compacted = command.revision
    return context.answer()


def _clock(context: _Context, command: state_pb2.Clock) -> Answer:
    store = context.state.store
    store.timeline.stamp(command.time_s, store.revision + 1)
    return context.answer()


def _retention_set(context: _Context, command: version_pb2.RetentionSetRequest) -> Answer:
    context.refuse_corrupt()
    retention = context.space.retention
    prefix = command.prefix
    if prefix not in retention and len(retention) >= RETENTION_POLICIES_MAX:
        raise Refused(Failure.RETENTION_REJECTED, f"there are {len(retention)} policies already")
    retention[prefix] = Policy(command.keep_versions, command.keep_for_s)
    context.state.touch_retention(context.space)
    return context.answer()


def _retention_delete(context: _Context, command: version_pb2.RetentionDeleteRequest) -> Answer:
    context.refuse_corrupt()
    if context.space.retention.pop(command.prefix, None) is None:
        raise Refused(Failure.RETENTION_NOT_FOUND)
    context.state.touch_retention(context.space)
    return context.answer()


def _destroy(context: _Context, command: version_pb2.DestroyRequest) -> Answer:
    context.refuse_corrupt()
    is_deleted = context.state.store.destroy(context.space, command.key)
    return context.answer(varint_field(b"\x10", is_deleted))


# --- leases -------------------------------------------------------------------------------------


def _lease_grant(context: _Context, command: lease_pb2.LeaseGrantRequest) -> Answer:
    context.refuse_corrupt()
    context.refuse_growth()
    leases = context.space.leases
    lease = LeaseId(command.ID)
    if lease in leases:
        raise Refused(Failure.LEASE_EXISTS)
    leases.grant(lease, command.TTL, context.now_ns)
    context.state.touch_lease(context.tenant_id, lease, command.TTL, 0)
    return context.answer(varint_field(b"\x10", command.ID) + varint_field(b"\x18", command.TTL))


def _lease_revoke(context: _Context, command: lease_pb2.LeaseRevokeRequest) -> Answer | type_steps:
    context.refuse_corrupt()
    leases = context.space.leases
    lease = LeaseId(command.ID)
    if lease not in leases:
        raise Refused(Failure.LEASE_NOT_FOUND)
    keys = leases.revoke(lease)
    context.state.forget_lease(context.tenant_id, lease)
    store = context.state.store
    if len(keys) > store.deleted_at_once:
        return _answered(context, store.delete_keys_in_steps(context.space, keys))
    store.delete_keys(context.space, keys)
    return context.answer()


def _lease_checkpoint(context: _Context, command: lease_pb2.LeaseCheckpointRequest) -> Answer:
    leases = context.space.leases
    for each in command.checkpoints:
        lease = LeaseId(each.ID)
        ttl_s = leases.checkpoint(lease, each.remaining_TTL)
        # It may have been revoked meanwhile.
        if ttl_s:
            remaining_s = leases.remaining_s(lease)
            context.state.touch_lease(context.tenant_id, lease, ttl_s, remaining_s)
    return context.answer()


# --- users and roles ----------------------------------------------------------------------------


def _auth_enable(context: _Context, _: auth_pb2.AuthEnableRequest) -> Answer:
    if context.state.accounts.enable(context.tenant):
        context.state.touch_tenant(context.tenant)
    return context.answer()


def _auth_disable(context: _Context, _: auth_pb2.AuthDisableRequest) -> Answer:
    if context.state.accounts.disable(context.tenant):
        context.state.touch_tenant(context.tenant)
    return context.answer()


def _user_add(context: _Context, command: auth_pb2.AuthUserAddRequest) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.add_user(
        tenant,
        command.name,
        command.hashedPassword,
        no_password=command.options.no_password,
    )
    state.touch_user(tenant, tenant.users[command.name])
    state.touch_tenant(tenant)
    return context.answer()


def _user_delete(context: _Context, command: auth_pb2.AuthUserDeleteRequest) -> Answer:
    state, tenant = context.state, context.tenant
    state.touch_user(tenant, state.accounts.delete_user(tenant, command.name), gone=True)
    state.touch_tenant(tenant)
    return context.answer()


def _user_change_password(
    context: _Context, command: auth_pb2.AuthUserChangePasswordRequest
) -> Answer:
    state, tenant = context.state, context.tenant
    user = state.accounts.change_password(tenant, command.name, command.hashedPassword)
    state.touch_user(tenant, user)
    state.touch_tenant(tenant)
    return context.answer()


def _verifier_upgrade(context: _Context, command: state_pb2.VerifierUpgrade) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.upgrade_verifier(tenant, command.user, command.old_hash, command.new_hash)
    if command.user in tenant.users:
        state.touch_user(tenant, tenant.users[command.user])
    return context.answer()


def _user_grant_role(context: _Context, command: auth_pb2.AuthUserGrantRoleRequest) -> Answer:
    state, tenant = context.state, context.tenant
    if state.accounts.grant_role(tenant, command.user, command.role):
        state.touch_user(tenant, tenant.users[command.user])
        state.touch_tenant(tenant)
    return context.answer()


def _user_revoke_role(context: _Context, command: auth_pb2.AuthUserRevokeRoleRequest) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.revoke_role(tenant, command.name, command.role)
    state.touch_user(tenant, tenant.users[command.name])
    state.touch_tenant(tenant)
    return context.answer()


def _role_add(context: _Context, command: auth_pb2.AuthRoleAddRequest) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.add_role(tenant, command.name)
    state.touch_role(tenant, tenant.roles[command.name])
    state.touch_tenant(tenant)
    return context.answer()


def _role_delete(context: _Context, command: auth_pb2.AuthRoleDeleteRequest) -> Answer:
    state, tenant = context.state, context.tenant
    role, holders = state.accounts.delete_role(tenant, command.role)
    state.touch_role(tenant, role, gone=True)
    for holder in holders:
        state.touch_user(tenant, holder)
    state.touch_tenant(tenant)
    return context.answer()


def _role_grant_permission(
    context: _Context, command: auth_pb2.AuthRoleGrantPermissionRequest
) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.grant_permission(tenant, command.name, command.perm)
    state.touch_role(tenant, tenant.roles[command.name])
    state.touch_tenant(tenant)
    return context.answer()


def _role_revoke_permission(
    context: _Context, command: auth_pb2.AuthRoleRevokePermissionRequest
) -> Answer:
    state, tenant = context.state, context.tenant
    state.accounts.revoke_permission(tenant, command.role, command.key, command.range_end)
    state.touch_role(tenant, tenant.roles[command.role])
    state.touch_tenant(tenant)
    return context.answer()


# --- the cluster --------------------------------------------------------------------------------


def _alarm(context: _Context, command: maintenance_pb2.AlarmRequest) -> Answer:
    state = context.state
    alarm = (command.memberID, int(command.alarm))
    raises = command.action == maintenance_pb2.AlarmRequest.ACTIVATE
    clears = command.action == maintenance_pb2.AlarmRequest.DEACTIVATE and alarm in state.alarms
    # An alarm that there is not cannot be raised: nobody could show it, or clear it by name.
    if command.alarm not in _ALARMS or not (raises or clears):
        return context.answer()
    if raises:
        state.alarms.add(alarm)
    else:
        state.alarms.discard(alarm)
    state.touch_alarm(*alarm, raised=raises)
    member = maintenance_pb2.AlarmMember(memberID=command.memberID, alarm=command.alarm)
    return context.answer(bytes_field(b"\x12", member.SerializeToString()))


def _compare(context: _Context, command: state_pb2.Compare) -> Answer | type_steps:
    if command.form != COMPARISON_FORM:
        # A member of another version compares something else.
        context.state.mark = None
        return context.answer()
    steps = _marked(context)
    if is_long(context.state):
        return steps
    try:
        while True:
            next(steps)
    except StopIteration as end:
        done: Answer = end.value
        return done


def _marked(context: _Context) -> type_steps:
    context.state.mark = yield from mark_in_steps(context.state)
    return context.answer()


def _tenant_add(context: _Context, command: tenant_pb2.TenantAddRequest) -> Answer:
    state = context.state
    tenant = state.accounts.add_tenant(command.name)
    state.store.add_space(tenant.id)
    state.accounts.add_user(
        tenant, ROOT, command.root_hashed_password, no_password=command.root_no_password
    )
    state.accounts.grant_role(tenant, ROOT, ROOT)
    state.touch_tenant(tenant)
    state.touch_user(tenant, tenant.users[ROOT])
    body = tenant_view(state, tenant).SerializeToString()
    return context.answer(bytes_field(b"\x12", body))


def _tenant_delete(context: _Context, command: tenant_pb2.TenantDeleteRequest) -> Answer:
    state = context.state
    tenant = state.accounts.drop_tenant(command.name)
    state.forget_tenant(tenant)
    for watcher in state.hub.watchers_of(state.store.space(tenant.id)):
        watcher.wake(watcher)
    state.store.drop_space(tenant.id)
    return context.answer()


def _declared(declare: Callable[[State, Any], bytes]) -> Callable[[_Context, Any], Answer]:
    def carry_out(context: _Context, command: Message) -> Answer:
        return context.answer(declare(context.state, command))

    return carry_out


def tenant_view(state: State, tenant: Tenant) -> tenant_pb2.Tenant:
    """Describe a tenant to a cluster administrator: counts, and none of its names."""
    return tenant_pb2.Tenant(
        id=tenant.id,
        name=tenant.name,
        key_count=len(state.store.space(tenant.id).index.live),
        user_count=len(tenant.users),
        auth_revision=tenant.auth_revision,
    )


_COMMANDS: Final[Mapping[type, Callable[[_Context, Any], Answer | type_steps]]] = MappingProxyType(
    {
        PutBurst: _put_burst,
        PutTxn: _put_txn,
        kv_pb2.PutRequest: _put,
        kv_pb2.DeleteRangeRequest: _delete_range,
        kv_pb2.TxnRequest: _txn,
        kv_pb2.CompactionRequest: _compact,
        state_pb2.Clock: _clock,
        version_pb2.RetentionSetRequest: _retention_set,
        version_pb2.RetentionDeleteRequest: _retention_delete,
        version_pb2.DestroyRequest: _destroy,
        lease_pb2.LeaseGrantRequest: _lease_grant,
        lease_pb2.LeaseRevokeRequest: _lease_revoke,
        lease_pb2.LeaseCheckpointRequest: _lease_checkpoint,
        auth_pb2.AuthEnableRequest: _auth_enable,
        auth_pb2.AuthDisableRequest: _auth_disable,
        auth_pb2.AuthUserAddRequest: _user_add,
        auth_pb2.AuthUserDeleteRequest: _user_delete,
        auth_pb2.AuthUserChangePasswordRequest: _user_change_password,
        auth_pb2.AuthUserGrantRoleRequest: _user_grant_role,
        auth_pb2.AuthUserRevokeRoleRequest: _user_revoke_role,
        auth_pb2.AuthRoleAddRequest: _role_add,
        auth_pb2.AuthRoleDeleteRequest: _role_delete,
        auth_pb2.AuthRoleGrantPermissionRequest: _role_grant_permission,
        auth_pb2.AuthRoleRevokePermissionRequest: _role_revoke_permission,
        state_pb2.VerifierUpgrade: _verifier_upgrade,
        maintenance_pb2.AlarmRequest: _alarm,
        state_pb2.Compare: _compare,
        tenant_pb2.TenantAddRequest: _tenant_add,
        tenant_pb2.TenantDeleteRequest: _tenant_delete,
        **{command: _declared(declare) for command, declare in DECLARATIONS.items()},
    }
)

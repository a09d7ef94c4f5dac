"""The law: one function decides every request, and a request nobody thought of does not pass.

Owns: for every request message, what each of its fields asks for, and the decision.
Never: looks anything up but through `Facts`; never waits, never changes anything.
Follows: etcd-surface section 3.5 for what needs what; differs where etcd forgot (nested operations,
    previous values, leases attached inside transactions: CVE-2026-33343, CVE-2026-44283).
Keeps: `RULES` names every field of every request, and `PARTS` every field of the messages that are
    only ever part of one; `check_total` refuses to start a member whose messages have a field or a
    method that neither mentions.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from google.protobuf.message import Message

from kvsecure.access.grants import Grants, Intervals
from kvsecure.access.queues import asked_of_keys
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.errors import invariant
from kvsecure.model.keys import FROM_KEY, Span, span_of
from kvsecure.model.limits import TXN_DEPTH_MAX
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    cluster_pb2,
    crypto_pb2,
    election_pb2,
    health_pb2,
    joining_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    reflection_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
    watch_pb2,
)

__all__ = [
    "PARTS",
    "RULES",
    "Decision",
    "Facts",
    "Meaning",
    "Rule",
    "check_total",
    "decide",
    "is_open",
]


class Decision(Enum):
    """What the law says."""

    ALLOW = "allow"
    # The keys are not all covered by the caller's roles.
    DENY_KEYS = "deny-keys"
    # Only the tenant's root may.
    DENY_NOT_ADMIN = "deny-not-admin"
    # Only a root of the cluster may.
    DENY_NOT_CLUSTER_ADMIN = "deny-not-cluster-admin"
    # No rule knows the request.
    DENY_UNKNOWN = "deny-unknown"


class Facts(Protocol):
    """What the law needs to know of the state, for the caller's own tenant."""

    def lease_keys(self, lease: int) -> Collection[bytes]:
        """Return the keys attached to a lease."""
        ...

    def lease_reach(self, lease: int) -> Span | None:
        """Return a span in which all keys attached to a lease lie, or None if there is none."""
        ...

    def leases(self) -> Iterable[int]:
        """Return all leases."""
        ...


class Meaning(Enum):
    """What a field of a request asks for."""

    # Part of the keys that are read, written or compared.
    KEYS = "keys"
    # Asks for what was there before: reading.
    PREVIOUS = "previous"
    # A lease, whose keys would be bound to the outcome.
    LEASE = "lease"
    # Names a user, role or tenant: decided by who may change or see it.
    SUBJECT = "subject"
    # A nested request with rules of its own.
    NESTED = "nested"
    # A value that is stored or compared; never shown in the audit trail.
    VALUE = "value"
    # A password or something as good as one; never shown, never stored as it is.
    SECRET = "secret"  # noqa: S105 - the name of a kind, not a secret
    # Changes how an answer looks or when it comes, not what it is about.
    OPTION = "option"


type_check = Callable[[Grants, Any, Facts], Decision]


class Rule(NamedTuple):
    """What a request's fields mean, and who may make it."""

    check: type_check
    fields: Mapping[str, Meaning]
    # Strangers may make it: it says nothing about anybody.
    open: bool = False


def decide(
    grants: Grants, request: Message | GetBurst | PutBurst | PutTxn, facts: Facts
) -> Decision:
    """Say whether a caller with these grants may make this request.

    Args:
        grants: The caller's, compiled from the state that the request runs against.
        request: A whole request message, or a burst: that is allowed if each of its requests is.
        facts: That same state, of the caller's tenant.
    """
    check = _CHECKS.get(type(request))
    if check is None:
        return Decision.DENY_UNKNOWN
    return check(grants, request, facts)


def is_open(request: Message) -> bool:
    """Tell whether a request may be made without any identity."""
    rule = RULES.get(type(request))
    return rule is not None and rule.open


def check_total(requests: Iterable[type[Message]]) -> None:
    """Refuse to start unless the law mentions every field of these requests, nested ones included.

    Raises:
        Broken: A message or a field of one has no rule.
    """
    rules = {request.DESCRIPTOR.full_name: rule.fields for request, rule in RULES.items()}
    parts = {part.DESCRIPTOR.full_name: fields for part, fields in PARTS.items()}
    waiting = [(request.DESCRIPTOR, rules) for request in requests]
    seen: set[str] = set()
    while waiting:
        descriptor, table = waiting.pop()
        name = descriptor.full_name
        if name in seen:
            continue
        seen.add(name)
        fields = table.get(name)
        invariant(fields is not None, f"the law does not know {name}")
        assert fields is not None  # noqa: S101 - narrows the type; the invariant has checked it
        named = {field.name for field in descriptor.fields}
        invariant(
            named == set(fields), f"the law and {name} differ in {sorted(named ^ set(fields))}"
        )
        for field in descriptor.fields:
            if field.message_type is not None:
                # What is nested is decided by itself; any other message is a part of this one.
                is_nested = fields[field.name] is Meaning.NESTED
                waiting.append((field.message_type, rules if is_nested else parts))


# --- who may ------------------------------------------------------------------------------------


def _anybody(_grants: Grants, _request: Message, _facts: Facts) -> Decision:
    return Decision.ALLOW


def _admin(grants: Grants, _request: Message, _facts: Facts) -> Decision:
    return Decision.ALLOW if grants.admin else Decision.DENY_NOT_ADMIN


def _cluster_admin(grants: Grants, _request: Message, _facts: Facts) -> Decision:
    return Decision.ALLOW if grants.cluster_admin else Decision.DENY_NOT_CLUSTER_ADMIN


def _nobody(_grants: Grants, _request: Message, _facts: Facts) -> Decision:
    return Decision.DENY_UNKNOWN


def _self_or_admin(grants: Grants, request: auth_pb2.AuthUserGetRequest, _: Facts) -> Decision:
    if grants.admin or request.name == grants.user:
        return Decision.ALLOW
    return Decision.DENY_NOT_ADMIN


def _holder_or_admin(grants: Grants, request: auth_pb2.AuthRoleGetRequest, _: Facts) -> Decision:
    if grants.admin or request.role in grants.roles:
        return Decision.ALLOW
    return Decision.DENY_NOT_ADMIN


def _alarm(grants: Grants, request: maintenance_pb2.AlarmRequest, _: Facts) -> Decision:
    if request.action == maintenance_pb2.AlarmRequest.GET or grants.cluster_admin:
        return Decision.ALLOW
    return Decision.DENY_NOT_CLUSTER_ADMIN


# --- keys ---------------------------------------------------------------------------------------


def _keys(allowed: bool) -> Decision:  # noqa: FBT001 - it turns a yes or no into a decision
    return Decision.ALLOW if allowed else Decision.DENY_KEYS


def _range(grants: Grants, request: kv_pb2.RangeRequest, _: Facts) -> Decision:
    if grants.admin:
        return Decision.ALLOW
    return _keys(_may_read(grants, request.key, request.range_end))


def _put(grants: Grants, request: kv_pb2.PutRequest, facts: Facts) -> Decision:
    if grants.admin:
        return Decision.ALLOW
    key = request.key
    if not grants.write.cover_key(key):
        return Decision.DENY_KEYS
    if request.prev_kv and not grants.read.cover_key(key):
        return Decision.DENY_KEYS
    return _keys(not request.lease or _covers_lease(grants.write, request.lease, facts))


def _get_burst(grants: Grants, burst: GetBurst, _: Facts) -> Decision:
    return _keys(grants.admin or grants.read.cover_keys(burst.keys))


def _plain_puts(grants: Grants, burst: PutBurst | PutTxn, _: Facts) -> Decision:
    return _keys(grants.admin or grants.write.cover_keys([key for key, _ in burst.puts]))


def _delete_range(grants: Grants, request: kv_pb2.DeleteRangeRequest, _: Facts) -> Decision:
    if grants.admin:
        return Decision.ALLOW
    span = span_of(request.key, request.range_end)
    return _keys(grants.write.cover(span) and not (request.prev_kv and not grants.read.cover(span)))


def _compare(grants: Grants, request: kv_pb2.Compare, _: Facts) -> Decision:
    if grants.admin:
        return Decision.ALLOW
    return _keys(_may_read(grants, request.key, request.range_end))


def _operation(grants: Grants, request: kv_pb2.RequestOp, facts: Facts) -> Decision:
    chosen = request.WhichOneof("request")
    # An operation without a request asks for nothing; its shape is refused elsewhere.
    return decide(grants, getattr(request, chosen), facts) if chosen else Decision.ALLOW


def _txn(grants: Grants, request: kv_pb2.TxnRequest, facts: Facts) -> Decision:
    """Decide every comparison and every operation of both branches, at every depth."""
    waiting = [(request, 1)]
    while waiting:
        txn, depth = waiting.pop()
        if depth > TXN_DEPTH_MAX:
            return Decision.DENY_UNKNOWN
        for compare in txn.compare:
            if (decision := decide(grants, compare, facts)) is not Decision.ALLOW:
                return decision
        for branch in (txn.success, txn.failure):
            for operation in branch:
                if operation.WhichOneof("request") == "request_txn":
                    waiting.append((operation.request_txn, depth + 1))
                elif (decision := _operation(grants, operation, facts)) is not Decision.ALLOW:
                    return decision
    return Decision.ALLOW


def _watch_create(grants: Grants, request: watch_pb2.WatchCreateRequest, _: Facts) -> Decision:
    """Decide a watch on the range as it was sent (GHSA-xg4h-6gfc-h4m8 came of rewriting first)."""
    if grants.admin:
        return Decision.ALLOW
    # An empty key stands for the first possible one (etcd rewrites it so).
    return _keys(_may_read(grants, request.key or FROM_KEY, request.range_end))


def _lease_write(
    grants: Grants,
    request: lease_pb2.LeaseRevokeRequest | lease_pb2.LeaseKeepAliveRequest,
    facts: Facts,
) -> Decision:
    return _keys(grants.admin or _covers_lease(grants.write, request.ID, facts))


def _lease_read(
    grants: Grants, request: lease_pb2.LeaseTimeToLiveRequest, facts: Facts
) -> Decision:
    if grants.admin or not request.keys:
        return Decision.ALLOW
    return _keys(_covers_lease(grants.read, request.ID, facts))


def _lease_list(grants: Grants, _: lease_pb2.LeaseLeasesRequest, facts: Facts) -> Decision:
    return _keys(
        grants.admin or all(_covers_lease(grants.read, lease, facts) for lease in facts.leases())
    )


def _history(grants: Grants, request: version_pb2.HistoryRequest, _: Facts) -> Decision:
    return _keys(grants.admin or grants.read.cover_key(request.key))


def _queue(grants: Grants, request: Message, facts: Facts) -> Decision:
    """Decide a call of a lock or an election by what it asks of the keys."""
    for asked in asked_of_keys(request):
        if (decision := decide(grants, asked, facts)) is not Decision.ALLOW:
            return decision
    return Decision.ALLOW


def _may_read(grants: Grants, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return grants.read.cover_key(key)
    return grants.read.cover(span_of(key, range_end))


def _covers_lease(intervals: Intervals, lease: int, facts: Facts) -> bool:
    """Tell whether all keys of a lease are covered; it may have very many, close to each other."""
    reach = facts.lease_reach(lease)
    if reach is None or intervals.cover(reach):
        return True
    return intervals.cover_keys(facts.lease_keys(lease))


# --- the table ----------------------------------------------------------------------------------

_K, _P, _L, _S = Meaning.KEYS, Meaning.PREVIOUS, Meaning.LEASE, Meaning.SUBJECT
_N, _V, _O, _X = Meaning.NESTED, Meaning.VALUE, Meaning.OPTION, Meaning.SECRET

RULES: Final[Mapping[type[Message], Rule]] = MappingProxyType(
    {
        # keys
        kv_pb2.RangeRequest: Rule(
            _range,
            {
                "key": _K,
                "range_end": _K,
                "limit": _O,
                "revision": _O,
                "sort_order": _O,
                "sort_target": _O,
                "serializable": _O,
                "keys_only": _O,
                "count_only": _O,
                "min_mod_revision": _O,
                "max_mod_revision": _O,
                "min_create_revision": _O,
                "max_create_revision": _O,
            },
        ),
        kv_pb2.PutRequest: Rule(
            _put,
            {
                "key": _K,
                "value": _V,
                "lease": _L,
                "prev_kv": _P,
                "ignore_value": _O,
                "ignore_lease": _O,
            },
        ),
        kv_pb2.DeleteRangeRequest: Rule(_delete_range, {"key": _K, "range_end": _K, "prev_kv": _P}),
        kv_pb2.Compare: Rule(
            _compare,
            {
                "result": _O,
                "target": _O,
                "key": _K,
                "range_end": _K,
                "version": _O,
                "create_revision": _O,
                "mod_revision": _O,
                "value": _V,
                "lease": _O,
            },
        ),
        kv_pb2.RequestOp: Rule(
            _operation,
            {
                "request_range": _N,
                "request_put": _N,
                "request_delete_range": _N,
                "request_txn": _N,
            },
        ),
        kv_pb2.TxnRequest: Rule(_txn, {"compare": _N, "success": _N, "failure": _N}),
        # Compaction forgets the past of every tenant.
        kv_pb2.CompactionRequest: Rule(_cluster_admin, {"revision": _O, "physical": _O}),
        # versions
        version_pb2.HistoryRequest: Rule(
            _history, {"key": _K, "limit": _O, "before_revision": _O, "keys_only": _O}
        ),
        version_pb2.RetentionSetRequest: Rule(
            _admin, {"prefix": _K, "keep_versions": _O, "keep_for_s": _O}
        ),
        version_pb2.RetentionListRequest: Rule(_admin, {}),
        version_pb2.RetentionDeleteRequest: Rule(_admin, {"prefix": _K}),
        # Nobody can undo it, and it goes past every policy.
        version_pb2.DestroyRequest: Rule(_admin, {"key": _K}),
        version_pb2.DestroyStatusRequest: Rule(_admin, {}),
        # Every answer tells the revision that there is; this one tells those that were.
        version_pb2.RevisionAtRequest: Rule(_anybody, {"time_s": _O}),
        # watches
        watch_pb2.WatchRequest: Rule(
            _nobody, {"create_request": _N, "cancel_request": _N, "progress_request": _N}
        ),
        watch_pb2.WatchCreateRequest: Rule(
            _watch_create,
            {
                "key": _K,
                "range_end": _K,
                "start_revision": _O,
                "progress_notify": _O,
                "filters": _O,
                "prev_kv": _P,
                "watch_id": _O,
                "fragment": _O,
            },
        ),
        watch_pb2.WatchCancelRequest: Rule(_anybody, {"watch_id": _O}),
        watch_pb2.WatchProgressRequest: Rule(_anybody, {}),
        # leases
        lease_pb2.LeaseGrantRequest: Rule(_anybody, {"TTL": _O, "ID": _O}),
        lease_pb2.LeaseRevokeRequest: Rule(_lease_write, {"ID": _L}),
        lease_pb2.LeaseKeepAliveRequest: Rule(_lease_write, {"ID": _L}),
        lease_pb2.LeaseTimeToLiveRequest: Rule(_lease_read, {"ID": _L, "keys": _P}),
        lease_pb2.LeaseLeasesRequest: Rule(_lease_list, {}),
        # Of the member itself; nobody can send it.
        lease_pb2.LeaseCheckpointRequest: Rule(_nobody, {"checkpoints": _O}),
        # locks and elections
        lock_pb2.LockRequest: Rule(_queue, {"name": _K, "lease": _L}),
        lock_pb2.UnlockRequest: Rule(_queue, {"key": _K}),
        election_pb2.CampaignRequest: Rule(_queue, {"name": _K, "lease": _L, "value": _V}),
        election_pb2.ProclaimRequest: Rule(_queue, {"leader": _K, "value": _V}),
        election_pb2.LeaderRequest: Rule(_queue, {"name": _K}),
        election_pb2.ResignRequest: Rule(_queue, {"leader": _K}),
        # users and roles
        auth_pb2.AuthEnableRequest: Rule(_admin, {}),
        auth_pb2.AuthDisableRequest: Rule(_admin, {}),
        auth_pb2.AuthStatusRequest: Rule(_anybody, {}, open=True),
        auth_pb2.AuthenticateRequest: Rule(_anybody, {"name": _S, "password": _X}, open=True),
        auth_pb2.AuthUserAddRequest: Rule(
            _admin, {"name": _S, "password": _X, "options": _O, "hashedPassword": _X}
        ),
        auth_pb2.AuthUserGetRequest: Rule(_self_or_admin, {"name": _S}),
        auth_pb2.AuthUserListRequest: Rule(_admin, {}),
        auth_pb2.AuthUserDeleteRequest: Rule(_admin, {"name": _S}),
        auth_pb2.AuthUserChangePasswordRequest: Rule(
            _admin, {"name": _S, "password": _X, "hashedPassword": _X}
        ),
        auth_pb2.AuthUserGrantRoleRequest: Rule(_admin, {"user": _S, "role": _S}),
        auth_pb2.AuthUserRevokeRoleRequest: Rule(_admin, {"name": _S, "role": _S}),
        auth_pb2.AuthRoleAddRequest: Rule(_admin, {"name": _S}),
        auth_pb2.AuthRoleGetRequest: Rule(_holder_or_admin, {"role": _S}),
        auth_pb2.AuthRoleListRequest: Rule(_admin, {}),
        auth_pb2.AuthRoleDeleteRequest: Rule(_admin, {"role": _S}),
        auth_pb2.AuthRoleGrantPermissionRequest: Rule(_admin, {"name": _S, "perm": _K}),
        auth_pb2.AuthRoleRevokePermissionRequest: Rule(
            _admin, {"role": _S, "key": _K, "range_end": _K}
        ),
        # What the log has of a burst; nobody can send it.
        state_pb2.PutBurst: Rule(_nobody, {"puts": _N}),
        # Of whoever proposes; nobody can send it.
        state_pb2.Clock: Rule(_nobody, {"time_s": _O}),
        # Of the member itself, after a log-in; nobody can send it.
        state_pb2.VerifierUpgrade: Rule(_nobody, {"user": _S, "old_hash": _X, "new_hash": _X}),
        # Of the member itself; nobody can send it.
        state_pb2.Compare: Rule(_nobody, {"form": _O}),
        state_pb2.MemberPublish: Rule(_nobody, {"id": _O, "name": _O, "client_urls": _O}),
        state_pb2.SigningKeyAdd: Rule(_nobody, {"member_id": _O, "public_key": _O}),
        state_pb2.AuditHeadTell: Rule(
            _nobody, {"member_id": _O, "seq": _O, "hash": _O, "signature": _O, "time_s": _O}
        ),
        state_pb2.AuditHeadMiss: Rule(_nobody, {"member_id": _O, "seq": _O}),
        # the cluster
        cluster_pb2.MemberListRequest: Rule(_anybody, {"linearizable": _O}),
        cluster_pb2.MemberAddRequest: Rule(_cluster_admin, {"peerURLs": _O, "isLearner": _O}),
        cluster_pb2.MemberRemoveRequest: Rule(_cluster_admin, {"ID": _O}),
        cluster_pb2.MemberUpdateRequest: Rule(_cluster_admin, {"ID": _O, "peerURLs": _O}),
        cluster_pb2.MemberPromoteRequest: Rule(_cluster_admin, {"ID": _O}),
        # What the log has of them; nobody can send it.
        state_pb2.MemberAdd: Rule(_cluster_admin, {"member": _O, "learners_max": _O}),
        state_pb2.MemberRemove: Rule(_cluster_admin, {"id": _O}),
        state_pb2.MemberUpdate: Rule(_cluster_admin, {"id": _O, "peer_urls": _O}),
        state_pb2.MemberPromote: Rule(_cluster_admin, {"id": _O}),
        maintenance_pb2.AlarmRequest: Rule(_alarm, {"action": _O, "memberID": _O, "alarm": _O}),
        maintenance_pb2.StatusRequest: Rule(_anybody, {}),
        # Hashes are of all tenants' keys.
        maintenance_pb2.HashRequest: Rule(_cluster_admin, {}),
        maintenance_pb2.HashKVRequest: Rule(_cluster_admin, {"revision": _O}),
        maintenance_pb2.DefragmentRequest: Rule(_cluster_admin, {}),
        maintenance_pb2.SnapshotRequest: Rule(_cluster_admin, {}),
        maintenance_pb2.MoveLeaderRequest: Rule(_cluster_admin, {"targetID": _O}),
        maintenance_pb2.DowngradeRequest: Rule(_cluster_admin, {"action": _O, "version": _O}),
        health_pb2.HealthCheckRequest: Rule(_anybody, {"service": _O}, open=True),
        # What it tells is in the `.proto` files that everybody has.
        reflection_pb2.ServerReflectionRequest: Rule(
            _anybody,
            {
                "host": _O,
                "file_by_filename": _O,
                "file_containing_symbol": _O,
                "file_containing_extension": _O,
                "all_extension_numbers_of_type": _O,
                "list_services": _O,
            },
            open=True,
        ),
        # tenants and the audit trail
        tenant_pb2.TenantAddRequest: Rule(
            _cluster_admin,
            {
                "name": _S,
                "root_password": _X,
                "root_no_password": _O,
                "root_hashed_password": _X,
            },
        ),
        tenant_pb2.TenantListRequest: Rule(_cluster_admin, {}),
        tenant_pb2.TenantGetRequest: Rule(_cluster_admin, {"name": _S}),
        tenant_pb2.TenantDeleteRequest: Rule(_cluster_admin, {"name": _S}),
        tenant_pb2.AuditHeadRequest: Rule(_cluster_admin, {}),
        tenant_pb2.AuditHeadsRequest: Rule(_cluster_admin, {}),
        tenant_pb2.AuditTailRequest: Rule(_cluster_admin, {"count": _O, "follow": _O}),
        # keys
        crypto_pb2.CryptoStatusRequest: Rule(_cluster_admin, {"count": _O}),
        crypto_pb2.CryptoRotateRequest: Rule(_cluster_admin, {"kek": _O}),
        crypto_pb2.CryptoReencryptRequest: Rule(_cluster_admin, {"rows_per_second": _O}),
        crypto_pb2.CryptoRetireRequest: Rule(_cluster_admin, {"term": _O}),
        # joining
        joining_pb2.JoinTokenAddRequest: Rule(_cluster_admin, {"ttl_s": _O}),
        # Everybody who connects by TLS is told as much.
        joining_pb2.JoinAuthorityRequest: Rule(_anybody, {}, open=True),
        # A newcomer has no account: its token decides, as a password does at a log-in. The keys of
        # its certificates are no secret, and of no use in the trail.
        joining_pb2.JoinRedeemRequest: Rule(
            _anybody,
            {
                "token_id": _S,
                "secret": _X,
                "name": _S,
                "peer_urls": _O,
                "hosts": _O,
                "server_request": _X,
                "peer_request": _X,
            },
            open=True,
        ),
    }
)

# What is only ever part of a request: never asked for by itself, and no less mentioned.
PARTS: Final[Mapping[type[Message], Mapping[str, Meaning]]] = MappingProxyType(
    {
        authstore_pb2.Permission: {"permType": _O, "key": _K, "range_end": _K},
        authstore_pb2.UserAddOptions: {"no_password": _O},
        election_pb2.LeaderKey: {"name": _K, "key": _K, "rev": _O, "lease": _L},
        lease_pb2.LeaseCheckpoint: {"ID": _L, "remaining_TTL": _O},
        state_pb2.Member: {
            "id": _O,
            "name": _O,
            "peer_urls": _O,
            "client_urls": _O,
            "is_learner": _O,
            "is_joining": _O,
        },
        reflection_pb2.ExtensionRequest: {"containing_type": _O, "extension_number": _O},
    }
)

# What `decide` looks up.
_CHECKS: Final[Mapping[type, type_check]] = MappingProxyType(
    {
        **{request: rule.check for request, rule in RULES.items()},
        GetBurst: _get_burst,
        PutBurst: _plain_puts,
        PutTxn: _plain_puts,
    }
)

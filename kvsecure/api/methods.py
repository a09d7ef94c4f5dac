"""Everything that can be called: path -> what it takes, how it is served, how it is answered.

Owns: the one list of methods. What is not in it does not exist.
Never: behaviour.
Follows: etcd-wire.md for paths and messages.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from kvsecure.api import (
    auth,
    cluster,
    crypto,
    election,
    health,
    joining,
    kv,
    lease,
    lock,
    maintenance,
    range_stream,
    reflection,
    snapshot,
    tenants,
    versions,
    watch,
)
from kvsecure.api.learning import is_for_learners, stream_with_vote, with_vote
from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.proto import (
    auth_pb2,
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
    tenant_pb2,
    version_pb2,
    watch_pb2,
)
from kvsecure.security.asking import Asking, PatientAsking

__all__ = ["METHODS", "SERVICES", "Header", "Method", "Shape"]


class Shape(Enum):
    """How many messages go each way; the value is what metrics call it."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


class Header(Enum):
    """What an answer begins with."""

    FULL = 1
    # Answers about the cluster tell no revision (etcd).
    NO_REVISION = 2
    NONE = 3


type_unary = Callable[[Services, PatientAsking, Any, bytes], None]
type_stream = Callable[[Services, StreamCall], Receiver]


class Method(NamedTuple):
    """One method."""

    request: type[Message]
    shape: Shape
    unary: type_unary | None
    stream: type_stream | None
    header: Header


def _unary(request: type[Message], serve: type_unary, header: Header = Header.FULL) -> Method:
    return Method(request, Shape.UNARY, serve, None, header)


def _operate(services: Services, asking: Asking, request: Message, _: bytes) -> None:
    services.gate.operate(asking, request)


def _alarm(
    services: Services, asking: Asking, request: maintenance_pb2.AlarmRequest, content: bytes
) -> None:
    if request.action == maintenance_pb2.AlarmRequest.GET:
        services.gate.read(asking, request, stale=True)
    else:
        services.gate.submit(asking, request, content)


@cache
def _catalogue() -> reflection.Catalogue:
    return reflection.Catalogue(SERVICES)


def _reflect(_: Services, call: StreamCall) -> Receiver:
    return reflection.reflect(call, _catalogue())


_REFLECTION: Final = Method(
    reflection_pb2.ServerReflectionRequest, Shape.BIDI_STREAM, None, _reflect, Header.NONE
)

_KV: Final = "/etcdserverpb.KV/"
_LEASE: Final = "/etcdserverpb.Lease/"
_AUTH: Final = "/etcdserverpb.Auth/"
_CLUSTER: Final = "/etcdserverpb.Cluster/"
_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_LOCK: Final = "/v3lockpb.Lock/"
_ELECTION: Final = "/v3electionpb.Election/"
_TENANTS: Final = "/kvsecurepb.Tenants/"
_CRYPTO: Final = "/kvsecurepb.Crypto/"
_VERSIONS: Final = "/kvsecurepb.Versions/"
_JOINING: Final = "/kvsecurepb.Joining/"

_SERVED: Final[Mapping[str, Method]] = MappingProxyType(
    {
        _KV + "Range": _unary(kv_pb2.RangeRequest, kv.range_),
        _KV + "RangeStream": Method(
            kv_pb2.RangeRequest,
            Shape.SERVER_STREAM,
            None,
            range_stream.range_stream,
            Header.NONE,
        ),
        _KV + "Put": _unary(kv_pb2.PutRequest, kv.put),
        _KV + "DeleteRange": _unary(kv_pb2.DeleteRangeRequest, kv.delete_range),
        _KV + "Txn": _unary(kv_pb2.TxnRequest, kv.txn),
        _KV + "Compact": _unary(kv_pb2.CompactionRequest, kv.compact),
        "/etcdserverpb.Watch/Watch": Method(
            watch_pb2.WatchRequest, Shape.BIDI_STREAM, None, watch.watch, Header.NONE
        ),
        _LEASE + "LeaseGrant": _unary(lease_pb2.LeaseGrantRequest, lease.grant),
        _LEASE + "LeaseRevoke": _unary(lease_pb2.LeaseRevokeRequest, lease.revoke),
        _LEASE + "LeaseTimeToLive": _unary(lease_pb2.LeaseTimeToLiveRequest, lease.time_to_live),
        _LEASE + "LeaseLeases": _unary(lease_pb2.LeaseLeasesRequest, lease.leases),
        _LEASE + "LeaseKeepAlive": Method(
            lease_pb2.LeaseKeepAliveRequest, Shape.BIDI_STREAM, None, lease.keep_alive, Header.FULL
        ),
        _AUTH + "AuthEnable": _unary(auth_pb2.AuthEnableRequest, auth.submit),
        _AUTH + "AuthDisable": _unary(auth_pb2.AuthDisableRequest, auth.submit),
        _AUTH + "AuthStatus": _unary(auth_pb2.AuthStatusRequest, auth.read_stale),
        _AUTH + "Authenticate": _unary(auth_pb2.AuthenticateRequest, auth.authenticate),
        _AUTH + "UserAdd": _unary(auth_pb2.AuthUserAddRequest, auth.user_add),
        _AUTH + "UserGet": _unary(auth_pb2.AuthUserGetRequest, auth.read),
        _AUTH + "UserList": _unary(auth_pb2.AuthUserListRequest, auth.read),
        _AUTH + "UserDelete": _unary(auth_pb2.AuthUserDeleteRequest, auth.submit),
        _AUTH + "UserChangePassword": _unary(
            auth_pb2.AuthUserChangePasswordRequest, auth.change_password
        ),
        _AUTH + "UserGrantRole": _unary(auth_pb2.AuthUserGrantRoleRequest, auth.submit),
        _AUTH + "UserRevokeRole": _unary(auth_pb2.AuthUserRevokeRoleRequest, auth.submit),
        _AUTH + "RoleAdd": _unary(auth_pb2.AuthRoleAddRequest, auth.role_add),
        _AUTH + "RoleGet": _unary(auth_pb2.AuthRoleGetRequest, auth.read),
        _AUTH + "RoleList": _unary(auth_pb2.AuthRoleListRequest, auth.read),
        _AUTH + "RoleDelete": _unary(auth_pb2.AuthRoleDeleteRequest, auth.submit),
        _AUTH + "RoleGrantPermission": _unary(
            auth_pb2.AuthRoleGrantPermissionRequest, auth.grant_permission
        ),
        _AUTH + "RoleRevokePermission": _unary(
            auth_pb2.AuthRoleRevokePermissionRequest, auth.submit
        ),
        _CLUSTER + "MemberAdd": _unary(
            cluster_pb2.MemberAddRequest, cluster.member_add, Header.NO_REVISION
        ),
        _CLUSTER + "MemberRemove": _unary(
            cluster_pb2.MemberRemoveRequest, cluster.member_remove, Header.NO_REVISION
        ),
        _CLUSTER + "MemberUpdate": _unary(
            cluster_pb2.MemberUpdateRequest, cluster.member_update, Header.NO_REVISION
        ),
        _CLUSTER + "MemberPromote": _unary(
            cluster_pb2.MemberPromoteRequest, cluster.member_promote, Header.NO_REVISION
        ),
        _CLUSTER + "MemberList": _unary(
            cluster_pb2.MemberListRequest, cluster.member_list, Header.NO_REVISION
        ),
        _MAINTENANCE + "Alarm": _unary(maintenance_pb2.AlarmRequest, _alarm),
        _MAINTENANCE + "Status": _unary(maintenance_pb2.StatusRequest, _operate),
        _MAINTENANCE + "Hash": _unary(maintenance_pb2.HashRequest, maintenance.hash_),
        _MAINTENANCE + "HashKV": _unary(maintenance_pb2.HashKVRequest, maintenance.hash_kv),
        _MAINTENANCE + "Defragment": _unary(
            maintenance_pb2.DefragmentRequest, maintenance.defragment, Header.NONE
        ),
        _MAINTENANCE + "Snapshot": Method(
            maintenance_pb2.SnapshotRequest,
            Shape.SERVER_STREAM,
            None,
            snapshot.snapshot,
            Header.NONE,
        ),
        _MAINTENANCE + "MoveLeader": _unary(
            maintenance_pb2.MoveLeaderRequest, maintenance.move_leader, Header.NONE
        ),
        _MAINTENANCE + "Downgrade": _unary(maintenance_pb2.DowngradeRequest, maintenance.downgrade),
        _LOCK + "Lock": _unary(lock_pb2.LockRequest, lock.lock),
        _LOCK + "Unlock": _unary(lock_pb2.UnlockRequest, lock.unlock),
        _ELECTION + "Campaign": _unary(election_pb2.CampaignRequest, election.campaign),
        _ELECTION + "Proclaim": _unary(election_pb2.ProclaimRequest, election.proclaim),
        _ELECTION + "Leader": _unary(election_pb2.LeaderRequest, election.leader),
        _ELECTION + "Observe": Method(
            election_pb2.LeaderRequest, Shape.SERVER_STREAM, None, election.observe, Header.NONE
        ),
        _ELECTION + "Resign": _unary(election_pb2.ResignRequest, election.resign),
        "/grpc.health.v1.Health/Check": _unary(
            health_pb2.HealthCheckRequest, health.check, Header.NONE
        ),
        "/grpc.health.v1.Health/Watch": Method(
            health_pb2.HealthCheckRequest, Shape.SERVER_STREAM, None, health.watch, Header.NONE
        ),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _REFLECTION,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _REFLECTION,
        _TENANTS + "TenantAdd": _unary(tenant_pb2.TenantAddRequest, tenants.tenant_add),
        _TENANTS + "TenantList": _unary(tenant_pb2.TenantListRequest, auth.read),
        _TENANTS + "TenantGet": _unary(tenant_pb2.TenantGetRequest, auth.read),
        _TENANTS + "TenantDelete": _unary(tenant_pb2.TenantDeleteRequest, auth.submit),
        "/kvsecurepb.Audit/Head": _unary(tenant_pb2.AuditHeadRequest, _operate),
        "/kvsecurepb.Audit/Heads": _unary(tenant_pb2.AuditHeadsRequest, _operate),
        "/kvsecurepb.Audit/Tail": Method(
            tenant_pb2.AuditTailRequest,
            Shape.SERVER_STREAM,
            None,
            tenants.audit_tail,
            Header.NONE,
        ),
        _CRYPTO + "Status": _unary(crypto_pb2.CryptoStatusRequest, crypto.status),
        _CRYPTO + "Rotate": _unary(crypto_pb2.CryptoRotateRequest, crypto.rotate),
        _CRYPTO + "Reencrypt": _unary(crypto_pb2.CryptoReencryptRequest, crypto.reencrypt),
        _CRYPTO + "Retire": _unary(crypto_pb2.CryptoRetireRequest, crypto.retire),
        _JOINING + "TokenAdd": _unary(
            joining_pb2.JoinTokenAddRequest, joining.token_add, Header.NO_REVISION
        ),
        _JOINING + "Authority": _unary(
            joining_pb2.JoinAuthorityRequest, joining.authority, Header.NONE
        ),
        _JOINING + "Redeem": _unary(
            joining_pb2.JoinRedeemRequest, joining.redeem, Header.NO_REVISION
        ),
        _VERSIONS + "History": _unary(version_pb2.HistoryRequest, versions.history),
        _VERSIONS + "RevisionAt": _unary(version_pb2.RevisionAtRequest, auth.read),
        _VERSIONS + "RetentionSet": _unary(version_pb2.RetentionSetRequest, versions.retention_set),
        _VERSIONS + "RetentionList": _unary(version_pb2.RetentionListRequest, auth.read),
        _VERSIONS + "RetentionDelete": _unary(version_pb2.RetentionDeleteRequest, auth.submit),
        _VERSIONS + "Destroy": _unary(version_pb2.DestroyRequest, versions.destroy),
        _VERSIONS + "DestroyStatus": _unary(version_pb2.DestroyStatusRequest, auth.read),
    }
)


def _for_learners(path: str, method: Method) -> Method:
    """Return a method as it is served where this member may have no vote."""
    if is_for_learners(path):
        return method
    return method._replace(
        unary=method.unary and with_vote(method.unary),
        stream=method.stream and stream_with_vote(method.stream),
    )


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {path: _for_learners(path, method) for path, method in _SERVED.items()}
)

# The services that exist, to tell an unknown method from an unknown service.
SERVICES: Final = frozenset(path.split("/")[1] for path in METHODS)

"""Queries: what can be read of the state, each with its answer in wire form.

Owns: every answer that changes nothing.
Never: decides who may ask (the gate has), changes the state, or waits.
Follows: etcd-surface sections 1.3, 1.5, 1.7, 1.8.
Keeps: a query sees one tenant, the caller's, unless it is of the cluster.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from kvsecure.core.accounts import ROOT, Tenant
from kvsecure.core.apply import tenant_view
from kvsecure.core.declaring import member_list_body
from kvsecure.core.history import (
    answer_destroyed,
    answer_history,
    answer_policies,
    answer_revision_at,
)
from kvsecure.core.mvcc.space import Space
from kvsecure.core.state import State, alarm_list
from kvsecure.model.answer import Answer, answer
from kvsecure.model.burst import GetBurst
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import LeaseId
from kvsecure.model.keys import FROM_KEY
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    cluster_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    tenant_pb2,
    version_pb2,
)
from kvsecure.proto.encode import bytes_field, varint_field

__all__ = ["QUERIES", "answer_gets", "answer_query", "reads_only"]

_RESPONSES: Final = b"\x12"
_ROOT_PERMISSION: Final = authstore_pb2.Permission(
    permType=authstore_pb2.Permission.READWRITE, range_end=FROM_KEY
)


def answer_query(
    state: State, tenant: Tenant, space: Space, request: Message, now_ns: int
) -> Answer:
    """Answer a request that changes nothing.

    Args:
        state: The applied state.
        tenant: The caller's.
        space: The caller's.
        request: What is asked, its shape checked.
        now_ns: Monotonic time in nanoseconds.

    Raises:
        Refused: What is asked about does not exist, or cannot be read.
    """
    if type(request) is kv_pb2.RangeRequest:
        # By far the most frequent one.
        body = state.store.range(space, request)
    else:
        body = QUERIES[type(request)](_Query(state, tenant, space, now_ns), request)
    return answer((state.store.revision, body))


def answer_gets(state: State, space: Space, burst: GetBurst, bytes_max: int) -> list[bytes]:
    """Answer a burst of gets with the bodies of its answers, in order, until it is much.

    The list ends early, behind the answer with which it has more than `bytes_max` bytes.

    Raises:
        DamagedRecord: What is stored cannot be read.
    """
    return state.store.read_each(space, burst, bytes_max)


class _Query(NamedTuple):
    """What a query reads from."""

    state: State
    tenant: Tenant
    space: Space
    now_ns: int


def reads_only(request: kv_pb2.TxnRequest) -> bool:
    """Tell whether a transaction holds no put and no delete, whatever path it takes."""
    waiting = [request]
    while waiting:
        txn = waiting.pop()
        for operation in (*txn.success, *txn.failure):
            kind = operation.WhichOneof("request")
            if kind == "request_txn":
                waiting.append(operation.request_txn)
            elif kind != "request_range":
                return False
    return True


def _range(query: _Query, request: kv_pb2.RangeRequest) -> bytes:
    return query.state.store.range(query.space, request)


def _txn(query: _Query, request: kv_pb2.TxnRequest) -> bytes:
    return query.state.store.transact(query.space, request)


def _lease_time_to_live(query: _Query, request: lease_pb2.LeaseTimeToLiveRequest) -> bytes:
    view = query.space.leases.view(LeaseId(request.ID), query.now_ns)
    if view is None:
        # Not an error: a lease that is gone has a TTL of -1 (etcd).
        return lease_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1).SerializeToString()
    return lease_pb2.LeaseTimeToLiveResponse(
        ID=request.ID,
        TTL=view.remaining_s,
        grantedTTL=view.ttl_s,
        keys=view.keys if request.keys else (),
    ).SerializeToString()


def _lease_leases(query: _Query, _: lease_pb2.LeaseLeasesRequest) -> bytes:
    statuses = [lease_pb2.LeaseStatus(ID=lease) for lease in query.space.leases.by_expiry()]
    return lease_pb2.LeaseLeasesResponse(leases=statuses).SerializeToString()


def _auth_status(query: _Query, _: auth_pb2.AuthStatusRequest) -> bytes:
    record = query.tenant.record
    return varint_field(b"\x10", record.auth_enabled) + varint_field(b"\x18", record.auth_revision)


def _user_get(query: _Query, request: auth_pb2.AuthUserGetRequest) -> bytes:
    user = query.tenant.users.get(request.name)
    if user is None:
        raise Refused(Failure.USER_NOT_FOUND)
    return auth_pb2.AuthUserGetResponse(roles=user.roles).SerializeToString()


def _user_list(query: _Query, _: auth_pb2.AuthUserListRequest) -> bytes:
    return auth_pb2.AuthUserListResponse(users=sorted(query.tenant.users)).SerializeToString()


def _role_get(query: _Query, request: auth_pb2.AuthRoleGetRequest) -> bytes:
    if request.role == ROOT:
        # It need not be stored to be held (etcd).
        return auth_pb2.AuthRoleGetResponse(perm=[_ROOT_PERMISSION]).SerializeToString()
    role = query.tenant.roles.get(request.role)
    if role is None:
        raise Refused(Failure.ROLE_NOT_FOUND)
    return auth_pb2.AuthRoleGetResponse(perm=role.permissions).SerializeToString()


def _role_list(query: _Query, _: auth_pb2.AuthRoleListRequest) -> bytes:
    return auth_pb2.AuthRoleListResponse(roles=sorted(query.tenant.roles)).SerializeToString()


def _alarms(query: _Query, request: maintenance_pb2.AlarmRequest) -> bytes:
    alarms = alarm_list(query.state, request.memberID, int(request.alarm))
    return b"".join(bytes_field(_RESPONSES, alarm.SerializeToString()) for alarm in alarms)


def _member_list(query: _Query, _: cluster_pb2.MemberListRequest) -> bytes:
    return member_list_body(query.state.members)


def _tenant_list(query: _Query, _: tenant_pb2.TenantListRequest) -> bytes:
    views = [tenant_view(query.state, tenant) for tenant in query.state.accounts.tenants()]
    return tenant_pb2.TenantListResponse(tenants=views).SerializeToString()


def _tenant_get(query: _Query, request: tenant_pb2.TenantGetRequest) -> bytes:
    tenant = query.state.accounts.tenant_named(request.name)
    view = tenant_view(query.state, tenant)
    return tenant_pb2.TenantGetResponse(tenant=view).SerializeToString()


def _history(query: _Query, request: version_pb2.HistoryRequest) -> bytes:
    return answer_history(query.state.store, query.space, request)


def _revision_at(query: _Query, request: version_pb2.RevisionAtRequest) -> bytes:
    return answer_revision_at(query.state.store, request)


def _retention_list(query: _Query, _: version_pb2.RetentionListRequest) -> bytes:
    return answer_policies(query.space)


def _destroy_status(query: _Query, _: version_pb2.DestroyStatusRequest) -> bytes:
    return answer_destroyed(query.state.store, query.space)


QUERIES: Final[Mapping[type[Message], Callable[[_Query, Any], bytes]]] = MappingProxyType(
    {
        kv_pb2.RangeRequest: _range,
        kv_pb2.TxnRequest: _txn,
        lease_pb2.LeaseTimeToLiveRequest: _lease_time_to_live,
        lease_pb2.LeaseLeasesRequest: _lease_leases,
        auth_pb2.AuthStatusRequest: _auth_status,
        auth_pb2.AuthUserGetRequest: _user_get,
        auth_pb2.AuthUserListRequest: _user_list,
        auth_pb2.AuthRoleGetRequest: _role_get,
        auth_pb2.AuthRoleListRequest: _role_list,
        maintenance_pb2.AlarmRequest: _alarms,
        cluster_pb2.MemberListRequest: _member_list,
        tenant_pb2.TenantListRequest: _tenant_list,
        tenant_pb2.TenantGetRequest: _tenant_get,
        version_pb2.HistoryRequest: _history,
        version_pb2.RevisionAtRequest: _revision_at,
        version_pb2.RetentionListRequest: _retention_list,
        version_pb2.DestroyStatusRequest: _destroy_status,
    }
)

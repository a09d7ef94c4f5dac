"""The JSON gateway: which path is which method, and its requests and answers as JSON.

    POST /v3/kv/put  {"key":"Zm9v","value":"YmFy"}   ->  /etcdserverpb.KV/Put

Owns: the paths of the gateway, made from the one list of methods, and the bodies of errors.
Never: serves anything: what comes out of a JSON request are the bytes of the same message that
    gRPC would have brought, and they take the same way.
Follows: etcd-surface section 4.2; the error bodies are those of etcd 3.5.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from kvsecure.api.json_form import Misshapen, encode_json, fill_message, parse_json
from kvsecure.api.json_pieces import encode_json_in_pieces
from kvsecure.api.methods import METHODS, Method
from kvsecure.model.errors import Code, Failure, Refused

__all__ = [
    "ENDPOINTS",
    "Endpoint",
    "answer_text",
    "error_text",
    "find_endpoint",
    "http_status",
    "large_answer_text",
    "read_request",
    "stream_error_line",
    "stream_line",
]

_PREFIX: Final = "/v3/"
# etcd has dropped the second; clients of then are served all the same.
_OLD_PREFIXES: Final = ("/v3beta/", "/v3alpha/")
# How many values a request may have: more than its largest transaction needs.
_VALUES_MAX: Final = 16_384
_VALUES_PER_OPERATION: Final = 64

# The paths of etcd's services, the first one being the usual one.
_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "/etcdserverpb.KV/Range": ("kv/range",),
    "/etcdserverpb.KV/Put": ("kv/put",),
    "/etcdserverpb.KV/DeleteRange": ("kv/deleterange",),
    "/etcdserverpb.KV/Txn": ("kv/txn",),
    "/etcdserverpb.KV/Compact": ("kv/compaction",),
    "/etcdserverpb.Watch/Watch": ("watch",),
    "/etcdserverpb.Lease/LeaseGrant": ("lease/grant",),
    "/etcdserverpb.Lease/LeaseRevoke": ("lease/revoke", "kv/lease/revoke"),
    "/etcdserverpb.Lease/LeaseKeepAlive": ("lease/keepalive",),
    "/etcdserverpb.Lease/LeaseTimeToLive": ("lease/timetolive", "kv/lease/timetolive"),
    "/etcdserverpb.Lease/LeaseLeases": ("lease/leases", "kv/lease/leases"),
    "/etcdserverpb.Cluster/MemberAdd": ("cluster/member/add",),
    "/etcdserverpb.Cluster/MemberRemove": ("cluster/member/remove",),
    "/etcdserverpb.Cluster/MemberUpdate": ("cluster/member/update",),
    "/etcdserverpb.Cluster/MemberList": ("cluster/member/list",),
    "/etcdserverpb.Cluster/MemberPromote": ("cluster/member/promote",),
    "/etcdserverpb.Maintenance/Alarm": ("maintenance/alarm",),
    "/etcdserverpb.Maintenance/Status": ("maintenance/status",),
    "/etcdserverpb.Maintenance/Defragment": ("maintenance/defragment",),
    "/etcdserverpb.Maintenance/Hash": ("maintenance/hash",),
    "/etcdserverpb.Maintenance/HashKV": ("maintenance/hashkv",),
    "/etcdserverpb.Maintenance/Snapshot": ("maintenance/snapshot",),
    "/etcdserverpb.Maintenance/MoveLeader": ("maintenance/transfer-leadership",),
    "/etcdserverpb.Maintenance/Downgrade": ("maintenance/downgrade",),
    "/etcdserverpb.Auth/AuthEnable": ("auth/enable",),
    "/etcdserverpb.Auth/AuthDisable": ("auth/disable",),
    "/etcdserverpb.Auth/AuthStatus": ("auth/status",),
    "/etcdserverpb.Auth/Authenticate": ("auth/authenticate",),
    "/etcdserverpb.Auth/UserAdd": ("auth/user/add",),
    "/etcdserverpb.Auth/UserGet": ("auth/user/get",),
    "/etcdserverpb.Auth/UserList": ("auth/user/list",),
    "/etcdserverpb.Auth/UserDelete": ("auth/user/delete",),
    "/etcdserverpb.Auth/UserChangePassword": ("auth/user/changepw",),
    "/etcdserverpb.Auth/UserGrantRole": ("auth/user/grant",),
    "/etcdserverpb.Auth/UserRevokeRole": ("auth/user/revoke",),
    "/etcdserverpb.Auth/RoleAdd": ("auth/role/add",),
    "/etcdserverpb.Auth/RoleGet": ("auth/role/get",),
    "/etcdserverpb.Auth/RoleList": ("auth/role/list",),
    "/etcdserverpb.Auth/RoleDelete": ("auth/role/delete",),
    "/etcdserverpb.Auth/RoleGrantPermission": ("auth/role/grant",),
    "/etcdserverpb.Auth/RoleRevokePermission": ("auth/role/revoke",),
    "/v3lockpb.Lock/Lock": ("lock/lock",),
    "/v3lockpb.Lock/Unlock": ("lock/unlock",),
    "/v3electionpb.Election/Campaign": ("election/campaign",),
    "/v3electionpb.Election/Proclaim": ("election/proclaim",),
    "/v3electionpb.Election/Leader": ("election/leader",),
    "/v3electionpb.Election/Observe": ("election/observe",),
    "/v3electionpb.Election/Resign": ("election/resign",),
    "/kvsecurepb.Tenants/TenantAdd": ("kvsecure/tenants/add",),
    "/kvsecurepb.Tenants/TenantList": ("kvsecure/tenants/list",),
    "/kvsecurepb.Tenants/TenantGet": ("kvsecure/tenants/get",),
    "/kvsecurepb.Tenants/TenantDelete": ("kvsecure/tenants/delete",),
    "/kvsecurepb.Audit/Head": ("kvsecure/audit/head",),
    "/kvsecurepb.Audit/Heads": ("kvsecure/audit/heads",),
    "/kvsecurepb.Audit/Tail": ("kvsecure/audit/tail",),
    "/kvsecurepb.Crypto/Status": ("kvsecure/crypto/status",),
    "/kvsecurepb.Crypto/Rotate": ("kvsecure/crypto/rotate",),
    "/kvsecurepb.Crypto/Reencrypt": ("kvsecure/crypto/reencrypt",),
    "/kvsecurepb.Crypto/Retire": ("kvsecure/crypto/retire",),
    "/kvsecurepb.Joining/TokenAdd": ("kvsecure/joining/token",),
    "/kvsecurepb.Joining/Authority": ("kvsecure/joining/authority",),
    "/kvsecurepb.Joining/Redeem": ("kvsecure/joining/redeem",),
    "/kvsecurepb.Versions/History": ("kvsecure/versions/history",),
    "/kvsecurepb.Versions/RevisionAt": ("kvsecure/versions/revisionat",),
    "/kvsecurepb.Versions/RetentionSet": ("kvsecure/versions/retention/set",),
    "/kvsecurepb.Versions/RetentionList": ("kvsecure/versions/retention/list",),
    "/kvsecurepb.Versions/RetentionDelete": ("kvsecure/versions/retention/delete",),
    "/kvsecurepb.Versions/Destroy": ("kvsecure/versions/destroy",),
    "/kvsecurepb.Versions/DestroyStatus": ("kvsecure/versions/destroystatus",),
}

_STATUS: Final[Mapping[int, HTTPStatus]] = {
    Code.OK: HTTPStatus.OK,
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.CANCELLED: HTTPStatus.REQUEST_TIMEOUT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}


class Endpoint(NamedTuple):
    """A method as the gateway serves it."""

    # The method's path in gRPC.
    path: str
    method: Method
    response: type[Message]


def _response_of(path: str) -> type[Message]:
    service, _, name = path.removeprefix("/").partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return message_factory.GetMessageClass(found.output_type)


ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType(
    {
        _PREFIX + path: Endpoint(name, METHODS[name], _response_of(name))
        for name, paths in _PATHS.items()
        for path in paths
    }
)


def find_endpoint(target: str) -> Endpoint | None:
    """Return the endpoint of a request's target, or None; its query means nothing."""
    path = target.partition("?")[0]
    for prefix in _OLD_PREFIXES:
        if path.startswith(prefix):
            path = _PREFIX + path[len(prefix) :]
            break
    return ENDPOINTS.get(path)


def read_request(endpoint: Endpoint, content: bytes, txn_ops_max: int) -> bytes:
    """Return the message, as gRPC would have brought it, that a JSON text stands for.

    Args:
        endpoint: What it is a request of.
        content: The text; an empty one is an empty message (etcd).
        txn_ops_max: How many operations a transaction may have, which bounds the text's values.

    Raises:
        Refused: It is not JSON, or not of such a message.
    """
    message = endpoint.method.request()
    values_max = max(_VALUES_MAX, _VALUES_PER_OPERATION * txn_ops_max)
    try:
        if content.strip():
            fill_message(message, parse_json(content, values_max))
    except Misshapen as error:
        raise Refused(Failure.MALFORMED_JSON, str(error)) from None
    return message.SerializeToString()


def answer_text(endpoint: Endpoint, message: bytes) -> bytes:
    """Return the body of an answer."""
    return encode_json(endpoint.response.FromString(message)).encode("ascii")


def large_answer_text(endpoint: Endpoint, message: bytes) -> list[bytes]:
    """Return the body of an answer in pieces, made so that other threads have their turns."""
    return [*encode_json_in_pieces(endpoint.response, message)]


def stream_line(endpoint: Endpoint, message: bytes) -> bytes:
    """Return one message of a stream as its line."""
    return b'{"result":%b}\n' % answer_text(endpoint, message)


def http_status(code: int) -> HTTPStatus:
    """Return the status of HTTP that stands for a code of gRPC."""
    return _STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)


def error_text(refused: Refused) -> bytes:
    """Return the body of a refusal."""
    body = {"error": refused.text, "code": int(refused.code), "message": refused.text}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def stream_error_line(refused: Refused) -> bytes:
    """Return the line that ends a stream which has begun."""
    status = http_status(refused.code)
    error = {
        "grpc_code": int(refused.code),
        "http_code": int(status),
        "message": refused.text,
        "http_status": status.phrase,
    }
    return json.dumps({"error": error}, separators=(",", ":")).encode("ascii") + b"\n"

"""Every method a client can call: path, messages, shape, and whether it may be repeated.

Owns: the table of methods, read from the descriptors of the generated messages.
Never: a class name written out by hand, or a connection.
Follows: the retry table of etcd's Go client; what is not listed as repeatable is not repeated.
"""

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

__all__ = ["Method", "Repeat", "Shape", "every_method", "method_at"]


class Shape(Enum):
    """Who sends how many messages."""

    UNARY = auto()
    ANSWER_STREAM = auto()
    BOTH_STREAM = auto()


class Repeat(Enum):
    """Whether a call may be sent again when its first answer was lost."""

    ALLOWED = auto()
    FORBIDDEN = auto()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a service."""

    path: str
    request: type[Message]
    answer: type[Message]
    shape: Shape
    repeat: Repeat


# Which generated module describes a service; a module is loaded when a method of it is called.
_HOMES: Final = {
    "etcdserverpb.KV": "kv_pb2",
    "etcdserverpb.Watch": "watch_pb2",
    "etcdserverpb.Lease": "lease_pb2",
    "etcdserverpb.Cluster": "cluster_pb2",
    "etcdserverpb.Maintenance": "maintenance_pb2",
    "etcdserverpb.Auth": "auth_pb2",
    "v3lockpb.Lock": "lock_pb2",
    "v3electionpb.Election": "election_pb2",
    "kvsecurepb.Tenants": "tenant_pb2",
    "kvsecurepb.Audit": "tenant_pb2",
    "kvsecurepb.Crypto": "crypto_pb2",
    "kvsecurepb.Joining": "joining_pb2",
    "kvsecurepb.Versions": "version_pb2",
    "grpc.health.v1.Health": "health_pb2",
}

# Calls that leave the store as it is, or as one call would have left it. `Alarm` is not here: it
# reads and writes by the same path.
_REPEATABLE: Final = frozenset(
    {
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        "/etcdserverpb.Lease/LeaseLeases",
        "/etcdserverpb.Cluster/MemberList",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Hash",
        "/etcdserverpb.Maintenance/HashKV",
        "/etcdserverpb.Maintenance/Snapshot",
        "/etcdserverpb.Auth/AuthStatus",
        "/etcdserverpb.Auth/Authenticate",
        "/etcdserverpb.Auth/UserGet",
        "/etcdserverpb.Auth/UserList",
        "/etcdserverpb.Auth/RoleGet",
        "/etcdserverpb.Auth/RoleList",
        "/v3electionpb.Election/Leader",
        "/v3electionpb.Election/Observe",
        "/kvsecurepb.Tenants/TenantGet",
        "/kvsecurepb.Tenants/TenantList",
        "/kvsecurepb.Audit/Head",
        "/kvsecurepb.Audit/Heads",
        "/kvsecurepb.Audit/Tail",
        "/kvsecurepb.Crypto/Status",
        "/kvsecurepb.Joining/Authority",
        "/kvsecurepb.Versions/DestroyStatus",
        "/kvsecurepb.Versions/History",
        "/kvsecurepb.Versions/RetentionList",
        "/kvsecurepb.Versions/RevisionAt",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    }
)


@functools.cache
def method_at(path: str) -> Method:
    """Return the method with this path, `/package.Service/Method`.

    Raises:
        KeyError: There is no such method.
    """
    _, service, name = path.split("/")
    return _method(path, _descriptor(service).methods_by_name[name])


def every_method() -> Iterator[Method]:
    """Yield all methods; this loads every generated module."""
    for service in _HOMES:
        for descriptor in _descriptor(service).methods:
            yield method_at(f"/{service}/{descriptor.name}")


def _descriptor(service: str) -> ServiceDescriptor:
    module = importlib.import_module(f"kvsecure.proto.{_HOMES[service]}")
    found: ServiceDescriptor = module.DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
    return found


def _method(path: str, descriptor: MethodDescriptor) -> Method:
    if descriptor.client_streaming:
        shape = Shape.BOTH_STREAM
    else:
        shape = Shape.ANSWER_STREAM if descriptor.server_streaming else Shape.UNARY
    return Method(
        path=path,
        request=GetMessageClass(descriptor.input_type),
        answer=GetMessageClass(descriptor.output_type),
        shape=shape,
        repeat=Repeat.ALLOWED if path in _REPEATABLE else Repeat.FORBIDDEN,
    )

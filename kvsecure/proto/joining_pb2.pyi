from kvsecure.proto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinTokenAddRequest(_message.Message):
    __slots__ = ("ttl_s",)
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    ttl_s: int
    def __init__(self, ttl_s: _Optional[int] = ...) -> None: ...

class JoinTokenAddResponse(_message.Message):
    __slots__ = ("header", "token", "expires_s")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    token: str
    expires_s: int
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., token: _Optional[str] = ..., expires_s: _Optional[int] = ...) -> None: ...

class JoinAuthorityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JoinAuthorityResponse(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: bytes
    def __init__(self, certificates: _Optional[bytes] = ...) -> None: ...

class JoinRedeemRequest(_message.Message):
    __slots__ = ("token_id", "secret", "name", "peer_urls", "hosts", "server_request", "peer_request")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    SERVER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PEER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    secret: bytes
    name: str
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    server_request: bytes
    peer_request: bytes
    def __init__(self, token_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., name: _Optional[str] = ..., peer_urls: _Optional[_Iterable[str]] = ..., hosts: _Optional[_Iterable[str]] = ..., server_request: _Optional[bytes] = ..., peer_request: _Optional[bytes] = ...) -> None: ...

class JoinMember(_message.Message):
    __slots__ = ("name", "peer_urls")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., peer_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinRedeemResponse(_message.Message):
    __slots__ = ("header", "member_id", "cluster_name", "cluster_token", "members", "heartbeat_ms", "election_ms", "server_certificate", "peer_certificate")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    ELECTION_MS_FIELD_NUMBER: _ClassVar[int]
    SERVER_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PEER_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    member_id: int
    cluster_name: str
    cluster_token: str
    members: _containers.RepeatedCompositeFieldContainer[JoinMember]
    heartbeat_ms: int
    election_ms: int
    server_certificate: bytes
    peer_certificate: bytes
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., member_id: _Optional[int] = ..., cluster_name: _Optional[str] = ..., cluster_token: _Optional[str] = ..., members: _Optional[_Iterable[_Union[JoinMember, _Mapping]]] = ..., heartbeat_ms: _Optional[int] = ..., election_ms: _Optional[int] = ..., server_certificate: _Optional[bytes] = ..., peer_certificate: _Optional[bytes] = ...) -> None: ...

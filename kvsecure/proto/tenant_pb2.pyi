from kvsecure.proto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tenant(_message.Message):
    __slots__ = ("id", "name", "key_count", "user_count", "auth_revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    key_count: int
    user_count: int
    auth_revision: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., key_count: _Optional[int] = ..., user_count: _Optional[int] = ..., auth_revision: _Optional[int] = ...) -> None: ...

class TenantAddRequest(_message.Message):
    __slots__ = ("name", "root_password", "root_no_password", "root_hashed_password")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROOT_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    ROOT_NO_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    ROOT_HASHED_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    name: str
    root_password: str
    root_no_password: bool
    root_hashed_password: str
    def __init__(self, name: _Optional[str] = ..., root_password: _Optional[str] = ..., root_no_password: _Optional[bool] = ..., root_hashed_password: _Optional[str] = ...) -> None: ...

class TenantAddResponse(_message.Message):
    __slots__ = ("header", "tenant")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    tenant: Tenant
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class TenantListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TenantListResponse(_message.Message):
    __slots__ = ("header", "tenants")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class TenantGetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class TenantGetResponse(_message.Message):
    __slots__ = ("header", "tenant")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    tenant: Tenant
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class TenantDeleteRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class TenantDeleteResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

class AuditHeadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditHeadResponse(_message.Message):
    __slots__ = ("header", "stream", "seq", "hash", "signature", "public_key")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    stream: str
    seq: int
    hash: bytes
    signature: bytes
    public_key: bytes
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., stream: _Optional[str] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class AuditHeadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditHeadsResponse(_message.Message):
    __slots__ = ("header", "heads")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    heads: _containers.RepeatedCompositeFieldContainer[AuditToldHead]
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., heads: _Optional[_Iterable[_Union[AuditToldHead, _Mapping]]] = ...) -> None: ...

class AuditToldHead(_message.Message):
    __slots__ = ("member_id", "name", "stream", "seq", "hash", "signature", "time_s", "is_missing")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    IS_MISSING_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    name: str
    stream: str
    seq: int
    hash: bytes
    signature: bytes
    time_s: int
    is_missing: bool
    def __init__(self, member_id: _Optional[int] = ..., name: _Optional[str] = ..., stream: _Optional[str] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., time_s: _Optional[int] = ..., is_missing: _Optional[bool] = ...) -> None: ...

class AuditTailRequest(_message.Message):
    __slots__ = ("count", "follow")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    count: int
    follow: bool
    def __init__(self, count: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class AuditTailResponse(_message.Message):
    __slots__ = ("header", "records")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

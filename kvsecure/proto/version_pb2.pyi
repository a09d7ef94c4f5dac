from kvsecure.proto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Version(_message.Message):
    __slots__ = ("mod_revision", "create_revision", "version", "lease", "deleted", "time_s", "value", "value_bytes")
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATE_REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    mod_revision: int
    create_revision: int
    version: int
    lease: int
    deleted: bool
    time_s: int
    value: bytes
    value_bytes: int
    def __init__(self, mod_revision: _Optional[int] = ..., create_revision: _Optional[int] = ..., version: _Optional[int] = ..., lease: _Optional[int] = ..., deleted: _Optional[bool] = ..., time_s: _Optional[int] = ..., value: _Optional[bytes] = ..., value_bytes: _Optional[int] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("key", "limit", "before_revision", "keys_only")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_REVISION_FIELD_NUMBER: _ClassVar[int]
    KEYS_ONLY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    limit: int
    before_revision: int
    keys_only: bool
    def __init__(self, key: _Optional[bytes] = ..., limit: _Optional[int] = ..., before_revision: _Optional[int] = ..., keys_only: _Optional[bool] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("header", "versions", "more", "compact_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    COMPACT_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    more: bool
    compact_revision: int
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., more: _Optional[bool] = ..., compact_revision: _Optional[int] = ...) -> None: ...

class RevisionAtRequest(_message.Message):
    __slots__ = ("time_s",)
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    time_s: int
    def __init__(self, time_s: _Optional[int] = ...) -> None: ...

class RevisionAtResponse(_message.Message):
    __slots__ = ("header", "revision", "compact_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMPACT_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    revision: int
    compact_revision: int
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., revision: _Optional[int] = ..., compact_revision: _Optional[int] = ...) -> None: ...

class RetentionPolicy(_message.Message):
    __slots__ = ("prefix", "keep_versions", "keep_for_s")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEEP_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FOR_S_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    keep_versions: int
    keep_for_s: int
    def __init__(self, prefix: _Optional[bytes] = ..., keep_versions: _Optional[int] = ..., keep_for_s: _Optional[int] = ...) -> None: ...

class RetentionSetRequest(_message.Message):
    __slots__ = ("prefix", "keep_versions", "keep_for_s")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEEP_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FOR_S_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    keep_versions: int
    keep_for_s: int
    def __init__(self, prefix: _Optional[bytes] = ..., keep_versions: _Optional[int] = ..., keep_for_s: _Optional[int] = ...) -> None: ...

class RetentionSetResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

class RetentionListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RetentionListResponse(_message.Message):
    __slots__ = ("header", "policies")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    policies: _containers.RepeatedCompositeFieldContainer[RetentionPolicy]
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., policies: _Optional[_Iterable[_Union[RetentionPolicy, _Mapping]]] = ...) -> None: ...

class RetentionDeleteRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    def __init__(self, prefix: _Optional[bytes] = ...) -> None: ...

class RetentionDeleteResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

class DestroyRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...

class DestroyResponse(_message.Message):
    __slots__ = ("header", "deleted")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    deleted: bool
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., deleted: _Optional[bool] = ...) -> None: ...

class DestroyStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DestroyStatusResponse(_message.Message):
    __slots__ = ("header", "pending", "stalled")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    pending: int
    stalled: bool
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., pending: _Optional[int] = ..., stalled: _Optional[bool] = ...) -> None: ...

from kvsecure.proto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CryptoTerm(_message.Message):
    __slots__ = ("term", "made_s", "current", "retired", "record_rows", "index_rows", "state_rows", "log_segments", "audit_segments")
    TERM_FIELD_NUMBER: _ClassVar[int]
    MADE_S_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    RECORD_ROWS_FIELD_NUMBER: _ClassVar[int]
    INDEX_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    LOG_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    term: int
    made_s: int
    current: bool
    retired: bool
    record_rows: int
    index_rows: int
    state_rows: int
    log_segments: int
    audit_segments: int
    def __init__(self, term: _Optional[int] = ..., made_s: _Optional[int] = ..., current: _Optional[bool] = ..., retired: _Optional[bool] = ..., record_rows: _Optional[int] = ..., index_rows: _Optional[int] = ..., state_rows: _Optional[int] = ..., log_segments: _Optional[int] = ..., audit_segments: _Optional[int] = ...) -> None: ...

class CryptoProgress(_message.Message):
    __slots__ = ("state", "term", "rows", "rows_per_second", "why")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[CryptoProgress.State]
        RUNNING: _ClassVar[CryptoProgress.State]
        DONE: _ClassVar[CryptoProgress.State]
        FAILED: _ClassVar[CryptoProgress.State]
    NONE: CryptoProgress.State
    RUNNING: CryptoProgress.State
    DONE: CryptoProgress.State
    FAILED: CryptoProgress.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    state: CryptoProgress.State
    term: int
    rows: int
    rows_per_second: int
    why: str
    def __init__(self, state: _Optional[_Union[CryptoProgress.State, str]] = ..., term: _Optional[int] = ..., rows: _Optional[int] = ..., rows_per_second: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class CryptoStatusRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: bool
    def __init__(self, count: _Optional[bool] = ...) -> None: ...

class CryptoStatusResponse(_message.Message):
    __slots__ = ("header", "provider", "kek_id", "kms_key_id", "terms", "progress", "counted")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    KEK_ID_FIELD_NUMBER: _ClassVar[int]
    KMS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    provider: str
    kek_id: str
    kms_key_id: str
    terms: _containers.RepeatedCompositeFieldContainer[CryptoTerm]
    progress: CryptoProgress
    counted: bool
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., provider: _Optional[str] = ..., kek_id: _Optional[str] = ..., kms_key_id: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[CryptoTerm, _Mapping]]] = ..., progress: _Optional[_Union[CryptoProgress, _Mapping]] = ..., counted: _Optional[bool] = ...) -> None: ...

class CryptoRotateRequest(_message.Message):
    __slots__ = ("kek",)
    KEK_FIELD_NUMBER: _ClassVar[int]
    kek: bool
    def __init__(self, kek: _Optional[bool] = ...) -> None: ...

class CryptoRotateResponse(_message.Message):
    __slots__ = ("header", "term", "provider", "kek_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    KEK_ID_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    term: int
    provider: str
    kek_id: str
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., term: _Optional[int] = ..., provider: _Optional[str] = ..., kek_id: _Optional[str] = ...) -> None: ...

class CryptoReencryptRequest(_message.Message):
    __slots__ = ("rows_per_second",)
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    rows_per_second: int
    def __init__(self, rows_per_second: _Optional[int] = ...) -> None: ...

class CryptoReencryptResponse(_message.Message):
    __slots__ = ("header", "progress")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    progress: CryptoProgress
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ..., progress: _Optional[_Union[CryptoProgress, _Mapping]] = ...) -> None: ...

class CryptoRetireRequest(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class CryptoRetireResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _kv_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_kv_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

from kvsecure.proto import authstore_pb2 as _authstore_pb2
from kvsecure.proto import kv_pb2 as _kv_pb2
from kvsecure.proto import version_pb2 as _version_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tenant(_message.Message):
    __slots__ = ("id", "name", "auth_enabled", "auth_revision", "next_user_id", "next_role_id", "session_epoch")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AUTH_ENABLED_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    NEXT_USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_ROLE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    auth_enabled: bool
    auth_revision: int
    next_user_id: int
    next_role_id: int
    session_epoch: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., auth_enabled: _Optional[bool] = ..., auth_revision: _Optional[int] = ..., next_user_id: _Optional[int] = ..., next_role_id: _Optional[int] = ..., session_epoch: _Optional[int] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "name", "password_hash", "no_password", "roles", "session_epoch")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_HASH_FIELD_NUMBER: _ClassVar[int]
    NO_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    password_hash: str
    no_password: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    session_epoch: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., password_hash: _Optional[str] = ..., no_password: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., session_epoch: _Optional[int] = ...) -> None: ...

class Role(_message.Message):
    __slots__ = ("id", "name", "permissions")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    permissions: _containers.RepeatedCompositeFieldContainer[_authstore_pb2.Permission]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., permissions: _Optional[_Iterable[_Union[_authstore_pb2.Permission, _Mapping]]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "ttl_s", "remaining_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    id: int
    ttl_s: int
    remaining_s: int
    def __init__(self, id: _Optional[int] = ..., ttl_s: _Optional[int] = ..., remaining_s: _Optional[int] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("index", "term", "revision", "compact_revision", "next_tenant_id", "audit_seq", "audit_hash", "configuration", "is_received")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMPACT_REVISION_FIELD_NUMBER: _ClassVar[int]
    NEXT_TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SEQ_FIELD_NUMBER: _ClassVar[int]
    AUDIT_HASH_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    IS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    revision: int
    compact_revision: int
    next_tenant_id: int
    audit_seq: int
    audit_hash: bytes
    configuration: bytes
    is_received: bool
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., revision: _Optional[int] = ..., compact_revision: _Optional[int] = ..., next_tenant_id: _Optional[int] = ..., audit_seq: _Optional[int] = ..., audit_hash: _Optional[bytes] = ..., configuration: _Optional[bytes] = ..., is_received: _Optional[bool] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("member_id", "alarm")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    alarm: int
    def __init__(self, member_id: _Optional[int] = ..., alarm: _Optional[int] = ...) -> None: ...

class VerifierUpgrade(_message.Message):
    __slots__ = ("user", "old_hash", "new_hash")
    USER_FIELD_NUMBER: _ClassVar[int]
    OLD_HASH_FIELD_NUMBER: _ClassVar[int]
    NEW_HASH_FIELD_NUMBER: _ClassVar[int]
    user: str
    old_hash: str
    new_hash: str
    def __init__(self, user: _Optional[str] = ..., old_hash: _Optional[str] = ..., new_hash: _Optional[str] = ...) -> None: ...

class PutBurst(_message.Message):
    __slots__ = ("puts",)
    PUTS_FIELD_NUMBER: _ClassVar[int]
    puts: _containers.RepeatedCompositeFieldContainer[_kv_pb2.PutRequest]
    def __init__(self, puts: _Optional[_Iterable[_Union[_kv_pb2.PutRequest, _Mapping]]] = ...) -> None: ...

class Clock(_message.Message):
    __slots__ = ("time_s",)
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    time_s: int
    def __init__(self, time_s: _Optional[int] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[_version_pb2.RetentionPolicy]
    def __init__(self, policies: _Optional[_Iterable[_Union[_version_pb2.RetentionPolicy, _Mapping]]] = ...) -> None: ...

class StoredCompaction(_message.Message):
    __slots__ = ("revision", "kept")
    class Kept(_message.Message):
        __slots__ = ("tenant", "prefix", "versions", "superseded_after", "through")
        TENANT_FIELD_NUMBER: _ClassVar[int]
        PREFIX_FIELD_NUMBER: _ClassVar[int]
        VERSIONS_FIELD_NUMBER: _ClassVar[int]
        SUPERSEDED_AFTER_FIELD_NUMBER: _ClassVar[int]
        THROUGH_FIELD_NUMBER: _ClassVar[int]
        tenant: int
        prefix: bytes
        versions: int
        superseded_after: int
        through: int
        def __init__(self, tenant: _Optional[int] = ..., prefix: _Optional[bytes] = ..., versions: _Optional[int] = ..., superseded_after: _Optional[int] = ..., through: _Optional[int] = ...) -> None: ...
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    kept: _containers.RepeatedCompositeFieldContainer[StoredCompaction.Kept]
    def __init__(self, revision: _Optional[int] = ..., kept: _Optional[_Iterable[_Union[StoredCompaction.Kept, _Mapping]]] = ...) -> None: ...

class Destruction(_message.Message):
    __slots__ = ("tenant", "key", "through")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    tenant: int
    key: bytes
    through: int
    def __init__(self, tenant: _Optional[int] = ..., key: _Optional[bytes] = ..., through: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("id", "name", "peer_urls", "client_urls", "is_learner", "is_joining")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
    IS_JOINING_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    is_learner: bool
    is_joining: bool
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., peer_urls: _Optional[_Iterable[str]] = ..., client_urls: _Optional[_Iterable[str]] = ..., is_learner: _Optional[bool] = ..., is_joining: _Optional[bool] = ...) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("member_id", "public_key")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    public_key: bytes
    def __init__(self, member_id: _Optional[int] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class ToldHead(_message.Message):
    __slots__ = ("member_id", "seq", "hash", "signature", "time_s", "is_missing")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    IS_MISSING_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    seq: int
    hash: bytes
    signature: bytes
    time_s: int
    is_missing: bool
    def __init__(self, member_id: _Optional[int] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., time_s: _Optional[int] = ..., is_missing: _Optional[bool] = ...) -> None: ...

class MemberAdd(_message.Message):
    __slots__ = ("member", "learners_max")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_MAX_FIELD_NUMBER: _ClassVar[int]
    member: Member
    learners_max: int
    def __init__(self, member: _Optional[_Union[Member, _Mapping]] = ..., learners_max: _Optional[int] = ...) -> None: ...

class MemberRemove(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class MemberUpdate(_message.Message):
    __slots__ = ("id", "peer_urls")
    ID_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    id: int
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., peer_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class MemberPromote(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ("form",)
    FORM_FIELD_NUMBER: _ClassVar[int]
    form: int
    def __init__(self, form: _Optional[int] = ...) -> None: ...

class MarkRequest(_message.Message):
    __slots__ = ("index", "versions")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    index: int
    versions: bool
    def __init__(self, index: _Optional[int] = ..., versions: _Optional[bool] = ...) -> None: ...

class MarkResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    def __init__(self, digest: _Optional[bytes] = ...) -> None: ...

class LearnerReadiness(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class MemberPublish(_message.Message):
    __slots__ = ("id", "name", "client_urls")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., client_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class SigningKeyAdd(_message.Message):
    __slots__ = ("member_id", "public_key")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    public_key: bytes
    def __init__(self, member_id: _Optional[int] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class AuditHeadTell(_message.Message):
    __slots__ = ("member_id", "seq", "hash", "signature", "time_s")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    seq: int
    hash: bytes
    signature: bytes
    time_s: int
    def __init__(self, member_id: _Optional[int] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., time_s: _Optional[int] = ...) -> None: ...

class AuditHeadMiss(_message.Message):
    __slots__ = ("member_id", "seq")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    seq: int
    def __init__(self, member_id: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class ToldHeadRequest(_message.Message):
    __slots__ = ("member_id",)
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    def __init__(self, member_id: _Optional[int] = ...) -> None: ...

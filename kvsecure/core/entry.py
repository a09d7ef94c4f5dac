"""Log entries: a command with its caller, as bytes.

Owns: the encoding, and the number of every command that can be in a log.
Never: changes what a number means; old logs have to be read.
Keeps: the request's own bytes are the command's bytes, also within a burst; nothing is encoded
    twice.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, final

from google.protobuf.message import DecodeError, Message

from kvsecure.model.burst import PutBurst
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import SYSTEM_TENANT, TenantId
from kvsecure.proto import (
    auth_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
)
from kvsecure.proto.encode import varint

__all__ = [
    "COMMANDS",
    "DamagedEntry",
    "Entry",
    "decode",
    "encode",
    "encode_clock",
    "encode_puts",
    "envelope",
]

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BB")
# Tenant, origin, revision of the law, length of the user's name.
_ENVELOPE: Final = struct.Struct(">IBQH")
_LENGTH: Final = struct.Struct(">H")
_LENGTHS_END: Final = _HEAD.size + _ENVELOPE.size
_LENGTH_AT: Final = _LENGTHS_END - _LENGTH.size
# Heads that are remembered.
_HEADS_MAX: Final = 1_024

COMMANDS: Final[Mapping[int, type[Message]]] = MappingProxyType(
    {
        1: kv_pb2.PutRequest,
        2: kv_pb2.DeleteRangeRequest,
        3: kv_pb2.TxnRequest,
        4: kv_pb2.CompactionRequest,
        5: state_pb2.PutBurst,
        # Of whoever proposes.
        6: state_pb2.Clock,
        7: version_pb2.RetentionSetRequest,
        8: version_pb2.RetentionDeleteRequest,
        9: version_pb2.DestroyRequest,
        10: lease_pb2.LeaseGrantRequest,
        11: lease_pb2.LeaseRevokeRequest,
        # Of the member itself.
        12: lease_pb2.LeaseCheckpointRequest,
        20: auth_pb2.AuthEnableRequest,
        21: auth_pb2.AuthDisableRequest,
        22: auth_pb2.AuthUserAddRequest,
        23: auth_pb2.AuthUserDeleteRequest,
        24: auth_pb2.AuthUserChangePasswordRequest,
        25: auth_pb2.AuthUserGrantRoleRequest,
        26: auth_pb2.AuthUserRevokeRoleRequest,
        27: auth_pb2.AuthRoleAddRequest,
        28: auth_pb2.AuthRoleDeleteRequest,
        29: auth_pb2.AuthRoleGrantPermissionRequest,
        30: auth_pb2.AuthRoleRevokePermissionRequest,
        # Of the member itself.
        31: state_pb2.VerifierUpgrade,
        40: maintenance_pb2.AlarmRequest,
        # Of the member itself.
        41: state_pb2.Compare,
        50: tenant_pb2.TenantAddRequest,
        51: tenant_pb2.TenantDeleteRequest,
        60: state_pb2.MemberAdd,
        61: state_pb2.MemberRemove,
        62: state_pb2.MemberUpdate,
        63: state_pb2.MemberPromote,
        # Of the member itself.
        64: state_pb2.MemberPublish,
        65: state_pb2.SigningKeyAdd,
        66: state_pb2.AuditHeadTell,
        67: state_pb2.AuditHeadMiss,
    }
)
# Field `puts` of a PutBurst.
_PUTS: Final = b"\x0a"
_HEADS: Final = {command: _HEAD.pack(_VERSION, number) for number, command in COMMANDS.items()}


class Entry(NamedTuple):
    """A decoded entry."""

    caller: Caller
    command: Message | PutBurst


@final
class DamagedEntry(Exception):
    """An entry of the log cannot be read; it was written by another version, or not by us."""


@lru_cache(maxsize=_HEADS_MAX)
def _decode_head(head: bytes) -> tuple[type[Message], Caller]:
    """Read what is before a request; it is the same for all of a caller's requests of a kind."""
    version, number = _HEAD.unpack_from(head)
    if version != _VERSION:
        raise DamagedEntry(f"entry version {version} is not known here")
    tenant, origin, law_revision, _ = _ENVELOPE.unpack_from(head, _HEAD.size)
    user = head[_LENGTHS_END:].decode()
    return COMMANDS[number], Caller(TenantId(tenant), Origin(origin), user, law_revision)


def envelope(caller: Caller) -> bytes:
    """Encode the caller; it can be kept and used for all of a caller's entries."""
    user = caller.user.encode()
    packed = _ENVELOPE.pack(caller.tenant, caller.origin, caller.law_revision, len(user))
    return packed + user


_CLOCKED: Final = envelope(Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0))


def encode(command: type[Message], packed_caller: bytes, request: bytes) -> bytes:
    """Return the entry for a request's bytes."""
    return _HEADS[command] + packed_caller + request


def encode_puts(packed_caller: bytes, requests: Iterable[bytes]) -> bytes:
    """Return the entry for a burst of puts, given the bytes of its requests."""
    parts = [_HEADS[state_pb2.PutBurst], packed_caller]
    for request in requests:
        parts += (_PUTS, varint(len(request)), request)
    return b"".join(parts)


def encode_clock(time_s: int) -> bytes:
    """Return the entry that says in which second what follows it is written, since 1970."""
    return encode(state_pb2.Clock, _CLOCKED, state_pb2.Clock(time_s=time_s).SerializeToString())


def decode(entry: bytes) -> Entry:
    """Read an entry.

    Raises:
        DamagedEntry: It is not one.
    """
    try:
        end = _LENGTHS_END + _LENGTH.unpack_from(entry, _LENGTH_AT)[0]
        if len(entry) < end:
            raise DamagedEntry("an entry of the log is cut off")
        kind, caller = _decode_head(entry[:end])
        command = kind.FromString(entry[end:])
    except (struct.error, KeyError, ValueError, DecodeError) as error:
        raise DamagedEntry(f"an entry of the log cannot be read: {error}") from None
    if isinstance(command, state_pb2.PutBurst):
        return Entry(caller, PutBurst([(put.key, put.value) for put in command.puts]))
    return Entry(caller, command)

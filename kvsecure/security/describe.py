"""What the audit trail says of a request: fields from an allow list, and nothing else.

Owns: the `op` object of a record for every request message.
Never: emits a field whose meaning is VALUE or SECRET, or one that the law does not name; leaves out
    a part of what was allowed.
Follows: docs/audit.md. OpenBao's leaks through typed bypasses (CVE-2025-62513, CVE-2025-62705) came
    of redacting by type; here a field is shown because its meaning says so.
Keeps: what is said of a refused request has a bounded size: strangers fill no disk with names.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast, final

from google.protobuf.message import Message

from kvsecure.access.decide import PARTS, RULES, Meaning
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.proto import kv_pb2
from kvsecure.security.canonical import canonical, json_bytes, json_list

__all__ = ["describe", "describe_fields", "describe_refused", "rpc_name"]

_HIDDEN: Final = frozenset({Meaning.VALUE, Meaning.SECRET})
# A longer name is shown by its beginning, its length and its digest.
_NAME_BYTES_MAX: Final = 1_024
# Of a request that was refused, so much is shown: enough to see what somebody was after.
_REFUSED_NAME_BYTES_MAX: Final = 256
_REFUSED_OPERATIONS_MAX: Final = 16
# A plain put of a transaction.
_PUT_WITHIN: Final = b'{"request_put":{%b,"rpc":"Put","value_bytes":%d},"rpc":"RequestOp"}'
# Worked out once for each kind of request: a transaction has hundreds of them.
_NAMES: Final[dict[type[Message], str]] = {}


def describe(request: Message | GetBurst | PutBurst | PutTxn) -> bytes:
    """Return the canonical JSON object that says all that a request asked for."""
    special = _HOT.get(type(request))
    return special(request) if special else canonical(describe_fields(cast("Message", request)))


def describe_fields(request: Message) -> dict[str, object]:
    """Describe any request by the meanings that the law gives its fields."""
    return _Scribe(sys.maxsize, _NAME_BYTES_MAX).fields(request)


def describe_refused(request: Message) -> dict[str, object]:
    """Describe a request that nothing came of: its beginning."""
    return _Scribe(_REFUSED_OPERATIONS_MAX, _REFUSED_NAME_BYTES_MAX).fields(request)


def rpc_name(request: type[Message]) -> str:
    """Return the name of the method that a request is of: `Put`, `UserAdd`, `AuthEnable`."""
    known = _NAMES.get(request)
    if known is not None:
        return known
    name = request.DESCRIPTOR.name.removesuffix("Request")
    # etcd's messages of users and roles have a word more than their methods.
    short = name.removeprefix("Auth") if name.startswith(("AuthUser", "AuthRole")) else name
    return _NAMES.setdefault(request, short)


def _get_burst(burst: GetBurst) -> bytes:
    return b'{%b,"rpc":"Range"}' % _keys(burst.keys)


def _put_burst(burst: PutBurst) -> bytes:
    puts = burst.puts
    if len(puts) == 1:
        ((key, value),) = puts
        return b'{%b,"rpc":"Put","value_bytes":%d}' % (json_bytes("key", key), len(value))
    keys = _keys([key for key, _ in puts])
    sizes = b",".join([b"%d" % len(value) for _, value in puts])
    return b'{%b,"rpc":"Put","value_bytes":[%b]}' % (keys, sizes)


def _keys(keys: list[bytes]) -> bytes:
    return json_bytes("key", keys[0]) if len(keys) == 1 else json_list("keys", keys)


def _txn(txn: kv_pb2.TxnRequest) -> bytes:
    """Describe a transaction: most have many plain puts, which need no dictionaries."""
    members = [b'"rpc":"Txn"']
    if txn.compare:
        compares = [canonical(describe_fields(compare)) for compare in txn.compare]
        members.insert(0, b'"compare":[%b]' % b",".join(compares))
    if txn.failure:
        members.insert(-1, b'"failure":[%b]' % b",".join(map(_operation, txn.failure)))
    if txn.success:
        members.append(b'"success":[%b]' % b",".join(map(_operation, txn.success)))
    return b"{%b}" % b",".join(members)


def _put_txn(txn: PutTxn) -> bytes:
    """Describe a transaction of plain puts as `_txn` would."""
    return b'{"rpc":"Txn","success":[%b]}' % b",".join([_put_within(*put) for put in txn.puts])


def _put_within(key: bytes, value: bytes) -> bytes:
    if not value or len(key) > _NAME_BYTES_MAX:
        put = kv_pb2.PutRequest(key=key, value=value)
        return _operation(kv_pb2.RequestOp(request_put=put))
    return _PUT_WITHIN % (json_bytes("key", key), len(value))


def _operation(operation: kv_pb2.RequestOp) -> bytes:
    if operation.WhichOneof("request") == "request_put":
        put = operation.request_put
        key, size_bytes = put.key, len(put.value)
        if (
            0 < len(key) <= _NAME_BYTES_MAX
            and size_bytes
            and not (put.lease or put.prev_kv or put.ignore_value or put.ignore_lease)
        ):
            return _PUT_WITHIN % (json_bytes("key", key), size_bytes)
    return canonical(describe_fields(operation))


@final
class _Scribe:
    """Writes down one request."""

    __slots__ = ("_name_bytes_max", "_operations_left")

    def __init__(self, operations_max: int, name_bytes_max: int) -> None:
        self._operations_left = operations_max
        self._name_bytes_max = name_bytes_max

    def fields(self, request: Message) -> dict[str, object]:
        """Return what is shown of a request or an operation."""
        shown: dict[str, object] = {"rpc": rpc_name(type(request))}
        self._add(shown, "", request, RULES[type(request)].fields)
        return shown

    def _add(
        self, shown: dict[str, object], prefix: str, part: Message, meanings: Mapping[str, Meaning]
    ) -> None:
        for field, content in part.ListFields():
            name = prefix + field.name
            meaning = meanings.get(field.name, Meaning.SECRET)
            if meaning is Meaning.VALUE and isinstance(content, bytes):
                shown[f"{prefix}value_bytes"] = len(content)
            elif meaning in _HIDDEN:
                shown[f"{name}_given"] = True
            elif meaning is Meaning.NESTED:
                self._nested(shown, name, content)
            elif field.message_type is not None and field.is_repeated:
                # Only of the member itself: none of a client's requests has parts by the dozen.
                shown[f"{name}_count"] = len(content)
            elif isinstance(content, Message):
                self._add(shown, f"{name}_", content, PARTS.get(type(content), {}))
            else:
                self._plain(shown, name, content)

    def _nested(self, shown: dict[str, object], name: str, content: Any) -> None:
        if isinstance(content, Message):
            shown[name] = self.fields(content)
            return
        listed = shown[name] = []
        for operation in content:
            if not self._operations_left:
                shown[f"{name}_truncated"] = len(content)
                return
            self._operations_left -= 1
            listed.append(self.fields(operation))

    def _plain(self, shown: dict[str, object], name: str, content: Any) -> None:
        if isinstance(content, bytes):
            self._name(shown, name, content)
        elif isinstance(content, str):
            self._name(shown, name, content.encode())
        elif isinstance(content, bool | int):
            shown[name] = content
        else:
            self._list(shown, name, content)

    def _list(self, shown: dict[str, object], name: str, content: Sequence[Any]) -> None:
        """Show numbers, enums and texts; nothing else is repeated and plain."""
        listed: list[object] = []
        for each in content:
            if isinstance(each, str):
                if not self._operations_left:
                    shown[f"{name}_truncated"] = len(content)
                    break
                self._operations_left -= 1
                whole: dict[str, object] = {}
                self._name(whole, name, each.encode())
                listed.append(each if whole == {name: each} else whole)
            elif isinstance(each, bool | int):
                listed.append(each)
        shown[name] = listed

    def _name(self, shown: dict[str, object], name: str, content: bytes) -> None:
        if len(content) > self._name_bytes_max:
            shown[f"{name}_bytes"] = len(content)
            shown[f"{name}_sha256"] = hashlib.sha256(content).hexdigest()
            content = content[: self._name_bytes_max]
        try:
            shown[name] = content.decode()
        except UnicodeDecodeError:
            shown[f"{name}_hex"] = content.hex()


_HOT: Final[Mapping[type, Callable[[Any], bytes]]] = MappingProxyType(
    {GetBurst: _get_burst, PutBurst: _put_burst, PutTxn: _put_txn, kv_pb2.TxnRequest: _txn}
)

"""What a record says of a request: everything that was asked for, and nothing that is secret."""

import json
import random
from typing import Any, Final

import pytest
from access.oracle import random_request
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kvsecure.access.decide import PARTS, RULES, Meaning
from kvsecure.api.methods import METHODS
from kvsecure.model.burst import GetBurst, PutBurst
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, state_pb2, watch_pb2
from kvsecure.security.canonical import canonical
from kvsecure.security.describe import describe, describe_fields, describe_refused, rpc_name

_CANARY: Final = "canary-7f3a"
_HIDDEN: Final = frozenset({Meaning.VALUE, Meaning.SECRET})
_REQUESTS: Final = sorted(RULES, key=lambda each: each.DESCRIPTOR.full_name)


def _meanings(message: type[Message]) -> dict[str, Meaning]:
    return dict(RULES[message].fields if message in RULES else PARTS[message])


def _fill(message: Message, depth: int = 0) -> list[str]:
    """Put a canary of its own into every field; return those that must not be shown."""
    secret: list[str] = []
    meanings = _meanings(type(message))
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) is not None:
            continue
        canary = f"{_CANARY}-{message.DESCRIPTOR.name}-{field.name}-{depth}"
        if field.message_type is not None:
            if depth < 3:
                secret += _fill(_inner(message, field), depth + 1)
            continue
        _set(message, field, canary)
        if meanings[field.name] in _HIDDEN:
            secret.append(canary)
    return secret


def _inner(message: Message, field: FieldDescriptor) -> Message:
    inner: Any = getattr(message, field.name)
    if field.is_repeated:
        return inner.add()
    inner.SetInParent()
    return inner


def _set(message: Message, field: FieldDescriptor, canary: str) -> None:
    content: Any
    if field.type == FieldDescriptor.TYPE_BYTES:
        content = canary.encode()
    elif field.type == FieldDescriptor.TYPE_STRING:
        content = canary
    else:
        content = 1
    if field.is_repeated:
        getattr(message, field.name).append(content)
    else:
        setattr(message, field.name, content)


@pytest.mark.parametrize("request_type", _REQUESTS, ids=lambda each: each.DESCRIPTOR.name)
def test_no_value_and_no_secret_is_shown(request_type: type[Message]) -> None:
    """A record never holds what the law calls a value or a secret, in whatever field it came."""
    # Oneofs hold one field at a time: fill each of them in turn.
    for chosen in [None, *request_type.DESCRIPTOR.fields]:
        request = request_type()
        secret: list[str] = []
        if chosen is not None and chosen.message_type is not None:
            secret += _fill(_inner(request, chosen), 1)
        elif chosen is not None:
            canary = f"{_CANARY}-chosen"
            _set(request, chosen, canary)
            if _meanings(request_type)[chosen.name] in _HIDDEN:
                secret.append(canary)
        secret += _fill(request)
        for shown in (
            describe(request),
            canonical(describe_fields(request)),
            canonical(describe_refused(request)),
        ):
            for canary in secret:
                assert canary.encode() not in shown
                assert canary.encode().hex().encode() not in shown


def test_secrets_were_there_to_be_shown() -> None:
    """The fields that the test above fills hold canaries of every kind, and names do show."""
    request = auth_pb2.AuthUserAddRequest()
    secret = _fill(request)

    shown = describe(request)

    assert {each.rsplit("-", 2)[1] for each in secret} == {"password", "hashedPassword"}
    assert b"AuthUserAddRequest-name" in shown
    assert json.loads(shown)["password_given"] is True


def test_bytes_that_are_no_text_are_hidden_as_well() -> None:
    """A value that is not UTF-8 is a value (OpenBao leaked by type, CVE-2025-62705)."""
    value = b"\xff\xfe" + _CANARY.encode()
    put = kv_pb2.PutRequest(key=b"\xff", value=value, prev_kv=True)
    compare = kv_pb2.Compare(key=b"k", target=kv_pb2.Compare.VALUE, value=value)

    for request in (put, kv_pb2.TxnRequest(compare=[compare])):
        shown = describe(request)
        assert _CANARY.encode() not in shown
        assert value.hex().encode() not in shown
        assert b'"value_bytes":%d' % len(value) in shown


def test_every_allowed_operation_is_shown() -> None:
    """However many operations a transaction has, none of them is left out of its record."""
    request = kv_pb2.TxnRequest()
    for number in range(128):
        request.success.add(request_range=kv_pb2.RangeRequest(key=b"/k/%03d" % number))
    nested = request.failure.add().request_txn
    for number in range(128):
        nested.success.add(request_delete_range=kv_pb2.DeleteRangeRequest(key=b"/d/%03d" % number))

    shown = describe(request)

    for number in range(128):
        assert b'"/k/%03d"' % number in shown
        assert b'"/d/%03d"' % number in shown
    assert b"truncated" not in shown


def test_an_old_version_that_is_read_is_shown_as_such() -> None:
    """Reading the past is not recorded as reading the present."""
    shown = json.loads(describe(kv_pb2.RangeRequest(key=b"k", revision=7, limit=3)))

    assert shown == {"key": "k", "limit": 3, "revision": 7, "rpc": "Range"}


def test_a_long_name_is_shown_by_its_beginning_length_and_digest() -> None:
    """Records stay short where names are long, and still tell one long name from another."""
    for request_type in (kv_pb2.RangeRequest, kv_pb2.PutRequest):
        one = json.loads(describe(request_type(key=b"k" * 5_000)))
        other = json.loads(describe(request_type(key=b"k" * 4_999 + b"l")))

        assert one["key"] == other["key"] == "k" * 1_024
        assert one["key_bytes"] == 5_000
        assert one["key_sha256"] != other["key_sha256"]


def test_what_is_said_of_a_refused_request_is_bounded() -> None:
    """A stranger's request of a megabyte makes a record of some kilobytes."""
    huge = "\x01" * 1_000_000
    transaction = kv_pb2.TxnRequest()
    for _ in range(2_000):
        transaction.success.add(request_put=kv_pb2.PutRequest(key=b"\x01" * 500))
    requests: tuple[Message, ...] = (
        kv_pb2.RangeRequest(key=huge.encode(), range_end=huge.encode()),
        kv_pb2.PutRequest(key=huge.encode()),
        auth_pb2.AuthUserGetRequest(name=huge),
        auth_pb2.AuthRoleGrantPermissionRequest(
            name=huge, perm=authstore_pb2.Permission(key=huge.encode())
        ),
        transaction,
    )

    for request in requests:
        shown = canonical(describe_refused(request))
        assert len(shown) < 64 * 1024
        assert b'"rpc":' in shown


def test_a_refused_transaction_says_how_much_it_left_out() -> None:
    """What is cut short is said to be."""
    request = kv_pb2.TxnRequest()
    for number in range(40):
        request.success.add(request_range=kv_pb2.RangeRequest(key=b"%d" % number))

    shown: Any = describe_refused(request)

    assert len(shown["success"]) == 16
    assert shown["success_truncated"] == 40


def test_parts_of_requests_are_shown_by_their_own_meanings() -> None:
    """A permission is shown field by field, and what the law does not name is not shown."""
    permission = authstore_pb2.Permission(permType=2, key=b"/app/", range_end=b"/app0")  # type: ignore[arg-type]  # an enum is an int here
    grant = auth_pb2.AuthRoleGrantPermissionRequest(name="app", perm=permission)
    added = auth_pb2.AuthUserAddRequest(
        name="web", options=authstore_pb2.UserAddOptions(no_password=True)
    )

    assert describe_fields(grant) == {
        "rpc": "RoleGrantPermission",
        "name": "app",
        "perm_permType": 2,
        "perm_key": "/app/",
        "perm_range_end": "/app0",
    }
    assert describe_fields(added)["options_no_password"] is True


def test_the_members_own_command_can_be_described() -> None:
    """A stronger verifier that is stored after a log-in has a record like any command."""
    upgrade = state_pb2.VerifierUpgrade(user="web", old_hash=_CANARY, new_hash=_CANARY)

    shown = describe(upgrade)

    assert json.loads(shown)["user"] == "web"
    assert _CANARY.encode() not in shown


def test_the_quick_way_says_what_the_slow_way_says() -> None:
    """What is written of a request is the canonical form of its fields."""
    rng = random.Random(random.randrange(1 << 32))

    for _ in range(4_000):
        request = random_request(rng)
        form = describe(request)
        assert form == canonical(json.loads(form))
        assert json.loads(form) == json.loads(_slow(request)), request


@pytest.mark.parametrize(
    "keys",
    [[b"/a"], [b"\xff"], [b'"\\\n'], [b"/a", b"/b"], [b"/a", b"\xff"], [b'/"', "/ö".encode()]],
    ids=str,
)
def test_a_burst_is_shown_like_its_requests(keys: list[bytes]) -> None:
    """A burst of one has the form of the request; one of several lists what their forms say."""
    gets = [describe_fields(kv_pb2.RangeRequest(key=key)) for key in keys]
    sizes = [len(key) * 3 for key in keys]

    get = describe(GetBurst(keys))
    put = describe(PutBurst([(key, bytes(size)) for key, size in zip(keys, sizes, strict=True)]))

    assert [canonical(json.loads(form)) for form in (get, put)] == [get, put]
    if len(keys) == 1:
        expected: dict[str, object] = {**gets[0], "value_bytes": sizes[0]}
    elif any("key_hex" in each for each in gets):
        expected = {"keys_hex": [key.hex() for key in keys], "value_bytes": sizes}
    else:
        expected = {"keys": [each["key"] for each in gets], "value_bytes": sizes}
    assert json.loads(put) == {**expected, "rpc": "Put"}
    del expected["value_bytes"]
    assert json.loads(get) == {**expected, "rpc": "Range"}


def _slow(request: Message) -> bytes:
    fields = describe_fields(request)
    if isinstance(request, kv_pb2.PutRequest):
        fields["value_bytes"] = len(request.value)
    return canonical(fields)


def test_names_of_requests_are_those_of_methods() -> None:
    """A record names the method by which a request came, where a request has a method."""
    # These carry other requests, or belong to a service whose messages are named otherwise.
    others = {"Watch", "Check", "Compact", "Head", "Heads", "Tail", "ServerReflectionInfo"}
    # What is read in parts is a Range, and its result names the part.
    others.add("RangeStream")
    # What is observed is the Leader, and its result says that it begins.
    others.add("Observe")

    for path, method in METHODS.items():
        _, service, name = path.split("/")
        if service == "kvsecurepb.Crypto":
            assert rpc_name(method.request) == f"Crypto{name}"
        elif service == "kvsecurepb.Joining":
            assert rpc_name(method.request) == f"Join{name}"
        elif name not in others:
            assert rpc_name(method.request) == name
    assert rpc_name(watch_pb2.WatchCreateRequest) == "WatchCreate"
    assert rpc_name(kv_pb2.CompactionRequest) == "Compaction"

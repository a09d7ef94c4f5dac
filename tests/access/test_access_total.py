"""A member does not start with a message that the law does not mention in full."""

from collections.abc import Callable, Mapping
from typing import Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from kvsecure.access.decide import PARTS, RULES, Meaning, check_total
from kvsecure.api.methods import METHODS
from kvsecure.core.entry import COMMANDS
from kvsecure.model.errors import Broken
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, mvcc_pb2, state_pb2

_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto


def _copied(file: _File) -> Callable[[str], type[Message]]:
    """Return the messages of a file and of what it imports, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in seen or name == file.name:
            return
        seen.add(name)
        original = descriptor_pool.Default().FindFileByName(name)
        for dependency in original.dependencies:
            add(dependency.name)
        copy = _File()
        original.CopyToProto(copy)
        pool.Add(copy)

    for name in file.dependency:
        add(name)
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _changed(
    message: type[Message], change: Callable[[descriptor_pb2.DescriptorProto], None]
) -> type[Message]:
    """Return the message as it would be if its file were changed."""
    file = _File()
    message.DESCRIPTOR.file.CopyToProto(file)
    change(next(each for each in file.message_type if each.name == message.DESCRIPTOR.name))
    return _copied(file)(message.DESCRIPTOR.full_name)


def _with_field(descriptor: descriptor_pb2.DescriptorProto) -> None:
    descriptor.field.add(
        name="added_upstream", number=99, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL
    )


def test_the_law_mentions_everything_that_can_be_called() -> None:
    """Every method's request, with everything nested in it, has its rules."""
    check_total([method.request for method in METHODS.values()])


def test_the_law_mentions_every_command_of_the_log() -> None:
    """Whatever a client can put into the log is decided again when it is applied."""
    check_total(COMMANDS.values())


_REQUESTS: Final = sorted(RULES, key=lambda request: request.DESCRIPTOR.full_name)


@pytest.mark.parametrize("request_type", _REQUESTS, ids=lambda each: each.DESCRIPTOR.name)
def test_a_field_without_a_meaning_stops_the_start(request_type: type[Message]) -> None:
    """One field more than the law mentions, in any request, and the member does not start."""
    changed = _changed(request_type, _with_field)

    with pytest.raises(Broken, match="added_upstream"):
        check_total([changed])


def test_a_field_that_is_gone_stops_the_start() -> None:
    """A rule for a field that there is not is a rule for something else by now."""

    def without_key(descriptor: descriptor_pb2.DescriptorProto) -> None:
        del descriptor.field[0]

    with pytest.raises(Broken, match="key"):
        check_total([_changed(kv_pb2.PutRequest, without_key)])


def test_a_field_of_a_nested_operation_is_noticed() -> None:
    """A field that a put gets inside a transaction is found by way of the transaction."""
    file = _File()
    kv_pb2.DESCRIPTOR.CopyToProto(file)
    put = next(each for each in file.message_type if each.name == "PutRequest")
    _with_field(put)
    transaction = _copied(file)("etcdserverpb.TxnRequest")

    with pytest.raises(Broken, match=r"PutRequest.*added_upstream"):
        check_total([transaction])


@pytest.mark.parametrize(
    ("request_type", "part"),
    [
        (auth_pb2.AuthRoleGrantPermissionRequest, authstore_pb2.Permission),
        (auth_pb2.AuthUserAddRequest, authstore_pb2.UserAddOptions),
    ],
    ids=["permission", "user options"],
)
def test_a_field_of_a_part_is_noticed(request_type: type[Message], part: type[Message]) -> None:
    """A message that only ever stands inside a request is mentioned field by field as well."""
    inner, outer = _File(), _File()
    part.DESCRIPTOR.file.CopyToProto(inner)
    request_type.DESCRIPTOR.file.CopyToProto(outer)
    _with_field(next(each for each in inner.message_type if each.name == part.DESCRIPTOR.name))
    pool = descriptor_pool.DescriptorPool()
    for name in outer.dependency:
        if name != inner.name:
            _add(pool, name)
    pool.Add(inner)
    pool.Add(outer)
    changed = message_factory.GetMessageClass(
        pool.FindMessageTypeByName(request_type.DESCRIPTOR.full_name)
    )

    with pytest.raises(Broken, match="added_upstream"):
        check_total([changed])


def _add(pool: descriptor_pool.DescriptorPool, name: str) -> None:
    original = descriptor_pool.Default().FindFileByName(name)
    for dependency in original.dependencies:
        _add(pool, dependency.name)
    copy = _File()
    original.CopyToProto(copy)
    pool.Add(copy)


def test_a_request_without_a_rule_stops_the_start() -> None:
    """A method whose request nobody thought of cannot be served."""
    for unknown in (mvcc_pb2.KeyValue, state_pb2.User, kv_pb2.PutResponse):
        with pytest.raises(Broken, match="does not know"):
            check_total([unknown])


def test_a_part_is_not_a_request() -> None:
    """What the law knows as a part of requests cannot be called by itself."""
    for part in PARTS:
        with pytest.raises(Broken, match="does not know"):
            check_total([part])


def test_a_message_in_a_field_that_is_not_looked_into_stops_the_start() -> None:
    """A field that turns from an option into a message has to be thought about again."""

    def hide(descriptor: descriptor_pb2.DescriptorProto) -> None:
        for field in descriptor.field:
            if field.name == "limit":
                field.type = _Field.TYPE_MESSAGE
                field.type_name = ".mvccpb.KeyValue"

    with pytest.raises(Broken, match="KeyValue"):
        check_total([_changed(kv_pb2.RangeRequest, hide)])


def test_every_rule_is_about_the_fields_that_there_are() -> None:
    """The table itself is in step with the messages, in names and in kinds."""
    tables: list[tuple[type[Message], Mapping[str, Meaning]]] = [
        *((request, rule.fields) for request, rule in RULES.items()),
        *PARTS.items(),
    ]

    for message, fields in tables:
        assert set(fields) == {field.name for field in message.DESCRIPTOR.fields}, message
        for field in message.DESCRIPTOR.fields:
            if field.name in {"password", "hashedPassword", "root_password"}:
                assert fields[field.name] is Meaning.SECRET
            if field.name == "value":
                assert fields[field.name] is Meaning.VALUE

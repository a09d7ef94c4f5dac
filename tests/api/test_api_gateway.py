"""JSON of the gateway: against the stock json_format, what is refused, and the table of paths."""

import base64
import json
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.api.gateway import (
    ENDPOINTS,
    answer_text,
    error_text,
    find_endpoint,
    http_status,
    read_request,
    stream_error_line,
    stream_line,
)
from kvsecure.api.json_form import JsonSplitter, Misshapen, encode_json, fill_message, parse_json
from kvsecure.api.json_pieces import encode_json_in_pieces
from kvsecure.api.methods import METHODS
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto import kv_pb2, watch_pb2

_OPS_MAX: Final = 128
_MESSAGES: Final = sorted(
    {each.method.request for each in ENDPOINTS.values()}
    | {each.response for each in ENDPOINTS.values()},
    key=lambda message: message.DESCRIPTOR.full_name,
)
_NUMBERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
_TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.cpp_type in _NUMBERS:
        return _NUMBERS[field.cpp_type]
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.message_type is not None:
        return _fields(field.message_type, depth - 1)
    return st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else _TEXTS


def _fields(descriptor: Descriptor, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Return what a message may be made from, as keyword arguments."""
    optional = {}
    oneofs: dict[str, list[FieldDescriptor]] = {}
    for field in descriptor.fields:
        if field.message_type is not None and not depth:
            continue
        if field.containing_oneof is not None:
            oneofs.setdefault(field.containing_oneof.name, []).append(field)
            continue
        one = _value(field, depth)
        optional[field.name] = st.lists(one, max_size=3) if field.is_repeated else one
    plain = st.fixed_dictionaries({}, optional=optional)
    choices = [
        st.one_of(*[st.fixed_dictionaries({one.name: _value(one, depth)}) for one in group])
        for group in oneofs.values()
    ]
    return st.tuples(plain, *choices).map(
        lambda parts: {k: v for one in parts for k, v in one.items()}
    )


_ANY_MESSAGE: Final = st.sampled_from(_MESSAGES).flatmap(
    lambda message: _fields(message.DESCRIPTOR, 4).map(lambda fields: message(**fields))
)


def _stock(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _read(message: type[Message], text: str) -> Message:
    made = message()
    fill_message(made, parse_json(text.encode(), 10_000))
    return made


# --- against the stock conversion -------------------------------------------------------------


@given(_ANY_MESSAGE)
@settings(max_examples=300)
def test_messages_are_written_as_by_the_stock_conversion(message: Message) -> None:
    """Whatever a message holds, its JSON says the same as that of protobuf's own library."""
    text = encode_json(message)

    assert json.loads(text) == _stock(message)
    assert text.isascii()


@given(_ANY_MESSAGE, st.integers(1, 60), st.integers(1, 2))
@settings(max_examples=300)
def test_pieces_of_a_text_are_the_text(message: Message, piece_bytes: int, times: int) -> None:
    """However a message is cut, and in whatever order its fields came, its JSON is the same."""
    content = message.SerializeToString() * times
    kind = type(message)

    pieces = [*encode_json_in_pieces(kind, content, piece_bytes)]

    assert b"".join(pieces).decode() == encode_json(kind.FromString(content))


def test_a_large_answer_is_written_in_pieces() -> None:
    """Of a range of very many keys no more is read at once than was asked for."""
    answer = kv_pb2.RangeResponse(count=5_000)
    for number in range(5_000):
        answer.kvs.add(key=b"k%d" % number, value=bytes(300), mod_revision=number)

    pieces = [*encode_json_in_pieces(type(answer), answer.SerializeToString())]

    assert len(pieces) > 20
    assert max(map(len, pieces)) < 2 * 64 * 1024
    assert json.loads(b"".join(pieces)) == _stock(answer)


@given(_ANY_MESSAGE)
@settings(max_examples=300)
def test_messages_are_read_back(message: Message) -> None:
    """What is written, by us or by the stock library under either name, is read as what it was."""
    ours = _read(type(message), encode_json(message))
    stock = _read(type(message), json_format.MessageToJson(message))

    assert ours == stock == message


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["Zm9v", "5", "-1", "READ", "99999999999999999999"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["key", "limit", "compare", "success", "request_put", "requestPut", "perm",
                         "permType", "name", "create_request", "ID", "x"]),
        inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
@settings(max_examples=300)
def test_any_json_is_read_or_refused(value: object) -> None:
    """No JSON makes anything but a message or the one refusal."""
    text = json.dumps(value).encode()
    failures = set()

    for path in ("/v3/kv/range", "/v3/kv/txn", "/v3/watch", "/v3/auth/role/grant"):
        try:
            content = read_request(ENDPOINTS[path], text, _OPS_MAX)
        except Refused as refused:
            failures.add(refused.failure)
        else:
            ENDPOINTS[path].method.request.FromString(content)

    assert failures <= {Failure.MALFORMED_JSON}


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """No bytes make anything but a message or the one refusal."""
    failure = Failure.MALFORMED_JSON
    try:
        read_request(ENDPOINTS["/v3/kv/put"], content, _OPS_MAX)
    except Refused as refused:
        failure = refused.failure

    assert failure is Failure.MALFORMED_JSON


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", {}),
        ("null", {}),
        ('{"key":"Zm9v"}', {"key": b"foo"}),
        ('{"range_end":"Zm9v"}', {"range_end": b"foo"}),
        ('{"rangeEnd":"Zm9v"}', {"range_end": b"foo"}),
        ('{"key":"_-8="}', {"key": b"\xff\xef"}),
        ('{"key":"/+8"}', {"key": b"\xff\xef"}),
        ('{"limit":5,"revision":"7"}', {"limit": 5, "revision": 7}),
        ('{"limit":"-1"}', {"limit": -1}),
        ('{"limit":null}', {}),
        ('{"sort_order":"DESCEND","sort_target":3}', {"sort_order": 2, "sort_target": 3}),
        ('{"nobody":{"knows":[1]},"limit":1}', {"limit": 1}),
        (' \n{"keys_only":true} ', {"keys_only": True}),
    ],
)
def test_requests_are_read_as_etcd_reads_them(text: str, fields: dict[str, Any]) -> None:
    """Both names, numbers in both forms, both alphabets of base64; what is unknown is nothing."""
    assert _read(kv_pb2.RangeRequest, text) == kv_pb2.RangeRequest(**fields)


@pytest.mark.parametrize(
    "text",
    [
        '{"key":', "{", "[]", "5", '"x"', "{}{}", "{}x", "nul", "{'key':1}", "\ufeff{}",
        '{"key":5}', '{"key":"%%%"}', '{"key":"Zm9v!"}', '{"key":"Zm9"  "x"}', '{"key":"A"}',
        '{"key":"Zm 9v"}', '{"key":"Zm9v=="}', '{"key":"Zm9v===="}', '{"key":["Zm9v"]}',
        '{"limit":"x"}', '{"limit":5.0}', '{"limit":1e2}', '{"limit":true}', '{"limit":"5.0"}',
        '{"limit":9223372036854775808}', '{"limit":"-9223372036854775809"}', '{"limit":" 5"}',
        '{"limit":NaN}', '{"limit":Infinity}', '{"limit":' + "9" * 5_000 + "}",
        '{"sort_order":"NOPE"}', '{"sort_order":1.5}', '{"sort_order":"1"}',
        '{"serializable":"true"}', '{"serializable":1}',
        '{"range_end":"","rangeEnd":""}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(text: str) -> None:
    """What Go's clients could not have meant is an error, and never some other request."""
    with pytest.raises(Refused) as caught:
        read_request(ENDPOINTS["/v3/kv/range"], text.encode(), _OPS_MAX)

    assert caught.value.failure is Failure.MALFORMED_JSON


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v3/kv/txn", '{"success":[{"request_put":{},"request_range":{}}]}'),
        ("/v3/kv/txn", '{"compare":[{"version":1,"lease":2}]}'),
        ("/v3/kv/txn", '{"success":{}}'),
        ("/v3/kv/txn", '{"success":[null]} x'),
        ("/v3/auth/user/add", '{"name":"\\ud800"}'),
        ("/v3/auth/user/add", '{"name":5}'),
        ("/v3/maintenance/alarm", '{"memberID":-1}'),
    ],
)
def test_what_is_no_message_is_refused(path: str, text: str) -> None:
    """Two of one choice, an object for a list, half a character, a negative id: all errors."""
    with pytest.raises(Refused):
        read_request(ENDPOINTS[path], text.encode(), _OPS_MAX)


def test_errors_repeat_nothing_of_the_request() -> None:
    """A password that ends up in the wrong place does not come back, nor get into a log."""
    for text in (
        '{"name":"root","password":["canary-5521"]}',
        '{"name":"root","password":"canary-5521',
        '{"canary-5521":1,"name":canary-5521}',
        '{"options":"canary-5521"}',
    ):
        with pytest.raises(Refused) as caught:
            read_request(ENDPOINTS["/v3/auth/user/add"], text.encode(), _OPS_MAX)
        assert "canary" not in caught.value.text
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        '{"success":[' + ",".join(["{}"] * 20_000) + "]}",
        "[" * 15_000,
        '{"success":[{"request_txn":' * 200 + "{}" + "}]}" * 200,
        '{"x":' * 15_000 + "1" + "}" * 15_000,
    ],
    ids=["many", "deep", "nested", "deep and unknown"],
)
def test_costly_json_is_refused_before_it_costs(text: str) -> None:
    """However many values or levels there are, it ends early."""
    with pytest.raises(Refused):
        read_request(ENDPOINTS["/v3/kv/txn"], text.encode(), _OPS_MAX)


def test_largest_transaction_is_read() -> None:
    """The bound is above what the operations of a transaction can need."""
    put = {"key": "Zm9v", "value": "YmFy", "lease": "5", "prev_kv": True}
    compare = {"key": "Zm9v", "target": "VERSION", "result": "EQUAL", "version": "1"}
    text = json.dumps(
        {"compare": [compare] * _OPS_MAX}
        | {side: [{"request_put": put}] * _OPS_MAX for side in ("success", "failure")}
    )

    content = read_request(ENDPOINTS["/v3/kv/txn"], text.encode(), _OPS_MAX)

    assert len(kv_pb2.TxnRequest.FromString(content).success) == _OPS_MAX


# --- paths and bodies ---------------------------------------------------------------------------


def test_every_method_of_a_service_has_a_path() -> None:
    """What can be called can be called in JSON, but gRPC's own and RangeStream (as in etcd)."""
    served = {endpoint.path for endpoint in ENDPOINTS.values()}
    unserved = {path for path in METHODS if path.startswith("/grpc.")}

    assert served | unserved == METHODS.keys() - {"/etcdserverpb.KV/RangeStream"}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v3/kv/range", "/etcdserverpb.KV/Range"),
        ("/v3beta/kv/compaction", "/etcdserverpb.KV/Compact"),
        ("/v3alpha/watch", "/etcdserverpb.Watch/Watch"),
        ("/v3/kv/lease/leases?x=y", "/etcdserverpb.Lease/LeaseLeases"),
        ("/v3/auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
        ("/v3/kvsecure/tenants/add", "/kvsecurepb.Tenants/TenantAdd"),
        ("/v3/kvsecure/joining/authority", "/kvsecurepb.Joining/Authority"),
        ("/v3/kv/range/", None),
        ("/v3/kv//range", None),
        ("/v3beta", None),
        ("/v4/kv/range", None),
        ("/v3beta/v3/kv/range", None),
        ("/etcdserverpb.KV/Range", None),
    ],
)
def test_paths_lead_to_methods(target: str, path: str | None) -> None:
    """The three prefixes are one; nothing else is near enough."""
    endpoint = find_endpoint(target)

    assert (endpoint and endpoint.path) == path


def test_bodies_are_those_of_etcd() -> None:
    """Answers, lines of a stream, errors and what ends a stream, to the byte."""
    watch = watch_pb2.WatchResponse(watch_id=3, created=True).SerializeToString()
    put = kv_pb2.PutResponse(prev_kv={"key": b"a"}).SerializeToString()
    refused = Refused(Failure.FUTURE_REVISION)

    text = refused.text.encode()
    assert answer_text(ENDPOINTS["/v3/kv/put"], put) == b'{"prev_kv":{"key":"YQ=="}}'
    assert stream_line(ENDPOINTS["/v3/watch"], watch) == (
        b'{"result":{"watch_id":"3","created":true}}\n'
    )
    assert error_text(refused) == b'{"error":"%b","code":11,"message":"%b"}' % (text, text)
    assert stream_error_line(refused) == (
        b'{"error":{"grpc_code":11,"http_code":400,"message":"%b","http_status":"Bad Request"}}\n'
        % text
    )


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.USER_EMPTY, 400),
        (Failure.INVALID_AUTH_TOKEN, 401),
        (Failure.PERMISSION_DENIED, 403),
        (Failure.LEASE_NOT_FOUND, 404),
        (Failure.NO_SPACE, 429),
        (Failure.INTERNAL, 500),
        (Failure.UNKNOWN_METHOD, 501),
        (Failure.TIMEOUT, 503),
        (Failure.DEADLINE_EXCEEDED, 504),
    ],
)
def test_codes_have_a_status(failure: Failure, status: int) -> None:
    """A code of gRPC is the status that grpc-gateway gives it."""
    assert http_status(failure.code) == status


# --- objects in a row -----------------------------------------------------------------------------


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.text())), max_size=5),
    st.lists(st.integers(1, 9), min_size=1),
    st.sampled_from(["", " ", "\r\n\t"]),
)
def test_objects_are_cut_apart_however_they_come(
    values: list[dict[str, Any]], cuts: list[int], space: str
) -> None:
    """The same objects come out, wherever the row was cut."""
    row = (
        space + "".join(json.dumps(value, ensure_ascii=False) + space for value in values)
    ).encode()
    splitter = JsonSplitter(1_000_000)
    found = []

    at = number = 0
    while at < len(row):
        size = cuts[number % len(cuts)]
        found += splitter.feed(row[at : at + size])
        at, number = at + size, number + 1

    assert [json.loads(text) for text in found] == values
    assert splitter.is_empty


@pytest.mark.parametrize("row", [b"x", b"[]", b"5", b"null", b"{}x", b"{},{}", b"}{"])
def test_what_is_no_object_ends_a_row(row: bytes) -> None:
    """Between objects there is space and nothing else."""
    with pytest.raises(Misshapen):
        JsonSplitter(100).feed(row)


def test_object_of_a_row_has_a_bound() -> None:
    """What does not end is not kept for ever."""
    splitter = JsonSplitter(100)
    splitter.feed(b'{"' + b"a" * 90)

    with pytest.raises(Misshapen):
        splitter.feed(b"a" * 90)


def test_row_of_many_objects_is_cut_in_time() -> None:
    """The work for a row grows with its length and not with its square."""
    row = b'{"a":"%b"}' % base64.b64encode(bytes(3)) * 40_000

    assert len(JsonSplitter(1_000).feed(row)) == 40_000

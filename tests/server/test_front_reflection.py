"""Server reflection: a client that has no `.proto` file finds out how to call, and calls."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support.rpc import Client
from support.servers import KvsecureServer

from kvsecure.proto import reflection_pb2

_Request = reflection_pb2.ServerReflectionRequest
_SERVED = {
    "etcdserverpb.Auth",
    "etcdserverpb.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Watch",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "kvsecurepb.Audit",
    "kvsecurepb.Crypto",
    "kvsecurepb.Joining",
    "kvsecurepb.Versions",
    "kvsecurepb.Tenants",
    "v3electionpb.Election",
    "v3lockpb.Lock",
}


@pytest.fixture(params=["v1", "v1alpha"])
def ask(member: KvsecureServer, request: pytest.FixtureRequest) -> Iterator[Any]:
    """What answers some questions, asked by nobody in particular."""
    path = f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo"
    with member.anonymous() as client:
        call = client._channel.stream_stream(
            path,
            request_serializer=_Request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        yield lambda *questions: list(call(iter(questions), timeout=20))


def test_services_are_listed(ask: Any) -> None:
    """Every service that is served is named, and nothing that is only in a `.proto` file."""
    (answer,) = ask(_Request(list_services="", host="h"))

    assert {each.name for each in answer.list_services_response.service} == _SERVED
    assert answer.valid_host == "h"
    assert answer.original_request == _Request(list_services="", host="h")


def test_client_without_files_can_call(ask: Any, root: Client) -> None:
    """What reflection gives is enough to build a request, and to read the answer."""
    (answer,) = ask(_Request(file_containing_symbol="etcdserverpb.KV"))
    pool = descriptor_pool.DescriptorPool()
    files = {
        file.name: file
        for file in map(
            descriptor_pb2.FileDescriptorProto.FromString,
            answer.file_descriptor_response.file_descriptor_proto,
        )
    }
    while files:
        name = next(n for n, f in files.items() if not set(f.dependency) & set(files))
        pool.Add(files.pop(name))
    method = pool.FindServiceByName("etcdserverpb.KV").methods_by_name["Put"]
    put, put_response = (
        message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)
    )

    raw = root.raw(f"/{method.containing_service.full_name}/{method.name}")
    came = put_response.FromString(raw(put(key=b"reflected", value=b"v").SerializeToString()))

    assert came.header.revision > 1


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (_Request(), 3),
        (_Request(list_services="x" * 600), 3),
        (_Request(file_by_filename="/etc/passwd"), 5),
        (_Request(file_containing_symbol="kvsecure.state.User"), 5),
        (_Request(file_containing_symbol=""), 5),
        (_Request(all_extension_numbers_of_type="no.Such"), 5),
        (
            _Request(
                file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x")
            ),
            5,
        ),
    ],
)
def test_what_is_not_there_is_told_in_band(ask: Any, question: Any, code: int) -> None:
    """A question without an answer gets an error of its own, and the stream goes on."""
    refused, listed = ask(question, _Request(list_services="*"))

    assert refused.error_response.error_code == code
    assert len(listed.list_services_response.service) == len(_SERVED)


def test_type_without_extensions_has_none(ask: Any) -> None:
    """proto3 has no extensions: the list is empty for a type that exists."""
    (answer,) = ask(_Request(all_extension_numbers_of_type="etcdserverpb.PutRequest"))

    found = answer.all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == ("etcdserverpb.PutRequest", [])


def test_message_that_is_none_ends_the_stream(member: KvsecureServer) -> None:
    """Bytes that are no question are malformed, as everywhere."""
    with member.anonymous() as client:
        call = client._channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff\xff"]), timeout=20))

    assert caught.value.code() is grpc.StatusCode.INTERNAL

"""The generated modules are what protoc makes now, and say what etcd says.

Owns: the comparison of generated code with its source, and of our interface with etcd's.
Never: trusts a table where a running etcd, or the program itself, can be asked.
"""

import re
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.internal import api_implementation
from support.servers import Member, etcd_program
from support.wire_facts import LATER_FACTS, embedded_files, facts_of
from tools.generate_proto import ROOT, describe, generate, sources

from kvsecure.proto import (
    election_pb2,
    health_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    watch_pb2,
)

# etcd's own names of the files that hold its interface.
_ETCD_FILES = {"rpc.proto", "kv.proto", "auth.proto", "v3lock.proto", "v3election.proto"}
_STANDARD_PACKAGES = {"grpc.health.v1", "grpc.reflection.v1"}
_ETCD_PACKAGES = ("etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb")
_PROTOC_VERSION = re.compile(r"^# Protobuf Python Version: (.*)$", re.MULTILINE)


def _ours() -> list[descriptor_pb2.FileDescriptorProto]:
    files = []
    for source in sources():
        module = import_module(source.removesuffix(".proto").replace("/", ".") + "_pb2")
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def test_generated_descriptors_are_what_the_sources_say(tmp_path: Path) -> None:
    """Every generated module describes exactly its `.proto` file."""
    describe(tmp_path / "set")

    said = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "set").read_bytes())

    expected = {file.name: _without_json_names(file) for file in said.file}
    found = {file.name: _without_json_names(file) for file in _ours()}
    assert expected == found


def _without_json_names(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    # protoc writes the derived JSON names into a set, and not into the modules.
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    messages = list(copy.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return copy.SerializeToString(deterministic=True)


@pytest.mark.parametrize("suffix", [".py", ".pyi"])
def test_generated_text_is_what_protoc_writes(tmp_path: Path, suffix: str) -> None:
    """No generated file was edited, and none is left over from a source that is gone."""
    generate(tmp_path)

    written = sorted(tmp_path.rglob(f"*_pb2{suffix}"))
    kept = sorted((ROOT / "kvsecure" / "proto").glob(f"*_pb2{suffix}"))
    assert [path.name for path in written] == [path.name for path in kept]
    for new, old in zip(written, kept, strict=True):
        versions = [_PROTOC_VERSION.findall(path.read_text()) for path in (old, new)]
        if versions[0] != versions[1]:
            pytest.skip(f"written by another protoc: {versions}")
        assert new.read_text() == old.read_text(), old.name


def test_interface_is_etcds() -> None:
    """Every message, field number, type, enum value and method of etcd 3.5.1 is ours too."""
    carried = embedded_files(Path(etcd_program("etcd")))

    theirs = facts_of(file for file in carried if file.name in _ETCD_FILES)

    ours = facts_of(file for file in _ours() if file.package in _ETCD_PACKAGES)
    assert len(theirs) > 400
    assert sorted(theirs - ours) == []
    assert sorted(ours - theirs) == sorted(LATER_FACTS)


def test_health_is_the_standard_protocol() -> None:
    """Names and numbers of grpc.health.v1 are those every gRPC health probe uses."""
    facts = facts_of(file for file in _ours() if file.package == "grpc.health.v1")

    request, response = (f"grpc.health.v1.HealthCheck{kind}" for kind in ("Request", "Response"))
    status = f"{response}.ServingStatus"
    assert facts == {
        f"message {request}",
        f"message {response}",
        f"field {request} 1 service string",
        f"field {response} 1 status {status}",
        f"enum {status} UNKNOWN=0",
        f"enum {status} SERVING=1",
        f"enum {status} NOT_SERVING=2",
        f"enum {status} SERVICE_UNKNOWN=3",
        f"rpc grpc.health.v1.Health/Check {request} -> {response}",
        f"rpc grpc.health.v1.Health/Watch {request} -> stream {response}",
    }


def test_reflection_is_the_standard_protocol() -> None:
    """Names and numbers of grpc.reflection.v1 are those that grpcurl and its kin use."""
    facts = facts_of(file for file in _ours() if file.package == "grpc.reflection.v1")

    prefix = "grpc.reflection.v1."
    service = f"{prefix}ServerReflection"
    request, response = f"{service}Request", f"{service}Response"
    fields = {
        request: [
            "1 host string",
            "3 file_by_filename string oneof message_request",
            "4 file_containing_symbol string oneof message_request",
            f"5 file_containing_extension {prefix}ExtensionRequest oneof message_request",
            "6 all_extension_numbers_of_type string oneof message_request",
            "7 list_services string oneof message_request",
        ],
        f"{prefix}ExtensionRequest": ["1 containing_type string", "2 extension_number int32"],
        response: [
            "1 valid_host string",
            f"2 original_request {request}",
            f"4 file_descriptor_response {prefix}FileDescriptorResponse oneof message_response",
            (
                f"5 all_extension_numbers_response {prefix}ExtensionNumberResponse"
                " oneof message_response"
            ),
            f"6 list_services_response {prefix}ListServiceResponse oneof message_response",
            f"7 error_response {prefix}ErrorResponse oneof message_response",
        ],
        f"{prefix}FileDescriptorResponse": ["1 file_descriptor_proto repeated bytes"],
        f"{prefix}ExtensionNumberResponse": [
            "1 base_type_name string",
            "2 extension_number repeated int32",
        ],
        f"{prefix}ListServiceResponse": [f"1 service repeated {prefix}ServiceResponse"],
        f"{prefix}ServiceResponse": ["1 name string"],
        f"{prefix}ErrorResponse": ["1 error_code int32", "2 error_message string"],
    }
    assert facts == {
        f"rpc {service}/ServerReflectionInfo stream {request} -> stream {response}",
        *(f"message {name}" for name in fields),
        *(f"field {name} {field}" for name, each in fields.items() for field in each),
    }


def test_kms_is_the_interface_of_kubernetes_plugins() -> None:
    """Names and numbers of the KMS interface, version 2, are those that plugins serve."""
    facts = facts_of(file for file in _ours() if file.package == "v2")

    fields = {
        "StatusRequest": [],
        "StatusResponse": ["1 version string", "2 healthz string", "3 key_id string"],
        "DecryptRequest": ["1 ciphertext bytes", "2 uid string", "3 key_id string"],
        "DecryptResponse": ["1 plaintext bytes"],
        "EncryptRequest": ["1 plaintext bytes", "2 uid string"],
        "EncryptResponse": ["1 ciphertext bytes", "2 key_id string"],
    }
    service = "v2.KeyManagementService"
    wanted = {
        *(f"message v2.{name}" for name in fields),
        *(f"field v2.{name} {field}" for name, each in fields.items() for field in each),
        *(
            f"rpc {service}/{name} v2.{name}Request -> v2.{name}Response"
            for name in ("Status", "Decrypt", "Encrypt")
        ),
    }
    assert wanted <= facts
    rest = {fact for fact in facts - wanted if not fact.startswith("message ")}
    assert rest == {
        fact
        for name, number in (("DecryptRequest", 4), ("EncryptResponse", 3))
        for fact in (
            f"field v2.{name} {number} annotations repeated v2.{name}.AnnotationsEntry",
            f"field v2.{name}.AnnotationsEntry 1 key string",
            f"field v2.{name}.AnnotationsEntry 2 value bytes",
        )
    }


def test_own_services_do_not_touch_etcds_packages() -> None:
    """What kvsecure adds lies in packages of its own, so that no client meets a stranger."""
    packages = {file.package for file in _ours()} - {*_ETCD_PACKAGES, *_STANDARD_PACKAGES}

    assert packages == {"kvsecurepb", "kvsecure.state", "v2"}


def test_messages_are_understood_by_etcd(etcd: Member) -> None:
    """A real etcd takes our messages, and we take its answers, with no field left unknown."""
    with etcd.client() as client:
        put = client.kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
        got = client.kv.Range(kv_pb2.RangeRequest(key=b"k"))
        lease = client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=60))
        status = client.maintenance.Status(maintenance_pb2.StatusRequest())
        health = client.health.Check(health_pb2.HealthCheckRequest())
        watch = watch_pb2.WatchCreateRequest(key=b"k", start_revision=put.header.revision)
        stream = client.watch.Watch(iter([watch_pb2.WatchRequest(create_request=watch)]))
        created = next(stream)
        lock = client.lock.Lock(lock_pb2.LockRequest(name=b"l", lease=lease.ID))
        campaign = client.election.Campaign(
            election_pb2.CampaignRequest(name=b"e", lease=lease.ID, value=b"v")
        )

    assert got.kvs[0].value == b"v"
    assert lease.TTL == 60
    assert status.version == "3.5.1"
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert created.created
    assert lock.key == b"l/%x" % lease.ID
    assert campaign.leader.lease == lease.ID


def test_protobuf_runs_in_c() -> None:
    """The fast implementation of protobuf is the one in use; the budgets depend on it."""
    assert api_implementation.Type() == "upb"

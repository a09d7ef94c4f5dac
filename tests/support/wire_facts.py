"""What a file descriptor says about the wire, as comparable lines of text; ours and etcd's.

Owns: reading the descriptors that Go programs carry, and the form of a fact.
Never: knows a fact by heart, but for what etcd 3.5.1 has not got yet.
Follows: Go's protobuf generators, which put a gzipped FileDescriptorProto into every program.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2 as pb
from google.protobuf.message import DecodeError

__all__ = ["LATER_FACTS", "embedded_files", "facts_of"]

# etcd's api/etcdserverpb/rpc.proto after 3.5.1: 3.6 added the fields, 3.7 the stream of ranges.
LATER_FACTS: Final = frozenset(
    {
        "field etcdserverpb.DowngradeInfo 1 enabled bool",
        "field etcdserverpb.DowngradeInfo 2 targetVersion string",
        "field etcdserverpb.DowngradeVersionTestRequest 1 ver string",
        "field etcdserverpb.HashKVResponse 4 hash_revision int64",
        "field etcdserverpb.RangeStreamResponse 1 range_response etcdserverpb.RangeResponse",
        "field etcdserverpb.SnapshotResponse 4 version string",
        "field etcdserverpb.StatusResponse 11 storageVersion string",
        "field etcdserverpb.StatusResponse 12 dbSizeQuota int64",
        "field etcdserverpb.StatusResponse 13 downgradeInfo etcdserverpb.DowngradeInfo",
        "message etcdserverpb.DowngradeInfo",
        "message etcdserverpb.DowngradeVersionTestRequest",
        "message etcdserverpb.RangeStreamResponse",
        (
            "rpc etcdserverpb.KV/RangeStream etcdserverpb.RangeRequest"
            " -> stream etcdserverpb.RangeStreamResponse"
        ),
    }
)
_GZIP: Final = re.compile(rb"\x1f\x8b\x08")
_DESCRIPTOR_BYTES_MAX: Final = 256 * 1024
_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in pb.FieldDescriptorProto.Type.items()
}


def embedded_files(program: Path) -> Iterator[pb.FileDescriptorProto]:
    """Yield the file descriptors that a Go program carries."""
    content = program.read_bytes()
    for found in _GZIP.finditer(content):
        packed = content[found.start() : found.start() + _DESCRIPTOR_BYTES_MAX]
        try:
            plain = zlib.decompressobj(wbits=31).decompress(packed)
            yield pb.FileDescriptorProto.FromString(plain)
        except (zlib.error, DecodeError):
            # The three bytes of a gzip header are not rare in a program.
            continue


def facts_of(files: Iterable[pb.FileDescriptorProto]) -> frozenset[str]:
    """Return every message, field, enum value and method of the files, one fact a line."""
    return frozenset(fact for file in files for fact in _facts(file))


def _facts(file: pb.FileDescriptorProto) -> Iterator[str]:
    for message in file.message_type:
        yield from _message(message, file.package)
    for enum in file.enum_type:
        yield from _enum(enum, file.package)
    for service in file.service:
        for method in service.method:
            asks = f"{'stream ' * method.client_streaming}{method.input_type[1:]}"
            answers = f"{'stream ' * method.server_streaming}{method.output_type[1:]}"
            yield f"rpc {file.package}.{service.name}/{method.name} {asks} -> {answers}"


def _message(message: pb.DescriptorProto, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield f"message {name}"
    for field in message.field:
        kind = field.type_name[1:] or _SCALARS[field.type]
        if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
            kind = f"repeated {kind}"
        if field.HasField("oneof_index"):
            kind = f"{kind} oneof {message.oneof_decl[field.oneof_index].name}"
        yield f"field {name} {field.number} {field.name} {kind}"
    for enum in message.enum_type:
        yield from _enum(enum, name)
    for nested in message.nested_type:
        yield from _message(nested, name)


def _enum(enum: pb.EnumDescriptorProto, scope: str) -> Iterator[str]:
    for value in enum.value:
        yield f"enum {scope}.{enum.name} {value.name}={value.number}"

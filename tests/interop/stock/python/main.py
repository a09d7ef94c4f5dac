"""Checks of stock grpcio, as a client of a real server; peers.py says how this is called.

Owns: the calls that show each shape and rule of gRPC, in the terms of grpcio.
Never: uses kvsecure's own client or wire code; of kvsecure it has the generated messages alone.
"""

import os
import re
import ssl
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from kvsecure.proto import (
    auth_pb2,
    health_pb2,
    kv_pb2,
    lease_pb2,
    reflection_pb2,
    tenant_pb2,
    watch_pb2,
)

__all__ = [
    "BATCH",
    "CALL_S_MAX",
    "CHECKS",
    "MANY",
    "MEGABYTE",
    "PREFIX",
    "STATUS",
    "UNBOUND",
    "Dialogue",
    "bidirectional_stream",
    "cancellation",
    "compression",
    "connect",
    "deadline",
    "error_text",
    "events",
    "fails",
    "fill",
    "get",
    "handled",
    "health",
    "key",
    "large_messages",
    "login",
    "main",
    "many_events",
    "many_requests",
    "metadata",
    "method",
    "oversize",
    "pings_excessive",
    "pings_permitted",
    "put",
    "reflection",
    "restart",
    "server_stream",
    "stalled_reader",
    "unary",
    "unknown",
    "until_handled",
    "watch",
]

MEGABYTE: Final = 1024 * 1024
MANY: Final = 10_000
# How many operations go into one transaction, to make many events with few calls.
BATCH: Final = 100
CALL_S_MAX: Final = 20.0
PREFIX: Final = f"/stock/python/{time.time_ns()}/"
UNBOUND: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
STATUS: Final = grpc.StatusCode


def connect(*options: tuple[str, int], certified: bool = True) -> grpc.Channel:
    """Return a channel; its identity is the certificate of root, or none."""
    key = Path(os.environ["KVSECURE_KEY"]).read_bytes() if certified else None
    chain = Path(os.environ["KVSECURE_CERT"]).read_bytes() if certified else None
    trusted = Path(os.environ["KVSECURE_CA"]).read_bytes()
    credentials = grpc.ssl_channel_credentials(trusted, key, chain)
    endpoint = os.environ["KVSECURE_ENDPOINT"]
    return grpc.secure_channel(endpoint, credentials, options=[*UNBOUND, *options])


def method(channel: grpc.Channel, path: str) -> Any:
    """Return the callable of a method, made from its descriptor."""
    service, name = path.split("/")
    found = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    return getattr(channel, _shape(found))(
        f"/{path}",
        request_serializer=message_factory.GetMessageClass(found.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
    )


def _shape(found: MethodDescriptor) -> str:
    asks = "stream" if found.client_streaming else "unary"
    return f"{asks}_{'stream' if found.server_streaming else 'unary'}"


def put(channel: grpc.Channel, name: str, value: bytes, **how: Any) -> int:
    """Put a key of this run; return the revision."""
    request = kv_pb2.PutRequest(key=key(name), value=value)
    answer = method(channel, "etcdserverpb.KV/Put")(request, timeout=CALL_S_MAX, **how)
    return int(answer.header.revision)


def get(channel: grpc.Channel, name: str, **how: Any) -> bytes:
    """Return the value of a key of this run."""
    request = kv_pb2.RangeRequest(key=key(name))
    answer = method(channel, "etcdserverpb.KV/Range")(request, timeout=CALL_S_MAX, **how)
    assert answer.count == 1, answer
    return bytes(answer.kvs[0].value)


def key(name: str) -> bytes:
    """Return a key that no other run has."""
    return f"{PREFIX}{name}".encode()


def login() -> auth_pb2.AuthenticateRequest:
    """Return the request that takes the server longest: it hashes a password."""
    return auth_pb2.AuthenticateRequest(
        name=os.environ["KVSECURE_USER"], password=os.environ["KVSECURE_PASSWORD"]
    )


def fails(code: grpc.StatusCode, call: Callable[[], Any]) -> str:
    """Return the text with which a call fails."""
    try:
        call()
    except grpc.RpcError as error:
        failure = error
    else:
        raise AssertionError(f"it did not fail with {code}")
    assert failure.code() is code, (failure.code(), failure.details())
    return str(failure.details())


def fill(channel: grpc.Channel, name: str, size_bytes: int) -> int:
    """Put many keys, each with its number and padding as value; return the first revision."""
    commit = method(channel, "etcdserverpb.KV/Txn")
    first = 0
    for begin in range(0, MANY, BATCH):
        operations = [
            kv_pb2.RequestOp(
                request_put=kv_pb2.PutRequest(
                    key=key(f"{name}/{number:05}"), value=b"%05d" % number + b"x" * size_bytes
                )
            )
            for number in range(begin, begin + BATCH)
        ]
        answer = commit(kv_pb2.TxnRequest(success=operations), timeout=CALL_S_MAX)
        first = first or answer.header.revision
    return first


class Dialogue:
    """A stream in both directions."""

    def __init__(self, channel: grpc.Channel, path: str, **how: Any) -> None:
        self._requests: SimpleQueue[Any] = SimpleQueue()
        how.setdefault("timeout", CALL_S_MAX)
        self.answers = method(channel, path)(iter(self._requests.get, None), **how)

    def send(self, request: Any) -> None:
        """Send one message."""
        self._requests.put(request)

    def close(self) -> None:
        """Say that nothing more will be sent."""
        self._requests.put(None)


def watch(channel: grpc.Channel, name: str, revision: int = 0, **how: Any) -> Dialogue:
    """Return a watch of all keys below a name, once it is created."""
    dialogue = Dialogue(channel, "etcdserverpb.Watch/Watch", **how)
    begin = key(f"{name}/")
    request = watch_pb2.WatchCreateRequest(
        key=begin, range_end=begin[:-1] + b"0", start_revision=revision
    )
    dialogue.send(watch_pb2.WatchRequest(create_request=request))
    assert next(dialogue.answers).created
    return dialogue


def events(dialogue: Dialogue) -> Iterator[Any]:
    """Yield what a watch sees."""
    for answer in dialogue.answers:
        assert not answer.canceled, answer
        yield from answer.events


def handled(name: str) -> int:
    """Return how many calls of a method the server counts as cancelled or out of time."""
    trust = ssl.create_default_context(cafile=os.environ["KVSECURE_CA"])
    url = f"https://{os.environ['KVSECURE_ENDPOINT']}/metrics"
    with urllib.request.urlopen(url, context=trust, timeout=CALL_S_MAX) as page:
        text = page.read().decode()
    lines = re.findall(r"^grpc_server_handled_total\{(.*)\} ([0-9.]+)$", text, re.MULTILINE)
    ended = ('grpc_code="Canceled"', 'grpc_code="DeadlineExceeded"')
    return sum(
        int(float(count))
        for labels, count in lines
        if f'grpc_method="{name}"' in labels and any(code in labels for code in ended)
    )


def until_handled(name: str, count: int) -> None:
    """Wait until the server has let go of so many calls of a method."""
    end = time.monotonic() + CALL_S_MAX
    while handled(name) < count:
        assert time.monotonic() < end, f"{handled(name)} of {count} {name} ended"
        time.sleep(0.05)


# --- checks -----------------------------------------------------------------------------------


def unary(channel: grpc.Channel) -> None:
    """Calls with a certificate, and with a token in the metadata."""
    put(channel, "x", b"v")
    assert get(channel, "x") == b"v"
    with connect(certified=False) as other:
        token = method(other, "etcdserverpb.Auth/Authenticate")(login()).token
        assert get(other, "x", metadata=[("token", token)]) == b"v"
        assert "auth token" in fails(
            STATUS.UNAUTHENTICATED, lambda: get(other, "x", metadata=[("token", "wrong")])
        )


def server_stream(channel: grpc.Channel) -> None:
    """One request, many messages, and their end."""
    head = method(channel, "kvsecurepb.Audit/Head")(tenant_pb2.AuditHeadRequest())
    tail = method(channel, "kvsecurepb.Audit/Tail")
    answers = list(tail(tenant_pb2.AuditTailRequest(count=10), timeout=CALL_S_MAX))
    assert sum(len(answer.records) for answer in answers) == 10, (head, answers)


def bidirectional_stream(channel: grpc.Channel) -> None:
    """Questions and answers take turns on one stream, and both ends close it."""
    watched = watch(channel, "both")
    for number in range(20):
        put(channel, f"both/{number}", b"v")
        answer = next(watched.answers)
        assert [event.kv.key for event in answer.events] == [key(f"both/{number}")]
        watched.send(watch_pb2.WatchRequest(progress_request=watch_pb2.WatchProgressRequest()))
        assert next(watched.answers).header.revision >= answer.header.revision
    cancel = watch_pb2.WatchCancelRequest(watch_id=0)
    watched.send(watch_pb2.WatchRequest(cancel_request=cancel))
    assert next(watched.answers).canceled
    watched.answers.cancel()
    kept = Dialogue(channel, "etcdserverpb.Lease/LeaseKeepAlive")
    for lease in range(1, 20):
        kept.send(lease_pb2.LeaseKeepAliveRequest(ID=lease))
        assert lease == next(kept.answers).ID
    kept.close()
    assert list(kept.answers) == []
    assert kept.answers.code() is STATUS.OK


def large_messages(channel: grpc.Channel) -> None:
    """A megabyte comes and goes, four at a time."""
    values = [bytes([97 + number]) * MEGABYTE for number in range(4)]
    write = method(channel, "etcdserverpb.KV/Put")
    calls = [
        write.future(kv_pb2.PutRequest(key=key(f"large/{number}"), value=value), timeout=CALL_S_MAX)
        for number, value in enumerate(values)
    ]
    for call in calls:
        call.result()
    for number, value in enumerate(values):
        assert get(channel, f"large/{number}") == value


def many_requests(channel: grpc.Channel) -> None:
    """Ten thousand small messages each way on one stream."""
    grant = method(channel, "etcdserverpb.Lease/LeaseGrant")
    lease = grant(lease_pb2.LeaseGrantRequest(TTL=600)).ID
    keep = method(channel, "etcdserverpb.Lease/LeaseKeepAlive")
    request = lease_pb2.LeaseKeepAliveRequest(ID=lease)
    answers = list(keep(iter([request] * MANY), timeout=CALL_S_MAX))
    assert [answer.TTL for answer in answers] == [600] * MANY


def many_events(channel: grpc.Channel) -> None:
    """Ten thousand events come in order while they happen."""
    watched = watch(channel, "many")
    writing = threading.Thread(target=fill, args=(channel, "many", 10))
    writing.start()
    _in_order(watched, "many", 10)
    writing.join()


def _in_order(watched: Dialogue, name: str, size_bytes: int) -> None:
    seen = events(watched)
    for number in range(MANY):
        event = next(seen)
        assert event.kv.key == key(f"{name}/{number:05}"), (event.kv.key, number)
        assert event.kv.value == b"%05d" % number + b"x" * size_bytes
    watched.answers.cancel()


def stalled_reader(channel: grpc.Channel) -> None:
    """Who reads nothing for a while gets all of twenty megabytes after that."""
    watched = watch(channel, "stalled")
    fill(channel, "stalled", 2_048)
    time.sleep(1)
    # Others on the same connection are served meanwhile.
    put(channel, "x", b"beside")
    assert get(channel, "x") == b"beside"
    _in_order(watched, "stalled", 2_048)


def cancellation(channel: grpc.Channel) -> None:
    """The server lets go of what is given up, and serves the others on the connection."""
    kept = watch(channel, "cancelled")
    before = handled("Watch")
    for _ in range(20):
        watch(channel, "cancelled").answers.cancel()
        call = method(channel, "etcdserverpb.Auth/Authenticate").future(login())
        assert call.cancel()
        assert call.code() is STATUS.CANCELLED
    until_handled("Watch", before + 20)
    put(channel, "cancelled/x", b"v")
    assert next(events(kept)).kv.value == b"v"
    kept.answers.cancel()


def deadline(channel: grpc.Channel) -> None:
    """A call ends at its deadline, at the server as well."""
    before = handled("LeaseKeepAlive")
    late = [Dialogue(channel, "etcdserverpb.Lease/LeaseKeepAlive", timeout=0.3) for _ in range(5)]
    for dialogue in late:
        fails(STATUS.DEADLINE_EXCEEDED, lambda waiting=dialogue: next(waiting.answers))
        dialogue.close()
    until_handled("LeaseKeepAlive", before + 5)
    enter = method(channel, "etcdserverpb.Auth/Authenticate")
    for _ in range(5):
        fails(STATUS.DEADLINE_EXCEEDED, lambda: enter(login(), timeout=0.002))
    put(channel, "late", b"v")


def pings_permitted(_: grpc.Channel) -> None:
    """Pings as often as they may come leave a connection alone."""
    # This client never pings more often than once a second.
    with connect(*_pings(1_100)) as pinging:
        kept = watch(pinging, "pinged")
        time.sleep(5.5)
        put(pinging, "pinged/x", b"v")
        assert next(events(kept)).kv.value == b"v"


def pings_excessive(_: grpc.Channel) -> None:
    """Pings that come too often end the connection, with gRPC's word for it."""
    # This client never pings more often than once a second.
    with connect(*_pings(1_000)) as pinging:
        kept = watch(pinging, "pinged", timeout=CALL_S_MAX)
        text = fails(STATUS.UNAVAILABLE, lambda: next(kept.answers))
        assert "too_many_pings" in text, text
        put(pinging, "pinged/x", b"v", wait_for_ready=True)


def _pings(interval_ms: int) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", interval_ms),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def compression(channel: grpc.Channel) -> None:
    """Requests may be compressed, on a stream too, and answers may be."""
    value = b"compress me " * 50_000
    put(channel, "gzip", value, compression=grpc.Compression.Gzip)
    assert get(channel, "gzip", compression=grpc.Compression.Gzip) == value
    watched = watch(channel, "gzip", compression=grpc.Compression.Gzip)
    put(channel, "gzip/x", value)
    assert next(events(watched)).kv.value == value
    watched.answers.cancel()


def oversize(channel: grpc.Channel) -> None:
    """Too large a request is refused in etcd's words, too large a message in Go's."""
    text = fails(STATUS.INVALID_ARGUMENT, lambda: put(channel, "x", b"x" * 1_600_000))
    assert text == "etcdserver: request is too large", text
    text = fails(STATUS.RESOURCE_EXHAUSTED, lambda: put(channel, "x", b"x" * 3_000_000))
    found = re.fullmatch(r"grpc: received message larger than max \((\d+) vs\. 2097152\)", text)
    assert found is not None, text
    assert int(found[1]) > 3_000_000
    put(channel, "x", b"v")


def unknown(channel: grpc.Channel) -> None:
    """What there is not is unimplemented."""
    text = fails(STATUS.UNIMPLEMENTED, lambda: channel.unary_unary("/etcdserverpb.KV/Steal")(b""))
    assert text == "unknown method Steal for service etcdserverpb.KV", text
    text = fails(STATUS.UNIMPLEMENTED, lambda: channel.unary_unary("/no.Service/Get")(b""))
    assert text == "unknown service no.Service", text
    stream = channel.stream_stream("/no.Service/Get")(iter([b""]))
    fails(STATUS.UNIMPLEMENTED, lambda: next(stream))


def metadata(channel: grpc.Channel) -> None:
    """Metadata of any kind is taken: several values of a name, and bytes."""
    sent = [
        ("trace-bin", bytes(range(256))),
        ("trace-bin", b""),
        ("trace-bin", b"\0"),
        ("trace", "one"),
        ("trace", "two, three"),
    ]
    put(channel, "x", b"v", metadata=sent)
    request = iter([lease_pb2.LeaseKeepAliveRequest(ID=1)])
    keep = method(channel, "etcdserverpb.Lease/LeaseKeepAlive")
    assert [answer.TTL for answer in keep(request, metadata=sent)] == [0]


def error_text(channel: grpc.Channel) -> None:
    """The text of an error arrives as it was meant, whatever characters are in it."""
    text = fails(STATUS.UNIMPLEMENTED, lambda: channel.unary_unary("/nö.Sérvice%20/Get")(b""))
    assert text == "unknown service nö.Sérvice%20", text


def health(channel: grpc.Channel) -> None:
    """The standard health service answers once, and as long as somebody watches."""
    check = method(channel, "grpc.health.v1.Health/Check")
    serving = health_pb2.HealthCheckResponse.SERVING
    assert check(health_pb2.HealthCheckRequest()).status == serving
    unknown_service = health_pb2.HealthCheckRequest(service="no.Service")
    fails(STATUS.NOT_FOUND, lambda: check(unknown_service))
    follow = method(channel, "grpc.health.v1.Health/Watch")
    watched = follow(health_pb2.HealthCheckRequest(), timeout=CALL_S_MAX)
    assert next(watched).status == serving
    watched.cancel()
    watched = follow(unknown_service, timeout=CALL_S_MAX)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def reflection(channel: grpc.Channel) -> None:
    """The server tells what it speaks, under both names of the service."""
    listing = reflection_pb2.ServerReflectionRequest(list_services="*")
    defining = reflection_pb2.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV")
    for version in ("v1", "v1alpha"):
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        services, files = ask(iter([listing, defining]), timeout=CALL_S_MAX)
        names = {service.name for service in services.list_services_response.service}
        assert {"etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health"} <= names, names
        assert files.file_descriptor_response.file_descriptor_proto


def restart(channel: grpc.Channel) -> None:
    """A server that goes away in good order and comes back is found again by the same channel."""
    watched = watch(channel, "restart")
    put(channel, "restart/x", b"before")
    assert next(watched.answers).events[0].kv.value == b"before"
    print("restart", flush=True)
    sys.stdin.readline()
    fails(STATUS.UNAVAILABLE, lambda: list(watched.answers))
    assert get(channel, "restart/x", wait_for_ready=True) == b"before"
    put(channel, "restart/x", b"after")
    again = watch(channel, "restart", 1)
    seen = events(again)
    assert [next(seen).kv.value for _ in range(2)] == [b"before", b"after"]
    again.answers.cancel()


CHECKS: Final = {
    check.__name__: check
    for check in (
        unary,
        server_stream,
        bidirectional_stream,
        large_messages,
        many_requests,
        many_events,
        stalled_reader,
        cancellation,
        deadline,
        pings_permitted,
        pings_excessive,
        compression,
        oversize,
        unknown,
        metadata,
        error_text,
        health,
        reflection,
        restart,
    )
}


def main(names: list[str]) -> None:
    """Run checks in a row over one channel, and say how each of them ended."""
    with connect() as channel:
        for name in names:
            begun = time.monotonic()
            try:
                CHECKS[name](channel)
            except Exception:  # noqa: BLE001 - whatever it is, the other checks go on
                traceback.print_exc()
                verdict = "failed"
            else:
                verdict = "passed"
            print(verdict, name, f"{time.monotonic() - begun:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

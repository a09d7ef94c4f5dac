"""Calls over real sockets: what any gRPC client may send, and what it is answered, as etcd does."""

import gzip
import time
from typing import Final

import grpc
import pytest
from support.processes import wait_until
from support.rpc import Client, refusal_of
from support.servers import KvsecureServer
from wire.rawframes import (
    DATA,
    END_HEADERS,
    END_STREAM,
    PADDED,
    RST_STREAM,
    Frame,
    data,
    headers,
    message,
    request_block,
    reset,
    window_update,
)
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import health_pb2, kv_pb2, lease_pb2, watch_pb2
from kvsecure.wire.grpc import MessageReader

_RANGE: Final = "/etcdserverpb.KV/Range"
_PUT: Final = "/etcdserverpb.KV/Put"
_WATCH: Final = "/etcdserverpb.Watch/Watch"
_HEALTH_WATCH: Final = "/grpc.health.v1.Health/Watch"
_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
_LIMIT: Final = 1_572_864
_OVERHEAD: Final = 512 * 1024
_SERVING: Final = health_pb2.HealthCheckResponse(status=1).SerializeToString()  # type: ignore[arg-type]  # an enum


def _range(key: bytes = b"a") -> bytes:
    return kv_pb2.RangeRequest(key=key).SerializeToString()


def _metric(peer: SocketPeer, stream: int, name: str) -> float:
    fields = call_fields("/metrics")[1:4]
    peer.send(peer.request(stream, [(b":method", b"GET"), *fields]), window_update(0, 1 << 20))
    (page,) = peer.answer(stream).messages
    lines = [line for line in page.decode().splitlines() if line.startswith(name)]
    return float(lines[0].split()[-1]) if lines else 0.0


def _message_count(frames: list[Frame]) -> int:
    """Return how many whole messages the data of frames begins with."""
    content = b"".join(one.payload for one in frames if one.type == DATA)
    reader = MessageReader(b"gzip", _LIMIT)
    return len(reader.feed(content))


# --- what is wrong with a request -------------------------------------------------------------


def test_malformed_message_is_internal(peer: SocketPeer) -> None:
    """Bytes that are no such message are INTERNAL, in the words that etcd begins with."""
    code, text = peer.call(1, _RANGE, b"\xff\xff").status

    assert (code, text[:34]) == ("13", "grpc: error unmarshalling request"[:34])


def test_malformed_message_ends_a_stream(peer: SocketPeer) -> None:
    """On a stream too, and the stream ends."""
    fields = call_fields(_WATCH)
    peer.send(peer.request(1, fields, message(b"\xff\xff"), ends=False))

    assert peer.answer(1).status[0] == "13"


_UNKNOWN: Final = {
    "/etcdserverpb.KV/Foo": "unknown method Foo for service etcdserverpb.KV",
    "/etcdserverpb.KV/": "unknown method  for service etcdserverpb.KV",
    "/foo.Bar/Baz": "unknown service foo.Bar",
    "/etcdserverpb.KV/Range/x": "unknown service etcdserverpb.KV/Range",
    "/v3lockpb.Lock/TryLock": "unknown method TryLock for service v3lockpb.Lock",
}


@pytest.mark.parametrize(("path", "text"), _UNKNOWN.items(), ids=_UNKNOWN.keys())
def test_unknown_method_is_told_as_etcd_does(peer: SocketPeer, path: str, text: str) -> None:
    """A method or service that is not there is UNIMPLEMENTED, with etcd's text."""
    assert peer.call(1, path, _range()).status == ("12", text)


def test_path_without_a_method_is_unimplemented(peer: SocketPeer) -> None:
    """A path that names no method at all is UNIMPLEMENTED, whatever is in it."""
    for stream, path in enumerate(("/", "/foo", "foo", "*", "//", "/a%b"), 1):
        assert peer.call(2 * stream - 1, path, _range()).status[0] == "12"


@pytest.mark.parametrize("content_type", ["", "application/json", "application/grpc-web", "x"])
def test_foreign_content_type_is_415(peer: SocketPeer, content_type: str) -> None:
    """A request that is not gRPC's is answered by HTTP."""
    answered = peer.call(1, _RANGE, _range(), content_type=content_type)

    assert answered.fields[":status"] == "415"
    assert "grpc-status" not in answered.fields


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc+x"])
def test_subtypes_of_grpc_are_calls(peer: SocketPeer, content_type: str) -> None:
    """Whatever subtype a client names, the message is protobuf (etcd)."""
    code, _ = peer.call(1, _RANGE, _range(), content_type=content_type).status

    assert code == "3"


_MISFRAMED: Final[dict[str, tuple[bytes, str]]] = {
    "no message": (b"", "13"),
    "two messages": (message(_range()) * 2, "13"),
    "a cut message": (message(_range())[:-1], "13"),
    "a cut prefix": (b"\0\0", "13"),
    "an unknown flag": (message(_range(), 2), "13"),
    "compressed without an encoding": (message(_range(), 1), "13"),
}


@pytest.mark.parametrize(("content", "code"), _MISFRAMED.values(), ids=_MISFRAMED.keys())
def test_misframed_message_is_internal(peer: SocketPeer, content: bytes, code: str) -> None:
    """A unary call carries one whole message, framed as gRPC does."""
    peer.send(peer.request(1, call_fields(_RANGE), content))

    assert peer.answer(1).status[0] == code


def test_cut_message_ends_a_stream(peer: SocketPeer) -> None:
    """A stream that ends within a message is INTERNAL, as in etcd, not an end like others."""
    peer.send(peer.request(1, call_fields(_WATCH), message(b"abcdef")[:-1]))

    assert peer.answer(1).status[0] == "13"


def test_unknown_compression_is_unimplemented(peer: SocketPeer) -> None:
    """An encoding that is not known is UNIMPLEMENTED, and those that are are told."""
    fields = call_fields(_RANGE, grpc_encoding="snappy")
    peer.send(peer.request(1, fields, message(_range(), 1)))
    answered = peer.answer(1)

    assert answered.status[0] == "12"
    assert answered.fields["grpc-accept-encoding"] == "identity,gzip"


def test_compressed_message_is_taken(peer: SocketPeer, root: Client) -> None:
    """A gzipped request is inflated."""
    fields = call_fields(_RANGE, root.token, grpc_encoding="gzip")
    peer.send(peer.request(1, fields, message(gzip.compress(_range()), 1)))

    assert peer.answer(1).status[0] == "0"


def test_compressed_request_has_a_compressed_answer(peer: SocketPeer, root: Client) -> None:
    """Who sends gzip is answered in gzip."""
    fields = call_fields(_RANGE, root.token, grpc_encoding="gzip")
    peer.send(peer.request(1, fields, message(gzip.compress(_range()), 1)))
    answered = peer.answer(1)

    assert answered.fields["grpc-encoding"] == "gzip"
    body = kv_pb2.RangeResponse.FromString(gzip.decompress(answered.messages[0]))
    assert body == root.kv.Range(kv_pb2.RangeRequest.FromString(_range()))


def test_bomb_is_refused(peer: SocketPeer) -> None:
    """A message that inflates beyond the limit is refused, and costs no more than the limit."""
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    fields = call_fields(_PUT, grpc_encoding="gzip")

    peer.send(peer.request(1, fields, message(packed, 1)))

    assert peer.answer(1).status[0] == "8"


# --- sizes ------------------------------------------------------------------------------------


def test_megabytes_go_both_ways(root: Client) -> None:
    """A value of a megabyte is written and read, to the byte."""
    value = bytes(range(256)) * 4_096

    root.kv.Put(kv_pb2.PutRequest(key=b"mega", value=value))
    answer = root.kv.Range(kv_pb2.RangeRequest(key=b"mega"))

    assert answer.kvs[0].value == value


def test_large_answer_is_whole(root: Client) -> None:
    """An answer far larger than a request may be is told whole."""
    for number in range(8):
        root.kv.Put(kv_pb2.PutRequest(key=b"many/%d" % number, value=bytes((number,)) * 1_400_000))

    answer = root.kv.Range(kv_pb2.RangeRequest(key=b"many/", range_end=b"many0"))

    assert [one.value for one in answer.kvs] == [bytes((n,)) * 1_400_000 for n in range(8)]


_OVERSIZED: Final = {
    "a request beyond the limit": (_LIMIT, "INVALID_ARGUMENT", "etcdserver: request is too large"),
    "a message at its limit": (_LIMIT + _OVERHEAD - 8, "INVALID_ARGUMENT", ""),
    "a message beyond its limit": (_LIMIT + _OVERHEAD, "RESOURCE_EXHAUSTED", "grpc: received"),
}


@pytest.mark.parametrize(("size", "code", "text"), _OVERSIZED.values(), ids=_OVERSIZED.keys())
def test_oversized_request_is_refused(root: Client, size: int, code: str, text: str) -> None:
    """A request has one limit of etcd's, and one of gRPC's half a megabyte above it."""
    with pytest.raises(grpc.RpcError) as caught:
        root.kv.Put(kv_pb2.PutRequest(key=b"a", value=bytes(size)))

    refusal = refusal_of(caught.value)
    assert refusal.code == code
    assert refusal.text.startswith(text)


def test_largest_request_is_taken(root: Client) -> None:
    """A request of exactly the limit is carried out."""
    request = kv_pb2.PutRequest(key=b"most", value=bytes(_LIMIT - 20))
    request.value += bytes(_LIMIT - request.ByteSize())

    assert request.ByteSize() == _LIMIT
    root.kv.Put(request)


def test_oversized_message_is_refused_by_its_prefix(peer: SocketPeer) -> None:
    """What says that it is too large is refused before it has come."""
    fields = call_fields(_PUT)
    peer.send(peer.request(1, fields, b"\0\x7f\xff\xff\xff" + bytes(100), ends=False))
    answered = peer.answer(1)

    assert answered.status[0] == "8"


# --- deadlines and cancelling -----------------------------------------------------------------


def test_deadline_ends_a_stream(member: KvsecureServer) -> None:
    """A stream with a deadline ends when it has passed, with the server's own word."""
    with SocketPeer(member.port, client_tls(member.authority.certificate)) as peer:
        peer.begin()
        begun = time.monotonic()
        fields = call_fields(_WATCH, grpc_timeout="300m")
        peer.send(peer.request(1, fields, None, ends=False))

        assert peer.answer(1).status == ("4", "context deadline exceeded")
        assert time.monotonic() - begun >= 0.25


def test_deadline_ends_a_request_that_does_not_come(peer: SocketPeer) -> None:
    """A request that is not whole at its deadline is given up."""
    fields = call_fields(_RANGE, grpc_timeout="100m")
    peer.send(peer.request(1, fields, message(_range())[:-1], ends=False))

    assert peer.answer(1).status[0] == "4"


def test_deadline_that_has_passed_is_not_served(peer: SocketPeer, root: Client) -> None:
    """A request whose time is over when it comes is not carried out (etcd)."""
    request = kv_pb2.PutRequest(key=b"too-late").SerializeToString()

    status = peer.call(1, _PUT, request, token=root.token, grpc_timeout="0n").status

    assert status == ("4", "context deadline exceeded")
    assert root.kv.Range(kv_pb2.RangeRequest(key=b"too-late")).count == 0


def test_stock_client_sees_its_deadline(root: Client) -> None:
    """A stock client's deadline on a stream ends it."""
    stream = root.watch.Watch(iter(()), timeout=0.3)

    with pytest.raises(grpc.RpcError) as caught:
        list(stream)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_cancelled_watch_leaves_nothing_behind(root: Client, peer: SocketPeer) -> None:
    """A stream that a client cancels takes its watchers with it, and is counted as cancelled."""
    name = "etcd_debugging_mvcc_watcher_total"
    before = _metric(peer, 1, name)
    stop = _Requests(watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"c")))
    stream = root.watch.Watch(stop)
    next(iter(stream))
    during = _metric(peer, 3, name)
    stream.cancel()

    stream_ids = iter(range(5, 1_000, 2))
    wait_until(
        lambda: _metric(peer, next(stream_ids), name) == before,
        deadline_s=20,
        what="the watcher to go",
    )
    assert during == before + 1


class _Requests:
    """One request, and then silence until the stream is over."""

    def __init__(self, *requests: watch_pb2.WatchRequest) -> None:
        self._requests = list(requests)

    def __iter__(self) -> "_Requests":
        return self

    def __next__(self) -> watch_pb2.WatchRequest:
        if self._requests:
            return self._requests.pop(0)
        # The thread of grpcio that asks ends with its channel.
        time.sleep(3_600)
        raise StopIteration


def test_half_sent_request_is_counted_when_it_is_taken_back(peer: SocketPeer) -> None:
    """Calls that began and calls that ended are in step, however they ended."""
    labels = 'grpc_service="etcdserverpb.KV",grpc_method="Txn"'
    for stream in (1, 3, 5):
        fields = call_fields("/etcdserverpb.KV/Txn")
        peer.send(peer.request(stream, fields, b"\0\0\0", ends=False), reset(stream))

    handled = 'grpc_server_handled_total{grpc_code="Canceled",grpc_method="Txn"'

    page = _page(peer, 7)
    assert labels  # both series name the method
    started = _value(page, 'grpc_server_started_total{grpc_method="Txn"')
    assert (started, _value(page, handled)) == (3, 3)


def _page(peer: SocketPeer, stream: int) -> list[str]:
    fields = call_fields("/metrics")[1:4]
    peer.send(peer.request(stream, [(b":method", b"GET"), *fields]), window_update(0, 1 << 20))
    (page,) = peer.answer(stream).messages
    return page.decode().splitlines()


def _value(page: list[str], start: str) -> float:
    return sum(float(line.split()[-1]) for line in page if line.startswith(start))


# --- streams ----------------------------------------------------------------------------------


def test_stream_in_one_piece_is_heard(peer: SocketPeer, root: Client) -> None:
    """A stream whose only message comes with its head and its end is answered like any other."""
    request = lease_pb2.LeaseKeepAliveRequest(ID=4711).SerializeToString()

    answered = peer.call(1, _KEEP_ALIVE, request, token=root.token)

    (content,) = answered.messages
    assert lease_pb2.LeaseKeepAliveResponse.FromString(content).ID == 4711
    assert answered.status[0] == "0"


def test_server_stream_in_one_piece_is_heard(peer: SocketPeer) -> None:
    """The request of a server stream comes in one piece with most clients."""
    peer.send(peer.request(1, call_fields(_HEALTH_WATCH), message(b"")))

    frames = peer.frames_until(lambda found: any(one.type == DATA for one in found))

    assert peer.answered(1, frames).messages == [_SERVING]


def test_second_message_of_a_server_stream_is_passed_over(peer: SocketPeer) -> None:
    """A server stream has one request; more of them make no more work."""
    peer.send(peer.request(1, call_fields(_HEALTH_WATCH), message(b"") * 1_000, ends=False))
    peer.send(peer.request(3, call_fields(_RANGE), message(_range())))

    frames = peer.frames_until(lambda found: any(one.stream == 3 for one in found))

    assert peer.answered(1, frames).messages == [_SERVING]


def test_watch_goes_on_when_its_client_is_done_asking(peer: SocketPeer, root: Client) -> None:
    """A client that half-closes its watch still gets its events (etcd)."""
    create = watch_pb2.WatchCreateRequest(key=b"half")
    request = watch_pb2.WatchRequest(create_request=create).SerializeToString()
    peer.send(peer.request(1, call_fields(_WATCH, root.token), message(request)))
    peer.frames_until(lambda found: any(one.type == DATA for one in found))

    root.kv.Put(kv_pb2.PutRequest(key=b"half"))
    frames = peer.frames_until(lambda found: any(one.type == DATA for one in found))

    (content,) = peer.answered(1, frames).messages or [b""]
    assert not any(one.flags & END_STREAM for one in frames)
    assert content or frames


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_watchers_of_one_key_are_each_told(peer: SocketPeer, root: Client, encoding: str) -> None:
    """Events that are made once for several watchers come as a message for each, also packed."""
    ids = [0, 1, 2, 200, 201, 20_000]
    packed = encoding == "gzip"
    key = b"told " + encoding.encode()
    requests = [
        watch_pb2.WatchRequest(
            create_request=watch_pb2.WatchCreateRequest(key=key, watch_id=watch_id)
        ).SerializeToString()
        for watch_id in ids
    ]
    if packed:
        requests = [gzip.compress(request) for request in requests]
    framed = b"".join(message(request, int(packed)) for request in requests)
    fields = call_fields(_WATCH, root.token, grpc_encoding=encoding)
    peer.send(peer.request(1, fields, framed, ends=False))
    frames = peer.frames_until(lambda found: _message_count(found) >= len(ids))

    root.kv.Put(kv_pb2.PutRequest(key=key))
    frames += peer.frames_until(lambda found: _message_count(found) >= len(ids))

    told = peer.answered(1, frames).messages[len(ids) :]
    responses = [
        watch_pb2.WatchResponse.FromString(gzip.decompress(one) if packed else one) for one in told
    ]
    assert sorted(one.watch_id for one in responses) == ids
    assert all([event.kv.key for event in one.events] == [key] for one in responses)


def test_ten_thousand_messages_on_one_stream(root: Client) -> None:
    """Ten thousand small messages are answered, each once and in order."""
    count = 10_000
    requests = (lease_pb2.LeaseKeepAliveRequest(ID=number) for number in range(1, count + 1))

    answers = [answer.ID for answer in root.lease.LeaseKeepAlive(requests, timeout=60)]

    assert answers == list(range(1, count + 1))


def test_each_message_may_be_acknowledged(peer: SocketPeer, root: Client) -> None:
    """Who opens its windows once for each of many messages, as C gRPC does, is no attacker."""
    count = 1_500
    requests = b"".join(
        message(lease_pb2.LeaseKeepAliveRequest(ID=number).SerializeToString())
        for number in range(1, count + 1)
    )
    peer.send(peer.request(1, call_fields(_KEEP_ALIVE, root.token), requests))
    answered = peer.answer(1)

    peer.send(*[window_update(0, 10) + window_update(1, 10)] * count)

    assert len(answered.messages) == count
    assert peer.call(3, _RANGE, _range(), token=root.token).status[0] == "0"


def test_history_reaches_a_slow_turn_whole(root: Client) -> None:
    """A history larger than one turn may queue is delivered without anything else happening."""
    first = 0
    for number in range(6):
        answer = root.kv.Put(kv_pb2.PutRequest(key=b"long", value=bytes((number,)) * 900_000))
        first = first or answer.header.revision
    create = watch_pb2.WatchCreateRequest(key=b"long", start_revision=first)
    stream = root.watch.Watch(_Requests(watch_pb2.WatchRequest(create_request=create)), timeout=20)

    events = []
    for response in stream:
        events += response.events
        if len(events) == 6:
            break
    stream.cancel()

    assert [event.kv.value[:1] for event in events] == [bytes((n,)) for n in range(6)]


# --- shapes of frames -------------------------------------------------------------------------


def test_request_in_any_pieces_is_the_same(peer: SocketPeer, root: Client) -> None:
    """Padding, empty frames and single bytes make no difference to a call."""
    framed = message(_range())
    stream = 1
    peer.send(headers(stream, request_block(call_fields(_RANGE, root.token))))
    for byte in framed:
        peer.send(data(stream, bytes((2, byte, 0, 0)), PADDED), data(stream, b""))
    peer.send(data(stream, b"", END_STREAM))

    assert peer.answer(stream).status[0] == "0"


def test_trailers_of_a_request_end_it(peer: SocketPeer, root: Client) -> None:
    """A client may end its request with trailers."""
    peer.send(peer.request(1, call_fields(_RANGE, root.token), message(_range()), ends=False))
    peer.send(headers(1, b"\x00\x01x\x01y", END_HEADERS | END_STREAM))

    assert peer.answer(1).status[0] == "0"


def test_early_answer_stops_the_request(peer: SocketPeer) -> None:
    """Who is still sending when the answer is final is told to stop (RFC 9113 section 8.1)."""
    peer.send(peer.request(1, call_fields("/nothing/Here"), b"\0\0", ends=False))

    frames = peer.frames_until(lambda found: any(one.type == RST_STREAM for one in found))

    assert frames[-1].payload == bytes(4)
    assert peer.answered(1, frames).status[0] == "12"
    peer.send(data(1, bytes(1_000), END_STREAM))
    assert peer.call(3, _RANGE, _range()).status[0] == "3"

"""The JSON gateway of a real process: over both versions of HTTP, its law, and its bounds."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.gateway import Gateway, Said, curl
from support.processes import free_ports, wait_until
from support.rpc import Client
from support.servers import KvsecureServer
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import auth_pb2, kv_pb2

_MIB: Final = 1024 * 1024
_USER_PASSWORD: Final = "a password that is long enough"


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


_A: Final = _b64(b"gw/a")


@pytest.fixture
def root(member: KvsecureServer) -> Iterator[Gateway]:
    """A client of HTTP/1.1 that is root."""
    with Gateway(member) as gateway:
        yield gateway.log_in()


# --- over both versions -------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("prefix", ["/v3", "/v3beta", "/v3alpha"])
def test_calls_are_served_over_both_versions(
    member: KvsecureServer, root: Gateway, version: str, prefix: str
) -> None:
    """What curl negotiates makes no difference, nor do the prefixes of old."""
    token = f"Authorization: Bearer {root.fields['Authorization']}"

    def ask(path: str, body: str) -> Said:
        arguments = ("-H", token, f"--http{version}")
        return curl(member, *arguments, path=prefix + path, body=body)

    put = ask("/kv/put", json.dumps({"key": _A, "value": _b64(b"x" * 60_000)}))
    got = ask("/kv/range", json.dumps({"key": _A}))

    assert (put.status, put.fields["version"]) == (200, version)
    assert got.value["kvs"][0]["value"] == _b64(b"x" * 60_000)


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_watch_is_streamed_over_both_versions(
    member: KvsecureServer, root: Gateway, version: str
) -> None:
    """A line leaves when there is one, and not when the answer ends."""
    body = json.dumps({"create_request": {"key": _b64(b"streamed"), "start_revision": "1"}})
    root.ask("/v3/kv/put", {"key": _b64(b"streamed")})
    token = f"Authorization: {root.fields['Authorization']}"

    said = curl(
        member, "-H", token, f"--http{version}", path="/v3/watch", body=body, seconds=1
    )  # fmt: skip

    lines = [json.loads(line)["result"] for line in said.body.splitlines() if line]
    assert lines[0]["created"]
    assert lines[1]["events"][0]["kv"]["key"] == _b64(b"streamed")


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize(
    ("size_bytes", "status", "code"),
    [(1_600_000, 400, 3), (2_300_000, 429, 8), (6_000_000, 429, 8)],
)
def test_requests_have_the_size_of_grpc(
    member: KvsecureServer,
    root: Gateway,
    tmp_path: Path,
    version: str,
    size_bytes: int,
    status: int,
    code: int,
) -> None:
    """Both bounds are those of gRPC's requests, whatever JSON makes of their size."""
    body = tmp_path / "body"
    body.write_text(json.dumps({"key": _A, "value": _b64(bytes(size_bytes))}))
    token = f"Authorization: {root.fields['Authorization']}"

    said = curl(member, "-H", token, f"--http{version}", path="/v3/kv/put", body=f"@{body}")

    assert (said.status, said.value["code"]) == (status, code)


def test_bytes_and_numbers_survive(member: KvsecureServer, root: Gateway) -> None:
    """What is written in JSON is what gRPC reads, and the other way round."""
    content = bytes(range(256))
    with member.client() as client:
        root.ask("/v3/kv/put", {"key": _b64(b"bytes\xff"), "value": _b64(content)})
        found = client.call("kv.Range", kv_pb2.RangeRequest(key=b"bytes\xff"))
        client.call("kv.Put", kv_pb2.PutRequest(key=b"bytes\xff", value=content[::-1]))
    got = root.ask("/v3/kv/range", {"key": _b64(b"bytes\xff")}).value

    assert found.kvs[0].value == content
    assert base64.b64decode(got["kvs"][0]["value"]) == content[::-1]


# --- the same law ---------------------------------------------------------------------------------


def _add_reader(client: Client, name: str) -> None:
    span = {"key": b"mine/", "range_end": b"mine0"}
    client.call("auth.RoleAdd", auth_pb2.AuthRoleAddRequest(name=name))
    client.call(
        "auth.RoleGrantPermission",
        auth_pb2.AuthRoleGrantPermissionRequest(name=name, perm={"permType": 0, **span}),
    )
    client.call("auth.UserAdd", auth_pb2.AuthUserAddRequest(name=name, password=_USER_PASSWORD))
    client.call("auth.UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user=name, role=name))


def test_rights_are_the_same_and_so_are_their_records(
    member: KvsecureServer, root: Gateway
) -> None:
    """What a user may not do by gRPC it may not do here, and each attempt is in the trail."""
    with member.client() as client:
        _add_reader(client, "reader")
    with Gateway(member) as reader:
        reader.log_in("reader", _USER_PASSWORD)
        allowed = reader.ask("/v3/kv/range", {"key": _b64(b"mine/a")})
        written = reader.ask("/v3/kv/put", {"key": _b64(b"mine/a")})
        foreign = reader.ask("/v3/kv/range", {"key": _b64(b"theirs")})
        nested = reader.ask(
            "/v3/kv/txn", {"failure": [{"request_put": {"key": _b64(b"mine/a"), "prev_kv": True}}]}
        )
    with root.lines("/v3/kvsecure/audit/tail", b'{"count":"50"}') as lines:
        records = [json.loads(base64.b64decode(one)) for one in next(lines)["result"]["records"]]

    denied = [one for one in records if one.get("actor", {}).get("user") == "reader"]
    stages = [(one["op"]["rpc"], one["stage"]) for one in denied]
    assert allowed.status == 200
    assert {written.status, foreign.status, nested.status} == {403}
    assert written.value["message"] == "etcdserver: permission denied"
    assert stages[-4:] == [
        ("Range", "read"), ("Put", "denied"), ("Range", "denied"), ("Txn", "denied"),
    ]  # fmt: skip


def test_certificate_is_an_identity_here_too(tmp_path: Path) -> None:
    """Who shows a certificate is its user; no header changes that, and a token must agree."""
    with KvsecureServer(tmp_path, client_certificates=True) as strict:
        with Gateway(strict, strict.authority.client("root")) as own:
            root = own.ask("/v3/auth/user/list", {}, {"Grpc-Metadata-grpcgateway-accept": "x"})
            own.ask("/v3/auth/user/add", {"name": "other", "password": _USER_PASSWORD})
            own.log_in("other", _USER_PASSWORD)
            conflict = own.ask("/v3/auth/user/list")
        with Gateway(strict, strict.authority.client("stranger")) as stranger:
            refused = stranger.ask("/v3/kv/range", {"key": _A}, {"X-Forwarded-For": "root"})

    assert (root.status, root.value["users"]) == (200, ["root"])
    assert (conflict.status, refused.status) == (401, 403)


@pytest.mark.parametrize("origin", ["https://example.org", "null", "https://127.0.0.1"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_web_pages_are_not_served(member: KvsecureServer, version: str, origin: str) -> None:
    """A page that a browser shows cannot use the browser's certificate, whatever its origin."""
    said = curl(
        member, f"--http{version}", "-H", f"Origin: {origin}", path="/v3/auth/status", body="{}"
    )

    assert (said.status, said.value["code"]) == (403, 7)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_calls(member: KvsecureServer, method: str) -> None:
    """Nothing is done by another method, and none is taken for POST."""
    with Gateway(member) as gateway:
        said = gateway.ask("/v3/kv/range", b"", {"X-HTTP-Method-Override": "POST"}, method)

    assert said.status == 405


@pytest.mark.parametrize(
    "fields",
    [{"Content-Encoding": "gzip"}, {"Content-Type": "application/grpc"}],
    ids=["compressed", "grpc"],
)
def test_foreign_content_is_refused(member: KvsecureServer, fields: dict[str, str]) -> None:
    """What is not text is not read as if it were."""
    with Gateway(member) as gateway:
        assert gateway.ask("/v3/kv/range", {}, fields).status == 415


def test_timeout_of_the_caller_counts(member: KvsecureServer) -> None:
    """Grpc-Timeout ends a call, also one that streams; what is none is an error."""
    with Gateway(member) as gateway:
        gateway.log_in()
        body = b'{"create_request":{"key":"%b"}}' % _A.encode()
        gateway.fields["Grpc-Timeout"] = "300m"
        with gateway.lines("/v3/watch", body) as lines:
            created, ended = list(lines)
        bad = gateway.ask("/v3/kv/range", {"key": _A}, {"Grpc-Timeout": "10x"})

    assert created["result"]["created"]
    assert ended["error"]["grpc_code"] == 4
    assert (bad.status, bad.value["code"]) == (400, 3)


# --- the connection -------------------------------------------------------------------------------


def test_request_that_does_not_come_ends_over_http2(member: KvsecureServer) -> None:
    """A stream whose request is not whole is ended by its deadline, and not kept for its end."""
    fields = [*call_fields("/v3/kv/put")[:4], (b"grpc-timeout", b"200m")]
    with SocketPeer(member.port, client_tls(member.authority.certificate)) as peer:
        peer.begin()
        peer.send(peer.request(1, fields, b'{"key":', ends=False))
        answered = peer.answer(1)

    assert answered.fields[":status"] == "504"
    assert json.loads(answered.messages[0])["code"] == 4


def test_connection_serves_many(root: Gateway) -> None:
    """One connection carries one request after another, refused ones too."""
    statuses = []
    for _ in range(20):
        statuses.append(root.ask("/v3/kv/put", {"key": _A}).status)
        sock = root.connection.sock
        statuses.append(root.ask("/v3/kv/put", b"{").status)
        statuses.append(root.ask("/version", b"", method="GET").status)
        assert root.connection.sock is sock

    assert statuses == [200, 400, 200] * 20


def _post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def peer(member: KvsecureServer) -> Iterator[SocketPeer]:
    """A bare connection of HTTP/1.1."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with SocketPeer(member.port, tls) as connected:
        yield connected


def _read(peer: SocketPeer) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(peer.sock)
    answer.begin()
    return answer


def test_request_may_be_cut_anywhere(root: Gateway, peer: SocketPeer) -> None:
    """Byte by byte, or in chunks, a request is the same."""
    token = f"Authorization: {root.fields['Authorization']}"
    body = json.dumps({"key": _A}).encode()
    for byte in _post("/v3/kv/range", body, token):
        peer.send(bytes((byte,)))
    first = _read(peer)
    first.read()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = f"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\n{token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer.send(head.encode(), chunks)

    assert (first.status, _read(peer).status) == (200, 200)


def test_pipelined_calls_are_answered_in_order(root: Gateway, peer: SocketPeer) -> None:
    """Calls and pages that come at once are served one after another."""
    token = f"Authorization: {root.fields['Authorization']}"
    calls = [_post("/v3/lease/timetolive", b'{"ID":%d}' % number, token) for number in range(1, 6)]
    page = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    peer.send(b"".join(calls[:3]) + page + b"".join(calls[3:]))

    content = b""
    while content.count(b"HTTP/1.1 200") < 6 or not content.endswith(b"}"):
        content += peer.sock.recv(1 << 16)
    ids = [piece.split(b'"')[0] for piece in content.split(b'"ID":"')[1:]]
    assert ids == [b"1", b"2", b"3", b"4", b"5"]
    assert content.index(b"etcdserver") > content.index(b'"ID":"3"')


def test_body_with_two_ends_is_refused(peer: SocketPeer) -> None:
    """A length and chunks are two requests to somebody; here they are none."""
    hidden = _post("/v3/kv/range", b"{}")
    peer.send(_post("/v3/kv/range", b"", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + hidden)

    content = peer.read_all()

    assert content.count(b"HTTP/1.1") == 1
    assert b"HTTP/1.1 4" in content


def test_early_refusal_is_read_by_who_sends_first(root: Gateway, peer: SocketPeer) -> None:
    """Who writes everything before it reads gets its answer, and then the end."""
    token = f"Authorization: {root.fields['Authorization']}"
    body = b'{"value":"' + b"A" * 4 * _MIB + b'"}'
    peer.send(_post("/v3/kv/put", body, token))

    answer = _read(peer)

    assert (answer.status, answer.getheader("connection")) == (429, "close")
    assert json.loads(answer.read())["code"] == 8
    assert peer.read_all() == b""


def test_watch_may_be_asked_bit_by_bit(root: Gateway, peer: SocketPeer) -> None:
    """A stream of requests that goes on is answered while it does, and ends with its connection."""
    token = f"Authorization: {root.fields['Authorization']}"
    head = f"POST /v3/watch HTTP/1.1\r\nHost: x\r\n{token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    create = b'{"create_request":{"key":"%b"}}' % _A.encode()
    peer.send(head.encode(), b"%x\r\n%b\r\n" % (len(create), create))
    answer = _read(peer)
    first = answer.readline()
    cancel = b'{"cancel_request":{"watch_id":"0"}}'
    peer.send(b"%x\r\n%b\r\n" % (len(cancel), cancel))
    second = answer.readline()

    assert b'"created":true' in first
    assert b'"canceled":true' in second


def _metric(member: KvsecureServer, name: str) -> int:
    with Gateway(member) as gateway:
        text = gateway.ask("/metrics", b"", method="GET").body.decode()
    lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return int(float(lines[0].split()[-1]))


def _open_watches(member: KvsecureServer) -> int:
    return _metric(member, "etcd_debugging_mvcc_watcher_total")


def test_watch_ends_with_its_connection(member: KvsecureServer, root: Gateway) -> None:
    """A peer that is gone leaves no watcher behind."""
    before = _open_watches(member)
    body = b'{"create_request":{"key":"%b"}}' % _A.encode()
    with root.lines("/v3/watch", body) as lines:
        next(lines)
        during = _open_watches(member)

    assert during == before + 1
    wait_until(lambda: _open_watches(member) == before, deadline_s=20, what="the watcher to end")


def _rss_bytes(member: KvsecureServer) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _sent_bytes(member: KvsecureServer) -> int:
    """Return how much was ever handed to connections, read by their peers or not."""
    return _metric(member, "etcd_network_client_grpc_sent_bytes_total")


def test_watch_that_is_not_read_costs_a_bounded_place(
    member: KvsecureServer, root: Gateway
) -> None:
    """Events wait in the store for who does not read, and not in memory; others go on."""
    token = f"Authorization: {root.fields['Authorization']}"
    body = b'{"create_request":{"key":"%b"}}' % _b64(b"flood").encode()
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with member.client() as client, SocketPeer(member.port, tls, receive_bytes=8_192) as slow:
        slow.send(_post("/v3/watch", body, token))
        answer = _read(slow)
        answer.readline()
        before = _sent_bytes(member)
        for number in range(60):
            value = bytes((number,)) * _MIB
            client.call("kv.Put", kv_pb2.PutRequest(key=b"flood", value=value))
        sent = _sent_bytes(member) - before
        values = []
        while not values or values[-1] != 59:
            events = json.loads(answer.readline())["result"].get("events", [])
            values += [base64.b64decode(one["kv"]["value"])[0] for one in events]

    assert values == list(range(60))
    # A line of 1.3 MiB beyond what fills the connection, and what else was asked meanwhile.
    assert sent < 8 * _MIB


def test_answer_that_is_read_slowly_comes_whole_before_the_end(
    member: KvsecureServer, root: Gateway
) -> None:
    """A connection that ends with its answer does not end before the answer has been read."""
    token = f"Authorization: {root.fields['Authorization']}\r\nConnection: close"
    body = b'{"key":"%b","range_end":"%b"}' % (_b64(b"slow/").encode(), _b64(b"slow0").encode())
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with member.client() as client, SocketPeer(member.port, tls, receive_bytes=65_536) as slow:
        for number in range(4):
            request = kv_pb2.PutRequest(key=b"slow/%d" % number, value=bytes(_MIB))
            client.call("kv.Put", request)
        slow.send(_post("/v3/kv/range", body, token))
        answer = _read(slow)
        content = answer.read(_MIB)
        # So slow it is: the end of TLS would have been half a second.
        time.sleep(1.5)
        content += answer.read()

    assert [len(base64.b64decode(one["value"])) for one in json.loads(content)["kvs"]] == [_MIB] * 4


def test_requests_that_do_not_end_are_bounded_together(member: KvsecureServer) -> None:
    """Half requests of many connections do not add up; others are told to come again."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    part = b'{"value":"' + b"A" * 3_000_000
    head = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 3100000\r\n\r\n"
    peers = []

    def begin(content: bytes) -> None:
        peers.append(SocketPeer(member.port, tls))
        peers[-1].send(head, content)

    before = _rss_bytes(member)
    try:
        for _ in range(30):
            begin(part)
        with Gateway(member) as other:

            def is_full() -> bool:
                # Of those that came at once more than had to be were turned away, perhaps.
                begin(part[:1_000_000])
                return other.ask("/v3/kv/range", {"key": "A" * 2_000_000}).status == 429

            wait_until(is_full, deadline_s=20, what="the bound to be reached")
            assert other.ask("/health", b"", method="GET").status == 200
        grown = _rss_bytes(member) - before
    finally:
        for one in peers:
            one.close()

    assert grown < 160 * _MIB
    with Gateway(member) as again:
        wait_until(
            lambda: again.ask("/v3/kv/range", {"key": "A" * 2_000_000}).status != 429,
            deadline_s=20,
            what="what was held to be let go",
        )


def test_stopping_member_ends_streams_with_a_word(tmp_path: Path) -> None:
    """A watch is told that the member stops, and the member does not wait for its reader."""
    with KvsecureServer(tmp_path) as stopping, Gateway(stopping) as gateway:
        gateway.log_in()
        body = b'{"create_request":{"key":"%b"}}' % _A.encode()
        with gateway.lines("/v3/watch", body) as lines:
            next(lines)
            begun = time.monotonic()
            stopping.stop()
            took_s = time.monotonic() - begun
            last = next(lines)

    assert last["error"]["message"] == "etcdserver: server stopped"
    assert took_s < 5


# --- where it is served ---------------------------------------------------------------------------


def test_gateway_is_where_plain_http_is(tmp_path: Path) -> None:
    """With --listen-client-http-urls it is there alone, and never on a listener for metrics."""
    http_port, metrics_port = free_ports(2)
    flags = (
        f"--listen-client-http-urls=http://127.0.0.1:{http_port}",
        f"--listen-metrics-urls=http://127.0.0.1:{metrics_port}",
    )
    with KvsecureServer(tmp_path, flags=flags) as serving:
        answers = []
        for port in (http_port, metrics_port, 0):
            with Gateway(serving, port=port) as gateway:
                answers.append(gateway.ask("/v3/auth/status", {}).status)
        over_h2 = curl(serving, "--http2", path="/v3/auth/status", body="{}").status

    assert answers[0] != 404
    assert answers[0] in {200, 400}
    assert answers[1:] == [405, 405]
    assert over_h2 == 415


def test_gateway_can_be_switched_off(tmp_path: Path) -> None:
    """Without it there is nothing under its paths."""
    flags = ("--enable-grpc-gateway=false",)
    with KvsecureServer(tmp_path, flags=flags) as serving, Gateway(serving) as gateway:
        assert gateway.ask("/v3/auth/status", b"", method="GET").status == 404
        assert gateway.ask("/v3/auth/status", {}).status == 405


def test_both_doors_count_the_same(member: KvsecureServer, root: Gateway) -> None:
    """A call in JSON is a call of its method, in the metrics too."""
    name = b'grpc_server_handled_total{grpc_service="etcdserverpb.Lease",grpc_method="LeaseLeases"'

    def count() -> float:
        text = root.ask("/metrics", b"", method="GET").body
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if b"handled_total" in line and b"LeaseLeases" in line and b'grpc_code="OK"' in line
        )

    before = count()
    root.ask("/v3/lease/leases")

    assert count() == before + 1, name

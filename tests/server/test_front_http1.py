"""The pages over HTTP/1.1 and by a GET of HTTP/2; what is no request; and the bounds of both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.processes import free_ports
from support.servers import KvsecureServer
from wire.rawframes import END_HEADERS, PING, headers, ping, request_block
from wire.socket_peer import Answered, SocketPeer, call_fields, client_tls

_JSON: Final = "application/json"
_HEALTHY: Final = {"health": "true", "reason": ""}
_EVENT_BYTES_MAX: Final = 16 * 1024


@pytest.fixture
def peer(member: KvsecureServer) -> Iterator[SocketPeer]:
    """A connection of HTTP/1.1."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    with SocketPeer(member.port, tls) as connected:
        yield connected


@pytest.fixture
def peer2(member: KvsecureServer) -> Iterator[SocketPeer]:
    """A connection of HTTP/2 that takes pages of any size."""
    with SocketPeer(member.port, client_tls(member.authority.certificate)) as connected:
        yield connected.begin([(4, 1 << 20)])


class _Answers:
    """What comes back over HTTP/1.1, answer by answer."""

    def __init__(self, peer: SocketPeer) -> None:
        self._peer = peer
        self._left = b""

    def next(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Return status, fields by lower-case name, and body."""
        while b"\r\n\r\n" not in self._left:
            self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
        length = int(fields["content-length"]) if has_body else 0
        while len(self._left) < length:
            self._more()
        body, self._left = self._left[:length], self._left[length:]
        return int(line.split()[1]), fields, body

    def _more(self) -> None:
        piece = self._peer.sock.recv(1 << 16)
        assert piece, f"the server hung up after {self._left!r}"
        self._left += piece

    def is_over(self) -> bool:
        """Tell that nothing more came before the server hung up."""
        return self._left + self._peer.read_all() == b""


def _get(target: str, *fields: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    lines = [f"{method} {target} {version}", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode()


# --- pages over HTTP/1.1 ----------------------------------------------------------------------


def test_health_is_told(peer: SocketPeer) -> None:
    """A member that serves says so, as etcd does."""
    peer.send(_get("/health"))

    status, fields, body = _Answers(peer).next()

    assert (status, fields["content-type"], json.loads(body)) == (200, _JSON, _HEALTHY)


@pytest.mark.parametrize("query", ["serializable=true", "exclude=NOSPACE", "exclude=x&exclude=y"])
def test_health_takes_its_queries(peer: SocketPeer, query: str) -> None:
    """The queries that probes use are understood."""
    peer.send(_get(f"/health?{query}"))

    assert json.loads(_Answers(peer).next()[2]) == _HEALTHY


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/livez", b"ok\n"),
        ("/livez?verbose", b"[+]serializable_read ok\nok\n"),
        ("/readyz?exclude=non_learner", b"ok\n"),
        ("/readyz/data_corruption", b"ok\n"),
        ("/readyz?allowlist=linearizable_read&verbose", b"[+]linearizable_read ok\nok\n"),
    ],
)
def test_life_and_readiness_are_told(peer: SocketPeer, target: str, body: bytes) -> None:
    """As text, whole and check by check."""
    peer.send(_get(target))

    status, fields, told = _Answers(peer).next()

    assert (status, told) == (200, body)
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("target", ["//[", "/health?%", "/readyz?=&&;=", "/readyz/%2e%2e/health"])
def test_odd_targets_are_answered(peer: SocketPeer, target: str) -> None:
    """Whatever is asked for, there is an answer, and the connection stays."""
    peer.send(_get(target) + _get("/version"))
    answers = _Answers(peer)

    assert answers.next()[0] in {200, 404}
    assert answers.next()[0] == 200


def test_version_is_told(peer: SocketPeer) -> None:
    """The versions are those of etcd's API."""
    peer.send(_get("/version"))

    status, fields, body = _Answers(peer).next()

    assert (status, fields["content-type"]) == (200, _JSON)
    assert json.loads(body).keys() == {"etcdserver", "etcdcluster"}


def test_metrics_are_told(peer: SocketPeer) -> None:
    """Prometheus reads what it is given, and no name of a key or user is in it."""
    peer.send(_get("/metrics"))

    status, fields, body = _Answers(peer).next()

    assert status == 200
    assert fields["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\netcd_server_has_leader 1" in body


def test_unknown_page_is_404(peer: SocketPeer) -> None:
    """Any other path is nothing, one of a call is no page, and the connection stays."""
    peer.send(_get("/") + _get("/debug/pprof/") + _get("/v3/kv/range") + _get("/version"))
    answers = _Answers(peer)

    assert [answers.next()[0] for _ in range(4)] == [404, 404, 405, 200]


def test_head_has_no_body(peer: SocketPeer) -> None:
    """HEAD is answered like GET, without the body."""
    peer.send(_get("/version", method="HEAD") + _get("/version"))
    answers = _Answers(peer)

    status, fields, _ = answers.next(has_body=False)
    _, _, body = answers.next()

    assert (status, int(fields["content-length"])) == (200, len(body))


def test_requests_may_come_at_once(peer: SocketPeer) -> None:
    """Pipelined requests are answered in order."""
    peer.send(_get("/version") + _get("/nothing") + _get("/health"))
    answers = _Answers(peer)

    assert [answers.next()[0] for _ in range(3)] == [200, 404, 200]


def test_request_may_come_byte_by_byte(peer: SocketPeer) -> None:
    """How a request is cut makes no difference."""
    for byte in _get("/version"):
        peer.send(bytes((byte,)))

    assert _Answers(peer).next()[0] == 200


@pytest.mark.parametrize(
    "request_",
    [_get("/version", "Connection: close"), _get("/version", version="HTTP/1.0")],
    ids=["close", "1.0"],
)
def test_connection_is_closed_when_it_is_asked_for(peer: SocketPeer, request_: bytes) -> None:
    """A client that says so, or that knows no other way, waits for the end."""
    peer.send(request_)
    answers = _Answers(peer)

    assert answers.next()[0] == 200
    assert answers.is_over()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "X"])
def test_other_methods_are_refused(peer: SocketPeer, method: str) -> None:
    """Nothing can be changed here, and a body is not waited for."""
    peer.send(_get("/health", "Content-Length: 1000000", method=method))
    answers = _Answers(peer)

    status, fields, _ = answers.next()

    assert (status, fields["connection"]) == (405, "close")
    assert fields["allow"] == "GET, HEAD"
    assert answers.is_over()


def test_body_of_a_get_is_not_taken(peer: SocketPeer) -> None:
    """A request with a body is answered, and is the last one: no request hides in it."""
    hidden = _get("/version")
    peer.send(_get("/health", f"Content-Length: {len(hidden)}") + hidden)
    answers = _Answers(peer)

    assert answers.next()[0] == 200
    assert answers.is_over()


def test_two_ways_to_end_a_body_hide_no_request(peer: SocketPeer) -> None:
    """A request with a length and chunks is the last one, whichever of the two counts."""
    hidden = _get("/version")
    length = f"Content-Length: {len(hidden) + 5}"
    peer.send(_get("/health", length, "Transfer-Encoding: chunked") + b"0\r\n\r\n" + hidden)
    answers = _Answers(peer)

    assert answers.next()[0] == 200
    assert answers.is_over()


_GARBAGE: Final = {
    "one word more": b"GET /\r\n\r\n",
    "no host": b"GET /version HTTP/1.1\r\n\r\n",
    "two lengths": _get("/version", "Content-Length: 1", "Content-Length: 2"),
    "a length that is none": _get("/version", "Content-Length: -1"),
    "a space before the colon": _get("/version", "X : y"),
    "a folded field": _get("/version", "X: y", " z").replace(b"Host: localhost\r\n", b""),
    "a bare return": b"GET /version HTTP/1.1\rHost: x\r\n\r\n",
    "a control character": _get("/vers\x00ion"),
    "half the preface": b"PRI * HTTP/1.1\r\n\r\n",
}


_OTHER_PROTOCOLS: Final = {
    "no words": b"\x00\x01\x02\x03\r\n\r\n",
    "one word": b"GET\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a broken preface": b"INVALID CONNECTION PREFACE\r\n\r\n",
    "no end": b"a" * 2 * _EVENT_BYTES_MAX,
}


@pytest.mark.parametrize("words", _OTHER_PROTOCOLS.values(), ids=_OTHER_PROTOCOLS.keys())
def test_another_protocol_is_not_answered(peer: SocketPeer, words: bytes) -> None:
    """What does not even look like HTTP/1.1 gets no words of it: the connection ends."""
    peer.send(words)

    assert peer.read_all() == b""


@pytest.mark.parametrize("words", _GARBAGE.values(), ids=_GARBAGE.keys())
def test_garbage_is_a_bad_request(peer: SocketPeer, words: bytes) -> None:
    """What is no request of HTTP/1.1 is told so once, and the connection ends."""
    peer.send(words)
    answers = _Answers(peer)

    status, fields, _ = answers.next()

    assert (status, fields["connection"]) == (400, "close")
    assert answers.is_over()


@pytest.mark.parametrize(
    "words",
    [
        _get("/" + "a" * 2 * _EVENT_BYTES_MAX),
        _get("/version", "X: " + "a" * 2 * _EVENT_BYTES_MAX),
        _get("/version", *[f"X-{number}: y" for number in range(4_000)]),
    ],
    ids=["a long target", "a long field", "many fields"],
)
def test_large_request_is_refused(peer: SocketPeer, words: bytes) -> None:
    """A head larger than the bound is not waited for, whether or not it has an end."""
    peer.send(words[: _EVENT_BYTES_MAX + 1_000])
    answers = _Answers(peer)

    assert answers.next()[0] == 400
    assert answers.is_over()


def test_refused_garbage_leaves_the_others_alone(member: KvsecureServer, peer: SocketPeer) -> None:
    """One connection's garbage is one connection's end."""
    tls = client_tls(member.authority.certificate, alpn=("http/1.1",))
    for words in (*_GARBAGE.values(), *_OTHER_PROTOCOLS.values()):
        with SocketPeer(member.port, tls) as other:
            other.send(words)
            other.read_all()

    peer.send(_get("/health"))
    assert _Answers(peer).next()[0] == 200
    assert b"Traceback" not in member.process.log()


# --- pages over HTTP/2 ------------------------------------------------------------------------


def _page(peer: SocketPeer, path: str, *, method: str = "GET") -> Answered:
    fields = [(b":method", method.encode()), *call_fields(path)[1:4]]
    peer.send(peer.request(1, fields))
    return peer.answer(1)


def test_pages_are_told_over_http2(peer2: SocketPeer) -> None:
    """A GET of HTTP/2 gets the same page."""
    answered = _page(peer2, "/health?serializable=true")

    assert (answered.fields[":status"], answered.fields["content-type"]) == ("200", _JSON)
    assert json.loads(answered.messages[0]) == _HEALTHY


def test_metrics_are_told_over_http2(peer2: SocketPeer) -> None:
    """A page larger than a frame is whole."""
    answered = _page(peer2, "/metrics")

    assert len(answered.messages[0]) == int(answered.fields["content-length"]) > 16_384


def test_head_has_no_body_over_http2(peer2: SocketPeer) -> None:
    """HEAD is answered like GET, without the body."""
    answered = _page(peer2, "/version", method="HEAD")

    assert answered.fields[":status"] == "200"
    assert answered.messages == [b""]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", "404"), ("/health", "POST", "415"), ("/health", "DELETE", "415")],
)
def test_other_requests_of_http2_are_refused(
    peer2: SocketPeer, path: str, method: str, status: str
) -> None:
    """What is neither a page nor a call has a status of HTTP."""
    assert _page(peer2, path, method=method).fields[":status"] == status


def test_body_of_a_get_is_not_waited_for(peer2: SocketPeer) -> None:
    """A GET whose end does not come is answered, and the rest of it is not wanted."""
    fields = [(b":method", b"GET"), *call_fields("/version")[1:4]]
    peer2.send(headers(1, request_block(fields), END_HEADERS))

    assert peer2.answer(1).fields[":status"] == "200"


# --- which protocol ---------------------------------------------------------------------------


def test_protocol_is_found_without_a_choice(member: KvsecureServer) -> None:
    """Who does not negotiate is known by its first bytes, however they are cut."""
    tls = client_tls(member.authority.certificate, alpn=())
    with SocketPeer(member.port, tls) as first, SocketPeer(member.port, tls) as second:
        for byte in _get("/version"):
            first.send(bytes((byte,)))
        second.send(b"P")
        second.send(b"RI")
        second.send(b" * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(3), b"\x04", bytes(5), ping())
        frames = second.frames_until(lambda found: any(one.type == PING for one in found))

        assert _Answers(first).next()[0] == 200
        assert frames


def test_negotiated_protocol_binds(member: KvsecureServer) -> None:
    """Who has chosen HTTP/2 and speaks HTTP/1.1 gets GOAWAY and no page."""
    with SocketPeer(member.port, client_tls(member.authority.certificate)) as peer:
        peer.send(_get("/version"))

        assert b"etcdserver" not in peer.read_all()


# --- listeners for pages only -----------------------------------------------------------------


def test_pages_may_have_listeners_of_their_own(tmp_path: Path) -> None:
    """With --listen-client-http-urls the pages are there, and calls where they were."""
    (port,) = free_ports(1)
    member = KvsecureServer(tmp_path, flags=(f"--listen-client-http-urls=http://127.0.0.1:{port}",))
    with member:
        with SocketPeer(port) as peer:
            peer.send(_get("/health"))
            assert _Answers(peer).next()[0] == 200
        with SocketPeer(port) as peer:
            peer.begin()
            assert peer.call(1, "/etcdserverpb.KV/Range", b"").fields[":status"] == "404"
        tls = client_tls(member.authority.certificate)
        with SocketPeer(member.port, tls) as peer:
            peer.begin()
            assert _page(peer, "/health").fields[":status"] == "404"
            assert peer.call(3, "/etcdserverpb.KV/Range", b"").status[0] == "3"

"""Every listener of a member keeps the one TLS policy: all tests of TLS, on each of them.

Owns: the list of a member's listeners. A listener that is added to the configuration and not to
    this list makes the first test fail.
"""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from server.rotating import CUT_S, Rotating
from support.certificates import CLUSTER, KeyPair
from support.processes import free_ports, wait_until
from wire.rawframes import begin, headers, request_block
from wire.socket_peer import ANSWER_S, call_fields, client_tls

from kvsecure.model.limits import TLS_HANDSHAKE_S_MAX
from kvsecure.pki.authority import create_authority
from kvsecure.server.config import ServerConfig, load
from kvsecure.server.config.flag import Kind, Status
from kvsecure.server.config.model import Listen
from kvsecure.server.config.table import FLAGS
from kvsecure.server.config.urls import Scheme

_TLS12: Final = ssl.TLSVersion.TLSv1_2
_GET: Final = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
_CLOSED: Final = "closed without a word"


class Listening(NamedTuple):
    """One listener.

    Attributes:
        purpose: The field of `Listen` that it is in.
        scheme: How it is listed.
        is_shared: Whether its address is listed for plaintext as well.
    """

    purpose: str
    scheme: Scheme
    is_shared: bool = False


_FLAGS: Final = {
    "client": "listen-client-urls",
    "client_http": "listen-client-http-urls",
    "metrics": "listen-metrics-urls",
}
LISTENERS: Final = {
    "client": Listening("client", Scheme.HTTPS),
    "client, shared": Listening("client", Scheme.HTTPS, is_shared=True),
    "client, unix": Listening("client", Scheme.UNIXS),
    "client, unix, shared": Listening("client", Scheme.UNIXS, is_shared=True),
    "http": Listening("client_http", Scheme.HTTPS),
    "http, shared": Listening("client_http", Scheme.HTTPS, is_shared=True),
    "http, unix": Listening("client_http", Scheme.UNIXS),
    "metrics": Listening("metrics", Scheme.HTTPS),
    "metrics, shared": Listening("metrics", Scheme.HTTPS, is_shared=True),
    "metrics, unix": Listening("metrics", Scheme.UNIXS),
}
_PLAINTEXT: Final = {Scheme.HTTPS: Scheme.HTTP, Scheme.UNIXS: Scheme.UNIX}
on_each_listener: Final = pytest.mark.parametrize("name", LISTENERS)


class World(NamedTuple):
    """A member with all of them."""

    rotating: Rotating
    addresses: dict[str, str]
    good: KeyPair
    expired: KeyPair
    revoked: KeyPair
    foreign: KeyPair
    # Connections that were begun before anything else and never went on, by listener.
    hanging: dict[str, list[socket.socket]]
    hanging_since_s: float

    def connect(self, name: str) -> socket.socket:
        """Connect to a listener, without TLS."""
        return _connect(self.addresses[name])

    def told(self, name: str, context: ssl.SSLContext) -> str:
        """Return what TLS tells a new connection, or nothing if it is served."""
        with self.connect(name) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as sock:
                    sock.sendall(_GET % b"/readyz")
                    answer = sock.recv(4_096)
            except ssl.SSLError as error:
                return error.reason or "no reason"
            except ConnectionError:
                return _CLOSED
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        return "" if answer else _CLOSED

    def tls(self, pair: KeyPair | None, *alpn: str) -> ssl.SSLContext:
        """Return TLS of a client that trusts the member."""
        return client_tls(self.rotating.known, pair, alpn=alpn or ("http/1.1",))


def _connect(address: str) -> socket.socket:
    is_path = address.startswith("/")
    sock = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
    sock.settimeout(ANSWER_S)
    try:
        sock.connect(address if is_path else ("127.0.0.1", int(address)))
    except BaseException:
        sock.close()
        raise
    return sock


def _url(scheme: Scheme, address: str) -> str:
    return f"{scheme.value}://{address if address[0] == '/' else f'127.0.0.1:{address}'}"


def _addresses(directory: Path) -> dict[str, str]:
    ports = iter(free_ports(len(LISTENERS)))
    return {
        name: str(directory / f"{number}.sock" if each.scheme is Scheme.UNIXS else next(ports))
        for number, (name, each) in enumerate(LISTENERS.items())
    }


def _flags(addresses: dict[str, str]) -> list[str]:
    """Return the flags that make all listeners of the list."""
    urls: dict[str, list[str]] = {purpose: [] for purpose in _FLAGS}
    for name, each in LISTENERS.items():
        urls[each.purpose].append(_url(each.scheme, addresses[name]))
        if each.is_shared:
            urls[each.purpose].append(_url(_PLAINTEXT[each.scheme], addresses[name]))
    return [f"--{_FLAGS[purpose]}={','.join(found)}" for purpose, found in urls.items()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A member that demands certificates on every listener there can be."""
    directory = tmp_path_factory.mktemp("all")
    addresses = _addresses(directory)
    rotating = Rotating(directory / "rotating", flags=tuple(_flags(addresses)))
    expired, _ = rotating.root(ttl=timedelta(seconds=1))
    expired_s = time.monotonic() + 2
    revoked, serial = rotating.root()
    rotating.revoke(serial)
    rotating.publish(timedelta(days=1), rotating.first)
    foreign, _ = rotating.root(create_authority(directory / "foreign", CLUSTER))
    good, _ = rotating.root()
    with rotating, contextlib.ExitStack() as stack:
        since_s = time.monotonic()
        hanging = {
            name: [stack.enter_context(_connect(address)) for _ in range(2)]
            for name, address in addresses.items()
        }
        for _, half in hanging.values():
            half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        wait_until(lambda: time.monotonic() > expired_s, deadline_s=20, what="a certificate to end")
        yield World(rotating, addresses, good, expired, revoked, foreign, hanging, since_s)


# --- the list -------------------------------------------------------------------------------------


def test_list_has_every_listener_that_can_be_configured(tmp_path: Path) -> None:
    """Each purpose of the configuration, with each scheme of TLS, by each flag that listens."""
    tls = ("--cert-file=c", "--key-file=k", "--advertise-client-urls=https://localhost:1")
    config = load(["--kek-file=/k", *tls, *_flags(_addresses(tmp_path))], {})
    assert isinstance(config, ServerConfig)
    purposes = [each.name for each in fields(Listen) if each.name != "gateway"]
    secure = {each for each in Scheme if each.is_secure}
    listened = {
        name
        for name, flag in FLAGS.items()
        if name.startswith("listen-") and flag.kind is Kind.URLS and flag.status is Status.HONOURED
    }

    listed = [
        (purpose, endpoint.scheme)
        for purpose in purposes
        for endpoint in getattr(config.listen, purpose)
        if endpoint.scheme.is_secure
    ]
    assert sum(endpoint.scheme.is_secure for endpoint in config.listen.everything) == len(listed)
    assert sorted(map(str, listed)) == sorted(
        str((each.purpose, each.scheme)) for each in LISTENERS.values()
    )
    assert set(listed) == {(purpose, scheme) for purpose in purposes for scheme in secure}
    # Members come elsewhere, by other rules: tests/server/peers has those.
    assert listened == {*_FLAGS.values(), "listen-peer-urls"}
    assert set(Scheme) - secure == set(_PLAINTEXT.values())


# --- who is let in --------------------------------------------------------------------------------


@on_each_listener
def test_good_certificate_is_let_in(world: World, name: str) -> None:
    """With TLS 1.3, uncompressed, and nothing to resume."""
    context = world.tls(world.good)
    with (
        world.connect(name) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(_GET % b"/readyz")
        answer = sock.recv(4_096)
        facts = (sock.version(), sock.compression(), sock.session_reused)
        session = sock.session

    assert answer.startswith(b"HTTP/1.1 ")
    assert facts == ("TLSv1.3", None, False)
    assert session is None or not session.has_ticket


@on_each_listener
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("nobody", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ("foreign", "TLSV1_ALERT_UNKNOWN_CA"),
        ("expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED"),
        ("server", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    ],
)
def test_other_certificates_are_refused(world: World, name: str, who: str, reason: str) -> None:
    """None, one of another authority, an expired, a revoked one, and a server's own."""
    rotating = world.rotating
    pairs = {
        "nobody": None,
        "foreign": world.foreign,
        "expired": world.expired,
        "revoked": world.revoked,
        "server": KeyPair(certificate=rotating.cert, key=rotating.key),
    }

    assert world.told(name, world.tls(pairs[who])) == reason


@on_each_listener
def test_tls_1_2_is_refused(world: World, name: str) -> None:
    """By default there is TLS 1.3 and nothing else."""
    context = client_tls(world.rotating.known, world.good, maximum=_TLS12)

    assert world.told(name, context) == "TLSV1_ALERT_PROTOCOL_VERSION"


@on_each_listener
def test_handshake_has_a_deadline(world: World, name: str) -> None:
    """Who says nothing, and who says half of it, is closed when the time is over."""
    left_s = world.hanging_since_s + TLS_HANDSHAKE_S_MAX + 5 - time.monotonic()
    for sock in world.hanging[name]:
        sock.settimeout(max(left_s, 1))
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""


# --- what is spoken -------------------------------------------------------------------------------


@on_each_listener
@pytest.mark.parametrize(
    ("alpn", "selected"),
    [
        (("h2", "http/1.1"), "h2"),
        (("http/1.1", "h2"), "h2"),
        (("http/1.1",), "http/1.1"),
        ((), None),
        (("spdy/3", "foo"), None),
    ],
)
def test_alpn_is_one_of_two_or_nothing(
    world: World, name: str, alpn: tuple[str, ...], selected: str | None
) -> None:
    """What is not known is not spoken; without a choice the first bytes tell."""
    context = client_tls(world.rotating.known, world.good, alpn=alpn)
    with (
        world.connect(name) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.selected_alpn_protocol() == selected
        for_http2 = begin() + headers(1, request_block(call_fields("/x")), 5)
        sock.sendall(for_http2 if selected == "h2" else _GET % b"/readyz")
        answer = sock.recv(4_096)

    # A frame of settings, or a status line.
    assert answer[3:5] == b"\x04\x00" if selected == "h2" else answer.startswith(b"HTTP/1.1 ")


@on_each_listener
def test_plaintext_is_spoken_where_it_is_listed_only(world: World, name: str) -> None:
    """On a port of TLS it gets no page, and a shared one takes it for what it is."""
    with world.connect(name) as sock:
        answer = b""
        with contextlib.suppress(ConnectionError):
            sock.sendall(_GET % b"/readyz")
            answer = sock.recv(4_096)

    assert answer.startswith(b"HTTP/1.1 ") == LISTENERS[name].is_shared


@on_each_listener
@pytest.mark.parametrize("target", [b"/health", b"/livez?verbose", b"/readyz?verbose", b"/version"])
def test_pages_are_the_same_wherever_they_are(world: World, name: str, target: bytes) -> None:
    """Over HTTP/1.1 and HTTP/2, by TLS and beside it; where calls have the port there are none."""
    bodies = set()
    for alpn in ("http/1.1", "h2"):
        context = world.tls(world.good, alpn)
        with (
            world.connect(name) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            bodies.add(_http2_page(sock, target) if alpn == "h2" else _http1_page(sock, target))
    if LISTENERS[name].is_shared:
        with world.connect(name) as sock:
            bodies.add(_http1_page(sock, target))

    (body,) = bodies
    if LISTENERS[name].purpose == "client":
        assert body == b"404 page not found\n"
    else:
        assert body.endswith((b'{"health":"true","reason":""}', b"ok\n", b'"etcdcluster":"3.5.0"}'))


def _http1_page(sock: socket.socket, target: bytes) -> bytes:
    sock.sendall(_GET % target)
    answer = sock.recv(4_096)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    while len(body) < int(length.split()[1]):
        body += sock.recv(4_096)
    return body


def _http2_page(sock: socket.socket, target: bytes) -> bytes:
    asked = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", target),
        (b":authority", b"x"),
    ]
    sock.sendall(begin() + headers(1, request_block(asked), 5))
    read = sock.makefile("rb")
    body = b""
    while True:
        head = read.read(9)
        assert len(head) == 9, "the server hung up"
        payload = read.read(int.from_bytes(head[:3], "big"))
        if int.from_bytes(head[5:], "big") == 1:
            if head[3] == 0:
                body += payload
            if head[4] & 1:
                return body


# --- what changes ---------------------------------------------------------------------------------


def test_new_certificate_is_shown_on_every_listener(world: World) -> None:
    """All of them take up the same files."""
    serial = f"{world.rotating.show(world.rotating.first):X}"

    def shown(name: str) -> str:
        with (
            world.connect(name) as plain,
            world.tls(world.good).wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            certificate = sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"]).lstrip("0")

    wait_until(lambda: shown("client") == serial, deadline_s=20, what="the new certificate")
    assert {name: shown(name) for name in LISTENERS} == dict.fromkeys(LISTENERS, serial)


def test_revoked_connection_is_cut_on_every_listener(world: World) -> None:
    """Connections that are open as well as new ones, at once."""
    rotating = world.rotating
    lost, serial = rotating.root()
    with contextlib.ExitStack() as stack:
        open_ones = {}
        for name in LISTENERS:
            plain = stack.enter_context(world.connect(name))
            sock = world.tls(lost).wrap_socket(plain, server_hostname="localhost")
            open_ones[name] = stack.enter_context(sock)
            sock.sendall(_GET % b"/version")
            assert sock.recv(4_096)
        rotating.revoke(serial)
        rotating.publish(timedelta(days=1), rotating.first)

        for sock in open_ones.values():
            sock.settimeout(CUT_S)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while sock.recv(4_096):
                    pass

    refused = "SSLV3_ALERT_CERTIFICATE_REVOKED"
    told = {name: world.told(name, world.tls(lost)) for name in LISTENERS}
    assert told == dict.fromkeys(LISTENERS, refused)


# --- with TLS 1.2 allowed -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rotating, dict[str, str]]]:
    """A member that speaks TLS 1.2 too, and asks for no certificates that resumption would skip."""
    directory = tmp_path_factory.mktemp("older")
    addresses = _addresses(directory)
    flags = (*_flags(addresses), "--tls-min-version=TLS1.2", "--client-cert-mode=optional")
    with Rotating(directory / "rotating", flags=flags) as rotating:
        yield rotating, addresses


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only openssl can ask for it")
@on_each_listener
def test_renegotiation_is_refused(older: tuple[Rotating, dict[str, str]], name: str) -> None:
    """A client of TLS 1.2 that wants to shake hands again is told no, and nothing is compressed."""
    rotating, addresses = older
    address = addresses[name]
    where = ["-unix", address] if address[0] == "/" else ["-connect", f"127.0.0.1:{address}"]
    command = ["openssl", "s_client", "-tls1_2", "-comp", "-CAfile", str(rotating.known)]
    with subprocess.Popen(
        [*command, *where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        overdue = threading.Timer(30, process.kill)
        overdue.start()
        # A line that is one letter asks for it; its end would be taken for a goodbye.
        process.stdin.write(b"R\n")
        process.stdin.flush()
        said = process.stdout.read()
        overdue.cancel()

    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    assert b"Compression: NONE" in said

"""TLS and plaintext on one port: told apart by the first byte, under one deadline."""

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from support.certificates import Authority
from support.processes import free_ports, wait_until
from support.rpc import Client
from support.servers import ROOT_PASSWORD, KvsecureServer
from wire.listening import Bounds, Front
from wire.rawframes import PING, Frame, ping
from wire.socket_peer import SocketPeer, client_tls

from kvsecure.pki.trust import ClientCertificates, ServerTls, server_context
from kvsecure.proto import kv_pb2
from kvsecure.server.listener import Spoken
from kvsecure.server.places import PlaceBounds

_GET: Final = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_S: Final = 2.0

FrontOf = Callable[[Bounds], Front]


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvsecureServer]:
    """A member whose one port is listed under both schemes, and takes certificates."""
    directory = tmp_path_factory.mktemp("shared")
    (port,) = free_ports(1)
    urls = f"http://127.0.0.1:{port},https://127.0.0.1:{port}"
    flags = (
        f"--listen-client-urls={urls}",
        f"--trusted-ca-file={directory / 'certificates' / 'ca.crt'}",
        "--client-cert-mode=optional",
    )
    made = KvsecureServer(directory, flags=flags)
    made.port = port
    with made:
        yield made


@pytest.mark.parametrize("tls", [False, True])
def test_stock_client_chooses_either(member: KvsecureServer, *, tls: bool) -> None:
    """The same port serves gRPC with TLS and without."""
    authority = member.authority.certificate if tls else None
    with Client(member.endpoint, authority).login("root", ROOT_PASSWORD) as client:
        client.kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))

        assert client.kv.Range(kv_pb2.RangeRequest(key=b"k")).count == 1


@pytest.mark.parametrize("alpn", [("h2",), ("http/1.1",), ()])
def test_pages_are_served_with_tls(member: KvsecureServer, alpn: tuple[str, ...]) -> None:
    """ALPN decides there as on any other port."""
    with SocketPeer(member.port, client_tls(member.authority.certificate, alpn=alpn)) as peer:
        if alpn == ("h2",):
            assert peer.begin().call(1, "/etcdserverpb.KV/Range", b"").fields[":status"] == "200"
        else:
            peer.send(_GET)
            assert b"etcdserver" in peer.read_all()


def test_pages_are_served_without_tls(member: KvsecureServer) -> None:
    """HTTP/1.1 and HTTP/2 are told apart as on any other port."""
    with SocketPeer(member.port) as peer:
        peer.send(_GET)
        assert b"etcdserver" in peer.read_all()
    with SocketPeer(member.port) as peer:
        assert peer.begin().call(1, "/etcdserverpb.KV/Range", b"").fields[":status"] == "200"


def test_certificate_counts_on_the_side_of_tls_only(member: KvsecureServer) -> None:
    """Who shows one is its user; who shows none, or cannot, is nobody."""
    with Client(
        member.endpoint, member.authority.certificate, member.authority.client("root")
    ) as client:
        assert client.kv.Range(kv_pb2.RangeRequest(key=b"nothing")).count == 0
    with SocketPeer(member.port) as peer:
        request = kv_pb2.RangeRequest(key=b"a").SerializeToString()
        assert peer.begin().call(1, "/etcdserverpb.KV/Range", request).status[0] == "3"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority, and nothing that serves."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def front_of(certificates: Authority, tmp_path: Path) -> FrontOf:
    """A way to make a front end that speaks both."""
    pair = certificates.server()
    tls = ServerTls(
        cert_file=pair.certificate, key_file=pair.key, client_certificates=ClientCertificates.OFF
    )
    return lambda bounds: Front(
        tmp_path, server_context(tls), bounds._replace(spoken=Spoken.EITHER)
    )


def _is_answered(found: list[Frame]) -> bool:
    return any(one.type == PING for one in found)


def test_handshake_may_come_byte_by_byte(front_of: FrontOf, certificates: Authority) -> None:
    """The byte that is looked at is still there for TLS, and one byte is enough to know."""
    with front_of(Bounds()) as front, SocketPeer(front.port) as peer:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_tls(certificates.certificate).wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    peer.send(bytes([byte]))
                incoming.write(peer.sock.recv(65_536))
        peer.send(outgoing.read())

        assert tls.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("words", [b"", b"\x16"])
def test_deadline_counts_from_the_beginning(front_of: FrontOf, words: bytes) -> None:
    """Who says nothing, and who says one byte late, is closed at the same time."""
    with front_of(Bounds(handshake_s_max=_S)) as front:
        began_s = time.monotonic()
        with SocketPeer(front.port) as peer:
            peer.sock.settimeout(0.75 * _S)
            with pytest.raises(TimeoutError):
                peer.sock.recv(1)
            peer.send(words)
            peer.sock.settimeout(10)
            assert peer.read_all() == b""
            took_s = time.monotonic() - began_s

        wait_until(lambda: front.rejected, deadline_s=20, what="it to be counted")
        assert [one.reason for one in front.rejected] == ["handshake timeout"]
        assert took_s < 1.6 * _S


def test_peer_that_drips_bytes_of_a_handshake_is_closed(front_of: FrontOf) -> None:
    """Every byte is not a new beginning."""
    with front_of(Bounds(handshake_s_max=1.0)) as front, SocketPeer(front.port) as peer:
        peer.sock.settimeout(0.1)
        began_s = time.monotonic()
        is_open = True
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100):
            try:
                peer.send(bytes([byte]))
                is_open = peer.sock.recv(1) != b""
            except TimeoutError:
                continue
            except ConnectionError:
                is_open = False
            if not is_open:
                break

        assert not is_open
        assert time.monotonic() - began_s < 5


def test_peer_that_leaves_without_a_word_is_counted(front_of: FrontOf) -> None:
    """It is a handshake that failed, and its place is free again."""
    with front_of(Bounds(places=PlaceBounds(connections_max=1))) as front:
        for number in range(5):
            SocketPeer(front.port).close()
            wait_until(
                lambda count=number + 1: len(front.rejected) == count, deadline_s=20, what="a count"
            )
        with SocketPeer(front.port) as peer:
            peer.begin().send(ping())
            assert peer.frames_until(_is_answered)


def test_silent_peers_hold_the_places_of_handshakes(front_of: FrontOf) -> None:
    """Before its first byte a connection is half open, whatever it would have spoken."""
    bounds = PlaceBounds(handshakes_per_local_source_max=2)
    with front_of(Bounds(places=bounds)) as front:
        silent = [SocketPeer(front.port) for _ in range(2)]
        with SocketPeer(front.port) as third:
            assert third.read_all() == b""
        silent[0].begin().send(ping())
        assert silent[0].frames_until(_is_answered)
        with SocketPeer(front.port) as fourth:
            fourth.begin().send(ping())
            assert fourth.frames_until(_is_answered)
        for peer in silent:
            peer.close()

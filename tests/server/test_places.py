"""How many connections there may be: all together, from one source, and before they are one."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.processes import wait_until
from support.servers import KvsecureServer
from wire.listening import Bounds, Front
from wire.rawframes import PING, ping
from wire.socket_peer import ANSWER_S, SocketPeer, client_tls

from kvsecure.pki.trust import ClientCertificates, ServerTls, server_context
from kvsecure.server.places import PlaceBounds, Places, Refusal, Refusals, Source, source_of

_TOO_MANY = b"connections refused: there are too many"


def _source(group: str, *, is_local: bool = False) -> Source:
    return Source(group, 1, group, is_local)


def _places(**bounds: int) -> tuple[Places, Refusals]:
    refusals = Refusals()
    return Places(PlaceBounds(**bounds), refusals), refusals


def _refused(refusals: Refusals) -> list[Refusal]:
    return [each for each, count in refusals.counts.items() for _ in range(count)]


# --- counting -----------------------------------------------------------------------------------


def test_places_are_bounded_all_together() -> None:
    """When all are taken nobody else gets one, until somebody leaves."""
    places, refusals = _places(connections_max=2)
    a, b, c = map(_source, "abc")

    assert places.take(a)
    assert places.take(b)
    assert not places.take(c)
    places.settle(a)
    places.leave(a)

    assert places.take(c)
    assert _refused(refusals) == [Refusal.CONNECTIONS]


def test_places_of_one_source_are_bounded() -> None:
    """Who has many gets no more, and that is no matter to anybody else."""
    places, refusals = _places(per_source_max=2)
    a, b = map(_source, "ab")

    assert [places.take(a) for _ in range(3)] == [True, True, False]
    assert places.take(b)
    assert _refused(refusals) == [Refusal.CONNECTIONS_OF_SOURCE]


def test_places_of_this_machine_have_a_bound_of_their_own() -> None:
    """A proxy on this machine may bring more than a stranger, and not all."""
    places, refusals = _places(per_source_max=1, per_local_source_max=3)
    here = _source("127.0.0.1", is_local=True)

    assert [places.take(here) for _ in range(4)] == [True, True, True, False]
    assert _refused(refusals) == [Refusal.CONNECTIONS_OF_SOURCE]


def test_handshakes_are_bounded_all_together_and_by_source() -> None:
    """Who only begins holds few places; one that has shaken hands makes room for another."""
    places, refusals = _places(handshakes_max=3, handshakes_per_source_max=2)
    a, b, c = map(_source, "abc")

    assert [places.take(a) for _ in range(3)] == [True, True, False]
    assert [places.take(b), places.take(c)] == [True, False]
    places.settle(a)
    assert places.take(c)

    assert _refused(refusals) == [Refusal.HANDSHAKES, Refusal.HANDSHAKES_OF_SOURCE]


def test_places_that_were_given_back_leave_nothing_behind() -> None:
    """A million sources that come and go cost no memory."""
    places, _ = _places()

    for number in range(1_000):
        source = _source(str(number))
        places.take(source)
        places.settle(source)
        places.leave(source)

    assert (places._held, places._handshakes, places._count) == ({}, {}, 0)


# --- where a connection comes from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "ip", "group", "is_local"),
    [
        (socket.AF_INET, "192.0.2.7", "192.0.2.7", False),
        (socket.AF_INET, "127.3.2.1", "127.3.2.1", True),
        (socket.AF_INET6, "2001:db8:1:2:3:4:5:6", "20010db800010002", False),
        (socket.AF_INET6, "2001:db8:1:2:ffff::", "20010db800010002", False),
        (socket.AF_INET6, "fe80::1%eth0", "fe80000000000000", False),
        (socket.AF_INET6, "::1", "::1", True),
    ],
)
def test_source_is_an_address_or_a_network(
    family: int, ip: str, group: str, *, is_local: bool
) -> None:
    """Of IPv6 the first 64 bits count: who has one address has all behind them."""
    with socket.socket(family) as sock:
        source = source_of(sock, (ip, 4711))

    assert (source.group, source.is_local, source.ip, source.port) == (group, is_local, ip, 4711)


# --- on sockets -----------------------------------------------------------------------------------


def _from(ip: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), ANSWER_S, (ip, 0))


def _is_served(sock: socket.socket) -> bool:
    sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return b" 200 " in sock.recv(4_096)
    except ConnectionError:
        return False


def test_one_source_does_not_keep_another_out(tmp_path: Path) -> None:
    """With all its places taken an address gets no more, and the next address is served."""
    bounds = Bounds(places=PlaceBounds(per_local_source_max=3))
    with Front(tmp_path, None, bounds) as front:
        first = [_from("127.0.0.2", front.port) for _ in range(4)]
        assert [_is_served(each) for each in first] == [True, True, True, False]
        with _from("127.0.0.3", front.port) as other:
            assert _is_served(other)

        first[0].close()
        wait_until(lambda: front.connection_count == 2, deadline_s=20, what="the place to be free")
        with _from("127.0.0.2", front.port) as again:
            assert _is_served(again)
        for each in first:
            each.close()

    assert front.refusals.counts[Refusal.CONNECTIONS_OF_SOURCE] == 1


@pytest.fixture
def tls_front(tmp_path: Path) -> Callable[[Bounds], Front]:
    """A way to make a front end that speaks TLS, and whose authority lies in `tls`."""
    authority = Authority(tmp_path / "tls")
    pair = authority.server()
    tls = ServerTls(
        cert_file=pair.certificate, key_file=pair.key, client_certificates=ClientCertificates.OFF
    )
    return lambda bounds: Front(tmp_path / "front", server_context(tls), bounds)


def test_half_open_handshakes_of_one_source_do_not_keep_another_out(
    tls_front: Callable[[Bounds], Front], tmp_path: Path
) -> None:
    """Who begins handshakes and leaves them holds a few places of its own, until their deadline."""
    places = PlaceBounds(handshakes_max=10, handshakes_per_local_source_max=2)
    with tls_front(Bounds(places=places, handshake_s_max=1.0)) as front:
        hanging = [_from("127.0.0.2", front.port) for _ in range(3)]
        assert hanging[2].recv(1) == b""
        with SocketPeer(front.port, client_tls(tmp_path / "tls" / "ca.crt")) as other:
            other.begin().send(ping())
            assert other.frames_until(lambda found: any(one.type == PING for one in found))

        assert [each.recv(1) for each in hanging[:2]] == [b"", b""]
        with _from("127.0.0.2", front.port) as again:
            again.settimeout(0.2)
            with pytest.raises(TimeoutError):
                again.recv(1)
        for each in hanging:
            each.close()

    assert front.refusals.counts[Refusal.HANDSHAKES_OF_SOURCE] == 1


def test_failed_handshakes_give_their_places_back(tls_front: Callable[[Bounds], Front]) -> None:
    """However a handshake ends, it is counted no longer."""
    with tls_front(Bounds(places=PlaceBounds(connections_max=2))) as front:
        for number in range(20):
            with _from("127.0.0.2", front.port) as sock:
                sock.sendall(b"\x16\x03\x01\x00\x01x" if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
            wait_until(
                lambda count=number + 1: len(front.rejected) == count,
                deadline_s=20,
                what="it to be rejected",
            )

    assert sum(front.refusals.counts.values()) == 0


def test_refusals_are_told_in_the_log_and_the_metrics(tmp_path: Path) -> None:
    """A flood is one line a second with its number, and a counter by the bound it was beyond."""
    member = KvsecureServer(tmp_path, tls=False, flags=("--max-connections-per-local-source=2",))
    with member:
        held = [_from("127.0.0.9", member.port) for _ in range(2)]
        assert all(map(_is_served, held))
        for _ in range(300):
            with _from("127.0.0.9", member.port) as refused:
                assert not _is_served(refused)
        wait_until(
            lambda: _TOO_MANY in member.process.log(), deadline_s=20, what="a line in the log"
        )
        held[0].close()
        with SocketPeer(member.port) as scraping:
            scraping.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            page = scraping.read_all()
        held[1].close()

    assert member.process.log().count(_TOO_MANY) <= 5
    assert (
        b'\nkvsecure_connections_refused_total{bound="connections of one source"} 300.0\n' in page
    )
    assert b'\nkvsecure_connections_refused_total{bound="handshakes"} 0.0\n' in page

"""TLS of the front end: versions, certificates, resumption, and handshakes that fail or hang."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from support.certificates import CLUSTER, Authority, KeyPair
from support.processes import wait_until
from support.servers import KvsecureServer
from wire.listening import Bounds, Front
from wire.rawframes import PING, Frame, ping
from wire.socket_peer import ANSWER_S, SocketPeer, call_fields, client_tls

import kvsecure
from kvsecure.pki.authority import create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.trust import ClientCertificates, MinimumVersion, ServerTls, server_context
from kvsecure.proto import kv_pb2
from kvsecure.server.places import PlaceBounds

_RANGE: Final = "/etcdserverpb.KV/Range"
_TLS12: Final = ssl.TLSVersion.TLSv1_2
_TLS13: Final = ssl.TLSVersion.TLSv1_3
_REJECTED: Final = b"rejected connection on client endpoint"
_FAILURES: Final = "kvsecure_tls_handshake_failures_total"


# --- who is let in ----------------------------------------------------------------------------


def _asks(member: KvsecureServer, context: ssl.SSLContext) -> str:
    """Return the status of a call, or nothing if there was no connection.

    With TLS 1.3 a client is done before the server has judged it, so the refusal is read later.
    """
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        SocketPeer(member.port, context) as peer,
    ):
        peer.begin()
        request = kv_pb2.RangeRequest(key=b"a").SerializeToString()
        return peer.call(1, _RANGE, request).status[0]
    return ""


def _is_turned_away(member: KvsecureServer, context: ssl.SSLContext, why: str) -> bool:
    """Tell whether the member took no connection, for this reason in its own words.

    Those that left by themselves are in its log too, so the reason is one of the new ones.
    """
    before = len(_reasons(member))
    status = _asks(member, context)
    wait_until(
        lambda: any(why in reason for reason in _reasons(member)[before:]),
        deadline_s=20,
        what=f"{why!r} in the log",
    )
    return status == ""


def _reasons(member: KvsecureServer) -> list[str]:
    lines = [line for line in member.process.log().splitlines() if _REJECTED in line]
    return [str(json.loads(line)["error"]) for line in lines]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvsecureServer]:
    """A member that demands certificates, and trusts an authority of the past as well."""
    directory = tmp_path_factory.mktemp("strict")
    bundle = directory / "trusted.crt"
    flags = ("--client-cert-mode=required", f"--trusted-ca-file={bundle}")
    member = KvsecureServer(directory / "member", flags=flags)
    _past(directory)
    trusted = member.authority.certificate.read_bytes()
    write_public(bundle, trusted + (directory / "past" / "ca.crt").read_bytes())
    with member:
        yield member


def _past(directory: Path) -> KeyPair:
    """Make an authority of three days ago, and a client's certificate that has expired since."""
    then = datetime.now(UTC) - timedelta(days=3)
    authority = create_authority(directory / "past", CLUSTER, lambda: then)
    issued = authority.issue(ProfileName.CLIENT, "root", ttl=timedelta(days=1))
    pair = KeyPair(certificate=directory / "expired.crt", key=directory / "expired.key")
    write_public(pair.certificate, issued.certificate_pem + issued.chain_pem)
    write_private(pair.key, issued.private_key)
    return pair


def _expired(member: KvsecureServer) -> KeyPair:
    directory = member.directory.parent
    return KeyPair(certificate=directory / "expired.crt", key=directory / "expired.key")


def _root(member: KvsecureServer) -> ssl.SSLContext:
    return client_tls(member.authority.certificate, member.authority.client("root"))


def test_certificate_of_a_user_is_let_in(strict: KvsecureServer) -> None:
    """Who shows the certificate of a user is that user."""
    assert _asks(strict, _root(strict)) == "0"


def test_certificate_is_required(strict: KvsecureServer) -> None:
    """Who shows none is turned away by TLS, before a byte of HTTP."""
    context = client_tls(strict.authority.certificate)

    assert _is_turned_away(strict, context, "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_certificate_of_another_authority_is_refused(
    strict: KvsecureServer, tmp_path: Path
) -> None:
    """An authority with the same name and the same cluster is another one all the same."""
    foreign = Authority(tmp_path / "foreign").client("root")

    context = client_tls(strict.authority.certificate, foreign)

    assert _is_turned_away(strict, context, "CERTIFICATE_VERIFY_FAILED: ")


def test_expired_certificate_is_refused(strict: KvsecureServer) -> None:
    """A certificate counts until it expires, although its authority is still trusted."""
    context = client_tls(strict.authority.certificate, _expired(strict))

    assert _is_turned_away(strict, context, "CERTIFICATE_VERIFY_FAILED: certificate has expired")


def test_certificate_of_a_server_is_no_clients(strict: KvsecureServer) -> None:
    """Who has stolen a server's key cannot come in with it."""
    context = client_tls(strict.authority.certificate, strict.certificate)

    assert _is_turned_away(strict, context, "purpose")


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvsecureServer]:
    """A member that takes certificates, and clients without one; it speaks TLS 1.2 as well."""
    directory = tmp_path_factory.mktemp("lenient")
    trusted = directory / "certificates" / "ca.crt"
    flags = (
        "--client-cert-mode=optional",
        f"--trusted-ca-file={trusted}",
        "--tls-min-version=TLS1.2",
    )
    with KvsecureServer(directory, flags=flags) as member:
        assert member.authority.certificate == trusted
        yield member


def test_optional_certificate_may_be_left_out(lenient: KvsecureServer) -> None:
    """Who shows none is nobody, and is told so by the gate."""
    assert _asks(lenient, client_tls(lenient.authority.certificate)) == "3"


def test_optional_certificate_counts(lenient: KvsecureServer) -> None:
    """Who shows one is who it says."""
    assert _asks(lenient, _root(lenient)) == "0"


def test_optional_certificate_is_checked(lenient: KvsecureServer, tmp_path: Path) -> None:
    """One that does not verify is refused, not overlooked."""
    foreign = Authority(tmp_path / "foreign").client("root")

    context = client_tls(lenient.authority.certificate, foreign)

    assert _is_turned_away(lenient, context, "CERTIFICATE_VERIFY_FAILED: ")


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvsecureServer]:
    """A member that asks for no certificates, with everything else at its default."""
    with KvsecureServer(tmp_path_factory.mktemp("blind")) as member:
        yield member


def test_certificate_that_is_not_asked_for_is_nobody(blind: KvsecureServer) -> None:
    """Where certificates are off, one of root's is worth nothing."""
    assert _asks(blind, _root(blind)) == "3"


# --- versions ---------------------------------------------------------------------------------


def test_tls_1_2_is_refused_by_default(blind: KvsecureServer) -> None:
    """Without the flag there is TLS 1.3 and nothing else."""
    context = client_tls(blind.authority.certificate, maximum=_TLS12)

    assert _is_turned_away(blind, context, "UNSUPPORTED_PROTOCOL")


@pytest.mark.parametrize("maximum", [_TLS12, _TLS13])
def test_tls_1_2_is_spoken_when_it_is_allowed(
    lenient: KvsecureServer, maximum: ssl.TLSVersion
) -> None:
    """With the flag it is spoken with those who know no better, and only with those."""
    context = client_tls(lenient.authority.certificate, maximum=maximum)

    with SocketPeer(lenient.port, context) as peer:
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.version() == maximum.name.replace("_", ".")


def test_plain_text_is_no_handshake(blind: KvsecureServer) -> None:
    """Who speaks HTTP to a TLS port is closed, and gets no page."""
    with SocketPeer(blind.port) as peer:
        peer.send(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")

        assert b"etcdserver" not in peer.read_all()


# --- resumption -------------------------------------------------------------------------------


def _resuming(
    member: KvsecureServer, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[str, ssl.SSLSession | None, bool]:
    """Call with a session, if there is one; return the answer, the session, and if it was used."""
    plain = socket.create_connection(("127.0.0.1", member.port), ANSWER_S)
    try:
        sock = context.wrap_socket(plain, server_hostname="localhost", session=session)
    except BaseException:
        plain.close()
        raise
    with sock:
        reused = bool(sock.session_reused)
        answer = b""
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while piece := sock.recv(4_096):
                answer += piece
        return answer[9:12].decode(), sock.session, reused


def _http1(member: KvsecureServer, pair: KeyPair | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    return client_tls(member.authority.certificate, pair, alpn=("http/1.1",), maximum=version)


def test_resumed_session_does_not_carry_a_certificate_in(lenient: KvsecureServer) -> None:
    """With TLS 1.2 a session can be resumed; the certificate is not looked at then, so it ends."""
    context = _http1(lenient, lenient.authority.client("root"), _TLS12)
    first, session, _ = _resuming(lenient, context, None)

    second, _, reused = _resuming(lenient, context, session)

    assert first == "200"
    assert reused
    assert second == ""


def test_client_that_resumes_gets_in_with_a_full_handshake(lenient: KvsecureServer) -> None:
    """The refused session is forgotten: who insists on it is asked for everything next time."""
    context = _http1(lenient, lenient.authority.client("root"), _TLS12)
    _, session, _ = _resuming(lenient, context, None)
    _resuming(lenient, context, session)

    third, _, reused = _resuming(lenient, context, session)

    assert (third, reused) == ("200", False)


def test_resumed_session_of_nobody_is_harmless(lenient: KvsecureServer) -> None:
    """Without a certificate there is nothing that could have been revoked."""
    context = _http1(lenient, None, _TLS12)
    _, session, _ = _resuming(lenient, context, None)

    answer, _, reused = _resuming(lenient, context, session)

    assert (answer, reused) == ("200", True)


def test_tls_1_3_gives_nothing_to_resume(strict: KvsecureServer) -> None:
    """No ticket is handed out, so every connection shows its certificate."""
    context = _http1(strict, strict.authority.client("root"), _TLS13)
    _, session, _ = _resuming(strict, context, None)

    answer, _, reused = _resuming(strict, context, session)

    assert (answer, reused) == ("200", False)


# --- what is told of it -----------------------------------------------------------------------


def _failures(member: KvsecureServer) -> float:
    with SocketPeer(member.port, _root(member)) as peer:
        fields = call_fields("/metrics")[1:4]
        peer.begin([(4, 1 << 20)])
        peer.send(peer.request(1, [(b":method", b"GET"), *fields]))
        (page,) = peer.answer(1).messages
    lines = [line for line in page.decode().splitlines() if line.startswith(_FAILURES)]
    return float(lines[0].split()[-1])


def _tail(member: KvsecureServer, directory: Path) -> list[dict[str, object]]:
    """Return the newest records, as `kvsecure audit tail` prints them for root."""
    pair = member.authority.client("root")
    command = [sys.executable, "-m", "kvsecure", "--endpoint", member.endpoint]
    command += ["--cacert", str(member.authority.certificate)]
    command += ["--cert", str(pair.certificate), "--key", str(pair.key)]
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "KVSECURE_HOME": str(directory / "home"),
        "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
    }
    printed = subprocess.run(
        [*command, "audit", "tail", "--count", "50"],
        env=environment,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_failed_handshakes_are_recorded(lenient: KvsecureServer, tmp_path: Path) -> None:
    """Who was turned away, from where and why, is in the audit trail and in the metrics."""
    foreign = Authority(tmp_path / "foreign").client("root")
    before = _failures(lenient)

    _asks(lenient, client_tls(lenient.authority.certificate, foreign))
    with SocketPeer(lenient.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        peer.read_all()
    context = _http1(lenient, lenient.authority.client("root"), _TLS12)
    _, session, _ = _resuming(lenient, context, None)
    _resuming(lenient, context, session)

    records = [
        record["note"]
        for record in _tail(lenient, tmp_path)
        if record["stage"] == "handshake-failed"
    ][-3:]
    reasons = [note["reason"] for note in records if isinstance(note, dict)]
    addresses = {note["ip"] for note in records if isinstance(note, dict)}
    assert reasons[1:] == ["HTTP_REQUEST", "resumed session"]
    assert "CERTIFICATE_VERIFY_FAILED" in reasons[0]
    assert addresses == {"127.0.0.1"}
    assert _failures(lenient) == before + 3


# --- handshakes that do not finish --------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority, and nothing that serves."""
    return Authority(tmp_path_factory.mktemp("certificates"))


FrontOf = Callable[[Bounds], Front]


@pytest.fixture
def front_of(certificates: Authority, tmp_path: Path) -> FrontOf:
    """A way to make a front end that asks for no certificates."""
    pair = certificates.server()
    tls = ServerTls(
        cert_file=pair.certificate,
        key_file=pair.key,
        client_certificates=ClientCertificates.OFF,
        minimum=MinimumVersion.TLS1_3,
    )
    return lambda bounds: Front(tmp_path, server_context(tls), bounds)


def _is_answered(found: list[Frame]) -> bool:
    return any(one.type == PING for one in found)


@pytest.mark.parametrize("words", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_handshake_that_hangs_is_closed(
    front_of: FrontOf, certificates: Authority, words: bytes
) -> None:
    """Who does not finish in time is closed and counted, and nobody else has to wait."""
    with front_of(Bounds(handshake_s_max=1.0)) as front, SocketPeer(front.port) as hanging:
        hanging.send(words)
        with SocketPeer(front.port, client_tls(certificates.certificate)) as other:
            other.begin().send(ping())
            assert other.frames_until(_is_answered)
            assert front.rejected == []
            assert hanging.read_all() == b""
            other.send(ping())
            assert other.frames_until(_is_answered)

        wait_until(lambda: len(front.rejected) == 1, deadline_s=20, what="it to be counted")
        assert front.rejected[0].reason == "handshake timeout"
        assert front.statistics.handshake_failures == 1


def test_peer_that_leaves_within_its_handshake_is_counted(front_of: FrontOf) -> None:
    """Who hangs up is counted as well, at once."""
    with front_of(Bounds()) as front:
        SocketPeer(front.port).close()

        wait_until(lambda: len(front.rejected) == 1, deadline_s=20, what="it to be counted")


def test_connections_have_a_limit_with_handshakes(
    front_of: FrontOf, certificates: Authority
) -> None:
    """Half-open connections take up room too, so that they are bounded, and give it back."""
    with front_of(Bounds(places=PlaceBounds(connections_max=3), handshake_s_max=1.0)) as front:
        context = client_tls(certificates.certificate)
        with SocketPeer(front.port, context) as inside:
            hanging = [SocketPeer(front.port) for _ in range(2)]
            with SocketPeer(front.port) as outside:
                assert outside.read_all() == b""
            for peer in hanging:
                peer.close()
            wait_until(lambda: len(front.rejected) == 2, deadline_s=20, what="the room to be free")
            with SocketPeer(front.port, context) as late:
                late.begin().send(ping())
                assert late.frames_until(_is_answered)
            inside.begin().send(ping())
            assert inside.frames_until(_is_answered)


def test_half_open_connections_do_not_keep_others_out(blind: KvsecureServer) -> None:
    """Hundreds of connections that say nothing cost the others nothing (GHSA-6vch-q96h-7gc3)."""
    silent = [SocketPeer(blind.port) for _ in range(300)]
    try:
        statuses = {_asks(blind, client_tls(blind.authority.certificate)) for _ in range(10)}
    finally:
        for peer in silent:
            peer.close()

    assert statuses == {"3"}

"""The TLS policy, proved by handshakes of OpenSSL."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kvsecure.pki.authority import Authority, Issued, create_authority
from kvsecure.pki.certificates import (
    Validity,
    certificate_pem,
    certificates_of,
    key_of,
    key_pem,
    make_leaf,
    new_key,
)
from kvsecure.pki.files import read_private, write_private, write_public
from kvsecure.pki.identity import Identity, Kind, identity_of
from kvsecure.pki.profiles import KeyType, ProfileName, shipped_profile
from kvsecure.pki.trust import (
    ClientCertificates,
    ClientTls,
    MinimumVersion,
    ServerTls,
    client_context,
    server_context,
)

OfflineRoot = Callable[[x509.Certificate], tuple[x509.Certificate, x509.Certificate]]
Store = Callable[[str, Issued], tuple[Path, Path]]
Handshake = Callable[[ssl.SSLContext, ssl.SSLContext, str], tuple[ssl.SSLObject, ssl.SSLObject]]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_handshake_gives_the_identity_of_the_client(
    server: ServerTls, client: ClientTls, handshake: Handshake, host: str
) -> None:
    """Both sides accept each other with TLS 1.3 and HTTP/2, and the server learns who it is."""
    there, here = handshake(server_context(server), client_context(client), host)

    der = there.getpeercert(binary_form=True)
    assert der is not None
    assert identity_of(der, "c1") == Identity(
        kind=Kind.USER, cluster="c1", tenant="acme", name="alice"
    )
    assert (there.version(), there.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    assert here.selected_alpn_protocol() == "h2"
    assert there.compression() is None


def test_handshake_of_peers_gives_the_member(
    authority: Authority, server: ServerTls, client: ClientTls, handshake: Handshake, store: Store
) -> None:
    """A peer's certificate serves and calls, and says which member it is."""
    issued = authority.issue(ProfileName.PEER, "m1", hosts=["127.0.0.1"])
    certificate, key = store("m1", issued)
    listener = replace(server, cert_file=certificate, key_file=key)
    caller = replace(client, cert_file=certificate, key_file=key)

    there, _ = handshake(server_context(listener), client_context(caller), "127.0.0.1")

    der = there.getpeercert(binary_form=True)
    assert der is not None
    assert identity_of(der).kind is Kind.NODE


def test_handshake_works_with_ed25519(
    authority: Authority,
    authority_directory: Path,
    server: ServerTls,
    client: ClientTls,
    handshake: Handshake,
    store: Store,
) -> None:
    """The other kind of key serves as well."""
    path = authority_directory / "profiles" / "server.yaml"
    path.write_text(path.read_text().replace("ec-p256", "ed25519"))
    certificate, key = store("ed", authority.issue(ProfileName.SERVER, "db1"))
    listener = replace(server, cert_file=certificate, key_file=key)

    there, _ = handshake(server_context(listener), client_context(client), "localhost")

    assert there.version() == "TLSv1.3"


def test_server_speaks_http1_to_who_asks_for_it(
    server: ServerTls, client: ClientTls, handshake: Handshake
) -> None:
    """A client that only knows HTTP/1.1 gets it."""
    caller = client_context(replace(client, alpn=("http/1.1",)))

    there, _ = handshake(server_context(server), caller, "localhost")

    assert there.selected_alpn_protocol() == "http/1.1"


def test_server_requires_a_certificate_by_default(
    server: ServerTls, client: ClientTls, handshake: Handshake
) -> None:
    """Who shows none is not let in."""
    nobody = client_context(replace(client, cert_file=None, key_file=None))

    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        handshake(server_context(server), nobody, "localhost")


@pytest.mark.parametrize("mode", [ClientCertificates.OPTIONAL, ClientCertificates.OFF])
def test_server_lets_nobody_in_only_when_told(
    server: ServerTls, client: ClientTls, handshake: Handshake, mode: ClientCertificates
) -> None:
    """With `OPTIONAL` and `OFF` a client without a certificate gets in, as nobody."""
    nobody = client_context(replace(client, cert_file=None, key_file=None))

    there, _ = handshake(
        server_context(replace(server, client_certificates=mode)), nobody, "localhost"
    )

    assert there.getpeercert(binary_form=True) is None


def test_optional_still_checks_what_is_shown(
    server: ServerTls, client: ClientTls, tmp_path: Path, handshake: Handshake, store: Store
) -> None:
    """An optional certificate that does not verify is refused, not overlooked."""
    stranger = create_authority(tmp_path / "stranger", "c1").issue(ProfileName.CLIENT, "alice")
    certificate, key = store("stranger", stranger)
    listener = server_context(replace(server, client_certificates=ClientCertificates.OPTIONAL))
    caller = client_context(replace(client, cert_file=certificate, key_file=key))

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(listener, caller, "localhost")


def test_off_does_not_even_ask(server: ServerTls, client: ClientTls, handshake: Handshake) -> None:
    """With `OFF` a certificate is not asked for, so it cannot be taken for an identity."""
    off = replace(server, client_certificates=ClientCertificates.OFF, trusted_ca_file=None)

    there, _ = handshake(server_context(off), client_context(client), "localhost")

    assert there.getpeercert(binary_form=True) is None


def test_server_refuses_a_server_certificate_from_a_client(
    authority: Authority, server: ServerTls, client: ClientTls, handshake: Handshake, store: Store
) -> None:
    """A server's certificate does not log in, although the same authority signed it."""
    issued = authority.issue(ProfileName.SERVER, "alice")
    listener = server_context(server)
    caller = client_context(replace(client, cert_file=None, key_file=None))
    certificate, key = store("wrong", issued)
    caller.load_cert_chain(certificate, key)

    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(listener, caller, "localhost")


def test_authority_cannot_sign_for_another_cluster(
    authority: Authority,
    authority_directory: Path,
    server: ServerTls,
    client: ClientTls,
    tmp_path: Path,
    handshake: Handshake,
) -> None:
    """A stolen authority key cannot make an identity of a cluster that trusts it by mistake."""
    ca = certificates_of(authority.trust_pem)[0]
    ca_key = key_of(read_private(authority_directory / "ca.key"))
    key = new_key(KeyType.EC_P256)
    now = datetime.now(UTC).replace(microsecond=0)

    def forge(cluster: str) -> ssl.SSLContext:
        certificate = make_leaf(
            shipped_profile(ProfileName.CLIENT),
            name="alice",
            identity=Identity(kind=Kind.USER, cluster=cluster, tenant="acme", name="alice"),
            hosts=(),
            public=key.public_key(),
            validity=Validity(
                not_before=now - timedelta(minutes=1), not_after=now + timedelta(hours=1)
            ),
            authority=ca,
            authority_key=ca_key,
        )
        write_public(tmp_path / "f.crt", certificate_pem(certificate))
        write_private(tmp_path / "f.key", key_pem(key))
        return client_context(
            replace(client, cert_file=tmp_path / "f.crt", key_file=tmp_path / "f.key")
        )

    handshake(server_context(server), forge("c1"), "localhost")
    for cluster in ("c2", "xc1", "c1x"):
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
            handshake(server_context(server), forge(cluster), "localhost")


def test_server_trusts_an_authority_without_its_root(
    authority: Authority,
    authority_directory: Path,
    server: ServerTls,
    client: ClientTls,
    tmp_path: Path,
    offline_root: OfflineRoot,
    handshake: Handshake,
    store: Store,
) -> None:
    """An authority below a root is trusted by itself, and with it nobody else below that root."""
    below, root = offline_root(certificates_of(authority.trust_pem)[0])
    write_public(authority_directory / "ca.crt", certificate_pem(below) + certificate_pem(root))
    issued = Authority.open(authority_directory).issue(ProfileName.CLIENT, "alice")
    certificate, key = store("below", issued)
    write_public(tmp_path / "below-ca.crt", certificate_pem(below))
    write_public(tmp_path / "root.crt", certificate_pem(root))
    caller = client_context(replace(client, cert_file=certificate, key_file=key))

    for trusted in (tmp_path / "below-ca.crt", tmp_path / "root.crt"):
        listener = server_context(replace(server, trusted_ca_file=trusted))
        handshake(listener, caller, "localhost")


def test_server_refuses_an_expired_client(
    tmp_path: Path,
    server: ServerTls,
    client: ClientTls,
    handshake: Handshake,
    store: Store,
) -> None:
    """A certificate counts until its last second and no longer."""
    then = datetime.now(UTC) - timedelta(days=3)
    past = create_authority(tmp_path / "past", "c1", lambda: then)
    issued = past.issue(ProfileName.CLIENT, "alice", ttl=timedelta(days=1))
    certificate, key = store("expired", issued)
    listener = server_context(replace(server, trusted_ca_file=tmp_path / "past" / "ca.crt"))
    caller = client_context(replace(client, cert_file=None, key_file=None))
    caller.load_cert_chain(certificate, key)

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(listener, caller, "localhost")


def test_server_takes_tls_1_3_only_by_default(
    server: ServerTls, client: ClientTls, handshake: Handshake
) -> None:
    """A client that stops at TLS 1.2 is refused, and let in only where the minimum says so."""
    caller = client_context(replace(client, minimum=MinimumVersion.TLS1_2))
    caller.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported protocol|version"):
        handshake(server_context(server), caller, "localhost")
    there, _ = handshake(
        server_context(replace(server, minimum=MinimumVersion.TLS1_2)), caller, "localhost"
    )
    assert there.version() == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_server_never_takes_tls_1_1(
    server: ServerTls, client: ClientTls, handshake: Handshake
) -> None:
    """Below TLS 1.2 there is nothing, whatever the minimum."""
    caller = client_context(client)
    caller.minimum_version = ssl.TLSVersion.TLSv1_1
    caller.maximum_version = ssl.TLSVersion.TLSv1_1
    caller.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(ssl.SSLError):
        handshake(
            server_context(replace(server, minimum=MinimumVersion.TLS1_2)), caller, "localhost"
        )


def test_every_tls_1_2_cipher_is_ephemeral_and_authenticated(server: ServerTls) -> None:
    """RFC 9325 section 4.2: ECDHE with AEAD, and nothing else is on offer."""
    context = server_context(replace(server, minimum=MinimumVersion.TLS1_2))

    older = [cipher for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert older
    assert all(cipher["aead"] for cipher in older)
    assert all(cipher["name"].startswith("ECDHE-") for cipher in older)


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE+AESGCM"])
def test_server_refuses_older_tls_1_2_ciphers(
    server: ServerTls, client: ClientTls, handshake: Handshake, ciphers: str
) -> None:
    """Static RSA, CBC and finite-field suites find no match."""
    caller = client_context(replace(client, minimum=MinimumVersion.TLS1_2))
    caller.maximum_version = ssl.TLSVersion.TLSv1_2
    caller.set_ciphers(ciphers)

    with pytest.raises(ssl.SSLError, match=r"(?i)cipher|handshake"):
        handshake(
            server_context(replace(server, minimum=MinimumVersion.TLS1_2)), caller, "localhost"
        )


def test_server_gives_no_tickets(
    server: ServerTls, client: ClientTls, handshake: Handshake
) -> None:
    """Nothing is handed out by which a later connection could skip the check of certificates."""
    listener = server_context(replace(server, minimum=MinimumVersion.TLS1_2))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        caller = client_context(replace(client, minimum=MinimumVersion.TLS1_2))
        caller.maximum_version = version

        there, here = handshake(listener, caller, "localhost")
        there.write(b"x")
        here.read(1)

        assert here.session is None or not here.session.has_ticket
    assert listener.num_tickets == 0
    assert listener.options & ssl.OP_NO_RENEGOTIATION
    assert listener.options & ssl.OP_NO_COMPRESSION


def test_contexts_write_no_session_keys(
    server: ServerTls, client: ClientTls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable by which other programs give away their session keys does nothing here."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))

    assert server_context(server).keylog_filename is None
    assert client_context(client).keylog_filename is None


def test_client_checks_the_host_and_not_the_common_name(
    authority: Authority, server: ServerTls, client: ClientTls, handshake: Handshake, store: Store
) -> None:
    """A server is who its names say; its common name alone is nobody."""
    issued = authority.issue(ProfileName.SERVER, "localhost", hosts=["db1.internal"])
    certificate, key = store("named", issued)
    listener = server_context(replace(server, cert_file=certificate, key_file=key))

    handshake(listener, client_context(client), "db1.internal")
    for host in ("localhost", "x.db1.internal", "10.0.0.1"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)mismatch"):
            handshake(listener, client_context(client), host)


def test_client_ignores_the_common_name_where_there_are_no_dns_names(
    authority: Authority, server: ServerTls, client: ClientTls, handshake: Handshake, store: Store
) -> None:
    """OpenSSL would take the common name where only addresses are named; we do not."""
    issued = authority.issue(ProfileName.SERVER, "localhost", hosts=["10.0.0.1"])
    certificate, key = store("addressed", issued)
    listener = server_context(replace(server, cert_file=certificate, key_file=key))

    handshake(listener, client_context(client), "10.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)mismatch"):
        handshake(listener, client_context(client), "localhost")


def test_client_trusts_nobody_else(
    server: ServerTls, client: ClientTls, tmp_path: Path, handshake: Handshake
) -> None:
    """A server below another authority, or below none that the system knows, is refused."""
    create_authority(tmp_path / "other", "c1")

    for trusted in (tmp_path / "other" / "ca.crt", None):
        caller = client_context(replace(client, trusted_ca_file=trusted))
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server_context(server), caller, "localhost")


def test_new_context_takes_up_new_files(
    authority: Authority, server: ServerTls, client: ClientTls, handshake: Handshake, store: Store
) -> None:
    """Rotation is a new context: it shows the new certificate; the old one goes on as it was."""
    old = server_context(server)
    issued = authority.issue(ProfileName.SERVER, "db1")
    store("server", issued)

    serials = [
        handshake(context, client_context(client), "localhost")[1].getpeercert()
        for context in (old, server_context(server))
    ]

    assert serials[0] is not None
    assert serials[1] is not None
    assert int(str(serials[0]["serialNumber"]), 16) != issued.serial
    assert int(str(serials[1]["serialNumber"]), 16) == issued.serial


def test_server_uses_the_key_of_its_key_file_only(
    server: ServerTls, client: ClientTls, tmp_path: Path, handshake: Handshake
) -> None:
    """A key that lies in the certificate file by mistake is not the one that is loaded."""
    stray = key_pem(new_key(KeyType.EC_P256)).reveal()
    both = tmp_path / "both.pem"
    write_public(both, stray + server.cert_file.read_bytes())

    handshake(server_context(replace(server, cert_file=both)), client_context(client), "localhost")

"""The TLS policy: what is refused before the first handshake, and in which words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.certificates import (
    certificate_pem,
    key_of,
    key_pem,
)
from kvsecure.pki.files import read_private, write_private, write_public
from kvsecure.pki.trust import (
    ClientCertificates,
    ClientTls,
    ServerTls,
    TrustError,
    client_context,
    server_context,
)


def test_server_context_leaves_no_descriptor_open(server: ServerTls, client: ClientTls) -> None:
    """Neither success nor failure leaves a copy of the key open in memory."""
    before = len(list(Path("/proc/self/fd").iterdir()))

    server_context(server)
    client_context(client)
    with pytest.raises(TrustError):
        server_context(replace(server, key_file=client.key_file))

    assert before == len(list(Path("/proc/self/fd").iterdir()))


def _refusal(tls: ServerTls, now: datetime | None = None) -> str:
    with pytest.raises(TrustError) as caught:
        server_context(tls, now)
    assert "PRIVATE" not in str(caught.value)
    return str(caught.value)


def test_server_context_names_a_missing_file(server: ServerTls, tmp_path: Path) -> None:
    """Each file that is not there is named."""
    missing = tmp_path / "missing.pem"

    for tls in (
        replace(server, cert_file=missing),
        replace(server, key_file=missing),
        replace(server, trusted_ca_file=missing),
    ):
        assert f"{missing} cannot be read: No such file or directory" == _refusal(tls)


def test_server_context_names_a_damaged_file(server: ServerTls, tmp_path: Path) -> None:
    """Each file that is not what it should be is named."""
    damaged = tmp_path / "damaged.pem"
    write_private(damaged, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    for tls in (
        replace(server, cert_file=damaged),
        replace(server, key_file=damaged),
        replace(server, trusted_ca_file=damaged),
    ):
        assert _refusal(tls).startswith(f"{damaged}: ")


def test_server_context_refuses_an_exposed_key(server: ServerTls) -> None:
    """A key that others can read keeps the server from starting, with the command that mends it."""
    server.key_file.chmod(0o644)

    assert f"run `chmod 600 {server.key_file}`" in _refusal(server)


def test_server_context_refuses_the_key_of_another(server: ServerTls, client: ClientTls) -> None:
    """A key that is not the certificate's is named together with it."""
    assert client.key_file is not None

    assert f"{client.key_file} is not the key of the certificate in {server.cert_file}" == _refusal(
        replace(server, key_file=client.key_file)
    )


def test_server_context_refuses_certificates_out_of_time(server: ServerTls) -> None:
    """An expired certificate and one from the future are told apart and named."""
    now = datetime.now(UTC)

    assert f"{server.cert_file} expired at" in _refusal(server, now + timedelta(days=91))
    assert f"{server.cert_file} is not valid before" in _refusal(server, now - timedelta(days=1))


def test_server_context_refuses_an_expired_bundle(server: ServerTls, tmp_path: Path) -> None:
    """Trust that has run out in all its parts is an error; one part that lives is enough."""
    past = datetime.now(UTC) - timedelta(days=4000)
    old = create_authority(tmp_path / "old", "c1", lambda: past)
    bundle = tmp_path / "bundle.crt"
    assert server.trusted_ca_file is not None

    write_public(bundle, old.trust_pem)
    assert f"{bundle} expired at" in _refusal(replace(server, trusted_ca_file=bundle))

    write_public(bundle, old.trust_pem + server.trusted_ca_file.read_bytes())
    server_context(replace(server, trusted_ca_file=bundle))


def test_server_context_refuses_a_certificate_for_clients(
    server: ServerTls, client: ClientTls
) -> None:
    """A server does not start with a certificate that every client would refuse."""
    assert client.cert_file is not None
    assert client.key_file is not None

    assert f"{client.cert_file} lacks serverAuth in its extended key usage" == _refusal(
        replace(server, cert_file=client.cert_file, key_file=client.key_file)
    )


def test_server_context_demands_trust_for_client_certificates(server: ServerTls) -> None:
    """Asking for certificates without saying whose is refused, and not taken for anybody's."""
    for mode in (ClientCertificates.REQUIRED, ClientCertificates.OPTIONAL):
        assert "no trusted CA file" in _refusal(
            replace(server, trusted_ca_file=None, client_certificates=mode)
        )


def _self_signed(
    directory: Path, key: rsa.RSAPrivateKey, usages: list[x509.ObjectIdentifier] | None
) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    name = x509.Name.from_rfc4514_string("CN=localhost")
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    write_public(directory / "own.crt", certificate_pem(builder.sign(key, SHA256())))
    write_private(directory / "own.key", key_pem(key))
    return directory / "own.crt", directory / "own.key"


def test_server_context_takes_certificates_made_elsewhere(
    server: ServerTls, tmp_path: Path
) -> None:
    """An RSA certificate of another authority serves, if it says that it is for servers."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)

    certificate, key_file = _self_signed(tmp_path, key, [ExtendedKeyUsageOID.SERVER_AUTH])
    server_context(replace(server, cert_file=certificate, key_file=key_file))
    _self_signed(tmp_path, key, None)

    assert "lacks serverAuth" in _refusal(replace(server, cert_file=certificate, key_file=key_file))


def test_server_context_refuses_weak_keys(server: ServerTls, tmp_path: Path) -> None:
    """A key below 112 bits of strength is refused by OpenSSL's level 2."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
    certificate, key_file = _self_signed(tmp_path, key, [ExtendedKeyUsageOID.SERVER_AUTH])

    refusal = _refusal(replace(server, cert_file=certificate, key_file=key_file))

    assert f"{certificate}, {key_file}: OpenSSL refuses them" in refusal


def test_server_context_refuses_encrypted_keys_without_asking(
    server: ServerTls, authority: Authority, tmp_path: Path
) -> None:
    """An encrypted key is an error; a server must not wait for somebody at a terminal."""
    encrypted = key_of(read_private(server.key_file)).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    write_private(tmp_path / "encrypted.key", encrypted)

    assert "is encrypted" in _refusal(replace(server, key_file=tmp_path / "encrypted.key"))


def test_server_context_refuses_other_kinds_of_keys(server: ServerTls, tmp_path: Path) -> None:
    """A key that TLS has no use for is named."""
    key = dsa.generate_private_key(2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(tmp_path / "dsa.key", key)

    assert f"{tmp_path / 'dsa.key'}: the key is neither" in _refusal(
        replace(server, key_file=tmp_path / "dsa.key")
    )


def test_client_context_demands_certificate_and_key_together(client: ClientTls) -> None:
    """Half a pair is a mistake, not a client without a certificate."""
    for tls in (replace(client, key_file=None), replace(client, cert_file=None)):
        with pytest.raises(TrustError, match="go together"):
            client_context(tls)


def test_client_context_refuses_a_certificate_for_servers(
    server: ServerTls, client: ClientTls
) -> None:
    """A client is told before it dials that no server would take its certificate."""
    with pytest.raises(TrustError, match="lacks clientAuth"):
        client_context(replace(client, cert_file=server.cert_file, key_file=server.key_file))

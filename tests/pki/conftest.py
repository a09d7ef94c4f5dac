"""What the tests of certificates share: an authority, certificates nobody should issue, handshakes.

Owns: the fixtures of this directory.
Never: replaces a part of the program.
"""

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from kvsecure.pki.authority import Authority, Issued, create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.trust import ClientTls, ServerTls

__all__ = [
    "authority",
    "authority_directory",
    "client",
    "clock",
    "forge",
    "handshake",
    "offline_root",
    "server",
    "store",
    "trusted",
]

_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@final
class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.moment


Store = Callable[[str, Issued], tuple[Path, Path]]
Handshake = Callable[[ssl.SSLContext, ssl.SSLContext, str], tuple[ssl.SSLObject, ssl.SSLObject]]


@pytest.fixture
def clock() -> Clock:
    """Return a clock that shows this second."""
    return Clock(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def authority_directory(tmp_path: Path) -> Path:
    """Return where the authority lives."""
    return tmp_path / "authority"


@pytest.fixture
def authority(authority_directory: Path, clock: Clock) -> Authority:
    """Return a fresh authority of the cluster c1."""
    return create_authority(authority_directory, "c1", clock)


@pytest.fixture(scope="session")
def forge() -> Callable[..., bytes]:
    """Return a maker of certificates that no authority should issue."""
    key = ec.generate_private_key(ec.SECP256R1())

    def make(
        uris: Sequence[str] = (),
        *,
        dns: Sequence[str] = (),
        usages: Sequence[ObjectIdentifier] | None = _CLIENT,
        common_names: Sequence[str] = (),
        is_authority: bool | None = False,
        serial: int = 7,
        issuer: str = "somebody",
    ) -> bytes:
        now = datetime.now(UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if is_authority is not None:
            constraints = x509.BasicConstraints(ca=is_authority, path_length=None)
            builder = builder.add_extension(constraints, critical=True)
        return builder.sign(key, SHA256()).public_bytes(Encoding.DER)

    return make


@pytest.fixture(scope="session")
def handshake() -> Handshake:
    """Return a function that lets two contexts shake hands in memory.

    It gives the server's side and the client's, or raises what the first side to fail raised.
    """

    def shake(
        server: ssl.SSLContext, client: ssl.SSLContext, host: str
    ) -> tuple[ssl.SSLObject, ssl.SSLObject]:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = server.wrap_bio(to_server, to_client, server_side=True)
        client_side = client.wrap_bio(to_client, to_server, server_hostname=host)
        waiting = [client_side, server_side]
        # A handshake is done after two round trips; what still waits then waits for ever.
        for _ in range(6):
            for side in tuple(waiting):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(side)
        assert not waiting
        return server_side, client_side

    return shake


@pytest.fixture(scope="session")
def offline_root() -> Callable[[x509.Certificate], tuple[x509.Certificate, x509.Certificate]]:
    """Return a function that puts an authority below a root: the same key signed, and the root."""

    def make(subordinate: x509.Certificate) -> tuple[x509.Certificate, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name.from_rfc4514_string("CN=offline root")
        now = datetime.now(UTC)
        ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = subordinate.extensions.get_extension_for_class(x509.KeyUsage).value
        start = (
            x509.CertificateBuilder()
            .issuer_name(name)
            .not_valid_before(now - timedelta(days=1))
            .add_extension(usage, critical=True)
        )
        root = (
            start.subject_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_after(now + 1000 * timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(ski, critical=False)
            .sign(key, SHA256())
        )
        below = (
            start.subject_name(subordinate.subject)
            .public_key(subordinate.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_after(now + 100 * timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(subordinate.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False
            )
            .sign(key, SHA256())
        )
        return below, root

    return make


@pytest.fixture
def store(tmp_path: Path) -> Callable[[str, Issued], tuple[Path, Path]]:
    """Return a function that writes what was issued to files, and tells which."""

    def write(stem: str, issued: Issued) -> tuple[Path, Path]:
        certificate, key = tmp_path / f"{stem}.crt", tmp_path / f"{stem}.key"
        write_public(certificate, issued.certificate_pem + issued.chain_pem)
        write_private(key, issued.private_key)
        return certificate, key

    return write


@pytest.fixture
def trusted(authority: Authority, authority_directory: Path) -> Path:
    """Return the file with the authority that both sides trust."""
    return authority_directory / "ca.crt"


@pytest.fixture
def server(authority: Authority, trusted: Path, store: Store) -> ServerTls:
    """Return TLS of a server with a certificate for the local hosts."""
    certificate, key = store("server", authority.issue(ProfileName.SERVER, "db1"))
    return ServerTls(cert_file=certificate, key_file=key, trusted_ca_file=trusted)


@pytest.fixture
def client(authority: Authority, trusted: Path, store: Store) -> ClientTls:
    """Return TLS of alice of acme."""
    issued = authority.issue(ProfileName.CLIENT, "alice", "acme")
    certificate, key = store("alice", issued)
    return ClientTls(trusted_ca_file=trusted, cert_file=certificate, key_file=key)

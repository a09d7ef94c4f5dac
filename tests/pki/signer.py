"""Authorities for tests of chains and lists: they sign whatever they are told to.

Owns: certificates and revocation lists with any dates, names, limits and keys.
Never: judges what it makes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvsecure.model.secret import Secret
from kvsecure.pki.certificates import key_pem
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.trust import ClientTls

__all__ = ["DAY", "NOW", "Signed", "Signer"]

DAY: Final = timedelta(days=1)
NOW: Final = datetime.now(UTC).replace(microsecond=0)
_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@final
class Signed:
    """A certificate, its key, and those above it that it is sent with."""

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        above: Sequence[x509.Certificate],
    ) -> None:
        self.certificate = certificate
        self.serial = certificate.serial_number
        self._key = key
        self._above = tuple(above)

    @property
    def chain(self) -> list[bytes]:
        """The certificate and those above it in DER, up to the root."""
        return [each.public_bytes(Encoding.DER) for each in (self.certificate, *self._above)]

    def tls(self, directory: Path, trusted: Path) -> ClientTls:
        """Return TLS of a client with it; it sends everything but the root."""
        cert_file, key_file = directory / "signed.crt", directory / "signed.key"
        sent = (self.certificate, *self._above[:-1])
        write_public(cert_file, b"".join(each.public_bytes(Encoding.PEM) for each in sent))
        write_private(key_file, Secret(key_pem(self._key).reveal()))
        return ClientTls(trusted_ca_file=trusted, cert_file=cert_file, key_file=key_file)


@final
class Signer:
    """One authority."""

    def __init__(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        above: Sequence[x509.Certificate] = (),
    ) -> None:
        self._name = name
        self._key = key
        self._above = tuple(above)
        self.certificate = certificate
        self.serial = certificate.serial_number

    @classmethod
    def root(cls, name: str = "root") -> Self:
        """Make an authority that signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(name, key, _sign_authority(name, key, name, key))

    @property
    def pem(self) -> bytes:
        """Its certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def renewed(self, *, path_length: int | None = None, ends: timedelta = 300 * DAY) -> Self:
        """Return the same authority with a new certificate for the same key."""
        certificate = _sign_authority(
            self._name, self._key, self._name, self._key, path_length=path_length, ends=ends
        )
        return type(self)(self._name, self._key, certificate)

    def below(self, name: str) -> Self:
        """Return an authority that this one has signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign_authority(name, key, self._name, self._key)
        return type(self)(name, key, certificate, (self.certificate, *self._above))

    def leaf(self, *, serial: int | None = None, ends: timedelta = DAY) -> Signed:
        """Sign the certificate of a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("alice"))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(NOW - 3 * DAY)
            .not_valid_after(NOW + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, SHA256())
        )
        return Signed(certificate, key, (self.certificate, *self._above))

    def crl(
        self,
        *serials: int,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        critical: x509.ExtensionType | None = None,
    ) -> bytes:
        """Sign a revocation list; return it in PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self._name))
            .last_update(NOW + begins)
            .next_update(NOW + ends)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        if critical is not None:
            builder = builder.add_extension(critical, critical=True)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - DAY).build())
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)


def _sign_authority(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    path_length: int | None = None,
    ends: timedelta = 100 * DAY,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 200 * DAY)
        .not_valid_after(NOW + ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(issuer_key, SHA256())
    )

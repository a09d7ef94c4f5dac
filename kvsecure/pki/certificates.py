"""Certificates and keys as values: made from a profile, and read back from PEM.

Owns: which extensions a certificate has, and how a key is made, encoded and read.
Never: touches a file, decides whether a certificate should be made, or knows the time.
Follows: RFC 5280 section 4.2 for the extensions and which of them are critical.
Keeps: nothing in a certificate comes from anywhere but its profile and the names it is made for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvsecure.model.secret import Secret
from kvsecure.pki.hosts import Host
from kvsecure.pki.identity import UNREADABLE, Identity, uri_of
from kvsecure.pki.profiles import ExtendedUsage, KeyType, KeyUsage, Profile

__all__ = [
    "CertificateError",
    "PrivateKey",
    "PublicKey",
    "Validity",
    "authority_key_identifier",
    "certificate_der",
    "certificate_pem",
    "certificates_of",
    "check_authorities",
    "key_of",
    "key_pem",
    "make_authority",
    "make_leaf",
    "new_key",
    "same_key",
    "signature_hash",
    "trust_fingerprint",
]

PrivateKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

# RFC 5280 appendix A.1, ub-common-name.
_COMMON_NAME_CHARACTERS_MAX: Final = 64
_EXTENDED_USAGE_OIDS: Final = {
    ExtendedUsage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedUsage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@final
class CertificateError(Exception):
    """A text is not the certificate or key it should be; it is never quoted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """From when until when, in UTC, whole seconds."""

    not_before: datetime
    not_after: datetime


def new_key(key_type: KeyType) -> PrivateKey:
    """Return a fresh key."""
    if key_type is KeyType.ED25519:
        return Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> Secret:
    """Return the key as PKCS #8 in PEM, not encrypted."""
    return Secret(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def key_of(pem: Secret) -> PrivateKey:
    """Return the key that a PEM text holds.

    Raises:
        CertificateError: It holds none, it is encrypted, or it is of a kind that TLS cannot use.
    """
    try:
        key = serialization.load_pem_private_key(pem.reveal(), password=None)
    except TypeError:
        raise CertificateError("the key is encrypted; store it unencrypted, mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("there is no private key in PEM in it") from None
    if not isinstance(key, PrivateKey):
        raise CertificateError("the key is neither EC nor Ed25519 nor RSA")
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, at least one, in their order.

    Raises:
        CertificateError: There is none, or one that cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise CertificateError("there is no certificate in PEM in it, or a damaged one") from None


def same_key(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Tell whether the certificate is of this key.

    Raises:
        CertificateError: The certificate's key cannot be read.
    """
    try:
        return certificate.public_key() == key.public_key()
    except UNREADABLE:
        raise CertificateError("the certificate's public key cannot be read") from None


def trust_fingerprint(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return the SHA-256 of all of these certificates in DER, one after the other, 32 bytes.

    Of a single one that is what other tools call its fingerprint. None can be added, left out or
    changed without changing it.
    """
    return hashlib.sha256(b"".join(map(certificate_der, certificates))).digest()


def check_authorities(certificates: Sequence[x509.Certificate]) -> None:
    """Check that a chain, lowest first, can stand above certificates of ours.

    Raises:
        CertificateError: One is not an authority, or was not signed by the next.
    """
    try:
        for certificate in certificates:
            _check_authority(certificate)
        for lower, upper in pairwise(certificates):
            lower.verify_directly_issued_by(upper)
    except InvalidSignature:
        raise CertificateError("a certificate in the chain was not signed by the next") from None
    except UNREADABLE:
        raise CertificateError("the certificates do not form a chain, lowest first") from None


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise CertificateError("an authority lacks an extension that RFC 5280 demands") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise CertificateError("there is a certificate that may not sign others")


def make_authority(
    profile: Profile, *, cluster: str, key: PrivateKey, validity: Validity
) -> x509.Certificate:
    """Return the self-signed certificate of a cluster's authority."""
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The key is in the name, because during a rotation two authorities live side by side.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kvsecure"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, f"authority {ski.digest[:4].hex()}"),
        ]
    )
    builder = _begin(
        profile, subject=subject, issuer=subject, public=key.public_key(), validity=validity
    )
    if profile.uri_permitted:
        permitted = [
            x509.UniformResourceIdentifier(host.replace("{cluster}", cluster))
            for host in profile.uri_permitted
        ]
        builder = builder.add_extension(
            x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None),
            critical=True,
        )
    return _sign(builder, key)


def make_leaf(
    profile: Profile,
    *,
    name: str,
    identity: Identity | None,
    hosts: Sequence[Host],
    public: PublicKey,
    validity: Validity,
    authority: x509.Certificate,
    authority_key: PrivateKey,
) -> x509.Certificate:
    """Return a certificate that the authority signed.

    Args:
        profile: What the certificate gives.
        name: The common name, for people only; left out where X.509 has no room for it.
        identity: What the one URI says, or None for a certificate that names hosts only.
        hosts: Names and addresses; together with the identity at least one name.
        public: The holder's key.
        validity: Within the authority's.
        authority: The issuer's certificate, which passed `check_authorities`.
        authority_key: The issuer's key.
    """
    has_room = len(name) <= _COMMON_NAME_CHARACTERS_MAX
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if has_room else [])
    names: list[x509.GeneralName] = [
        x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in hosts
    ]
    if identity is not None:
        names.append(x509.UniformResourceIdentifier(uri_of(identity)))
    builder = _begin(
        profile, subject=subject, issuer=authority.subject, public=public, validity=validity
    )
    builder = builder.add_extension(
        # With an empty subject the names are all there is (RFC 5280 section 4.2.1.6).
        x509.SubjectAlternativeName(names),
        critical=not has_room,
    ).add_extension(authority_key_identifier(authority), critical=False)
    return _sign(builder, authority_key)


def _begin(
    profile: Profile,
    *,
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    validity: Validity,
) -> x509.CertificateBuilder:
    """Start a certificate with all that a profile says by itself."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        # 20 random bytes, of which X.509 leaves 159 bits.
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(
            x509.BasicConstraints(
                ca=profile.path_length is not None, path_length=profile.path_length
            ),
            critical=True,
        )
        .add_extension(_key_usage(profile.key_usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if profile.extended_key_usage:
        usages = sorted(profile.extended_key_usage, key=lambda usage: usage.value, reverse=True)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([_EXTENDED_USAGE_OIDS[usage] for usage in usages]),
            critical=False,
        )
    return builder


def _key_usage(usages: frozenset[KeyUsage]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=KeyUsage.DIGITAL_SIGNATURE in usages,
        key_cert_sign=KeyUsage.KEY_CERT_SIGN in usages,
        crl_sign=KeyUsage.CRL_SIGN in usages,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how what an authority signs names the key that it was signed with."""
    # What the authority calls its key counts; one made elsewhere may call it otherwise than we do.
    ski = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    return builder.sign(key, signature_hash(key))


def signature_hash(key: PrivateKey) -> SHA256 | None:
    """Return what is hashed with before a key signs; Ed25519 does that by itself."""
    return None if isinstance(key, Ed25519PrivateKey) else SHA256()

"""What a certificate is, for people: its parts, and whether a server would take it.

Owns: the findings about one certificate, and the words for why it would be refused.
Never: trusts or refuses anybody: identity.py and trust.py do, and this asks by the same rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import pairwise
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from kvsecure.pki.certificates import (
    CertificateError,
    Validity,
    certificate_der,
    certificates_of,
    check_authorities,
)
from kvsecure.pki.identity import UNREADABLE, Identity, IdentityError, Leaf

__all__ = ["Finding", "Sort", "inspect"]

_PEM_MARK: Final = b"-----BEGIN"
_EXTENDED_NAMES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server_auth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client_auth",
}
_KEY_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


class Sort(Enum):
    """What a certificate is for, by what it says of itself."""

    AUTHORITY = "authority"
    SERVER = "server"
    PEER = "peer"
    CLIENT = "client"
    NOTHING = "nothing known here"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found; texts come from the certificate, so print them with care.

    `refusals` are reasons why a server would not take it; none means that it would, provided that
    it trusts the issuer.
    """

    sort: Sort
    identity: Identity | None
    subject: str
    issuer: str
    usages: tuple[str, ...]
    names: tuple[str, ...]
    validity: Validity
    serial: int
    fingerprint: bytes
    refusals: tuple[str, ...]


def inspect(content: bytes, moment: datetime) -> Finding:
    """Look at the first certificate of a file, and at the chain if there is one.

    Args:
        content: PEM with one certificate or more, or DER with one.
        moment: The moment at which it is to be valid, in UTC.

    Raises:
        CertificateError: There is no certificate that can be read.
    """
    certificates = certificates_of(content) if _PEM_MARK in content else [_of_der(content)]
    certificate = certificates[0]
    leaf = Leaf(certificate_der(certificate))
    try:
        extensions = certificate.extensions
        usages = _usages(extensions)
        names = _names(extensions)
        subject, issuer = (
            certificate.subject.rfc4514_string(),
            certificate.issuer.rfc4514_string(),
        )
    except UNREADABLE:
        raise CertificateError("the certificate has parts that cannot be read") from None
    sort = _sort(extensions, usages)
    identity: Identity | None = None
    refusals = _date_refusals(certificate, moment)
    if sort in {Sort.CLIENT, Sort.PEER, Sort.NOTHING}:
        try:
            identity = leaf.identity()
        except IdentityError as error:
            refusals.append(str(error))
    elif sort is Sort.SERVER and not any(name.startswith(("dns:", "ip:")) for name in names):
        refusals.append("it names no host, so no client would accept it from a server")
    refusals.extend(_chain_refusals(certificates, sort))
    return Finding(
        sort=sort,
        identity=identity,
        subject=subject,
        issuer=issuer,
        usages=usages,
        names=names,
        validity=Validity(
            not_before=certificate.not_valid_before_utc, not_after=certificate.not_valid_after_utc
        ),
        serial=leaf.serial,
        fingerprint=leaf.fingerprint,
        refusals=tuple(refusals),
    )


def _of_der(content: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(content)
    except UNREADABLE:
        raise CertificateError("it is neither a certificate in PEM nor one in DER") from None


def _sort(extensions: x509.Extensions, usages: Sequence[str]) -> Sort:
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return Sort.AUTHORITY
    match ("server_auth" in usages, "client_auth" in usages):
        case (True, True):
            return Sort.PEER
        case (True, False):
            return Sort.SERVER
        case (False, True):
            return Sort.CLIENT
        case _:
            return Sort.NOTHING


def _usages(extensions: x509.Extensions) -> tuple[str, ...]:
    found: list[str] = []
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage):
            found += [usage for usage in _KEY_USAGES if getattr(extension.value, usage)]
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            found += [_EXTENDED_NAMES.get(oid, oid.dotted_string) for oid in extension.value]
    return tuple(found)


def _names(extensions: x509.Extensions) -> tuple[str, ...]:
    found: list[str] = []
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            found += [_name(name) for name in extension.value]
    return tuple(found)


def _name(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"dns:{name.value}"
    if isinstance(name, x509.IPAddress):
        return f"ip:{name.value}"
    if isinstance(name, x509.UniformResourceIdentifier):
        return f"uri:{name.value}"
    return f"other:{type(name).__name__}"


def _date_refusals(certificate: x509.Certificate, moment: datetime) -> list[str]:
    if moment > certificate.not_valid_after_utc:
        return ["it has expired"]
    if moment < certificate.not_valid_before_utc:
        return ["it is not valid yet"]
    return []


def _chain_refusals(certificates: Sequence[x509.Certificate], sort: Sort) -> list[str]:
    """Find what is wrong with the certificates above the first, in a file that brings them."""
    above = certificates if sort is Sort.AUTHORITY else certificates[1:]
    try:
        check_authorities(above)
        for lower, upper in pairwise(certificates[:2]):
            lower.verify_directly_issued_by(upper)
    except CertificateError as error:
        return [f"in its chain, {error}"]
    except (InvalidSignature, *UNREADABLE):
        return ["the certificate that follows it in the file did not sign it"]
    return []

"""Standing: whether a certificate that was accepted once is still good.

Owns: judging the chain of an open connection again, when trust or lists change and as time passes.
Never: verifies a chain for the first time (the TLS library has, by the same files), touches a file.
Follows: RFC 5280 section 6, as far as the answer can change after a handshake: dates, anchors,
    revocation.
Keeps: an authority that was renewed is the one it was only if name, key and what it may sign are
    the same; whoever is not sure to be good has to shake hands again.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple, final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kvsecure.pki.certificates import CertificateError, certificate_der
from kvsecure.pki.identity import UNREADABLE
from kvsecure.pki.revocation import RevocationList

__all__ = ["NO_TRUST", "Link", "Standing", "Trust", "Verdict", "chain_of"]

# What limits what an authority may sign.
_LIMITS: Final = (x509.BasicConstraints, x509.KeyUsage, x509.NameConstraints, x509.ExtendedKeyUsage)
# Authorities are few, and every connection has one.
_AUTHORITIES_MAX: Final = 256


class Standing(Enum):
    """What has become of a certificate; the value is the reason, as the audit trail has it."""

    GOOD = "good"
    EXPIRED = "certificate expired"
    REVOKED = "certificate revoked"
    UNTRUSTED = "authority not trusted"
    # There is no list of its issuer, or the next one is overdue.
    UNCHECKED = "no fresh revocation list"

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be bad, not only not known to be good."""
        return self not in {Standing.GOOD, Standing.UNCHECKED}


class Verdict(NamedTuple):
    """What was found, and until when it holds if nothing changes, in seconds since 1970."""

    standing: Standing
    expires_s: float


class Link(NamedTuple):
    """One certificate of a chain, as far as its standing depends on it.

    Of a leaf, what only matters above one is empty.

    Attributes:
        fingerprint: SHA-256 of the certificate.
        mark: What an authority keeps when it is renewed: name, key, and what it may sign.
        subject: The name, in DER.
        issuer: The issuer's name, in DER.
        public_key: SubjectPublicKeyInfo, in DER.
        signs_lists: Whether its key usage lets it sign revocation lists.
        expires_s: The last moment it is valid, in seconds since 1970.
    """

    fingerprint: bytes
    mark: bytes
    subject: bytes
    issuer: bytes
    serial: int
    public_key: bytes
    signs_lists: bool
    expires_s: float


def chain_of(certificates: Sequence[bytes]) -> tuple[Link, ...]:
    """Return a chain that was verified: DER, the leaf first, the anchor last.

    Raises:
        CertificateError: One cannot be read.
    """
    return (_leaf(certificates[0]), *map(_authority, certificates[1:]))


@final
class Trust:
    """Whom a server trusts, and what they have revoked."""

    __slots__ = ("_anchors", "_lists", "_marks", "authority_count", "lists")

    def __init__(
        self, anchors: Sequence[x509.Certificate], lists: Sequence[RevocationList] | None = None
    ) -> None:
        """Put together trust.

        Args:
            anchors: The certificates that are trusted.
            lists: Revocation lists; None means that nothing is ever revoked.

        Raises:
            CertificateError: A certificate cannot be read, or a list that is of one of the
                authorities was not signed by it.
        """
        links = [_authority(certificate_der(anchor)) for anchor in anchors]
        self.authority_count = len(links)
        self._anchors = {link.fingerprint: link for link in links}
        # Of several that are the same but for their dates, the one that lives longest.
        self._marks = {link.mark: link for link in sorted(links, key=lambda link: link.expires_s)}
        self.lists = None if lists is None else tuple(lists)
        self._lists: dict[bytes, list[RevocationList]] = {}
        for each in lists or ():
            signers = [link for link in links if link.subject == each.issuer]
            if signers and not any(_is_of(each, link) for link in signers):
                raise CertificateError(
                    "a revocation list was not signed by the authority whose name it bears"
                )
            self._lists.setdefault(each.issuer, []).append(each)

    def judge(self, chain: Sequence[Link], moment: datetime) -> Verdict:
        """Tell how a chain stands at a moment, in UTC."""
        first = Verdict(Standing.UNTRUSTED, 0.0)
        for height, link in enumerate(chain):
            anchor = self._anchors.get(link.fingerprint)
            if anchor is None and height:
                anchor = self._marks.get(link.mark)
            if anchor is None:
                continue
            verdict = self._judge(chain[: height + 1], anchor, moment)
            if verdict.standing is Standing.GOOD:
                return verdict
            if first.standing is Standing.UNTRUSTED:
                first = verdict
        return first

    def _judge(self, path: Sequence[Link], anchor: Link, moment: datetime) -> Verdict:
        """Judge a path that ends at an anchor; the anchor itself cannot be revoked."""
        expires_s = min(link.expires_s for link in (*path[:-1], anchor))
        if moment.timestamp() > expires_s:
            return Verdict(Standing.EXPIRED, expires_s)
        if self.lists is None:
            return Verdict(Standing.GOOD, expires_s)
        # A leaf that is trusted by itself has no issuer that could have a list.
        standing = Standing.GOOD if len(path) > 1 else Standing.UNCHECKED
        for height, (link, issuer) in enumerate(pairwise(path)):
            found = self._revocation(link, issuer, moment)
            if found is Standing.REVOKED:
                return Verdict(found, expires_s)
            # An authority above the first, an offline root for one, need not have a list.
            if found is Standing.UNCHECKED and (height == 0 or link.issuer in self._lists):
                standing = found
        return Verdict(standing, expires_s)

    def _revocation(self, link: Link, issuer: Link, moment: datetime) -> Standing:
        lists = [each for each in self._lists.get(link.issuer, ()) if _is_of(each, issuer)]
        if not lists:
            return Standing.UNCHECKED
        newest = max(lists, key=lambda each: each.this_update)
        if link.serial in newest:
            return Standing.REVOKED
        return Standing.GOOD if newest.is_fresh(moment) else Standing.UNCHECKED


def _is_of(revocations: RevocationList, issuer: Link) -> bool:
    return issuer.signs_lists and revocations.is_signed_by(issuer.public_key)


def _leaf(der: bytes) -> Link:
    """Read a certificate that signs nothing; there is one for every connection."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return Link(
            fingerprint=hashlib.sha256(der).digest(),
            mark=b"",
            subject=b"",
            issuer=certificate.issuer.public_bytes(),
            serial=certificate.serial_number,
            public_key=b"",
            signs_lists=False,
            expires_s=certificate.not_valid_after_utc.timestamp(),
        )
    except UNREADABLE:
        raise CertificateError("a certificate has parts that cannot be read") from None


@lru_cache(_AUTHORITIES_MAX)
def _authority(der: bytes) -> Link:
    leaf = _leaf(der)
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject.public_bytes()
        public_key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        mark, signs_lists = hashlib.sha256(), True
        for part in (subject, public_key, *_limits(certificate.extensions)):
            mark.update(len(part).to_bytes(4, "big") + part)
        for extension in certificate.extensions:
            if isinstance(extension.value, x509.KeyUsage):
                signs_lists = extension.value.crl_sign
    except UNREADABLE:
        raise CertificateError("a certificate has parts that cannot be read") from None
    return leaf._replace(
        mark=mark.digest(), subject=subject, public_key=public_key, signs_lists=signs_lists
    )


def _limits(extensions: x509.Extensions) -> list[bytes]:
    found = [each for each in extensions if isinstance(each.value, _LIMITS)]
    found.sort(key=lambda each: each.oid.dotted_string)
    return [each.oid.dotted_string.encode() + each.value.public_bytes() for each in found]


# Of a server that asks for no certificates.
NO_TRUST: Final = Trust(())

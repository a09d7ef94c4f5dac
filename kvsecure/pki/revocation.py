"""Revocation lists: which certificates their issuers have taken back.

Owns: reading lists (PEM or DER), who signed them, how fresh they are, and which serials they hold.
Never: touches a file, knows the time, or decides what becomes of a certificate; standing.py does.
Follows: RFC 5280 section 5. Lists for a part of the certificates, and lists of changes only, are
    refused: what they leave out would count as good.
Keeps: a list counts for an issuer only if that issuer's key verifies it.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from kvsecure.pki.identity import UNREADABLE

__all__ = ["ListError", "RevocationList", "lists_of", "lists_pem"]

_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_BLOCK: Final = re.compile(
    rb"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----", re.ASCII
)
_SIGNERS = ec.EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey | RSAPublicKey


@final
class ListError(Exception):
    """A text is not the revocation list it should be; the text says why."""


@final
class RevocationList:
    """One list of one issuer."""

    __slots__ = ("_crl", "_serials", "_signers", "issuer", "next_update", "this_update")

    def __init__(self, crl: x509.CertificateRevocationList) -> None:
        """Take a list apart.

        Raises:
            ListError: It has parts that cannot be read, states no end, or is not a whole list.
        """
        try:
            ends = crl.next_update_utc
            is_partial = any(extension.critical for extension in crl.extensions)
            self.this_update: datetime = crl.last_update_utc
            self.issuer: bytes = crl.issuer.public_bytes()
            self._serials = frozenset(entry.serial_number for entry in crl)
        except UNREADABLE:
            raise ListError("a revocation list has parts that cannot be read") from None
        if ends is None:
            raise ListError("a revocation list does not say when the next one comes")
        if is_partial:
            raise ListError("a revocation list has a critical extension: it is not a whole list")
        self.next_update: datetime = ends
        self._crl = crl
        # By public key: whether it verifies the signature.
        self._signers: dict[bytes, bool] = {}

    def __contains__(self, serial: int) -> bool:
        return serial in self._serials

    def __len__(self) -> int:
        return len(self._serials)

    def is_signed_by(self, public_key: bytes) -> bool:
        """Tell whether a public key (SubjectPublicKeyInfo in DER) verifies the list."""
        known = self._signers.get(public_key)
        if known is None:
            known = self._signers[public_key] = self._verify(public_key)
        return known

    def is_fresh(self, moment: datetime) -> bool:
        """Tell whether the list has begun and the next one is not due yet, in UTC."""
        return self.this_update <= moment <= self.next_update

    @property
    def pem(self) -> bytes:
        """The list in PEM."""
        return self._crl.public_bytes(serialization.Encoding.PEM)

    def _verify(self, public_key: bytes) -> bool:
        try:
            key = serialization.load_der_public_key(public_key)
            return isinstance(key, _SIGNERS) and self._crl.is_signature_valid(key)
        except UNREADABLE:
            return False


def lists_of(content: bytes) -> tuple[RevocationList, ...]:
    """Return the lists of a file: one or more in PEM, or one in DER.

    Raises:
        ListError: There is none, or one that is damaged, cut off or of no use.
    """
    blocks = _BLOCK.findall(content)
    if len(blocks) != content.count(_BEGIN):
        raise ListError("a revocation list in PEM is damaged or cut off")
    try:
        if blocks:
            crls = [x509.load_pem_x509_crl(block) for block in blocks]
        else:
            crls = [x509.load_der_x509_crl(content)]
    except UNREADABLE:
        raise ListError("there is no revocation list in it, or a damaged one") from None
    return tuple(map(RevocationList, crls))


def lists_pem(lists: Sequence[RevocationList]) -> bytes:
    """Return lists in PEM, one after another."""
    return b"".join(each.pem for each in lists)

"""Requests: how a key that stays where it was made gets a certificate.

Owns: making a request, and reading the key out of one.
Never: takes a name from a request: whoever sends one would choose it.
Follows: RFC 2986; the signature proves that who asks has the private key.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kvsecure.model.secret import Secret
from kvsecure.pki.certificates import (
    CertificateError,
    PublicKey,
    key_of,
    key_pem,
    new_key,
    signature_hash,
)
from kvsecure.pki.identity import UNREADABLE
from kvsecure.pki.profiles import KeyType

__all__ = ["REQUEST_BYTES_MAX", "new_private_key", "request_of", "requested_key"]

# One of ours has about 200.
REQUEST_BYTES_MAX: Final = 4096


def new_private_key() -> Secret:
    """Return a new key in PEM, of the kind that the shipped profiles have."""
    return key_pem(new_key(KeyType.EC_P256))


def request_of(key: Secret) -> bytes:
    """Return the request for a certificate of a key, in DER.

    Args:
        key: In PEM.

    Raises:
        CertificateError: It is none.
    """
    private = key_of(key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(private, signature_hash(private)).public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> PublicKey:
    """Return the key that a request is for.

    Raises:
        CertificateError: It is no request, is not signed by its own key, or the key is of another
            kind than those of profiles.
    """
    if len(request) > REQUEST_BYTES_MAX:
        raise CertificateError(f"a request has at most {REQUEST_BYTES_MAX} bytes")
    try:
        read = x509.load_der_x509_csr(request)
        key, is_signed = read.public_key(), read.is_signature_valid
    except (*UNREADABLE, InvalidSignature):
        raise CertificateError("it is not a request for a certificate") from None
    if not is_signed:
        raise CertificateError("the request is not signed by the key that it is for")
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise CertificateError("the key is neither EC P-256 nor Ed25519")

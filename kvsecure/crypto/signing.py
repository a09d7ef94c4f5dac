"""Signatures: Ed25519, from a seed of the key hierarchy.

Owns: signing and verifying bytes, and the key id that names a public key.
Never: chooses an algorithm from what it is given.
Follows: RFC 8032; key ids are JWK thumbprints (RFC 7638, RFC 8037).
"""

import base64
import hashlib
import json
from typing import final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kvsecure.crypto.sealing import Tampered
from kvsecure.model.secret import Secret

__all__ = ["SigningKey", "VerifyingKey"]


@final
class VerifyingKey:
    """The public half: 32 bytes."""

    __slots__ = ("key_id", "native", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        # The object that token libraries take.
        self.native = Ed25519PublicKey.from_public_bytes(raw)
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        jwk = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
        digest = hashlib.sha256(jwk.encode()).digest()
        self.key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def verify(self, signature: bytes, text: bytes) -> None:
        """Check a signature.

        Raises:
            Tampered: It is not this key's signature of this text.
        """
        try:
            self.native.verify(signature, text)
        except InvalidSignature:
            raise Tampered("a signature does not verify") from None


@final
class SigningKey:
    """A private key that is derived, and so never stored on its own."""

    __slots__ = ("native", "public")

    def __init__(self, seed: Secret) -> None:
        self.native = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        self.public = VerifyingKey(self.native.public_key().public_bytes_raw())

    def sign(self, text: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self.native.sign(text)

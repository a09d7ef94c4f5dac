"""Sealing: authenticated encryption whose nonces cannot repeat.

Owns: AES-256-GCM under a key that is fresh for each sealer, with a counter for a nonce.
Never: takes a nonce from a caller to seal with, or returns anything from a text that fails.
Follows: NIST SP 800-38D section 8.2.1 (deterministic nonces).
Keeps: a key belongs to one sealer, because it is derived with a salt drawn when that sealer starts;
    the counter only rises; so no (key, nonce) pair is used twice.
"""

import os
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kvsecure.model.errors import invariant
from kvsecure.model.secret import Secret

__all__ = [
    "KEY_BYTES",
    "SALT_BYTES",
    "TAG_BYTES",
    "Opener",
    "Sealer",
    "Tampered",
    "derive_key",
    "fresh_key",
    "fresh_salt",
    "read_unverified",
]

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
TAG_BYTES: Final = 16
# Far below the 2**32 invocations of SP 800-38D for random nonces, and 2**64 for counters.
_SEALS_MAX: Final = 1 << 40


@final
class Tampered(Exception):
    """A sealed text, or what it was bound to, is not what was sealed."""


def fresh_key() -> Secret:
    """Return a new random key of KEY_BYTES."""
    return Secret(os.urandom(KEY_BYTES))


def fresh_salt() -> bytes:
    """Return a new random salt of SALT_BYTES; it need not be secret."""
    return os.urandom(SALT_BYTES)


def derive_key(root: Secret, *, purpose: str, salt: bytes = b"") -> Secret:
    """Return the key for one purpose (HKDF-SHA256, RFC 5869).

    Args:
        root: Key material of full entropy.
        purpose: What the key is for; different purposes give independent keys.
        salt: Where a purpose has many keys, the salt that tells them apart.
    """
    kdf = HKDF(
        algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"kvsecure/v1/" + purpose.encode()
    )
    return Secret(kdf.derive(root.reveal()))


@final
class Sealer:
    """Seals texts under one fresh key."""

    __slots__ = ("_aead", "_count")

    def __init__(self, key: Secret) -> None:
        self._aead = AESGCM(key.reveal())
        self._count = 0

    @property
    def count(self) -> int:
        """How many texts were sealed; the next one's number."""
        return self._count

    def seal(self, text: bytes, bound_to: bytes) -> bytes:
        """Seal the next text; its number is `count` before the call, and opening needs it."""
        number = self._count
        invariant(number < _SEALS_MAX, "a sealing key is near its message limit")
        self._count = number + 1
        return self._aead.encrypt(number.to_bytes(12, "big"), text, bound_to)


@final
class Opener:
    """Opens what a sealer with the same key sealed."""

    __slots__ = ("_aead",)

    def __init__(self, key: Secret) -> None:
        self._aead = AESGCM(key.reveal())

    def open(self, number: int, sealed: bytes, bound_to: bytes) -> bytes:
        """Return the text that was sealed under this number and bound to this.

        Raises:
            Tampered: Text, number or binding is not what was sealed.
        """
        try:
            return self._aead.decrypt(number.to_bytes(12, "big"), sealed, bound_to)
        except (InvalidTag, ValueError):
            raise Tampered("a sealed text does not open") from None


def read_unverified(key: Secret, number: int, sealed: bytes) -> bytes:
    """Decrypt without checking, to say which part of a text that fails to open is damaged.

    The answer may be anything an attacker chose; it is for a damage report and nothing else. GCM
    encrypts in counter mode from block 2 on (SP 800-38D section 7.1).
    """
    counter = number.to_bytes(12, "big") + (2).to_bytes(4, "big")
    decryptor = Cipher(algorithms.AES(key.reveal()), modes.CTR(counter)).decryptor()
    return decryptor.update(sealed[:-TAG_BYTES]) + decryptor.finalize()

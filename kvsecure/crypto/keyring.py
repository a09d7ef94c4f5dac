"""The key hierarchy: a key-encryption key wraps the root key, which wraps the data keys.

Owns: the keyring file's format, and what is derived from which key.
Never: touches a file; it turns bytes into keys and back. Never keeps the key-encryption key.
Follows: docs/adr/0006-sealing.md; the levels are rotated separately and by separate names.
Keeps: a data key ("term") once written is never replaced under the same number; wraps are bound to
    the cluster, so a keyring of another cluster does not open.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kvsecure.crypto.sealing import KEY_BYTES, derive_key, fresh_key
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret

__all__ = ["KeyEncryptionKey", "Keyring", "KeyringError", "SealedRoot"]

_FORMAT: Final = 1
_NONCE_BYTES: Final = 12


@final
class KeyringError(Exception):
    """A keyring cannot be opened; the text says why and names no key material."""


@final
class KeyEncryptionKey:
    """The key that wraps the root key; it comes from outside the data directory."""

    __slots__ = ("_key", "provider")

    def __init__(self, key: Secret, provider: str) -> None:
        if len(key) != KEY_BYTES:
            raise KeyringError(f"a key-encryption key has {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key
        self.provider = provider

    @classmethod
    def from_file_content(cls, content: Secret) -> Self:
        """Read the key from a key file's content: 32 bytes in base64, surrounding space ignored.

        Raises:
            KeyringError: The content is not that.
        """
        try:
            raw = base64.b64decode(content.reveal().strip(), validate=True)
        except (binascii.Error, ValueError):
            raise KeyringError("a key file holds 32 random bytes in base64") from None
        return cls(Secret(raw), "file")

    @staticmethod
    def new_file_content() -> Secret:
        """Return the content of a new key file."""
        return Secret(base64.b64encode(fresh_key().reveal()) + b"\n")

    @property
    def key_id(self) -> str:
        """Tells keys apart without telling them."""
        named = derive_key(self._key, purpose="kek-id").reveal()
        return hashlib.sha256(named).hexdigest()[:16]

    def wrap(self, key: Secret, bound_to: bytes) -> bytes:
        """Encrypt another key. Nonces are random: a key-encryption key wraps a handful of keys."""
        return _wrap(self._key, key, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> Secret:
        """Decrypt another key.

        Raises:
            KeyringError: It was wrapped by another key or for something else.
        """
        return _unwrap(self._key, wrapped, bound_to)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRoot:
    """A cluster's root key, wrapped: what a backup carries, and opens with."""

    cluster_id: ClusterId
    kek_id: str
    provider: str
    wrapped: bytes

    def fields(self) -> dict[str, str]:
        """Return it as plain texts."""
        return {
            "cluster_id": f"{self.cluster_id:x}",
            "kek_id": self.kek_id,
            "kek_provider": self.provider,
            "wrapped": base64.b64encode(self.wrapped).decode(),
        }

    @classmethod
    def of_fields(cls, fields: Mapping[str, str]) -> Self:
        """Read what `fields` returned.

        Raises:
            KeyringError: It is not that.
        """
        try:
            return cls(
                cluster_id=ClusterId(int(fields["cluster_id"], 16)),
                kek_id=str(fields["kek_id"]),
                provider=str(fields["kek_provider"]),
                wrapped=base64.b64decode(fields["wrapped"], validate=True),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise KeyringError("a wrapped root key is damaged") from None

    def root_key(self, kek: KeyEncryptionKey, *, purpose: str) -> Secret:
        """Derive a key from the root key, as `Keyring.root_key` does.

        Raises:
            KeyringError: Another key-encryption key wrapped it.
        """
        if kek.key_id != self.kek_id:
            raise KeyringError(
                f"it was wrapped by key-encryption key {self.kek_id} ({self.provider}), and this "
                f"is {kek.key_id}: give the right key"
            )
        root = kek.unwrap(self.wrapped, _binding("root", self.cluster_id, 0))
        return derive_key(root, purpose=purpose)


@final
class Keyring:
    """The keys of one cluster, opened."""

    __slots__ = ("_root", "_root_wrapped", "_terms", "_wrapped", "cluster_id", "kek_id", "provider")

    def __init__(
        self,
        *,
        cluster_id: ClusterId,
        root: Secret,
        root_wrapped: bytes,
        wrapped: Mapping[int, bytes],
        kek_id: str,
        provider: str,
    ) -> None:
        self.cluster_id = cluster_id
        self.kek_id = kek_id
        self.provider = provider
        self._root = root
        self._root_wrapped = root_wrapped
        self._wrapped = dict(wrapped)
        self._terms = {
            term: _unwrap(root, blob, _binding("term", cluster_id, term))
            for term, blob in wrapped.items()
        }

    @classmethod
    def create(cls, kek: KeyEncryptionKey, cluster_id: ClusterId) -> Self:
        """Make the keyring of a new cluster, with term 1."""
        root = fresh_key()
        return cls(
            cluster_id=cluster_id,
            root=root,
            root_wrapped=kek.wrap(root, _binding("root", cluster_id, 0)),
            wrapped={1: _wrap(root, fresh_key(), _binding("term", cluster_id, 1))},
            kek_id=kek.key_id,
            provider=kek.provider,
        )

    @classmethod
    def open(cls, content: bytes, kek: KeyEncryptionKey) -> Self:
        """Open a keyring file.

        Raises:
            KeyringError: The file is damaged, or another key-encryption key wrapped it.
        """
        try:
            fields = json.loads(content)
            if fields["format"] != _FORMAT:
                raise KeyringError(f"keyring format {fields['format']} is not known here")
            cluster_id = ClusterId(int(fields["cluster_id"], 16))
            kek_id, provider = str(fields["kek"]["id"]), str(fields["kek"]["provider"])
            root_wrapped = base64.b64decode(fields["root"], validate=True)
            wrapped = {
                int(term["term"]): base64.b64decode(term["wrapped"], validate=True)
                for term in fields["terms"]
            }
            # A keyring without a data key could open nothing.
            max(wrapped)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise KeyringError("the keyring file is damaged; restore it from a backup") from None
        if kek_id != kek.key_id:
            raise KeyringError(
                f"the keyring was wrapped by key-encryption key {kek_id} ({provider}), and this is "
                f"{kek.key_id}: give the right key"
            )
        return cls(
            cluster_id=cluster_id,
            root=kek.unwrap(root_wrapped, _binding("root", cluster_id, 0)),
            root_wrapped=root_wrapped,
            wrapped=wrapped,
            kek_id=kek_id,
            provider=provider,
        )

    def file_content(self) -> bytes:
        """Return the keyring file's content; every key in it is wrapped."""
        fields = {
            "format": _FORMAT,
            "cluster_id": f"{self.cluster_id:x}",
            "kek": {"provider": self.provider, "id": self.kek_id},
            "root": base64.b64encode(self._root_wrapped).decode(),
            "terms": [
                {"term": term, "wrapped": base64.b64encode(blob).decode()}
                for term, blob in sorted(self._wrapped.items())
            ],
        }
        return json.dumps(fields, indent=1).encode() + b"\n"

    @property
    def current_term(self) -> int:
        """The data key that new data is sealed under."""
        return max(self._terms)

    @property
    def sealed_root(self) -> SealedRoot:
        """The root key, wrapped as it is in the keyring file."""
        return SealedRoot(
            cluster_id=self.cluster_id,
            kek_id=self.kek_id,
            provider=self.provider,
            wrapped=self._root_wrapped,
        )

    @property
    def terms(self) -> tuple[int, ...]:
        """The data keys that there are, in order."""
        return tuple(sorted(self._terms))

    def data_key(self, term: int, *, purpose: str) -> Secret:
        """Derive a key from a data key.

        Raises:
            KeyringError: The term is not in the keyring (it may have been retired).
        """
        seed = self._terms.get(term)
        if seed is None:
            raise KeyringError(f"data key term {term} is not in the keyring")
        return derive_key(seed, purpose=purpose)

    def root_key(self, *, purpose: str) -> Secret:
        """Derive a key from the root key: for signing keys, which live longer than data keys."""
        return derive_key(self._root, purpose=purpose)


def _binding(what: str, cluster_id: ClusterId, number: int) -> bytes:
    return f"kvsecure/keyring/v1/{what}/{cluster_id:x}/{number}".encode()


def _wrap(wrapping: Secret, key: Secret, bound_to: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(wrapping.reveal()).encrypt(nonce, key.reveal(), bound_to)


def _unwrap(wrapping: Secret, wrapped: bytes, bound_to: bytes) -> Secret:
    nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return Secret(AESGCM(wrapping.reveal()).decrypt(nonce, sealed, bound_to))
    except (InvalidTag, ValueError):
        raise KeyringError("a wrapped key does not open: the keyring file is damaged") from None

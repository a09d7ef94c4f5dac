"""The key hierarchy: a key-encryption key wraps the root key, which wraps everything else.

    key-encryption key > root key > data keys ("terms"), and the seed of the signing keys

Owns: the keyring file's format, and what is derived from which key.
Never: touches a file; it turns bytes into keys and back. Never keeps the key-encryption key.
Follows: docs/adr/0006-sealing.md, docs/adr/0013-key-management.md; the levels are rotated
    separately and by separate names.
Keeps: a data key ("term") once written is never replaced under the same number, and no number is
    used twice; wraps are bound to the cluster, so a keyring of another cluster does not open; of a
    retired data key there is left what opens audit segments, and nothing else.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kvsecure.crypto.sealing import KEY_BYTES, derive_key, fresh_key
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret

__all__ = [
    "KekRecord",
    "KekSource",
    "KeyEncryptionKey",
    "Keyring",
    "KeyringError",
    "SealedRoot",
    "TermFacts",
]

_FORMAT: Final = 2
_FORMATS: Final = frozenset({1, _FORMAT})
_NONCE_BYTES: Final = 12
# What is derived for the audit trail, which is never written anew, outlives the data key.
_KEPT_PURPOSE: Final = "audit"


@final
class KeyringError(Exception):
    """A keyring cannot be opened; the text says why and names no key material."""


class KekRecord(NamedTuple):
    """What a keyring says of the key that it is wrapped with; nothing in it is secret."""

    # Where the key comes from: file, env, passphrase, kms.
    provider: str
    key_id: str
    # What its provider needs to come to the same key again.
    parameters: Mapping[str, str]


class KekSource(Protocol):
    """Where a key-encryption key comes from."""

    def key_for(self, stored: KekRecord | None) -> "KeyEncryptionKey":
        """Return the key that a keyring was wrapped with, or a key for a new one.

        Args:
            stored: What the keyring says; None for a keyring that is yet to be wrapped.

        Raises:
            KeyringError: It cannot be had; the text says why.
        """
        ...


@final
class KeyEncryptionKey:
    """The key that wraps the root key; it comes from outside the data directory."""

    __slots__ = ("_key", "parameters", "provider")

    def __init__(
        self, key: Secret, provider: str, parameters: Mapping[str, str] | None = None
    ) -> None:
        """Take a key.

        Args:
            key: KEY_BYTES of it.
            provider: Where it comes from.
            parameters: What is stored beside what it wraps, to come to the same key again.

        Raises:
            KeyringError: It is not of that length.
        """
        if len(key) != KEY_BYTES:
            raise KeyringError(f"a key-encryption key has {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key
        self.provider = provider
        self.parameters = dict(parameters or {})

    @classmethod
    def from_file_content(cls, content: Secret, provider: str = "file") -> Self:
        """Read the key from a key file's content: 32 bytes in base64, surrounding space ignored.

        Raises:
            KeyringError: The content is not that.
        """
        try:
            raw = base64.b64decode(content.reveal().strip(), validate=True)
        except (binascii.Error, ValueError):
            raise KeyringError("a key-encryption key is 32 random bytes in base64") from None
        return cls(Secret(raw), provider)

    @staticmethod
    def new_file_content() -> Secret:
        """Return the content of a new key file."""
        return Secret(base64.b64encode(fresh_key().reveal()) + b"\n")

    @property
    def key_id(self) -> str:
        """Tells keys apart without telling them."""
        named = derive_key(self._key, purpose="kek-id").reveal()
        return hashlib.sha256(named).hexdigest()[:16]

    @property
    def record(self) -> KekRecord:
        """What a keyring that it wraps says of it."""
        return KekRecord(self.provider, self.key_id, self.parameters)

    def key_for(self, stored: KekRecord | None) -> "KeyEncryptionKey":  # noqa: ARG002 - KekSource
        """Return this key: it is a source of itself."""
        return self

    def wrap(self, key: Secret, bound_to: bytes) -> bytes:
        """Encrypt another key. Nonces are random: a key-encryption key wraps a handful of keys."""
        return _wrap(self._key, key, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> Secret:
        """Decrypt another key.

        Raises:
            KeyringError: It was wrapped by another key or for something else.
        """
        return _unwrap(self._key, wrapped, bound_to)


class TermFacts(NamedTuple):
    """What can be told of a data key."""

    term: int
    # When it was made, in seconds since 1970, UTC; 0 if nobody wrote that down.
    made_s: int
    is_retired: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRoot:
    """What a cluster's lasting keys are derived from, wrapped: a backup carries it, and opens so.

    Attributes:
        cluster_id: Whose it is.
        kek: Which key-encryption key opens it.
        root: The root key, wrapped by that.
        seed: The seed of the signing keys, wrapped by the root key; empty where that is the seed.
    """

    cluster_id: ClusterId
    kek: KekRecord
    root: bytes
    seed: bytes

    def fields(self) -> dict[str, object]:
        """Return it as plain texts."""
        return {
            "cluster_id": f"{self.cluster_id:x}",
            "kek_id": self.kek.key_id,
            "kek_provider": self.kek.provider,
            "kek_parameters": dict(self.kek.parameters),
            "wrapped": _text(self.root),
            "seed": _text(self.seed),
        }

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `fields` returned.

        Raises:
            KeyringError: It is not that.
        """
        try:
            parameters = fields["kek_parameters"].items()
            return cls(
                cluster_id=ClusterId(int(fields["cluster_id"], 16)),
                kek=KekRecord(
                    str(fields["kek_provider"]),
                    str(fields["kek_id"]),
                    {str(name): str(text) for name, text in parameters},
                ),
                root=_bytes(fields["wrapped"]),
                seed=_bytes(fields["seed"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise KeyringError("a wrapped root key is damaged") from None

    def root_key(self, kek: KeyEncryptionKey, *, purpose: str) -> Secret:
        """Derive a key that lasts as long as the cluster, as `Keyring.root_key` does.

        Raises:
            KeyringError: Another key-encryption key wrapped it.
        """
        if kek.key_id != self.kek.key_id:
            raise KeyringError(
                f"it was wrapped by key-encryption key {self.kek.key_id} ({self.kek.provider}), "
                f"and this is {kek.key_id}: give the right key"
            )
        seed = kek.unwrap(self.root, _binding("root", self.cluster_id, 0))
        if self.seed:
            seed = _unwrap(seed, self.seed, _binding("seed", self.cluster_id, 0))
        return derive_key(seed, purpose=purpose)


@final
class Keyring:
    """The keys of one cluster, opened."""

    __slots__ = ("_retired", "_root", "_seed", "_stored", "_terms")

    def __init__(
        self,
        stored: "_Stored",
        *,
        root: Secret,
        seed: Secret,
        terms: Mapping[int, Secret],
        retired: Mapping[int, Secret],
    ) -> None:
        self._stored = stored
        self._root = root
        self._seed = seed
        self._terms = dict(terms)
        self._retired = dict(retired)

    @classmethod
    def create(cls, kek: KeyEncryptionKey, cluster_id: ClusterId, *, now_s: int = 0) -> Self:
        """Make the keyring of a new cluster, with term 1.

        Args:
            kek: What it is wrapped with.
            cluster_id: Whose it is.
            now_s: The time, in seconds since 1970; 0 leaves its age unknown.
        """
        return cls._wrapped(cluster_id, kek, fresh_key(), {1: fresh_key()}, {}, {1: now_s})

    @classmethod
    def _wrapped(
        cls,
        cluster_id: ClusterId,
        kek: KeyEncryptionKey,
        seed: Secret,
        terms: Mapping[int, Secret],
        retired: Mapping[int, Secret],
        made_s: Mapping[int, int],
    ) -> Self:
        """Wrap keys under a new root key."""
        root = fresh_key()
        stored = _Stored(
            cluster_id=cluster_id,
            kek=kek.record,
            root=kek.wrap(root, _binding("root", cluster_id, 0)),
            seed=_wrap(root, seed, _binding("seed", cluster_id, 0)),
            terms={
                term: _wrap(root, key, _binding("term", cluster_id, term))
                for term, key in terms.items()
            },
            retired={
                term: _wrap(root, key, _binding("retired", cluster_id, term))
                for term, key in retired.items()
            },
            made_s=made_s,
        )
        return cls(stored, root=root, seed=seed, terms=terms, retired=retired)

    @classmethod
    def open(cls, content: bytes, source: KekSource) -> Self:
        """Open a keyring file.

        Raises:
            KeyringError: The file is damaged, or another key-encryption key wrapped it, or that
                cannot be had.
        """
        stored = _Stored.read(content)
        cluster_id = stored.cluster_id
        kek = source.key_for(stored.kek)
        if kek.key_id != stored.kek.key_id:
            raise KeyringError(
                f"the keyring was wrapped by key-encryption key {stored.kek.key_id} "
                f"({stored.kek.provider}), and this is {kek.key_id}: give the right key"
            )
        root = kek.unwrap(stored.root, _binding("root", cluster_id, 0))
        # Before there was a seed, signing keys were derived from the root key itself.
        seed = root
        if stored.seed is not None:
            seed = _unwrap(root, stored.seed, _binding("seed", cluster_id, 0))
        terms = {
            term: _unwrap(root, blob, _binding("term", cluster_id, term))
            for term, blob in stored.terms.items()
        }
        retired = {
            term: _unwrap(root, blob, _binding("retired", cluster_id, term))
            for term, blob in stored.retired.items()
        }
        return cls(stored, root=root, seed=seed, terms=terms, retired=retired)

    # --- changes --------------------------------------------------------------------------------

    def rotated(self, kek: KeyEncryptionKey, *, now_s: int) -> "Keyring":
        """Return the keyring with a new data key, and a new root key above all of them.

        Args:
            kek: What wraps the root key now.
            now_s: The time, in seconds since 1970.
        """
        term = self.current_term + 1
        made_s = {**self._stored.made_s, term: now_s}
        terms = {**self._terms, term: fresh_key()}
        return self._wrapped(self.cluster_id, kek, self._seed, terms, self._retired, made_s)

    def rewrapped(self, kek: KeyEncryptionKey) -> "Keyring":
        """Return the keyring under another key-encryption key, with a new root key."""
        stored = self._stored
        return self._wrapped(
            self.cluster_id, kek, self._seed, self._terms, self._retired, stored.made_s
        )

    def without(self, term: int) -> "Keyring":
        """Return the keyring without a data key, but for what opens the audit trail.

        Raises:
            KeyringError: It is the current one, or not there.
        """
        if term == self.current_term:
            raise KeyringError(f"term {term} is the one that everything new is sealed under")
        kept = self.data_key(term, purpose=_KEPT_PURPOSE)
        if term in self._retired:
            raise KeyringError(f"term {term} is retired already")
        stored, binding = self._stored, _binding("retired", self.cluster_id, term)
        terms = {number: blob for number, blob in stored.terms.items() if number != term}
        retired = {**stored.retired, term: _wrap(self._root, kept, binding)}
        return Keyring(
            stored._replace(terms=terms, retired=retired),
            root=self._root,
            seed=self._seed,
            terms={number: key for number, key in self._terms.items() if number != term},
            retired={**self._retired, term: kept},
        )

    def become(self, other: "Keyring") -> None:
        """Hold what another keyring of the same cluster holds, for all who share this one."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def file_content(self) -> bytes:
        """Return the keyring file's content; every key in it is wrapped."""
        return self._stored.encode()

    @property
    def cluster_id(self) -> ClusterId:
        """Whose it is."""
        return self._stored.cluster_id

    @property
    def kek(self) -> KekRecord:
        """What it says of the key that it is wrapped with."""
        return self._stored.kek

    @property
    def terms(self) -> list[TermFacts]:
        """What can be told of each data key, oldest first."""
        made_s = self._stored.made_s
        return [
            TermFacts(term, made_s.get(term, 0), term in self._retired)
            for term in sorted({*self._terms, *self._retired})
        ]

    @property
    def current_term(self) -> int:
        """The data key that new data is sealed under."""
        return max(self._terms)

    @property
    def sealed_root(self) -> SealedRoot:
        """What its lasting keys are derived from, wrapped as it is in the keyring file."""
        stored = self._stored
        return SealedRoot(
            cluster_id=stored.cluster_id, kek=stored.kek, root=stored.root, seed=stored.seed or b""
        )

    def data_key(self, term: int, *, purpose: str) -> Secret:
        """Derive a key from a data key.

        Raises:
            KeyringError: The term is not in the keyring, or it was retired and this is not for the
                audit trail.
        """
        if purpose == _KEPT_PURPOSE and term in self._retired:
            return self._retired[term]
        if term in self._retired:
            raise KeyringError(f"data key term {term} was retired: nothing opens what it sealed")
        seed = self._terms.get(term)
        if seed is None:
            raise KeyringError(f"data key term {term} is not in the keyring")
        return derive_key(seed, purpose=purpose)

    def root_key(self, *, purpose: str) -> Secret:
        """Derive a key that lasts as long as the cluster: for signing keys, unlike data keys."""
        return derive_key(self._seed, purpose=purpose)


class _Stored(NamedTuple):
    """What stands in a keyring file."""

    cluster_id: ClusterId
    kek: KekRecord
    root: bytes
    # None in a file of the first format.
    seed: bytes | None
    terms: Mapping[int, bytes]
    # Of each retired term, what opens its audit segments.
    retired: Mapping[int, bytes]
    made_s: Mapping[int, int]

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read a file.

        Raises:
            KeyringError: It is damaged, or of a format not known here.
        """
        try:
            fields = json.loads(content)
            if fields["format"] not in _FORMATS:
                raise KeyringError(f"keyring format {fields['format']} is not known here")
            kek = fields["kek"]
            terms = {int(each["term"]): each for each in fields["terms"]}
            retired = {int(each["term"]): each for each in fields.get("retired", [])}
            # A keyring without a data key could open nothing.
            max(terms)
            return cls(
                cluster_id=ClusterId(int(fields["cluster_id"], 16)),
                kek=KekRecord(
                    str(kek["provider"]),
                    str(kek["id"]),
                    {str(name): str(text) for name, text in kek.get("parameters", {}).items()},
                ),
                root=_bytes(fields["root"]),
                seed=_bytes(fields["seed"]) if fields["format"] > 1 else None,
                terms={term: _bytes(each["wrapped"]) for term, each in terms.items()},
                retired={term: _bytes(each["audit"]) for term, each in retired.items()},
                made_s={
                    term: int(each.get("made_s", 0)) for term, each in (retired | terms).items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise KeyringError("the keyring file is damaged; restore it from a backup") from None

    def encode(self) -> bytes:
        """Return the file's content."""
        fields: dict[str, object] = {
            "format": 1 if self.seed is None else _FORMAT,
            "cluster_id": f"{self.cluster_id:x}",
            "kek": {
                "provider": self.kek.provider,
                "id": self.kek.key_id,
                "parameters": dict(self.kek.parameters),
            },
            "root": _text(self.root),
            "terms": [
                {"term": term, "wrapped": _text(blob), "made_s": self.made_s.get(term, 0)}
                for term, blob in sorted(self.terms.items())
            ],
            "retired": [
                {"term": term, "audit": _text(blob), "made_s": self.made_s.get(term, 0)}
                for term, blob in sorted(self.retired.items())
            ],
        }
        if self.seed is not None:
            fields["seed"] = _text(self.seed)
        return json.dumps(fields, indent=1).encode() + b"\n"


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


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

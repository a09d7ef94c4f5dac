"""Passphrases as key-encryption keys: stretched, by parameters that the keyring keeps.

Owns: the parameters of a new stretch, their stored form, and the bounds of what is read back.
Never: stores the passphrase or the key, or runs on the event loop (some 200 ms of a core).
Follows: RFC 9106 section 4, the second recommended option (64 MiB, 3 passes, 4 lanes).
Keeps: a salt is used for one key; parameters from a file that somebody changed cost no more than
    the bounds.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from argon2.low_level import Type, hash_secret_raw

from kvsecure.crypto.keyring import KeyEncryptionKey, KeyringError
from kvsecure.crypto.sealing import KEY_BYTES, SALT_BYTES, fresh_salt
from kvsecure.model.secret import Secret

__all__ = ["PASSPHRASE_CHARACTERS_MIN", "PROVIDER", "stretch", "stretch_new"]

PROVIDER: Final = "passphrase"
# As for passwords (NIST SP 800-63B-4); whoever has the keyring can try for ever.
PASSPHRASE_CHARACTERS_MIN: Final = 15
_MEMORY_KIB: Final = 64 * 1024
_PASSES: Final = 3
_LANES: Final = 4
_MEMORY_KIB_MAX: Final = 4 * 1024 * 1024
_PASSES_MAX: Final = 64
_LANES_MAX: Final = 64


def stretch_new(passphrase: Secret) -> KeyEncryptionKey:
    """Return a new key from a passphrase, with a salt of its own.

    Raises:
        KeyringError: The passphrase is too short, or not text.
    """
    try:
        characters = len(passphrase.reveal_text())
    except UnicodeDecodeError:
        raise KeyringError("a passphrase is text in UTF-8") from None
    if characters < PASSPHRASE_CHARACTERS_MIN:
        raise KeyringError(
            f"a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters: whoever steals the "
            "keyring can try as many as they like"
        )
    return stretch(
        passphrase,
        {
            "algorithm": "argon2id",
            "lanes": str(_LANES),
            "memory_kib": str(_MEMORY_KIB),
            "passes": str(_PASSES),
            "salt": base64.b64encode(fresh_salt()).decode(),
        },
    )


def stretch(passphrase: Secret, parameters: Mapping[str, str]) -> KeyEncryptionKey:
    """Return the key that a passphrase gives with these parameters.

    Raises:
        KeyringError: The parameters are none that `stretch_new` could have made.
    """
    try:
        salt = base64.b64decode(parameters["salt"], validate=True)
        lanes = int(parameters["lanes"])
        memory_kib, passes = int(parameters["memory_kib"]), int(parameters["passes"])
        sound = (
            parameters["algorithm"] == "argon2id"
            and len(salt) == SALT_BYTES
            and 1 <= lanes <= _LANES_MAX
            and 8 * lanes <= memory_kib <= _MEMORY_KIB_MAX
            and 1 <= passes <= _PASSES_MAX
        )
    except (KeyError, ValueError, binascii.Error):
        sound = False
    if not sound:
        raise KeyringError(
            "the keyring does not say how its passphrase is stretched; restore it from a backup"
        )
    key = hash_secret_raw(
        passphrase.reveal(),
        salt,
        time_cost=passes,
        memory_cost=memory_kib,
        parallelism=lanes,
        hash_len=KEY_BYTES,
        type=Type.ID,
    )
    return KeyEncryptionKey(Secret(key), PROVIDER, parameters)

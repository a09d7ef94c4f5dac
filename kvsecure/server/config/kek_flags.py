"""The table's rows about the key that everything stored is sealed under.

Owns: names, defaults and help of the flags that say where the key-encryption key comes from.
Never: reads a value; has a flag that carries a key or a passphrase.
"""

from typing import Final

from kvsecure.server.config.flag import Flag, Kind, Section, honoured

__all__ = ["KEK_FLAGS"]

_K: Final = Section.KVSECURE

KEK_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        _K,
        "kek-provider",
        Kind.CHOICE,
        "file",
        "Where the key-encryption key comes from, under which everything stored is sealed. Whoever "
        "loses it loses the data.",
        choices=("file", "env", "passphrase", "kms"),
    ),
    honoured(
        _K,
        "kek-file",
        Kind.PATH,
        "",
        "Required with provider file: 32 random bytes in base64, readable by its owner only.",
    ),
    honoured(
        _K,
        "kek-env",
        Kind.TEXT,
        "KVSECURE_KEK",
        "For provider env: the name of the variable that holds 32 random bytes in base64.",
    ),
    honoured(
        _K,
        "kek-passphrase-file",
        Kind.PATH,
        "",
        "For provider passphrase: a file that its owner only can read, or a pipe (/dev/fd/N), with "
        "the passphrase. Without it the passphrase is asked for on the terminal.",
    ),
    honoured(
        _K,
        "kek-kms-socket",
        Kind.PATH,
        "",
        "Required with provider kms: the Unix socket of a Kubernetes KMS v2 plugin, which wraps "
        "the key.",
    ),
)

"""The table's rows about the key that everything stored is sealed under.

Owns: names, defaults and help of the flags that say where the key-encryption key comes from, and
    where the one before it came from.
Never: reads a value; has a flag that carries a key or a passphrase.
"""

from typing import Final

from kvsecure.server.config.flag import Flag, Kind, Section, honoured

__all__ = ["KEK_FLAGS"]

_K: Final = Section.KVSECURE
_PROVIDERS: Final = ("file", "env", "passphrase", "kms")


def _rows(prefix: str, default: str, choices: tuple[str, ...], helps: dict[str, str]) -> list[Flag]:
    variable = "KVSECURE_" + prefix.upper().replace("-", "_")
    kinds = {
        "provider": (Kind.CHOICE, default, choices),
        "file": (Kind.PATH, "", ()),
        "env": (Kind.TEXT, variable, ()),
        "passphrase-file": (Kind.PATH, "", ()),
        "kms-socket": (Kind.PATH, "", ()),
    }
    return [
        honoured(_K, f"{prefix}-{name}", kind, value, helps[name], choices=choices)
        for name, (kind, value, choices) in kinds.items()
    ]


KEK_FLAGS: Final[tuple[Flag, ...]] = (
    *_rows(
        "kek",
        "file",
        _PROVIDERS,
        {
            "provider": "Where the key-encryption key comes from, under which everything stored is "
            "sealed. Whoever loses it loses the data.",
            "file": "Required with provider file: 32 random bytes in base64, readable by its owner "
            "only.",
            "env": "For provider env: the name of the variable that holds 32 random bytes in "
            "base64.",
            "passphrase-file": "For provider passphrase: a file that its owner only can read, or a "
            "pipe (/dev/fd/N), with the passphrase. Without it the passphrase is asked for on the "
            "terminal.",
            "kms-socket": "Required with provider kms: the Unix socket of a Kubernetes KMS v2 "
            "plugin, which wraps the key.",
        },
    ),
    *_rows(
        "kek-previous",
        "",
        ("", *_PROVIDERS),
        {
            "provider": "Where the key-encryption key came from before, until `kvsecure crypto "
            "rotate --kek` has wrapped the keyring anew.",
            "file": "As --kek-file, of the key before.",
            "env": "As --kek-env, of the key before.",
            "passphrase-file": "As --kek-passphrase-file, of the passphrase before.",
            "kms-socket": "As --kek-kms-socket, of the plugin before.",
        },
    ),
)

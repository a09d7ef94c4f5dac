"""Where the key-encryption key comes from: the rules between its flags.

Owns: which of them go together.
Never: opens a file, looks at a variable, or asks anybody.
"""

from typing import Final

from kvsecure.server.config.model import KekProvider, KekSettings
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings

__all__ = ["build_kek", "build_previous_kek"]

_PREVIOUS: Final = "kek-previous"
# Which flags belong to which provider alone.
_FLAGS: Final = {
    "file": KekProvider.FILE,
    "env": KekProvider.ENV,
    "passphrase-file": KekProvider.PASSPHRASE,
    "kms-socket": KekProvider.KMS,
}


def build_kek(settings: Settings, warnings: list[str]) -> KekSettings:
    """Return where the key-encryption key comes from.

    Raises:
        ConfigError: Something is missing, or is of another provider.
    """
    if not settings.given("kek-file") and settings.text("kek-provider") == KekProvider.FILE.value:
        raise ConfigError(
            "--kek-file is required: everything stored is sealed under the key in it; make one "
            "with: (umask 077; head -c 32 /dev/urandom | base64 > FILE), and keep a copy safe. "
            "(--kek-provider names other places for a key.)"
        )
    return _build(settings, "kek", KekProvider(settings.text("kek-provider")), warnings)


def build_previous_kek(settings: Settings, warnings: list[str]) -> KekSettings | None:
    """Return where the key-encryption key came from before, if that is said.

    Raises:
        ConfigError: Something is missing, or is of another provider.
    """
    text = settings.text(f"{_PREVIOUS}-provider")
    if not text:
        for name in _FLAGS:
            if settings.given(f"{_PREVIOUS}-{name}"):
                raise ConfigError(f"--{_PREVIOUS}-{name} needs --{_PREVIOUS}-provider")
        return None
    return _build(settings, _PREVIOUS, KekProvider(text), warnings)


def _build(
    settings: Settings, prefix: str, provider: KekProvider, warnings: list[str]
) -> KekSettings:
    for name, owner in _FLAGS.items():
        if owner is not provider and settings.given(f"{prefix}-{name}"):
            raise ConfigError(
                f"--{prefix}-{name} is of no use with --{prefix}-provider {provider.value}; leave "
                "one of them out"
            )
    file, socket = settings.path(f"{prefix}-file"), settings.path(f"{prefix}-kms-socket")
    variable = settings.text(f"{prefix}-env")
    if provider is KekProvider.FILE and file is None:
        raise ConfigError(f"--{prefix}-provider file needs --{prefix}-file FILE")
    if provider is KekProvider.KMS and socket is None:
        raise ConfigError(f"--{prefix}-provider kms needs --{prefix}-kms-socket FILE")
    if provider is KekProvider.ENV:
        if not variable or "=" in variable:
            raise ConfigError(f"--{prefix}-env is the name of a variable, not a key")
        warnings.append(
            f"--{prefix}-provider env: root of this machine can read the key in the environment "
            "that the process was started with"
        )
    return KekSettings(
        prefix=prefix,
        provider=provider,
        file=file,
        variable=variable,
        passphrase_file=settings.path(f"{prefix}-passphrase-file"),
        kms_socket=socket,
    )

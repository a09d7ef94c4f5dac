"""Where the key-encryption key comes from: a file, the environment, a passphrase, a KMS plugin.

Owns: which provider is asked, how its secret is read, and naming the flag when it cannot be.
Never: takes a key or a passphrase from the command line; keeps one that can be read again.
Follows: docs/adr/0013-key-management.md, docs/operations/keys.md.
"""

import os
import stat
from getpass import getpass
from pathlib import Path
from typing import Final, final

from kvsecure.crypto.keyring import KekRecord, KekSource, KeyEncryptionKey, KeyringError
from kvsecure.crypto.passphrase import stretch, stretch_new
from kvsecure.model.secret import Secret
from kvsecure.pki.files import UnsafeFile, read_private
from kvsecure.server.config.model import KekProvider, KekSettings
from kvsecure.telemetry.log import log

__all__ = ["kek_source"]

_PASSPHRASE_BYTES_MAX: Final = 64 * 1024
_log: Final = log("keys")
_TERMINAL: Final = Path("/dev/tty")


def kek_source(settings: KekSettings, previous: KekSettings | None = None) -> KekSource:
    """Return the source that a configuration names; nothing is read before it is asked.

    Args:
        settings: Where the key comes from.
        previous: Where the one before came from, which may still wrap the keyring.
    """
    if previous is not None:
        return _Either(_source(settings), _source(previous))
    return _source(settings)


def _source(settings: KekSettings) -> KekSource:
    match settings.provider:
        case KekProvider.FILE:
            assert settings.file is not None  # noqa: S101 - the configuration has checked it
            return _KeyFile(settings.file, settings.prefix)
        case KekProvider.ENV:
            return _Variable(settings.variable, settings.prefix)
        case KekProvider.PASSPHRASE:
            return _Passphrase(settings.passphrase_file, settings.prefix)
        case KekProvider.KMS:
            # It costs a library of 15 MB that no other provider needs.
            from kvsecure.server.kms import KmsPlugin

            assert settings.kms_socket is not None  # noqa: S101 - the configuration has checked it
            return _Checked(KekProvider.KMS, KmsPlugin(settings.kms_socket))


@final
class _Either:
    """The key that there is now, or the one before as long as that wraps the keyring."""

    def __init__(self, now: KekSource, before: KekSource) -> None:
        self._now = now
        self._before = before

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Return the key that wraps the keyring; a new keyring is wrapped with the new one."""
        if stored is None:
            return self._now.key_for(None)
        try:
            key = self._now.key_for(stored)
        except KeyringError as error:
            why = error
        else:
            if key.key_id == stored.key_id:
                return key
            why = KeyringError("it is another key than the keyring's")
        try:
            key = self._before.key_for(stored)
        except KeyringError as error:
            raise KeyringError(f"neither key: {why}; the one before: {error}") from None
        _log.warning("the key-encryption key before is in use: run `kvsecure crypto rotate --kek`")
        return key


def _check_provider(stored: KekRecord | None, provider: KekProvider) -> None:
    if stored is not None and stored.provider != provider.value:
        raise KeyringError(
            f"the keyring was wrapped by a key-encryption key of provider {stored.provider}, and "
            f"this is {provider.value}: give the right --kek-provider"
        )


@final
class _KeyFile:
    """A key in a file, read each time anew."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Return the key in the file."""
        _check_provider(stored, KekProvider.FILE)
        flag = f"--{self._prefix}-file {self._path}"
        try:
            return KeyEncryptionKey.from_file_content(read_private(self._path))
        except OSError as error:
            raise KeyringError(f"{flag}: {error.strerror}") from None
        except (UnsafeFile, KeyringError) as error:
            raise KeyringError(f"{flag}: {error}") from None


@final
class _Variable:
    """A key in a variable of the environment, which is taken out of it at the first look."""

    def __init__(self, name: str, prefix: str) -> None:
        self._name = name
        self._prefix = prefix
        self._key: KeyEncryptionKey | None = None

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Return the key that the variable had."""
        _check_provider(stored, KekProvider.ENV)
        if self._key is None:
            flag = f"--{self._prefix}-env {self._name}"
            content = os.environ.pop(self._name, "")
            if not content:
                raise KeyringError(f"{flag}: the variable is not set")
            try:
                secret = Secret(os.fsencode(content))
                self._key = KeyEncryptionKey.from_file_content(secret, KekProvider.ENV.value)
            except KeyringError as error:
                raise KeyringError(f"{flag}: {error}") from None
        return self._key


@final
class _Passphrase:
    """A passphrase from a file, from a pipe, or from whoever sits at the terminal."""

    def __init__(self, path: Path | None, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        # What cannot be read a second time.
        self._heard: Secret | None = None

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Return the key that the passphrase gives."""
        _check_provider(stored, KekProvider.PASSPHRASE)
        passphrase = self._heard or self._read(is_new=stored is None)
        if stored is None:
            return stretch_new(passphrase)
        key = stretch(passphrase, stored.parameters)
        if key.key_id != stored.key_id:
            raise KeyringError("the passphrase is not the one that the keyring was wrapped with")
        return key

    def _read(self, *, is_new: bool) -> Secret:
        path = self._path
        if path is None:
            which = "key-encryption key" if self._prefix == "kek" else "key-encryption key before"
            self._heard = _asked(which, is_new=is_new)
            return self._heard
        flag = f"--{self._prefix}-passphrase-file {path}"
        try:
            if stat.S_ISREG(path.stat().st_mode):
                return _line(read_private(path))
            with path.open("rb") as stream:
                content = Secret(stream.read(_PASSPHRASE_BYTES_MAX + 1))
        except OSError as error:
            raise KeyringError(f"{flag}: {error.strerror}") from None
        except UnsafeFile as error:
            raise KeyringError(f"{flag}: {error}") from None
        if not 0 < len(content) <= _PASSPHRASE_BYTES_MAX:
            raise KeyringError(f"{flag}: it holds no passphrase")
        self._heard = _line(content)
        return self._heard


def _line(content: Secret) -> Secret:
    # An editor or `echo` ends a line; the line's end is not part of the passphrase.
    return Secret(content.reveal().removesuffix(b"\n").removesuffix(b"\r"))


def _asked(which: str, *, is_new: bool) -> Secret:
    try:
        with _TERMINAL.open("w", encoding="utf-8") as terminal:
            answer = getpass(f"Passphrase of the {which}: ", stream=terminal)
            if is_new and getpass("Once more: ", stream=terminal) != answer:
                raise KeyringError("the two passphrases are not the same")
    except (OSError, EOFError):
        raise KeyringError(
            "no terminal to ask for the passphrase on: give --kek-passphrase-file FILE, which may "
            "be /dev/fd/N"
        ) from None
    # A terminal may send bytes that are no text.
    return Secret(os.fsencode(answer))


@final
class _Checked:
    """A source that is asked only for what a key of its provider has wrapped."""

    def __init__(self, provider: KekProvider, source: KekSource) -> None:
        self._provider = provider
        self._source = source

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Return the key, if the keyring was wrapped with one of this provider."""
        _check_provider(stored, self._provider)
        return self._source.key_for(stored)

"""The TLS files of a client, read and checked, as the gRPC library takes them.

Owns: the reading of the files and a clear word about the one that does not fit.
Never: keeps a key longer than the library needs it.
"""

import ssl
from pathlib import Path
from typing import final

import grpc

from kvsecure.client.errors import SettingsError
from kvsecure.client.settings import Tls
from kvsecure.pki.files import UnsafeFile, read_private, read_public

__all__ = ["channel_credentials"]


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Read the files and return the credentials of a channel.

    Raises:
        SettingsError: A file cannot be read, holds something else, is too exposed, or certificate
            and key do not belong together; the text names the file.
    """
    _check(tls)
    authorities = _read(tls.ca_file)
    if not tls.certificate_file:
        return grpc.ssl_channel_credentials(root_certificates=authorities)
    try:
        key = read_private(Path(tls.key_file))
    except UnsafeFile as error:
        raise SettingsError(str(error)) from None
    except OSError as error:
        raise SettingsError(_unreadable(tls.key_file, error)) from None
    return grpc.ssl_channel_credentials(
        root_certificates=authorities,
        private_key=key.reveal(),
        certificate_chain=_read(tls.certificate_file),
    )


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return read_public(Path(path))
    except UnsafeFile as error:
        raise SettingsError(str(error)) from None
    except OSError as error:
        raise SettingsError(_unreadable(path, error)) from None


def _unreadable(path: str, error: OSError) -> str:
    return f"{path}: {error.strerror or 'cannot be read'}"


@final
class _EncryptedKeyError(Exception):
    """The key asks for a passphrase."""


def _no_passphrase() -> str:
    raise _EncryptedKeyError


def _check(tls: Tls) -> None:
    # The gRPC library takes anything and fails at the first handshake without naming a file.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file:
        try:
            context.load_verify_locations(tls.ca_file)
        except ssl.SSLError:
            raise SettingsError(f"{tls.ca_file}: holds no certificate in PEM form") from None
        except OSError as error:
            raise SettingsError(_unreadable(tls.ca_file, error)) from None
    if not tls.certificate_file:
        return
    for path in (tls.certificate_file, tls.key_file):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise SettingsError(_unreadable(path, error)) from None
    try:
        context.load_cert_chain(tls.certificate_file, tls.key_file, _no_passphrase)
    except _EncryptedKeyError:
        raise SettingsError(f"{tls.key_file}: keys with a passphrase are not supported") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"{tls.key_file} is not the key of the certificate in {tls.certificate_file}"
            ) from None
        raise SettingsError(
            f"{tls.certificate_file} and {tls.key_file}: not a certificate and its key in PEM form"
        ) from None

"""TLS files of a client: each mistake is named with its file."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import Authority

from kvsecure.client import SettingsError, Tls
from kvsecure.client.credentials import channel_credentials

__all__: list[str] = []


@pytest.fixture
def authority(certificates: Path) -> Authority:
    """An authority with files."""
    return Authority(certificates)


def test_good_files_give_credentials(authority: Authority) -> None:
    """Files that fit are taken."""
    pair = authority.client("web")

    assert channel_credentials(
        Tls(
            ca_file=str(authority.certificate),
            certificate_file=str(pair.certificate),
            key_file=str(pair.key),
        )
    )


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
def test_missing_file_is_named(authority: Authority, missing: str) -> None:
    """A file that is not there is named in the error."""
    pair = authority.client("web")
    files = {"ca": authority.certificate, "certificate": pair.certificate, "key": pair.key}
    files[missing].unlink()

    with pytest.raises(SettingsError, match=str(files[missing])):
        channel_credentials(
            Tls(
                ca_file=str(files["ca"]),
                certificate_file=str(files["certificate"]),
                key_file=str(files["key"]),
            )
        )


def test_foreign_key_is_refused(authority: Authority) -> None:
    """A key that belongs to another certificate is found out before the first handshake."""
    web, ops = authority.client("web"), authority.client("ops")

    with pytest.raises(SettingsError, match="not the key of the certificate"):
        channel_credentials(Tls(certificate_file=str(web.certificate), key_file=str(ops.key)))


def test_exposed_key_is_refused(authority: Authority) -> None:
    """A key that others can read is refused with the command that mends it."""
    pair = authority.client("web")
    pair.key.chmod(0o644)

    with pytest.raises(SettingsError, match="chmod 600"):
        channel_credentials(Tls(certificate_file=str(pair.certificate), key_file=str(pair.key)))


def test_authority_without_certificate_is_refused(certificates: Path) -> None:
    """A CA file with something else in it is named."""
    path = certificates / "empty.crt"
    path.write_text("nothing")

    with pytest.raises(SettingsError, match=r"empty\.crt: holds no certificate"):
        channel_credentials(Tls(ca_file=str(path)))


def test_key_with_passphrase_is_refused(authority: Authority) -> None:
    """An encrypted key is refused and never asks on the terminal."""
    pair = authority.client("web")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pass"),
        )
    )

    with pytest.raises(SettingsError, match="passphrase"):
        channel_credentials(Tls(certificate_file=str(pair.certificate), key_file=str(pair.key)))


def test_garbage_for_a_certificate_is_refused(authority: Authority) -> None:
    """A certificate file with something else in it is named."""
    pair = authority.client("web")
    pair.certificate.write_bytes(b"nothing")

    with pytest.raises(SettingsError, match="not a certificate and its key"):
        channel_credentials(Tls(certificate_file=str(pair.certificate), key_file=str(pair.key)))

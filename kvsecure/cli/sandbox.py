"""A complete secured server on this machine: everything that it needs, made once.

    $KVSECURE_HOME/pki           the authority, where `kvsecure pki issue` finds it
    $KVSECURE_HOME/dev/          server.crt/.key, root.crt/.key, ca.crt, kek, root-password, data/

Owns: what a sandbox consists of, and the context that leads to it.
Never: listens anywhere but on loopback, or replaces a key, password or certificate that still
    works.
"""

import contextlib
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

from kvsecure.cli.context import Context, ContextStore
from kvsecure.crypto.keyring import KeyEncryptionKey
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, AuthorityError, create_authority
from kvsecure.pki.certificates import CertificateError, certificate_pem, certificates_of
from kvsecure.pki.files import (
    Existing,
    UnsafeFile,
    ensure_directory,
    read_public,
    write_private,
    write_public,
)
from kvsecure.pki.inspection import inspect
from kvsecure.pki.profiles import ProfileName

__all__ = ["Sandbox", "free_port", "prepare"]

_CLUSTER: Final = "dev"
_RENEW_BEFORE: Final = timedelta(days=7)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox that is ready to be started."""

    directory: Path
    cluster: str
    port: int
    # Shown once, on the run that made it; it stays in `password_file`.
    new_password: Secret | None

    @property
    def password_file(self) -> Path:
        """Where the password of root is."""
        return self.directory / "root-password"

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    @property
    def kek_file(self) -> Path:
        """The server's key-encryption key."""
        return self.directory / "kek"

    @property
    def endpoint(self) -> str:
        """Where the server listens."""
        return f"127.0.0.1:{self.port}"

    def arguments(self, more: Sequence[str] = ()) -> list[str]:
        """Return the flags of the server."""
        place, url = self.directory, f"https://{self.endpoint}"
        return [
            f"--name={_CLUSTER}",
            f"--data-dir={self.data_dir}",
            f"--kek-file={self.kek_file}",
            f"--initial-root-password-file={self.password_file}",
            f"--cluster-name={self.cluster}",
            f"--cert-file={place / 'server.crt'}",
            f"--key-file={place / 'server.key'}",
            f"--trusted-ca-file={place / 'ca.crt'}",
            # Users may bring a certificate or log in by password.
            "--client-cert-mode=optional",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--log-format=console",
            "--log-level=warn",
            *more,
        ]

    def context(self) -> Context:
        """Return the context that leads here, as root."""
        place = self.directory
        return Context(
            endpoints=(self.endpoint,),
            cacert=str(place / "ca.crt"),
            cert=str(place / "root.crt"),
            key=str(place / "root.key"),
            user="root",
            data_dir=str(self.data_dir),
            kek_file=str(self.kek_file),
        )


def prepare(home: Path, port: int) -> Sandbox:
    """Make what is missing of the sandbox below a home directory, and its context.

    Args:
        home: Usually `$KVSECURE_HOME`.
        port: Where the server is to listen, on loopback.

    Raises:
        AuthorityError: The authority in `pki` cannot be used.
        OSError: A file cannot be written.
    """
    directory = home / "dev"
    ensure_directory(directory)
    authority = _authority(home / "pki")
    write_public(directory / "ca.crt", authority.trust_pem)
    _issue(authority, ProfileName.SERVER, "server", directory)
    _issue(authority, ProfileName.CLIENT, "root", directory)
    with contextlib.suppress(FileExistsError):
        write_private(directory / "kek", KeyEncryptionKey.new_file_content(), Existing.REFUSE)
    password: Secret | None = Secret.of_text(secrets.token_urlsafe(18))
    assert password is not None  # noqa: S101 - narrows the type
    try:
        write_private(directory / "root-password", password, Existing.REFUSE)
    except FileExistsError:
        password = None
    sandbox = Sandbox(
        directory=directory, cluster=authority.cluster, port=port, new_password=password
    )
    ContextStore(home).change(
        lambda contexts: contexts.with_context(_CLUSTER, sandbox.context()).using(_CLUSTER)
    )
    return sandbox


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _authority(directory: Path) -> Authority:
    if not (directory / "authority.json").exists():
        return create_authority(directory, _CLUSTER)
    authority = Authority.open(directory)
    if authority.cluster != _CLUSTER:
        # A certificate of its root would be good for the real cluster.
        raise AuthorityError(
            f"{directory} is the authority of cluster {authority.cluster}, and no sandbox is to "
            "have certificates of that: set KVSECURE_HOME to another directory"
        )
    return authority


def _issue(authority: Authority, profile: ProfileName, name: str, directory: Path) -> None:
    """Issue a certificate unless there is one that this authority signed and that lasts a while."""
    path = directory / f"{name}.crt"
    if _is_good(path, authority):
        return
    issued = authority.issue(profile, name)
    # The key first: a certificate without its key would be taken for good the next time.
    write_private(directory / f"{name}.key", issued.private_key)
    write_public(path, issued.certificate_pem + issued.chain_pem)


def _is_good(path: Path, authority: Authority) -> bool:
    soon = datetime.now(UTC) + _RENEW_BEFORE
    try:
        leaf = certificates_of(read_public(path))[0]
        # With its issuer behind it: another authority may have been made under the same name.
        finding = inspect(certificate_pem(leaf) + authority.trust_pem, soon)
    except (OSError, UnsafeFile, CertificateError):
        return False
    return not finding.refusals and path.with_suffix(".key").exists()

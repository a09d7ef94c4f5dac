"""A member's directory: everything that a member of a cluster needs, made once.

    kvsecure.yaml           its configuration; a directory that has one is complete
    ca.crt                  the cluster's authority
    server.crt, server.key  what clients see
    peer.crt, peer.key      what other members see
    kek                     what its data is sealed under
    data/                   its data
    authority/              the authority itself; of the first member alone,
    root.crt, root.key      as are the administrator's certificate
    root-password           and password

Owns: these names, what is in the configuration, and making what can be made here.
Never: changes anything in a directory that is complete; asks another machine.
"""

import contextlib
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import yaml

from kvsecure.crypto.keyring import KeyEncryptionKey
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.files import (
    Existing,
    ensure_directory,
    read_private,
    write_private,
    write_public,
)
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.requests import new_private_key

__all__ = ["Address", "MemberDirectory"]

_PREFACE: Final = (
    "# Made by `kvsecure cluster`; the server reads it at every start, and it may be changed.\n"
    "# What begins with initial- is for the first start alone.\n"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a member is reached.

    Attributes:
        hosts: Names and addresses, for its certificate; others are told the first one.
        client_port: Where clients come.
        peer_port: Where members come.
    """

    hosts: tuple[str, ...]
    client_port: int
    peer_port: int

    @property
    def client(self) -> str:
        """Where clients come, HOST:PORT."""
        return f"{_in_url(self.hosts[0])}:{self.client_port}"

    @property
    def client_url(self) -> str:
        """Where clients come."""
        return f"https://{self.client}"

    @property
    def peer_url(self) -> str:
        """Where other members come."""
        return f"https://{_in_url(self.hosts[0])}:{self.peer_port}"

    def listen_url(self, port: int) -> str:
        """Return where to listen: there, or on every address if it is a name."""
        host = self.hosts[0]
        return f"https://{_in_url(host) if _is_address(host) else '0.0.0.0'}:{port}"  # noqa: S104 - over TLS


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@final
class MemberDirectory:
    """A member's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def configuration(self) -> Path:
        """The configuration of the server."""
        return self.path / "kvsecure.yaml"

    @property
    def authority(self) -> Path:
        """The authority's directory."""
        return self.path / "authority"

    @property
    def trust(self) -> Path:
        """The certificates of the authority."""
        return self.path / "ca.crt"

    @property
    def root_password(self) -> Path:
        """The first password of root."""
        return self.path / "root-password"

    @property
    def kek(self) -> Path:
        """The key-encryption key."""
        return self.path / "kek"

    @property
    def is_complete(self) -> bool:
        """Whether a server can be started with it."""
        return self.configuration.exists()

    # --- making ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the directory, and the key that everything is sealed under.

        Raises:
            OSError: It cannot be written.
        """
        ensure_directory(self.path)
        with contextlib.suppress(FileExistsError):
            write_private(self.kek, KeyEncryptionKey.new_file_content(), Existing.REFUSE)

    def key(self, name: str) -> Secret:
        """Return a private key, a new one if there is none: `server` or `peer`.

        Raises:
            OSError: It cannot be read or written.
            UnsafeFile: Others can read it.
        """
        path = self.path / f"{name}.key"
        with contextlib.suppress(FileExistsError):
            write_private(path, new_private_key(), Existing.REFUSE)
        return read_private(path)

    def found(
        self, cluster: str, name: str, address: Address, password: Secret | None
    ) -> Authority:
        """Make an authority, certificates of the first member and of root, and root's password.

        Args:
            cluster: The trust domain; that of an authority that is here already counts.
            name: Of the member.
            address: Of the member.
            password: Of root; a random one if None, and if there is none yet.

        Raises:
            AuthorityError: The authority cannot be made or used.
            ProfileError: Its profiles cannot be.
            OSError: A file cannot be written.
        """
        if (self.authority / "authority.json").exists():
            authority = Authority.open(self.authority)
        else:
            authority = create_authority(self.authority, cluster)
        write_public(self.trust, authority.trust_pem)
        for profile, holder, file in (
            (ProfileName.SERVER, name, "server"),
            (ProfileName.PEER, name, "peer"),
            (ProfileName.CLIENT, "root", "root"),
        ):
            hosts = address.hosts if profile is ProfileName.SERVER else ()
            issued = authority.issue(profile, holder, hosts=hosts)
            write_private(self.path / f"{file}.key", issued.private_key)
            write_public(self.path / f"{file}.crt", issued.certificate_pem + issued.chain_pem)
        with contextlib.suppress(FileExistsError):
            made = password or Secret.of_text(secrets.token_urlsafe(18))
            write_private(self.root_password, made, Existing.REFUSE)
        return authority

    def write_certificate(self, name: str, content: bytes) -> None:
        """Write the certificate of a key that is here.

        Raises:
            OSError: It cannot be written.
        """
        write_public(self.path / f"{name}.crt", content)

    def complete(
        self,
        name: str,
        address: Address,
        members: Sequence[tuple[str, Sequence[str]]],
        *,
        cluster: str,
        token: str,
        more: Mapping[str, object],
    ) -> None:
        """Write the configuration; from now on the directory is as it is.

        Args:
            name: Of the member.
            address: Of the member.
            members: Peer URLs by name, this member included.
            cluster: The trust domain.
            token: `--initial-cluster-token`.
            more: What the first member has and the others have not, or the reverse.

        Raises:
            FileExistsError: There is one.
            OSError: It cannot be written.
        """
        place = self.path
        settings = {
            "name": name,
            "data-dir": str(place / "data"),
            "kek-file": str(self.kek),
            "cluster-name": cluster,
            "listen-client-urls": address.listen_url(address.client_port),
            "advertise-client-urls": address.client_url,
            "client-transport-security": self._tls("server"),
            # A certificate or a password: who joins has neither.
            "client-cert-mode": "optional",
            "listen-peer-urls": address.listen_url(address.peer_port),
            "initial-advertise-peer-urls": address.peer_url,
            "peer-transport-security": self._tls("peer"),
            "initial-cluster": ",".join(f"{each}={url}" for each, urls in members for url in urls),
            "initial-cluster-token": token,
            **more,
        }
        content = _PREFACE + yaml.safe_dump(settings, sort_keys=False)
        write_public(self.configuration, content.encode(), Existing.REFUSE)

    def _tls(self, name: str) -> dict[str, str]:
        return {
            "cert-file": str(self.path / f"{name}.crt"),
            "key-file": str(self.path / f"{name}.key"),
            "trusted-ca-file": str(self.trust),
        }

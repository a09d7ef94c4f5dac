"""Certificates for tests: one authority, certificates of servers and members, clients by name.

Owns: which certificates the servers under test are given, and where they lie.
Never: makes a certificate by itself; kvsecure.pki does, so that etcd and grpcio judge its work.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from kvsecure.pki.authority import Issued, create_authority
from kvsecure.pki.files import Existing, write_private, write_public
from kvsecure.pki.profiles import ProfileName

__all__ = ["CLUSTER", "Authority", "KeyPair"]

# What a server calls its cluster unless it is told otherwise.
CLUSTER: Final = "kvsecure"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, as the files a server or a client is given."""

    certificate: Path
    key: Path


@final
class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = create_authority(directory / "authority", CLUSTER)
        self.certificate = directory / "ca.crt"
        write_public(self.certificate, self._authority.trust_pem, Existing.REFUSE)

    def server(self) -> KeyPair:
        """Issue a certificate for a server on loopback."""
        return self._write("server", self._authority.issue(ProfileName.SERVER, "server"))

    def server_at(self, name: str, host: str) -> KeyPair:
        """Issue a certificate for a server at one address."""
        issued = self._authority.issue(ProfileName.SERVER, name, hosts=(host,))
        return self._write(f"server-{name}", issued)

    def peer(self, name: str) -> KeyPair:
        """Issue a certificate that names one member, to be shown to other members on loopback."""
        hosts = ("localhost", "127.0.0.1")
        issued = self._authority.issue(ProfileName.PEER, name, hosts=hosts)
        return self._write(f"peer-{name}", issued)

    def client(self, user: str, tenant: str = "default") -> KeyPair:
        """Issue a certificate that names one user of one tenant."""
        issued = self._authority.issue(ProfileName.CLIENT, user, tenant=tenant)
        return self._write(f"{tenant}-{user}", issued)

    def _write(self, stem: str, issued: Issued) -> KeyPair:
        pair = KeyPair(
            certificate=self._directory / f"{stem}.crt", key=self._directory / f"{stem}.key"
        )
        write_public(pair.certificate, issued.certificate_pem + issued.chain_pem, Existing.REPLACE)
        write_private(pair.key, issued.private_key, Existing.REPLACE)
        return pair

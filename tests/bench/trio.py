"""Three members of one contestant on this machine: TLS among them and to clients, auth on.

Owns: the command lines of the members, finding out who leads, and their end.
Never: differs between the contestants in certificates, timing or users.
Keeps: no process outlives the block that made it.
"""

import base64
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import grpc
from bench.contestants import PASSWORD, USER, Contestant, add_user
from bench.load import LoadError
from support.certificates import Authority
from support.processes import ServerProcess, free_ports
from support.rpc import Client
from support.servers import ROOT_PASSWORD, etcd_program

import kvsecure
from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2, maintenance_pb2

__all__ = ["Trio", "TrioMember", "three_members"]

_READY: Final = b"ready to serve client requests"
_SIZE: Final = 3
_DEADLINE_S: Final = 60.0
_POLL_S: Final = 0.02
# The same for both; they are the defaults of both.
_TIMING: Final = ("--heartbeat-interval=100", "--election-timeout=1000")
_QUOTA: Final = "--quota-backend-bytes=8589934592"


@final
class TrioMember:
    """One of the three."""

    def __init__(self, name: str, port: int, peer_port: int, authority: Path) -> None:
        self.name = name
        self.endpoint = f"127.0.0.1:{port}"
        self.url = f"https://{self.endpoint}"
        self.peer_url = f"https://127.0.0.1:{peer_port}"
        self.authority = authority
        self.process: ServerProcess

    def client(self, user: str = USER, password: str = PASSWORD) -> Client:
        """Return a client of this member alone that has logged in."""
        return Client(self.endpoint, self.authority).login(user, password)

    def root(self) -> Client:
        """Return a client of this member alone that may do everything."""
        return self.client("root", ROOT_PASSWORD)


@final
class Trio:
    """A cluster of three."""

    def __init__(self, contestant: Contestant, directory: Path) -> None:
        """Prepare the members; nothing runs yet.

        Args:
            contestant: etcd or kvsecure, both secured.
            directory: Where they keep their files, side by side.
        """
        self.contestant = contestant
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._authority = Authority(directory / "certificates")
        self._server_certificate = self._authority.server()
        ports = free_ports(2 * _SIZE)
        self.members = [
            TrioMember(
                f"m{number}", *ports[2 * number : 2 * number + 2], self._authority.certificate
            )
            for number in range(_SIZE)
        ]
        for member in self.members:
            own = directory / member.name
            own.mkdir(mode=0o700)
            member.process = ServerProcess(
                [*self._program(own), *self._flags(member, own)],
                log=own / "log",
                ready=_READY,
                environment={
                    "PATH": os.environ["PATH"],
                    "HOME": str(own),
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
                },
                deadline_s=_DEADLINE_S,
            )

    def start(self) -> None:
        """Start all of them, and make the users the first time."""
        for member in self.members:
            member.process.spawn()
        for member in self.members:
            member.process.wait_ready()
        if self.contestant is Contestant.ETCD:
            self._enable_auth()
        with self.members[0].root() as root:
            add_user(root)
        for member in self.members:
            self._wait_for_user(member)

    def leader(self, among: list[TrioMember] | None = None) -> TrioMember:
        """Return who leads, once that is known and it is one of these.

        Raises:
            LoadError: Nobody does for a long time.
        """
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            for member in among or self.members:
                with contextlib.suppress(grpc.RpcError), member.root() as root:
                    status = root.maintenance.Status(maintenance_pb2.StatusRequest())
                    if status.leader == status.header.member_id:
                        return member
            time.sleep(_POLL_S)
        raise LoadError("nobody leads")

    def others(self, member: TrioMember) -> list[TrioMember]:
        """Return the two besides one."""
        return [each for each in self.members if each is not member]

    def close(self) -> None:
        """Leave no process behind."""
        for member in self.members:
            member.process.close()

    def _enable_auth(self) -> None:
        with Client(self.members[0].endpoint, self._authority.certificate) as client:
            client.auth.UserAdd(auth_pb2.AuthUserAddRequest(name="root", password=ROOT_PASSWORD))
            client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name="root"))
            client.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            client.auth.AuthEnable(auth_pb2.AuthEnableRequest())

    def _wait_for_user(self, member: TrioMember) -> None:
        """Wait until a member that may be behind knows the user."""
        end = time.monotonic() + _DEADLINE_S
        while True:
            try:
                member.client().close()
            except grpc.RpcError as error:
                if time.monotonic() > end:
                    raise LoadError(f"{member.name} knows no user: {error}") from None
                time.sleep(_POLL_S)
            else:
                return

    def _program(self, own: Path) -> list[str]:
        if self.contestant is Contestant.ETCD:
            return [etcd_program("etcd"), "--bcrypt-cost=4"]
        write_private(own / "kek", base64.b64encode(secrets.token_bytes(32)))
        write_private(own / "root-password", ROOT_PASSWORD.encode())
        return [
            *(sys.executable, "-m", "kvsecure", "server"),
            f"--kek-file={own / 'kek'}",
            f"--initial-root-password-file={own / 'root-password'}",
            "--initial-policy=none",
            "--client-cert-mode=off",
        ]

    def _flags(self, member: TrioMember, own: Path) -> list[str]:
        server = self._server_certificate
        peer = self._authority.peer(member.name)
        flags = {
            "name": member.name,
            "data-dir": own / "state",
            "listen-client-urls": member.url,
            "advertise-client-urls": member.url,
            "cert-file": server.certificate,
            "key-file": server.key,
            "listen-peer-urls": member.peer_url,
            "initial-advertise-peer-urls": member.peer_url,
            "peer-cert-file": peer.certificate,
            "peer-key-file": peer.key,
            "peer-trusted-ca-file": self._authority.certificate,
            "initial-cluster": ",".join(f"{each.name}={each.peer_url}" for each in self.members),
        }
        line = [f"--{name}={value}" for name, value in flags.items()]
        return [*line, "--peer-client-cert-auth", _QUOTA, *_TIMING]


@contextlib.contextmanager
def three_members(contestant: Contestant, directory: Path) -> Iterator[Trio]:
    """Start three members with an empty store and a user who may read and write /app/."""
    trio = Trio(contestant, directory)
    try:
        trio.start()
        yield trio
    finally:
        trio.close()

"""Who is measured: etcd with TLS and auth, etcd with neither, and kvsecure.

Owns: how each is set up, so that each does the same work for the same user.
Never: turns anything off that kvsecure has on by default: audit and sealing are on.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, final

from support.rpc import Client
from support.servers import ROOT_PASSWORD, EtcdMember, KvsecureServer, Member

from kvsecure.proto import auth_pb2, authstore_pb2

__all__ = ["PASSWORD", "USER", "Contestant", "Server", "add_user", "serving"]

USER: Final = "app"
PASSWORD: Final = "measured-password-0815"
# A run of the benchmark writes more than the default quota of 2 GiB.
_QUOTA: Final = "--quota-backend-bytes=8589934592"


class Contestant(Enum):
    """A server, and how it is set up."""

    ETCD = "etcd, TLS and auth"
    PLAIN = "etcd, plaintext, no auth"
    KVSECURE = "kvsecure"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running contestant."""

    contestant: Contestant
    member: Member

    @property
    def is_open(self) -> bool:
        """Whether anybody may do anything, without a token."""
        return not self.member.auth

    def client(self) -> Client:
        """Return a client of the user that is measured."""
        if self.is_open:
            return self.member.anonymous()
        return self.member.client(USER, PASSWORD)

    def renew(self, client: Client, root: Client) -> None:
        """Give both clients new tokens; those of a long run end before it."""
        if not self.is_open:
            client.login(USER, PASSWORD)
            root.login("root", ROOT_PASSWORD)

    def root(self) -> Client:
        """Return a client that may do everything."""
        return self.member.anonymous() if self.is_open else self.member.client()


@contextlib.contextmanager
def serving(contestant: Contestant, directory: Path) -> Iterator[Server]:
    """Start a contestant with an empty store and a user who may read and write /app/.

    Args:
        contestant: Which.
        directory: Where it keeps its files; on the disk that is to be measured.
    """
    member: Member
    match contestant:
        case Contestant.ETCD:
            member = EtcdMember(directory, flags=(_QUOTA,))
        case Contestant.PLAIN:
            member = EtcdMember(directory, tls=False, auth=False, flags=(_QUOTA,))
        case Contestant.KVSECURE:
            member = KvsecureServer(directory, flags=(_QUOTA,))
    with member:
        server = Server(contestant=contestant, member=member)
        if not server.is_open:
            with server.root() as root:
                add_user(root)
        yield server


def add_user(root: Client) -> None:
    """Make the user that is measured, who may read and write /app/."""
    permission = authstore_pb2.Permission(
        permType=authstore_pb2.Permission.READWRITE, key=b"/app/", range_end=b"/app0"
    )
    root.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name=USER))
    root.auth.RoleGrantPermission(
        auth_pb2.AuthRoleGrantPermissionRequest(name=USER, perm=permission)
    )
    root.auth.UserAdd(auth_pb2.AuthUserAddRequest(name=USER, password=PASSWORD))
    root.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user=USER, role=USER))

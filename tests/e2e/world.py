"""A server with accounts, for tests that attack it from outside.

    Fortress               kvsecure with client certificates optional, and what tests do to it
      root()               a client with root's certificate
      certified(user)      a client with a certificate that names a user, of any tenant
      bearer(user)         a client that has logged in by password

Owns: making users, roles and tenants over the API, and the refusals that are expected often.
Never: reaches into the server; everything goes over stock grpcio or the command line.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import grpc
from support.rpc import Client, Refusal, refusal_of
from support.servers import KvsecureServer

import kvsecure
from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, tenant_pb2

__all__ = [
    "DENIED",
    "INVALID_TOKEN",
    "LOGIN_FAILED",
    "NOBODY",
    "PASSWORD",
    "READ",
    "READWRITE",
    "WRITE",
    "Fortress",
    "cli",
    "environment",
    "refused",
]

READ, WRITE, READWRITE = 0, 1, 2
PASSWORD: Final = "harbour-Maple-violet-8830"
DENIED: Final = Refusal("PERMISSION_DENIED", "etcdserver: permission denied")
NOBODY: Final = Refusal("INVALID_ARGUMENT", "etcdserver: user name is empty")
INVALID_TOKEN: Final = Refusal("UNAUTHENTICATED", "etcdserver: invalid auth token")
LOGIN_FAILED: Final = Refusal(
    "INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password"
)


def refused(call: Callable[[], Any]) -> Refusal | None:
    """Make a call; return how it was refused, or None if it was not."""
    try:
        call()
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command line that knows nothing of this machine's user."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "KVSECURE_HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
        **more,
    }


def cli(home: Path, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run one command of the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "kvsecure", *words],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=30,
        env=environment(home),
        cwd=home,
    )


@final
class Fortress:
    """A server that takes certificates and passwords."""

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        """Prepare a server; nothing runs yet.

        Args:
            directory: Everything of it is kept there.
            flags: Further flags of `kvsecure server`.
        """
        trusted = directory / "certificates" / "ca.crt"
        self.directory = directory
        self.server = KvsecureServer(
            directory,
            flags=("--client-cert-mode=optional", f"--trusted-ca-file={trusted}", *flags),
        )
        self._clients = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clients.close()
        self.server.close()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.server.data_directory

    @property
    def kek(self) -> Path:
        """The file of the key-encryption key."""
        return self.directory / "kek"

    # --- clients --------------------------------------------------------------------------------

    def stranger(self) -> Client:
        """Return a client without any identity."""
        return self._kept(self.server.anonymous())

    def root(self) -> Client:
        """Return a client with the certificate of root."""
        return self.certified("root")

    def certified(self, user: str, tenant: str = "default") -> Client:
        """Return a client with a certificate that names a user; each call makes a new one."""
        pair = self.server.authority.client(user, tenant)
        return self._kept(self.server.anonymous(pair))

    def bearer(self, user: str, password: str = PASSWORD) -> Client:
        """Return a client that has logged in by password, without a certificate."""
        return self._kept(self.server.anonymous().login(user, password))

    def _kept(self, client: Client) -> Client:
        self._clients.callback(client.close)
        return client

    # --- accounts -------------------------------------------------------------------------------

    def role(
        self,
        name: str,
        *permissions: tuple[int, bytes, bytes],
        client: Client | None = None,
    ) -> None:
        """Make a role with permissions, each a kind, a key and a range end."""
        auth = (client or self.root()).auth
        auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name=name))
        for kind, key, range_end in permissions:
            permission = authstore_pb2.Permission(permType=kind, key=key, range_end=range_end)  # type: ignore[arg-type]  # an enum is an int here
            request = auth_pb2.AuthRoleGrantPermissionRequest(name=name, perm=permission)
            auth.RoleGrantPermission(request)

    def user(
        self, name: str, *roles: str, password: str = PASSWORD, client: Client | None = None
    ) -> None:
        """Make a user with a password and roles."""
        auth = (client or self.root()).auth
        auth.UserAdd(auth_pb2.AuthUserAddRequest(name=name, password=password))
        for role in roles:
            auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user=name, role=role))

    def tenant(self, name: str, password: str = PASSWORD) -> Client:
        """Make a tenant; return a client with the certificate of its root."""
        request = tenant_pb2.TenantAddRequest(name=name, root_password=password)
        self.root().tenants.TenantAdd(request)
        return self.certified("root", name)

    def audit(self, client: Client, method: str) -> Any:
        """Return a method of the audit service: Head or Tail."""
        service = tenant_pb2.DESCRIPTOR.services_by_name["Audit"]
        return client.method(service, service.methods_by_name[method])

    def records(self, count: int = 10_000) -> list[dict[str, Any]]:
        """Return the newest records of the audit trail, oldest first."""
        answers = self.audit(self.root(), "Tail")(tenant_pb2.AuditTailRequest(count=count))
        return [json.loads(record) for answer in answers for record in answer.records]

    def requests(self, rpc: str) -> list[dict[str, Any]]:
        """Return the newest records that are of requests to one method."""
        return [each for each in self.records() if each.get("op", {}).get("rpc") == rpc]

    def put(self, client: Client, key: bytes, value: bytes, **fields: Any) -> int:
        """Put a key; return the revision."""
        answer = client.kv.Put(kv_pb2.PutRequest(key=key, value=value, **fields))
        return int(answer.header.revision)

    def value(self, client: Client, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none."""
        kvs = client.kv.Range(kv_pb2.RangeRequest(key=key)).kvs
        return bytes(kvs[0].value) if kvs else None

    # --- the command line -----------------------------------------------------------------------

    def restore_backup(self) -> None:
        """Save a backup, restore it elsewhere, and go on with what was restored."""
        saved, restored = self.directory / "saved", self.directory / "restored"
        assert self.cli("snapshot", "save", str(saved)).returncode == 0
        words = (str(saved), f"--kek-file={self.kek}", f"--data-dir={restored}")
        done = self.cli("snapshot", "restore", *words)
        assert done.returncode == 0, done.stderr
        self.server.stop()
        self.data.rename(self.directory / "before")
        restored.rename(self.data)
        self.server.restart()

    def cli(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a command as root, by certificate."""
        home = self.directory / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        pair = self.server.authority.client("root")
        return cli(
            home,
            f"--endpoint={self.server.endpoint}",
            f"--cacert={self.server.authority.certificate}",
            f"--cert={pair.certificate}",
            f"--key={pair.key}",
            *words,
            stdin=stdin,
        )

    def verify(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        """Run `kvsecure audit verify` on the data directory."""
        return self.cli(
            "audit", "verify", f"--data-dir={self.data}", f"--kek-file={self.kek}", *words
        )

    def password_file(self, password: str) -> Path:
        """Return a private file with a password."""
        path = self.directory / "password"
        write_private(path, password.encode())
        return path

    # --- what is lying around -------------------------------------------------------------------

    def leftovers(self) -> Iterator[tuple[str, bytes]]:
        """Yield everything that the server has left on the disk, by name."""
        for path in sorted(self.data.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(self.data)), path.read_bytes()
        yield "log", self.server.log.read_bytes()

"""A cluster of real member processes, for tests that kill, stop, wipe, add and remove them.

    Place                where a member is: its address, its ports, what its command begins with
    RealMember           one process: start, kill9, pause, resume, stop, wipe
    RealCluster          several of them, TLS for clients and for each other, and a client for each
      leader()           whom all that run agree on
      assert_alike()     all that run have the same keys, versions and revisions

Owns: certificates, command lines, data directories, and who runs.
Never: reaches into a member; everything goes over stock grpcio or by a signal.
Keeps: each member has a keyring of its own; no process outlives its cluster.
"""

import base64
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar, final

import grpc
from support.certificates import Authority, KeyPair
from support.processes import ServerProcess, free_ports, wait_until
from support.rpc import Client
from support.servers import ROOT_PASSWORD

import kvsecure
from kvsecure.pki.files import write_private
from kvsecure.proto import kv_pb2, maintenance_pb2, tenant_pb2

__all__ = ["DEADLINE_S", "Place", "RealCluster", "RealMember", "eventually", "places_on_loopback"]

DEADLINE_S: Final = 30.0
_READY: Final = b"ready to serve client requests"
_ASK_S: Final = 2.0
# What a call fails with while a member or a leader is lost; asking again is all there is to do.
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        # A member whose disk is full finds out by itself when there is room again.
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)

_Answer = TypeVar("_Answer")


def eventually(call: Callable[[], _Answer], *, deadline_s: float = DEADLINE_S) -> _Answer:
    """Make a call that may be repeated until it is answered; errors that do not pass are raised.

    Raises:
        TimeoutError: It was not answered in time.
    """
    answers: list[_Answer] = []
    errors: list[str] = []

    def ask() -> bool:
        try:
            answers.append(call())
        except grpc.RpcError as error:
            if error.code() not in _PASSING:
                raise
            errors[:] = [str(error.details())]
            return False
        return True

    try:
        wait_until(ask, deadline_s=deadline_s, what="an answer")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {errors}") from None
    return answers[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a member is."""

    host: str
    client_port: int
    peer_port: int
    # What its command line begins with, for a network of its own.
    prefix: tuple[str, ...] = ()

    @property
    def endpoint(self) -> str:
        """Host and port for clients."""
        return f"{self.host}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where other members connect."""
        return f"https://{self.host}:{self.peer_port}"


def places_on_loopback(count: int) -> list[Place]:
    """Return places on this machine that were free a moment ago."""
    ports = free_ports(2 * count)
    return [
        Place(host="127.0.0.1", client_port=client, peer_port=peer)
        for client, peer in zip(ports[::2], ports[1::2], strict=True)
    ]


@final
class RealMember:
    """One member: a process, its files, and where it is."""

    def __init__(
        self,
        name: str,
        place: Place,
        directory: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        """Prepare a member; nothing runs yet.

        Args:
            name: Its `--name`.
            place: Where it listens.
            directory: Everything of it is kept there.
            command: Its program and all flags.
            environment: Further variables.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = name
        self.place = place
        self.directory = directory
        self.data_directory = directory / "state"
        # Not on the disk that a test may fill.
        self.log = directory.parent / f"{name}.log"
        self.is_paused = False
        self._command = command
        self._environment = environment
        self.process = self._process()

    @property
    def is_running(self) -> bool:
        """Whether its process was started and has not ended."""
        return self.process.is_running

    @property
    def answers(self) -> bool:
        """Whether it could answer."""
        return self.is_running and not self.is_paused

    def redirect(self, command: Sequence[str]) -> None:
        """Have it started with other flags from now on; it must not run."""
        self.process.close()
        self._command = command
        self.process = self._process()

    def surround(self, environment: Mapping[str, str]) -> None:
        """Have it started with other further variables from now on; it must not run."""
        self.process.close()
        self._environment = environment
        self.process = self._process()

    def _process(self) -> ServerProcess:
        return ServerProcess(
            [*self.place.prefix, *self._command],
            log=self.log,
            ready=_READY,
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
                **self._environment,
            },
            deadline_s=60.0,
        )

    def kill9(self) -> None:
        """Kill it and all that it started, at once."""
        self.process.kill9_all()
        self.is_paused = False

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP)."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.killpg(self.process.pid, signal.SIGCONT)
        self.is_paused = False

    def wipe(self) -> None:
        """Lose the data directory; the keyring goes with it."""
        shutil.rmtree(self.data_directory)


class RealCluster:
    """Several members, and a client for each of them."""

    def __init__(
        self,
        directory: Path,
        places: Sequence[Place],
        flags: Sequence[str] = (),
        *,
        discovery: Sequence[str] = (),
        environments: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        """Prepare a cluster; nothing runs yet.

        Args:
            directory: Empty; everything of the cluster is kept in it.
            places: Where the founders are; they are called m1, m2 and so on.
            flags: Further flags of every member.
            discovery: The flags by which founders find each other; without any, they are told.
            environments: Further variables, by the names of members.
        """
        self.directory = directory
        self._discovery = tuple(discovery)
        self.authority = Authority(directory / "certificates")
        self._flags = tuple(flags)
        self._password = directory / "root-password"
        write_private(self._password, self.password.encode())
        self._members: dict[str, RealMember] = {}
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()
        self._token = ""
        # Members whose time of day is another; they are asked with tokens of their own.
        self._apart: dict[str, str] = {}
        self._environments = environments
        founders = {f"m{number}": place for number, place in enumerate(places, 1)}
        for name, place in founders.items():
            self._make(name, place, founders, "new")

    # --- for etcdctl ----------------------------------------------------------------------------

    tls = True
    client_certificates = False
    password = ROOT_PASSWORD

    @property
    def url(self) -> str:
        """The endpoints of all members, as etcdctl takes them."""
        return ",".join(f"https://{each.place.endpoint}" for each in self.members)

    # --- members --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            client.close()
        for member in self._members.values():
            member.process.close()

    def __getitem__(self, name: str) -> RealMember:
        return self._members[name]

    @property
    def members(self) -> list[RealMember]:
        """All that there are."""
        return list(self._members.values())

    @property
    def answering(self) -> list[RealMember]:
        """All that could answer."""
        return [member for member in self.members if member.answers]

    def start(self) -> None:
        """Start all that do not run, and wait until they serve."""
        starting = [member for member in self.members if not member.is_running]
        for member in starting:
            member.process.spawn()
        for member in starting:
            member.process.wait_ready()

    def mend(self) -> None:
        """Have all members run, and one of them lead."""
        for member in self.members:
            if member.is_paused:
                member.resume()
        self.start()
        self.leader()

    def make_newcomer(self, name: str, place: Place) -> RealMember:
        """Prepare a member that joins; it has to have been added."""
        there = {member.name: member.place for member in self.members} | {name: place}
        return self._make(name, place, there, "existing")

    def rejoin(self, name: str) -> None:
        """Have a member that was wiped start as one that joins."""
        there = {member.name: member.place for member in self.members}
        member = self[name]
        member.redirect(self._line(name, member.place, there, "existing"))

    def line_of(self, name: str) -> list[str]:
        """Return the flags of a member, as one that founds or finds what it has."""
        there = {member.name: member.place for member in self.members}
        return self._line(name, self[name].place, there, "new")

    def forget(self, name: str) -> None:
        """Let a member be one no more."""
        self._members.pop(name).process.close()
        with self._lock:
            client = self._clients.pop(name, None)
        if client is not None:
            client.close()

    def _make(self, name: str, place: Place, there: dict[str, Place], state: str) -> RealMember:
        line = self._line(name, place, there, state)
        member = RealMember(
            name, place, self.directory / name, line, self._environments.get(name, {})
        )
        self._members[name] = member
        return member

    def _line(self, name: str, place: Place, there: dict[str, Place], state: str) -> list[str]:
        own = self.directory / name
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        kek = own / "kek"
        if not kek.exists():
            write_private(kek, base64.b64encode(secrets.token_bytes(32)))
        serving, peer = self._issue(name, place)
        flags = {
            "name": name,
            "data-dir": own / "state",
            "kek-file": kek,
            "initial-root-password-file": self._password,
            "initial-policy": "none",
            "listen-client-urls": f"https://{place.endpoint}",
            "advertise-client-urls": f"https://{place.endpoint}",
            "cert-file": serving.certificate,
            "key-file": serving.key,
            "trusted-ca-file": self.authority.certificate,
            "client-cert-mode": "optional",
            "listen-peer-urls": place.peer_url,
            "initial-advertise-peer-urls": place.peer_url,
            "peer-cert-file": peer.certificate,
            "peer-key-file": peer.key,
            "peer-trusted-ca-file": self.authority.certificate,
            "initial-cluster-state": state,
        }
        members = ",".join(f"{each}={at.peer_url}" for each, at in there.items())
        found = self._discovery if state == "new" else ()
        return [
            *(sys.executable, "-m", "kvsecure", "server"),
            *(f"--{flag}={value}" for flag, value in flags.items()),
            *(found or (f"--initial-cluster={members}",)),
            *self._flags,
        ]

    def _issue(self, name: str, place: Place) -> tuple[KeyPair, KeyPair]:
        return self.authority.server_at(name, place.host), self.authority.peer(name)

    def renew_certificates(self, name: str) -> None:
        """Replace a member's certificates and keys, in the files that it was given."""
        self._issue(name, self[name].place)

    # --- clients --------------------------------------------------------------------------------

    def stranger(self, name: str) -> Client:
        """Return a new client of a member, without a token; whoever asks for it closes it."""
        return Client(self[name].place.endpoint, self.authority.certificate)

    def client(self, name: str) -> Client:
        """Return a member's client, with root's token; it is kept, and reconnects by itself."""
        with self._lock:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = self.stranger(name)
            token = self._apart.get(name, self._token)
        # Nobody else has to wait for a member that does not answer.
        if not token:
            self.log_in(name)
        else:
            client.use_token(token)
        return client

    def forget_token(self) -> None:
        """Have whoever asks next log in."""
        with self._lock:
            self._token = ""
            self._apart = dict.fromkeys(self._apart, "")

    def set_apart(self, name: str, *, is_apart: bool) -> None:
        """Take note of whether a member's time of day is another, and have all log in again."""
        with self._lock:
            self._apart.pop(name, None)
            if is_apart:
                self._apart[name] = ""
        self.forget_token()

    def log_in(self, name: str) -> None:
        """Have clients use a new token, which this member has signed.

        They are those of all members whose time is the same.
        """
        with self.stranger(name) as client:
            token = eventually(lambda: client.login("root", self.password)).token
        with self._lock:
            if name in self._apart:
                self._apart[name] = token
                if name in self._clients:
                    self._clients[name].use_token(token)
                return
            self._token = token
            for at, each in self._clients.items():
                if at not in self._apart:
                    each.use_token(token)

    @property
    def token(self) -> str:
        """Root's token, from whichever member was asked first."""
        self.client(self.answering[0].name)
        return self._token

    def put(self, name: str, key: bytes, value: bytes, **fields: Any) -> int:
        """Put a key at a member; return the revision."""
        request = kv_pb2.PutRequest(key=key, value=value, **fields)
        return int(self.client(name).kv.Put(request).header.revision)

    def value(self, name: str, key: bytes) -> bytes | None:
        """Read a key at a member, linearizably."""
        kvs = self.client(name).kv.Range(kv_pb2.RangeRequest(key=key)).kvs
        return bytes(kvs[0].value) if kvs else None

    def status(self, name: str, timeout_s: float = _ASK_S) -> Any:
        """Return the status of a member."""
        request = maintenance_pb2.StatusRequest()
        return self.client(name).maintenance.Status(request, timeout=timeout_s)

    # --- what is true of all --------------------------------------------------------------------

    def leader(self, *, but: Iterable[str] = (), deadline_s: float = DEADLINE_S) -> RealMember:
        """Wait until all that could answer agree on who leads, and it is one of them.

        Args:
            but: Names of members that are not meant.
            deadline_s: Seconds to wait.

        Raises:
            TimeoutError: They did not.
        """
        others = frozenset(but)
        found: list[RealMember] = []

        def agreed() -> bool:
            found[:] = []
            told = {}
            for member in self.answering:
                status = self._told_by(member)
                if status is not None:
                    told[status.header.member_id] = (member, status.leader, status.raftTerm)
            if len(told) < len(self.answering) or len({each[1:] for each in told.values()}) != 1:
                return False
            ((_, leader, _), *_) = told.values()
            if leader in told and told[leader][0].name not in others:
                found.append(told[leader][0])
            return bool(found)

        wait_until(agreed, deadline_s=deadline_s, what="a leader")
        return found[0]

    def _told_by(self, member: RealMember) -> Any | None:
        """Return what a member says of itself, unless it does not answer."""
        try:
            return self.status(member.name)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                # A token ends with the membership of whoever has signed it.
                self.log_in(member.name)
            return None

    def followers(self) -> list[RealMember]:
        """Return who could answer and does not lead."""
        leader = self.leader()
        return [member for member in self.answering if member is not leader]

    def member_id(self, name: str) -> int:
        """Return the id of a member that answers."""
        return int(eventually(lambda: self.status(name)).header.member_id)

    def assert_alike(self) -> None:
        """Find the same history of all keys at all members that could answer, and no trail cut.

        Raises:
            AssertionError: They differ, or a member's trail lacks what it has told of it.
            TimeoutError: One does not catch up.
        """
        names = [member.name for member in self.answering]
        read = kv_pb2.RangeRequest(key=b"\0")
        revision = max(
            int(eventually(lambda at=name: self.client(at).kv.Range(read)).header.revision)
            for name in names
        )
        local = kv_pb2.RangeRequest(key=b"\0", serializable=True)
        for name in names:
            wait_until(
                lambda at=name: self.client(at).kv.Range(local).header.revision >= revision,
                deadline_s=DEADLINE_S,
                what=f"revision {revision} at {name}",
            )
        request = maintenance_pb2.HashKVRequest(revision=revision)
        with ThreadPoolExecutor(len(names)) as threads:
            hashed = threads.map(
                lambda at: eventually(lambda: self.client(at).maintenance.HashKV(request)), names
            )
            hashes = dict(zip(names, hashed, strict=True))
        told = {name: (each.hash, each.compact_revision) for name, each in hashes.items()}
        assert len(set(told.values())) == 1, f"at revision {revision}: {told}"
        for name in names:
            heads = self.heads(name)
            assert not any(head.is_missing for head in heads.values()), heads

    def heads(self, name: str) -> dict[str, tenant_pb2.AuditToldHead]:
        """Return what a member has heard of each one's audit trail, by name."""
        audit = self.client(name).audit
        answer = eventually(lambda: audit.Heads(tenant_pb2.AuditHeadsRequest()))
        return {head.name: head for head in answer.heads}

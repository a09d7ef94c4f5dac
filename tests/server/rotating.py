"""A member whose certificates, authorities and revocation lists are exchanged while it serves.

Owns: the files that the member reads, the authorities behind them, and clients that never stop.
Never: signals the member, unless a test does; it has to notice by itself.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import grpc
from support.certificates import CLUSTER, KeyPair
from support.processes import wait_until
from support.rpc import Client
from support.servers import KvsecureServer
from wire.socket_peer import client_tls

from kvsecure.pki.authority import Authority, Issued, create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.revoking import revocation_list, revoke
from kvsecure.proto import kv_pb2, tenant_pb2, watch_pb2

__all__ = ["CUT_S", "Busy", "Idle", "Rotating", "Slow", "Watching"]

# A second, and as much again for a machine that has other things to do.
CUT_S: Final = 2.0
_PACE_S: Final = 0.01
_NOTICE_S: Final = 20.0
_CLOSED: Final = "closed without a word"


@final
class Busy:
    """A client that reads and writes a hundred times a second, and counts what fails."""

    def __init__(self, client: Client, key: bytes) -> None:
        self._client = client
        self._key = key
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.failures: list[str] = []
        # When the first call failed, monotonic.
        self.failed_at = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.done > 10, deadline_s=10, what="the first answers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def more(self, count: int) -> None:
        """Wait for so many more answers.

        Raises:
            TimeoutError: They did not come.
        """
        enough = self.done + count
        wait_until(lambda: self.done >= enough, deadline_s=10, what=f"{self.failures} and answers")

    def wait_failure(self, since: float) -> float:
        """Wait for a call to fail; return how long that took since a moment.

        Raises:
            TimeoutError: All of them go well.
        """
        wait_until(lambda: self.failures, deadline_s=CUT_S, what="a call to fail")
        return self.failed_at - since

    def _run(self) -> None:
        while not self._stopped.wait(_PACE_S):
            try:
                if self.done % 2:
                    self._client.kv.Put(kv_pb2.PutRequest(key=self._key, value=b"v"), timeout=5)
                else:
                    self._client.kv.Range(kv_pb2.RangeRequest(key=self._key), timeout=5)
                self.done += 1
            except grpc.RpcError as error:
                self.failed_at = self.failed_at or time.monotonic()
                self.failures.append(f"{error.code().name}: {error.details()}")


@final
class Watching:
    """A watch that is read until it ends."""

    def __init__(self, client: Client, key: bytes) -> None:
        self._requests = threading.Event()
        self._create = watch_pb2.WatchCreateRequest(key=key)
        self._stream = client.watch.Watch(self._asks())
        self.events = 0
        self.ended = ""
        self.ended_at = 0.0
        assert next(self._stream).created
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_end(self, since: float) -> float:
        """Wait for the stream to end; return how long that took since a moment.

        Raises:
            TimeoutError: It goes on.
        """
        wait_until(lambda: self.ended, deadline_s=CUT_S, what="the watch to end")
        return self.ended_at - since

    def close(self) -> None:
        """Hang up."""
        self._requests.set()
        self._stream.cancel()
        self._thread.join()

    def _asks(self) -> Iterator[watch_pb2.WatchRequest]:
        yield watch_pb2.WatchRequest(create_request=self._create)
        self._requests.wait()

    def _read(self) -> None:
        try:
            for answer in self._stream:
                self.events += len(answer.events)
            self.ended = "over"
        except grpc.RpcError as error:
            self.ended = error.code().name
        self.ended_at = time.monotonic()
        self._requests.set()


@final
class Idle:
    """A connection that says nothing."""

    def __init__(self, rotating: "Rotating", pair: KeyPair, port: int) -> None:
        """Connect, and see to it that the handshake is over on both sides."""
        context = client_tls(rotating.known, pair, alpn=("http/1.1",))
        plain = socket.create_connection(("127.0.0.1", port), 10)
        self._sock = context.wrap_socket(plain, server_hostname="localhost")
        self._sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert self._sock.recv(4_096)

    def is_cut(self) -> bool:
        """Wait for the end; tell whether it came in time. The connection is closed then."""
        self._sock.settimeout(CUT_S)
        with self._sock:
            try:
                while self._sock.recv(4_096):
                    pass
            except TimeoutError:
                return False
            except OSError:
                return True
        return True


@final
class Slow:
    """A client that stops in the middle of its handshake."""

    def __init__(self, rotating: "Rotating", pair: KeyPair) -> None:
        """Begin, and take in what the server says."""
        context = client_tls(rotating.known, pair, alpn=("http/1.1",))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._sock = socket.create_connection(("127.0.0.1", rotating.member.port), 10)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._out.read())
                self._in.write(self._sock.recv(65_536))
            else:
                return

    def told(self, content: bytes) -> str:
        """Show the certificate and send something; return why TLS ends, then hang up.

        Raises:
            ConnectionError: It does not end in good order.
        """
        self._tls.write(content)
        with self._sock:
            self._sock.sendall(self._out.read())
            while piece := self._sock.recv(65_536):
                self._in.write(piece)
        try:
            self._tls.read(1)
        except ssl.SSLError as error:
            return error.reason or "no reason"
        return ""

    def finish(self) -> bytes:
        """Show the certificate and ask for something; return all that comes back, then hang up."""
        self._tls.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        found = b""
        with self._sock, contextlib.suppress(ConnectionError):
            self._sock.sendall(self._out.read())
            while piece := self._sock.recv(65_536):
                found += piece
        return found


@final
class Rotating:
    """A member that demands certificates, with files that a test replaces."""

    def __init__(
        self,
        directory: Path,
        *,
        lists: timedelta | None = timedelta(days=1),
        flags: tuple[str, ...] = (),
    ) -> None:
        """Prepare it; `lists` is how long its first revocation list lasts, None for none."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._count = 0
        self.first = create_authority(directory / "first", CLUSTER)
        self.trusted = directory / "trusted.crt"
        self.crl = directory / "clients.crl"
        # What clients trust is not under test.
        self.known = directory / "known.crt"
        self.trust(self.first)
        write_public(self.known, self.first.trust_pem)
        own = [f"--trusted-ca-file={self.trusted}", "--client-cert-mode=required"]
        if lists is not None:
            self.publish(lists, self.first)
            own.append(f"--client-crl-file={self.crl}")
        self.cert, self.key = directory / "shown.crt", directory / "shown.key"
        self.show(self.first)
        own += [f"--cert-file={self.cert}", f"--key-file={self.key}"]
        self.member = KvsecureServer(directory / "member", flags=(*own, *flags))

    def __enter__(self) -> Self:
        self.member.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.member.close()

    # --- files ----------------------------------------------------------------------------------

    def trust(self, *authorities: Authority) -> None:
        """Replace the trusted authorities."""
        write_public(self.trusted, b"".join(each.trust_pem for each in authorities))

    def publish(self, ttl: timedelta, *authorities: Authority) -> None:
        """Replace the revocation lists."""
        write_public(self.crl, b"".join(revocation_list(each, ttl) for each in authorities))

    def show(self, authority: Authority) -> int:
        """Replace the certificate and the key of the server; return the serial."""
        issued = authority.issue(ProfileName.SERVER, "shown")
        write_public(self.cert, issued.certificate_pem + issued.chain_pem)
        write_private(self.key, issued.private_key)
        return issued.serial

    def second(self) -> Authority:
        """Make another authority of the cluster, which clients know already."""
        made = create_authority(self.directory / "second", CLUSTER)
        write_public(self.known, self.first.trust_pem + made.trust_pem)
        return made

    def pair(self, issued: Issued) -> KeyPair:
        """Write a client's certificate and key."""
        self._count += 1
        stem = self.directory / f"client-{self._count}"
        pair = KeyPair(certificate=stem.with_suffix(".crt"), key=stem.with_suffix(".key"))
        write_public(pair.certificate, issued.certificate_pem + issued.chain_pem)
        write_private(pair.key, issued.private_key)
        return pair

    def root(
        self, authority: Authority | None = None, ttl: timedelta | None = None
    ) -> tuple[KeyPair, int]:
        """Issue another certificate for root; return it with its serial."""
        issued = (authority or self.first).issue(ProfileName.CLIENT, "root", ttl=ttl)
        return self.pair(issued), issued.serial

    def revoke(self, serial: int) -> None:
        """Revoke a certificate of the first authority."""
        assert revoke(self.first, f"{serial:040x}")

    # --- the member -----------------------------------------------------------------------------

    def client(self, pair: KeyPair) -> Client:
        """Return a stock client."""
        return Client(self.member.endpoint, self.known, pair)

    def shown(self, pair: KeyPair, port: int = 0) -> int:
        """Return the serial of the certificate that a new handshake gets to see."""
        context = client_tls(self.known, pair)
        address = ("127.0.0.1", port or self.member.port)
        with (
            socket.create_connection(address, 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            certificate = sock.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)

    def refusal(self, pair: KeyPair, port: int = 0) -> str:
        """Return what TLS tells a new connection, or nothing if it is let in."""
        context = client_tls(self.known, pair, alpn=("http/1.1",))
        with socket.create_connection(("127.0.0.1", port or self.member.port), 10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as sock:
                    sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = sock.recv(4_096)
            except ssl.SSLError as error:
                return error.reason or "no reason"
            except ConnectionError:
                return _CLOSED
        if not answer:
            # It had shaken hands when things changed.
            return _CLOSED
        assert answer.startswith(b"HTTP/1.1 ")
        return ""

    def wait_log(self, words: str, count: int = 1) -> None:
        """Wait for the member to say something so many times.

        Raises:
            TimeoutError: It did not.
        """
        wait_until(
            lambda: self.member.process.log().count(words.encode()) >= count,
            deadline_s=_NOTICE_S,
            what=f"{words!r} in the log",
        )

    def records(self, client: Client, stage: str) -> list[dict[str, Any]]:
        """Return the newest audit records of a stage."""
        service = tenant_pb2.DESCRIPTOR.services_by_name["Audit"]
        tail = client.method(service, service.methods_by_name["Tail"])
        answers = tail(tenant_pb2.AuditTailRequest(count=1_000), timeout=20)
        found = [json.loads(record) for answer in answers for record in answer.records]
        return [record for record in found if record["stage"] == stage]

    def metric(self, pair: KeyPair, name: str) -> float:
        """Return a number of `/metrics`; 0 if it is not there."""
        context = client_tls(self.known, pair, alpn=("http/1.1",))
        page = b""
        with (
            socket.create_connection(("127.0.0.1", self.member.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ssl.SSLEOFError):
                while piece := sock.recv(65_536):
                    page += piece
        lines = [line for line in page.decode().splitlines() if line.startswith(name)]
        return float(lines[0].split()[-1]) if lines else 0.0

"""Listeners: sockets, TLS, and which protocol a connection speaks.

Owns: accepting, handshakes with a deadline, the peer's identity, and backpressure on a socket.
Never: decides what a peer may do.
Follows: RFC 7301 (ALPN); RFC 9113 section 3.3; docs/adr/0003-own-http2-server.md.
Keeps: one TLS policy object for every listener; nothing is read from a connection before its
    handshake is over; a failed handshake is counted and recorded, and the peer is told why; a
    certificate is checked by the handshake that shows it, so a resumed session (TLS 1.2) never
    carries one in; a connection does not outlive its certificate's standing.
"""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, cast, final

from kvsecure.model.limits import (
    CONNECTIONS_MAX,
    TLS_HANDSHAKE_S_MAX,
    UNREAD_BYTES_MAX,
    UNSENT_BYTES_MAX,
    UNSENT_BYTES_MAX_CROWDED,
)
from kvsecure.pki.certificates import CertificateError
from kvsecure.pki.handshake import Alert
from kvsecure.pki.standing import Link, Standing, Verdict
from kvsecure.security.session import CertificateUser, Peer
from kvsecure.server.credentials import Credentials
from kvsecure.server.http1 import Http1Session, Line
from kvsecure.server.http2 import Http2Session, Shared
from kvsecure.telemetry.log import log

__all__ = ["Accepting", "Listener", "ListenerStatistics"]

_PREFACE_START: Final = b"PRI "
_BACKLOG: Final = 1024
_ACCEPT_PAUSE_S: Final = 0.1
_WRITE_BUFFER_BYTES_HIGH: Final = 1024 * 1024
# A silent connection is asked after so long whether it is there, and then so often.
_KEEPALIVE_IDLE_S: Final = 60
_KEEPALIVE_INTERVAL_S: Final = 15
# A client speaks first, and at once; it need not know a secret to hold a connection.
_FIRST_WORDS_S_MAX: Final = 10
# How long, and for how much, a peer is listened to that was told why its handshake failed: what it
# has sent and nobody read would make the kernel take the words back.
_FAREWELL_S_MAX: Final = 1.0
_FAREWELL_READ_BYTES_MAX: Final = 256 * 1024
_READ_BYTES: Final = 64 * 1024

_log = log("listener")


@final
class ListenerStatistics:
    """Plain counts for whoever shows them."""

    __slots__ = ("handshake_failures", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.handshake_failures = 0
        self.received_bytes = 0
        self.sent_bytes = 0


class _IdentityReader(Protocol):
    """Reads whom a client certificate names."""

    def __call__(self, certificate: bytes) -> CertificateUser | None:
        """Return the user that a certificate (DER) names, or None if it names nobody here."""
        ...


@final
class Accepting:
    """What all listeners of a server share."""

    def __init__(
        self,
        *,
        shared: Shared,
        statistics: ListenerStatistics,
        read_identity: _IdentityReader,
        fingerprint: Callable[[bytes], bytes],
        on_handshake_failure: Callable[[str, int, str], None],
        on_cut: Callable[[Peer, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        credentials: Credentials | None = None,
        connections_max: int = CONNECTIONS_MAX,
        handshake_s_max: float = TLS_HANDSHAKE_S_MAX,
        unread_bytes_max: int = UNREAD_BYTES_MAX,
    ) -> None:
        """Put together what listeners need.

        Args:
            shared: What connections need.
            statistics: Where their numbers are counted.
            read_identity: Reads client certificates.
            fingerprint: SHA-256 of a certificate.
            on_handshake_failure: Told of address, port and reason.
            on_cut: Told of the peer of a connection that was cut, and why.
            spawn: Runs a handshake within the server's task group.
            credentials: By what peers are judged; without it they are not judged again.
            connections_max: How many connections there may be, those that still shake hands too.
            handshake_s_max: Seconds that a handshake may take.
            unread_bytes_max: What all peers may leave unread before each is held to much less.
        """
        self._unread_bytes_max = unread_bytes_max
        self.shared = shared
        self.statistics = statistics
        self.connections: set[_Connection] = set()
        # Those that still shake hands.
        self._beginning_count = 0
        self._connections_max = connections_max
        self._handshake_s_max = handshake_s_max
        self._when_empty: list[Callable[[], None]] = []
        self._read_identity = read_identity
        self._fingerprint = fingerprint
        self._on_handshake_failure = on_handshake_failure
        self._on_cut = on_cut
        self._credentials = credentials
        self.spawn = spawn

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> "Listener":
        """Listen on an address.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        listener = Listener(self, sock, tls)
        self.spawn(listener.accept())
        return listener

    def tick(self, now_ns: int) -> None:
        """End overdue calls and close connections that are over."""
        for connection in list(self.connections):
            connection.tick(now_ns)

    def second(self) -> None:
        """Take note that a second has passed."""
        now_s = self._credentials.now_s() if self._credentials is not None else 0.0
        for connection in list(self.connections):
            if connection.expires_s < now_s:
                connection.judge_again()
            else:
                connection.second()
        is_crowded = self.unread_bytes > self._unread_bytes_max
        self.shared.unsent_bytes_max = UNSENT_BYTES_MAX_CROWDED if is_crowded else UNSENT_BYTES_MAX

    @property
    def unread_bytes(self) -> int:
        """How much is kept for peers that do not read."""
        return sum([connection.unread_bytes for connection in self.connections])

    def judge_again(self) -> None:
        """Cut every connection whose certificate is not good any more: something has changed."""
        for connection in list(self.connections):
            connection.judge_again()

    def judge(self, chain: Sequence[Link]) -> Verdict:
        """Tell how the certificate of a peer stands now."""
        if self._credentials is None:
            return Verdict(Standing.GOOD, math.inf)
        return self._credentials.judge(chain)

    def chain_of(self, handshake: object) -> tuple[Link, ...]:
        """Return what a peer was verified by.

        Raises:
            CertificateError: It cannot be read.
        """
        return self._credentials.chain_of(handshake) if self._credentials is not None else ()

    def cut(self, peer: Peer, standing: Standing) -> None:
        """Count and record that a connection was ended for its certificate."""
        if self._credentials is not None:
            cut = self._credentials.counts.cut
            cut[standing.value] = cut.get(standing.value, 0) + 1
        self._on_cut(peer, standing.value)
        _log.warning("connection cut", remote=peer.ip, error=standing.value)

    def go_away(self) -> None:
        """Ask every peer to go elsewhere."""
        for connection in list(self.connections):
            connection.go_away()

    def left(self, connection: "_Connection") -> None:
        """Take note that a connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            for resume in self._when_empty:
                resume()
            self._when_empty.clear()

    def when_empty(self, resume: Callable[[], None]) -> None:
        """Call back once no connection is left."""
        if self.connections:
            self._when_empty.append(resume)
        else:
            resume()

    async def begin(
        self, sock: socket.socket, address: tuple[Any, ...], tls: ssl.SSLContext | None
    ) -> None:
        """Take on a new socket: shake hands, find out who it is, go on."""
        if len(self.connections) + self._beginning_count >= self._connections_max:
            sock.close()
            return
        loop = asyncio.get_running_loop()
        timeout_s = self._handshake_s_max if tls is not None else None
        self._beginning_count += 1
        # The event loop closes a failed handshake without a word; this is what is left to say it.
        farewell = sock.dup() if tls is not None else None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # HTTP/1.1 has no ping: a peer that vanished would keep its watch for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
            await loop.connect_accepted_socket(
                lambda: _Connection(self), sock, ssl=tls, ssl_handshake_timeout=timeout_s
            )
        except OSError as error:
            self.refuse(str(address[0]), int(address[1]), _reason(error))
            sock.close()
            if farewell is not None and isinstance(error.__cause__, Alert):
                await _say(farewell, error.__cause__.content)
        finally:
            if farewell is not None:
                farewell.close()
            self._beginning_count -= 1

    def refuse(self, ip: str, port: int, reason: str) -> None:
        """Count and record that a connection was not taken."""
        self.statistics.handshake_failures += 1
        self._on_handshake_failure(ip, port, reason)
        _log.warning("rejected connection on client endpoint", remote=ip, error=reason)

    def peer_of(self, transport: asyncio.BaseTransport) -> Peer:
        """Describe the other end of a connection whose handshake is over."""
        ip, port = _address(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            return Peer(ip=ip, port=port, tls="", user=None, fingerprint=b"")
        certificate = tls.getpeercert(binary_form=True)
        version, cipher = tls.version(), tls.cipher()
        described = f"{version} {cipher[0]}" if version and cipher else ""
        if not certificate:
            return Peer(ip=ip, port=port, tls=described, user=None, fingerprint=b"")
        return Peer(
            ip=ip,
            port=port,
            tls=described,
            user=self._read_identity(certificate),
            fingerprint=self._fingerprint(certificate),
        )


@final
class Listener:
    """One listening socket."""

    def __init__(
        self, accepting: Accepting, sock: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        self._accepting = accepting
        self._socket = sock
        self._tls = tls

    @property
    def port(self) -> int:
        """The port, which the operating system may have chosen."""
        return int(self._socket.getsockname()[1])

    def use(self, tls: ssl.SSLContext) -> None:
        """Shake hands with this from now on, if it is TLS that is spoken here."""
        if self._tls is not None:
            self._tls = tls

    async def accept(self) -> None:
        """Accept until closed; a machine that is out of descriptors is given time."""
        loop = asyncio.get_running_loop()
        while self._socket.fileno() >= 0:
            try:
                sock, address = await loop.sock_accept(self._socket)
            except OSError as error:
                if self._socket.fileno() < 0:
                    return
                _log.warning("cannot accept a connection", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            sock.setblocking(False)
            self._accepting.spawn(self._accepting.begin(sock, address, self._tls))

    def close(self) -> None:
        """Stop listening."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._socket.close()


@final
class _Refused:
    """What stands in for a session where there will be none: it hears nothing."""

    is_over: Final = True

    def receive(self, _: bytes) -> None:
        """Take in nothing."""


@final
class _Connection(asyncio.Protocol):
    """A connection whose protocol is known, or will be with its first bytes."""

    def __init__(self, accepting: Accepting) -> None:
        self._accepting = accepting
        self._transport: asyncio.Transport
        self._session: Http2Session | Http1Session | _Refused | None = None
        self._peer: Peer
        self._first = b""
        self._wordless_s = 0
        self._chain: tuple[Link, ...] = ()
        # When its certificate is to be judged again, in seconds since 1970.
        self.expires_s = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is and what it speaks."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_HIGH)
        self._peer = self._accepting.peer_of(transport)
        self._accepting.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.session_reused and self._peer.fingerprint:
            # It was checked when the session was made; by now it may have expired, or its
            # authority may not be trusted any more. Ending without a goodbye makes OpenSSL forget
            # the session, so that the next attempt shakes hands in full.
            self._refuse("resumed session")
            return
        if tls is not None and self._peer.fingerprint:
            # What is in force may have changed while they shook hands.
            try:
                self._chain = self._accepting.chain_of(tls)
            except CertificateError as error:
                self._refuse(str(error))
                return
            verdict = self._accepting.judge(self._chain)
            if verdict.standing is not Standing.GOOD:
                self._refuse(verdict.standing.value)
                return
            self.expires_s = verdict.expires_s
        match tls.selected_alpn_protocol() if tls is not None else None:
            case "h2":
                self._session = self._http2()
            case "http/1.1":
                self._session = self._http1()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the protocol."""
        session = self._session
        self._accepting.statistics.received_bytes += len(data)
        if session is None:
            session = self._sniff(data)
            if session is None:
                return
            data = self._first
            self._first = b""
        session.receive(data)
        if session.is_over:
            self._end()

    def connection_lost(self, _: Exception | None) -> None:
        """Let go of everything."""
        self._accepting.left(self)
        if isinstance(self._session, Http2Session | Http1Session):
            self._session.lost()

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read: its requests would pile up as answers."""
        self._set_reading(False)
        if isinstance(self._session, Http2Session | Http1Session):
            self._session.set_writable(writable=False)

    def resume_writing(self) -> None:
        """Go on."""
        self._set_reading(True)
        if isinstance(self._session, Http2Session | Http1Session):
            self._session.set_writable(writable=True)

    @property
    def unread_bytes(self) -> int:
        """How much is kept for the peer."""
        session = self._session
        made = session.unread_bytes if isinstance(session, Http2Session) else 0
        return made + self._transport.get_write_buffer_size()

    def tick(self, now_ns: int) -> None:
        """End overdue calls; close the connection when it is over."""
        session = self._session
        if isinstance(session, Http2Session | Http1Session):
            session.tick(now_ns)
            if session.is_over:
                self._end()

    def second(self) -> None:
        """Take note that a second has passed: end what has nothing to say."""
        session = self._session
        if isinstance(session, Http1Session):
            session.second()
            if session.is_over and session.is_unread:
                self.abort()
            elif session.is_over:
                self._end()
            return
        begun = False
        if isinstance(session, Http2Session):
            session.second()
            begun = session.has_begun
            if session.is_silent:
                self.abort()
        if not begun:
            self._wordless_s += 1
            if self._wordless_s >= _FIRST_WORDS_S_MAX:
                self.abort()

    def judge_again(self) -> None:
        """End the connection at once if its certificate is not good any more."""
        if not self._chain:
            return
        verdict = self._accepting.judge(self._chain)
        self.expires_s = verdict.expires_s
        if verdict.standing.is_lost:
            # It is judged once.
            self._chain = ()
            self.expires_s = math.inf
            self._peer.cut()
            self._accepting.cut(self._peer, verdict.standing)
            self.abort()

    def go_away(self) -> None:
        """Ask the peer to go elsewhere."""
        if isinstance(self._session, Http2Session):
            self._session.go_away()
        elif isinstance(self._session, Http1Session):
            self._session.go_away()
            if self._session.is_over:
                self._end()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refuse(self, reason: str) -> None:
        self._session = _Refused()
        self._accepting.refuse(self._peer.ip, self._peer.port, reason)
        self._transport.abort()

    def _sniff(self, data: bytes) -> Http2Session | Http1Session | _Refused | None:
        self._first += data
        known = min(len(self._first), len(_PREFACE_START))
        if self._first[:known] != _PREFACE_START[:known]:
            self._session = self._http1()
        elif known == len(_PREFACE_START):
            self._session = self._http2()
        return self._session

    def _http2(self) -> Http2Session:
        return Http2Session(self._accepting.shared, self._peer, self._write)

    def _http1(self) -> Http1Session:
        line = Line(write=self._write, set_reading=self._set_reading, close=self._end)
        shared = self._accepting.shared
        return Http1Session(shared.page, line, self._peer, shared.gateway)

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            # It is gone, or on its way: writing would be an error, in the turn of everybody else.
            return
        self._accepting.statistics.sent_bytes += len(data)
        self._transport.write(data)

    def _set_reading(self, reading: bool) -> None:  # noqa: FBT001 - the one thing it says
        if self._transport.is_closing():
            return
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _end(self) -> None:
        if isinstance(self._session, Http2Session):
            self._session.flush()
        self._transport.close()


async def _say(sock: socket.socket, words: bytes) -> None:
    """Send a few last bytes, and see to it that they arrive."""
    loop = asyncio.get_running_loop()
    left_bytes = _FAREWELL_READ_BYTES_MAX
    with contextlib.suppress(OSError):
        sock.send(words)
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_FAREWELL_S_MAX):
            while left_bytes > 0 and (heard := await loop.sock_recv(sock, _READ_BYTES)):
                left_bytes -= len(heard)


def _address(transport: asyncio.BaseTransport) -> tuple[str, int]:
    name = transport.get_extra_info("peername")
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)


def _reason(error: Exception) -> str:
    """Return why a handshake failed, in the TLS library's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # What is wrong with the certificate, such as that it has expired.
        return f"{error.reason}: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failure"
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        # The second is uvloop's.
        return "handshake timeout"
    return type(error).__name__

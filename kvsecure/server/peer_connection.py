"""Connections: which protocol one speaks, and whether its certificate still stands.

Owns: the protocol of one connection, by ALPN or by its first bytes, backpressure on its socket,
    and ending it when it is over, silent, or not trusted any more.
Never: decides what a peer may do, or who may connect.
Follows: RFC 7301 (ALPN); RFC 9113 section 3.3; docs/adr/0003-own-http2-server.md.
Keeps: a connection does not outlive its certificate's standing.
"""

import asyncio
import fcntl
import sys
import termios
from typing import Final, Protocol, cast, final

from kvsecure.pki.standing import Standing
from kvsecure.security.session import Peer
from kvsecure.server.http1 import Http1Session, Line
from kvsecure.server.http2 import Http2Session, Shared
from kvsecure.server.pacing import Pacing
from kvsecure.server.places import Source
from kvsecure.server.reception import Arrival
from kvsecure.server.vetting import Vetting

__all__ = ["ListenerStatistics", "PeerConnection"]

_PREFACE_START: Final = b"PRI "
_WRITE_BUFFER_BYTES_HIGH: Final = 1024 * 1024
# The kernel keeps more than that for a peer before it takes no more.
_QUEUED_BYTES_LITTLE: Final = 4_096
# What is taken in from one connection before the others have their turn. A socket gives up to
# megabytes at once, and whatever is in them may cost tens of microseconds for a hundred bytes.
_TURN_BYTES_MAX: Final = 64 * 1024
# A client speaks first, and at once; it need not know a secret to hold a connection.
_FIRST_WORDS_S_MAX: Final = 10


@final
class ListenerStatistics:
    """Plain counts for whoever shows them."""

    __slots__ = ("handshake_failures", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.handshake_failures = 0
        self.received_bytes = 0
        self.sent_bytes = 0


class _Host(Protocol):
    """What all connections have in common."""

    shared: Shared
    statistics: ListenerStatistics

    def joined(self, connection: "PeerConnection", /) -> None:
        """Take note that a connection is there."""
        ...

    def left(self, connection: "PeerConnection", /) -> None:
        """Take note that it is gone."""
        ...

    def refuse(self, source: Source, reason: str) -> None:
        """Count and record that a connection was not taken."""
        ...

    def peer_of(self, source: Source, transport: asyncio.BaseTransport) -> Peer:
        """Describe the other end of a connection whose handshake is over."""
        ...

    def vetting(self) -> Vetting:
        """Return what judges one connection."""
        ...

    def cut(self, peer: Peer, standing: Standing) -> None:
        """Record that a connection was ended for its certificate."""
        ...


@final
class _Refused:
    """What stands in for a session where there will be none: it hears nothing."""

    is_over: Final = True

    def receive(self, _: bytes) -> None:
        """Take in nothing."""


@final
class PeerConnection(Arrival):
    """A connection whose protocol is known, or will be with its first bytes."""

    def __init__(self, host: _Host, source: Source) -> None:
        """Wait for the end of its handshake.

        Args:
            host: What all connections have in common.
            source: Where it comes from.
        """
        self._host = host
        self.source = source
        # Whether there ever was a connection: its handshake may fail.
        self.was_made = False
        self._transport: asyncio.Transport
        self._pacing: Pacing
        self._session: Http2Session | Http1Session | _Refused | None = None
        self._peer: Peer
        self._first = b""
        # What has come in which turn, and what waits until others had theirs.
        self._heard_bytes = 0
        self._turn_number = 0
        self._rest = b""
        self._is_waiting = False
        self._wants_reading = True
        self._wordless_s = 0
        # How much was kept for the peer a second ago.
        self._unread_bytes = 0
        self.vetting = host.vetting()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is and what it speaks."""
        self._transport = cast("asyncio.Transport", transport)
        self.was_made = True
        self._host.joined(self)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_HIGH)
        self._pacing = Pacing(self._transport, asyncio.get_running_loop(), self._set_writable)
        self._peer = self._host.peer_of(self.source, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and self._peer.fingerprint:
            refusal = self.vetting.refusal(tls)
            if refusal:
                self._refuse(refusal)
                return
        match tls.selected_alpn_protocol() if tls is not None else None:
            case "h2":
                self._session = self._http2()
            case "http/1.1":
                self._session = self._http1()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the protocol."""
        self._host.statistics.received_bytes += len(data)
        number = self._host.shared.turn.number
        if number != self._turn_number:
            self._turn_number = number
            self._heard_bytes = 0
        self._heard_bytes += len(data)
        if self._rest or self._heard_bytes > _TURN_BYTES_MAX:
            self._wait_for_turn(data)
            return
        self._hear(data)

    def _wait_for_turn(self, data: bytes) -> None:
        """Keep what has come until the others have had their turn: it is more than a share."""
        self._rest += data
        if not self._is_waiting:
            self._is_waiting = True
            self._apply_reading()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Hand on a share of what has waited; read again once that was all."""
        self._is_waiting = False
        if self._transport.is_closing():
            self._rest = b""
            return
        data, self._rest = self._rest[:_TURN_BYTES_MAX], self._rest[_TURN_BYTES_MAX:]
        self._heard_bytes = len(data)
        if data:
            self._hear(data)
        if self._rest:
            self._wait_for_turn(b"")
        else:
            self._apply_reading()

    def _hear(self, data: bytes) -> None:
        session = self._session
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
        self._host.left(self)
        self._rest = b""
        if self.was_made:
            self._pacing.lost()
        # The session knows the connection: a circle, which would stay until it is collected.
        session, self._session = self._session, _Refused()
        if isinstance(session, Http2Session | Http1Session):
            session.lost()

    def pause_writing(self) -> None:
        """Write no more for now."""
        self._pacing.pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._pacing.resume()

    def _set_writable(self, *, writable: bool) -> None:
        # From a peer that does not read, nothing is read: its requests would pile up as answers.
        self._set_reading(writable)
        if isinstance(self._session, Http2Session | Http1Session):
            self._session.set_writable(writable=writable)

    @property
    def unread_bytes(self) -> int:
        """How much is kept for the peer."""
        session = self._session
        made = session.unread_bytes if isinstance(session, Http2Session) else 0
        return made + self._pacing.rest_bytes + self._transport.get_write_buffer_size()

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
        unread_bytes = self.unread_bytes
        was_read = unread_bytes < self._unread_bytes
        self._unread_bytes = unread_bytes
        if isinstance(session, Http1Session):
            session.second(was_read=was_read)
            if session.is_stalled:
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
        standing = self.vetting.loss()
        if standing is not None:
            self._peer.cut()
            self._host.cut(self._peer, standing)
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
        self._host.refuse(self.source, reason)
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
        return Http2Session(self._host.shared, self._peer, self._write)

    def _http1(self) -> Http1Session:
        line = Line(write=self._write, set_reading=self._set_reading, close=self._end)
        shared = self._host.shared
        return Http1Session(shared.page, line, self._peer, shared.gateway)

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            # It is gone, or on its way: writing would be an error, in the turn of everybody else.
            return
        self._host.statistics.sent_bytes += len(data)
        self._pacing.write(data)

    def _set_reading(self, reading: bool) -> None:  # noqa: FBT001 - the one thing it says
        self._wants_reading = reading
        self._apply_reading()

    def _apply_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._wants_reading and not self._is_waiting:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _end(self) -> None:
        session = self._session
        if isinstance(session, Http2Session):
            session.flush()
        elif isinstance(session, Http1Session) and not session.is_stalled and not self._is_read:
            # TLS would give what is left half a second to be read: every tick asks again instead.
            return
        self._pacing.end()

    @property
    def _is_read(self) -> bool:
        """Whether all that was written is with the kernel, which sees to it from there on."""
        if self.unread_bytes:
            return False
        # The loop keeps some that it does not tell of, but only while the kernel has its fill.
        queued = bytearray(4)
        socket = self._transport.get_extra_info("socket")
        try:
            fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, queued)
        except OSError:
            return True
        return int.from_bytes(queued, sys.byteorder) <= _QUEUED_BYTES_LITTLE

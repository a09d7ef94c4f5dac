"""Accepting: from a socket that was accepted to a connection that is served.

Owns: the peer's identity, and everything that concerns all connections of some listeners.
Never: shakes hands, or decides what a peer may do.
Keeps: one TLS policy object for every listener; a failed handshake is counted and recorded; what
    goes wrong at one connection costs that connection, and no other one its deadline.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, final

from kvsecure.model.errors import Broken
from kvsecure.model.limits import (
    TLS_HANDSHAKE_S_MAX,
    UNREAD_BYTES_MAX,
    UNSENT_BYTES_MAX,
    UNSENT_BYTES_MAX_CROWDED,
)
from kvsecure.pki.standing import Standing
from kvsecure.security.session import CertificateUser, Peer
from kvsecure.server.credentials import Credentials
from kvsecure.server.http2 import Shared
from kvsecure.server.listener import Listener, Spoken
from kvsecure.server.peer_connection import ListenerStatistics, PeerConnection
from kvsecure.server.places import PlaceBounds, Places, Refusals, Source
from kvsecure.server.reception import Reception
from kvsecure.server.vetting import Vetting
from kvsecure.telemetry.log import log

__all__ = ["Accepting"]

_log = log("listener")


class _IdentityReader(Protocol):
    """Reads whom a client certificate names."""

    def __call__(self, certificate: bytes) -> CertificateUser | None:
        """Return the user that a certificate (DER) names, or None if it names nobody here."""
        ...


@final
class Accepting:
    """What some listeners of a server share."""

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
        spawn_vital: Callable[[str, Coroutine[Any, Any, None]], None] | None = None,
        credentials: Credentials | None = None,
        places: PlaceBounds | None = None,
        refusals: Refusals | None = None,
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
            spawn_vital: Runs what must not end; without it, as anything else.
            credentials: By what peers are judged; without it they are not judged again.
            places: How many connections there may be; None means as many as is our default.
            refusals: Where those that were too many are counted.
            handshake_s_max: Seconds that a handshake may take.
            unread_bytes_max: What all peers may leave unread before each is held to much less.
        """
        self._unread_bytes_max = unread_bytes_max
        self.shared = shared
        self.statistics = statistics
        self.connections: set[PeerConnection] = set()
        self._refusals = refusals or Refusals()
        self._reception = Reception(
            arrive=lambda source: PeerConnection(self, source),
            places=Places(places or PlaceBounds(), self._refusals),
            on_failure=self.refuse,
            spawn=spawn,
            handshake_s_max=handshake_s_max,
        )
        self._when_empty: list[Callable[[], None]] = []
        self._read_identity = read_identity
        self._fingerprint = fingerprint
        self._on_handshake_failure = on_handshake_failure
        self._on_cut = on_cut
        self._credentials = credentials
        self._spawn = spawn
        self._spawn_vital = spawn_vital

    # --- listening ------------------------------------------------------------------------------

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None, spoken: Spoken | None = None
    ) -> Listener:
        """Listen on a host and a port; without more words on TLS if there is a context.

        Raises:
            OSError: The address cannot be had.
        """
        return self._open(
            await Listener.tcp(self._reception, (host, port), _spoken(spoken, tls), tls)
        )

    async def listen_unix(
        self, path: Path, tls: ssl.SSLContext | None, spoken: Spoken | None = None
    ) -> Listener:
        """Listen on a unix socket.

        Raises:
            OSError: The name cannot be had.
        """
        return self._open(await Listener.unix(self._reception, path, _spoken(spoken, tls), tls))

    def _open(self, listener: Listener) -> Listener:
        if self._spawn_vital is None:
            self._spawn(listener.accept())
        else:
            self._spawn_vital("a listener", listener.accept())
        return listener

    # --- all connections ------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """End overdue calls and close connections that are over."""
        for connection in list(self.connections):
            try:
                connection.tick(now_ns)
            except Exception as error:  # noqa: BLE001 - the others have deadlines too; it is logged
                self._give_up(connection, error)

    def second(self) -> None:
        """Take note that a second has passed."""
        self._refusals.second()
        now_s = self._credentials.now_s() if self._credentials is not None else 0.0
        for connection in list(self.connections):
            try:
                if connection.vetting.expires_s < now_s:
                    connection.judge_again()
                else:
                    connection.second()
            except Exception as error:  # noqa: BLE001 - the others may have expired; it is logged
                self._give_up(connection, error)
        is_crowded = self.unread_bytes > self._unread_bytes_max
        self.shared.unsent_bytes_max = UNSENT_BYTES_MAX_CROWDED if is_crowded else UNSENT_BYTES_MAX

    @property
    def unread_bytes(self) -> int:
        """How much is kept for peers that do not read."""
        return sum([connection.unread_bytes for connection in self.connections])

    def judge_again(self) -> None:
        """Cut every connection whose certificate is not good any more: something has changed."""
        for connection in list(self.connections):
            try:
                connection.judge_again()
            except Exception as error:  # noqa: BLE001 - the others are judged all the same; it is logged
                self._give_up(connection, error)

    def _give_up(self, connection: PeerConnection, error: Exception) -> None:
        """End a connection at which we have failed; a broken invariant ends more."""
        connection.abort()
        if isinstance(error, Broken):
            raise error
        _log.error("a connection failed", remote=connection.source.ip, exc_info=error)

    def vetting(self) -> Vetting:
        """Return what judges one connection."""
        return Vetting(self._credentials)

    def cut(self, peer: Peer, standing: Standing) -> None:
        """Record that a connection was ended for its certificate."""
        self._on_cut(peer, standing.value)
        _log.warning("connection cut", remote=peer.ip, error=standing.value)

    def go_away(self) -> None:
        """Ask every peer to go elsewhere."""
        for connection in list(self.connections):
            connection.go_away()

    def joined(self, connection: PeerConnection) -> None:
        """Take note that a connection is there."""
        self.connections.add(connection)

    def left(self, connection: PeerConnection) -> None:
        """Take note that a connection is gone."""
        self.connections.discard(connection)
        self._reception.leave(connection.source)
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

    # --- one connection -------------------------------------------------------------------------

    def refuse(self, source: Source, reason: str) -> None:
        """Count and record that a connection was not taken."""
        self.statistics.handshake_failures += 1
        self._on_handshake_failure(source.ip, source.port, reason)
        _log.warning("rejected connection on client endpoint", remote=source.ip, error=reason)

    def peer_of(self, source: Source, transport: asyncio.BaseTransport) -> Peer:
        """Describe the other end of a connection whose handshake is over."""
        ip, port = source.ip, source.port
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


def _spoken(spoken: Spoken | None, tls: ssl.SSLContext | None) -> Spoken:
    if tls is None:
        return Spoken.PLAINTEXT
    return spoken or Spoken.TLS

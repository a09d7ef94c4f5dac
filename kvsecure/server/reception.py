"""Reception: from a socket that was accepted to a connection that has shaken hands.

Owns: places for connections, handshakes with a deadline, telling TLS from plaintext where both are
    spoken, and the farewell of a handshake that failed.
Never: knows what is spoken on a connection, or whom its certificate names.
Keeps: nothing is read from a connection before its handshake is over; who fails is told why; a
    place that was taken is given back once, whatever goes wrong.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from kvsecure.model.limits import TLS_HANDSHAKE_S_MAX
from kvsecure.pki.handshake import Alert
from kvsecure.server.farewell import reason_of, say_farewell
from kvsecure.server.listener import Spoken
from kvsecure.server.places import Places, Source, source_of

__all__ = ["Arrival", "Reception"]

# A silent connection is asked after so long whether it is there, and then so often.
_KEEPALIVE_IDLE_S: Final = 60
_KEEPALIVE_INTERVAL_S: Final = 15
# What every record of a handshake begins with, and no request of HTTP.
_HANDSHAKE_BYTE: Final = b"\x16"
# A handshake that has begun is given so long, however late it began.
_HANDSHAKE_S_MIN: Final = 0.1
# How long a peer is waited for that was told goodbye. C gRPC hears no goodbye but the socket's end:
# until then it believes that its calls go on.
_GOODBYE_S_MAX: Final = 0.5


class Arrival(asyncio.Protocol):
    """A connection that is handed on once it has shaken hands."""

    # Whether there ever was a connection: its handshake may fail.
    was_made: bool


@final
class Reception:
    """What some listeners hand their sockets to."""

    def __init__(
        self,
        *,
        arrive: Callable[[Source], Arrival],
        places: Places,
        on_failure: Callable[[Source, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        handshake_s_max: float = TLS_HANDSHAKE_S_MAX,
    ) -> None:
        """Put together what listeners need.

        Args:
            arrive: Makes the connection of a socket; whoever owns it calls `leave` in the end.
            places: How many connections there may be.
            on_failure: Told whose handshake failed, and why.
            spawn: Runs a handshake within the server's task group.
            handshake_s_max: Seconds that a handshake may take.
        """
        self.spawn = spawn
        self._arrive = arrive
        self._places = places
        self._on_failure = on_failure
        self._handshake_s_max = handshake_s_max

    def admit(self, sock: socket.socket, address: Any) -> Source | None:
        """Take a place for a connection; return whose it is, or None if there is no place."""
        try:
            source = source_of(sock, address)
        except OSError:
            return None
        return source if self._places.take(source) else None

    def leave(self, source: Source) -> None:
        """Take note that a connection that was made is gone."""
        self._places.leave(source)

    async def begin(
        self, sock: socket.socket, source: Source, spoken: Spoken, tls: ssl.SSLContext | None
    ) -> None:
        """Take on a new socket: shake hands and hand it on."""
        loop = asyncio.get_running_loop()
        connection = self._arrive(source)
        timeout_s = self._handshake_s_max if tls is not None else None
        # The event loop closes a failed handshake without a word; this is what is left to say it.
        farewell: socket.socket | None = None
        try:
            _set_options(sock)
            if spoken is Spoken.EITHER:
                began_s = loop.time()
                if await self._first_byte(sock) == _HANDSHAKE_BYTE:
                    left_s = self._handshake_s_max - (loop.time() - began_s)
                    timeout_s = max(left_s, _HANDSHAKE_S_MIN)
                else:
                    tls, timeout_s = None, None
            if tls is not None:
                farewell = sock.dup()
            await loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=tls,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=_GOODBYE_S_MAX if tls is not None else None,
            )
        except OSError as error:
            self._on_failure(source, reason_of(error))
            sock.close()
            if farewell is not None and isinstance(error.__cause__, Alert):
                await say_farewell(farewell, error.__cause__.content)
        finally:
            if farewell is not None:
                farewell.close()
            self._places.settle(source)
            if not connection.was_made:
                self._places.leave(source)

    async def _first_byte(self, sock: socket.socket) -> bytes:
        """Wait for the first byte of a peer, and leave it where it is.

        Raises:
            OSError: There is none, or none in time.
        """
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        async with asyncio.timeout(self._handshake_s_max):
            loop.add_reader(sock, came.set)
            try:
                await came.wait()
            finally:
                loop.remove_reader(sock)
        first = sock.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionResetError
        return first


def _set_options(sock: socket.socket) -> None:
    """Send at once, and find out about peers that vanish; a unix socket does both by itself."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # HTTP/1.1 has no ping: a peer that vanished would keep its watch for ever.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)

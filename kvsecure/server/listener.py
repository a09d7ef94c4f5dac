"""Listeners: one socket that listens each, on TCP or on a unix socket.

Owns: the listening socket and its options, and accepting from it.
Never: shakes hands, or knows what is spoken on a connection.
Keeps: a connection that there is no place for is closed before anything is spent on it.
"""

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol, Self, final

from kvsecure.server.places import Source
from kvsecure.server.unix_socket import SocketFile
from kvsecure.telemetry.log import log

__all__ = ["Listener", "Spoken"]

_BACKLOG: Final = 1024
_ACCEPT_PAUSE_S: Final = 0.1

_log = log("listener")


class Spoken(Enum):
    """What is spoken on a listener."""

    TLS = "TLS"
    PLAINTEXT = "plaintext"
    # Whichever the peer begins with.
    EITHER = "either"


class _Host(Protocol):
    """Takes on connections."""

    def admit(self, sock: socket.socket, address: Any) -> Source | None:
        """Take a place for a connection; return whose it is, or None if there is no place."""
        ...

    def begin(
        self, sock: socket.socket, source: Source, spoken: Spoken, tls: ssl.SSLContext | None
    ) -> Coroutine[Any, Any, None]:
        """Shake hands, find out who it is, go on."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], /) -> None:
        """Run something within the server's task group."""
        ...


@final
class Listener:
    """One listening socket."""

    def __init__(
        self,
        host: _Host,
        sock: socket.socket,
        spoken: Spoken,
        tls: ssl.SSLContext | None,
        file: SocketFile | None = None,
    ) -> None:
        """Take over a socket that listens.

        Args:
            host: What takes on its connections.
            sock: It does not block.
            spoken: What is spoken here.
            tls: How to shake hands; None where only plaintext is spoken.
            file: What it is on, if it is a unix socket.
        """
        self._host = host
        self._socket = sock
        self._spoken = spoken
        self._tls = tls
        self._file = file

    @classmethod
    async def tcp(
        cls, host: _Host, address: tuple[str, int], spoken: Spoken, tls: ssl.SSLContext | None
    ) -> Self:
        """Listen on a host and a port; port 0 lets the operating system choose.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
        family, _, _, _, resolved = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(resolved)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        return cls(host, sock, spoken, tls)

    @classmethod
    async def unix(
        cls, host: _Host, path: Path, spoken: Spoken, tls: ssl.SSLContext | None
    ) -> Self:
        """Listen on a unix socket.

        Raises:
            OSError: The name cannot be had.
        """
        file = await SocketFile.listen(path, _BACKLOG)
        return cls(host, file.socket, spoken, tls, file)

    @property
    def port(self) -> int:
        """The port, which the operating system may have chosen; 0 for a unix socket."""
        return int(self._socket.getsockname()[1]) if self._file is None else 0

    def use(self, tls: ssl.SSLContext) -> None:
        """Shake hands with this from now on, if it is TLS that is spoken here."""
        if self._tls is not None:
            self._tls = tls

    async def accept(self) -> None:
        """Accept until closed; a machine that is out of descriptors is given time."""
        loop = asyncio.get_running_loop()
        host = self._host
        while self._socket.fileno() >= 0:
            try:
                sock, address = await loop.sock_accept(self._socket)
            except OSError as error:
                if self._socket.fileno() < 0:
                    return
                _log.warning("cannot accept a connection", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            source = host.admit(sock, address)
            if source is None:
                sock.close()
                continue
            sock.setblocking(False)
            host.spawn(host.begin(sock, source, self._spoken, self._tls))

    def close(self) -> None:
        """Stop listening."""
        if self._socket.fileno() < 0:
            return
        if self._file is not None:
            self._file.remove()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

"""Farewells: what a peer is told whose handshake failed, and what we say of it.

Owns: getting a few last bytes to a peer, and the words for why a handshake failed.
Never: keeps a socket open for longer than a second, or reads more than a bounded number of bytes.
Follows: RFC 8446 section 6.2 (alerts).
"""

import asyncio
import contextlib
import socket
import ssl
from typing import Final

__all__ = ["reason_of", "say_farewell"]

# How long, and for how much, a peer is listened to that was told why its handshake failed: what it
# has sent and nobody read would make the kernel take the words back.
_FAREWELL_S_MAX: Final = 1.0
_READ_BYTES_MAX: Final = 256 * 1024
_READ_BYTES: Final = 64 * 1024


async def say_farewell(sock: socket.socket, words: bytes) -> None:
    """Send a few last bytes, and see to it that they arrive."""
    loop = asyncio.get_running_loop()
    left_bytes = _READ_BYTES_MAX
    with contextlib.suppress(OSError):
        sock.send(words)
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_FAREWELL_S_MAX):
            while left_bytes > 0 and (heard := await loop.sock_recv(sock, _READ_BYTES)):
                left_bytes -= len(heard)


def reason_of(error: Exception) -> str:
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

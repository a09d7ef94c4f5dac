"""A gRPC stream that costs its reader next to nothing: bytes now, messages afterwards.

Owns: just enough HTTP/2 to open one stream and to let the server send without a window.
Never: is a client to imitate: it acknowledges settings and pings while it sets up, and no more.
Follows: RFC 9113; the library's own streams cost 30 us a message, and would be what is measured.
"""

import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

from hpack import Encoder

__all__ = ["RawStream"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA: Final = 0
_HEADERS: Final = 1
_SETTINGS: Final = 4
_PING: Final = 6
_WINDOW_UPDATE: Final = 8
_ACK: Final = 1
_END_HEADERS: Final = 4
_PADDED: Final = 8
_WINDOW_MAX: Final = 2**31 - 1
_INITIAL_WINDOW: Final = 65_535
_RECEIVE_BYTES: Final = 1 << 18


@final
class RawStream:
    """One connection with one stream, on which the server sends as fast as it can."""

    def __init__(self, address: tuple[str, int], authority: Path | None) -> None:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket = plain
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(plain, server_hostname=address[0])
        self._address = address
        self._scheme = "https" if authority else "http"
        self._room = memoryview(bytearray(_RECEIVE_BYTES))
        self._received = bytearray()
        self._messages = bytearray()
        # What was looked at since the windows were last widened.
        self._owed = 0

    def open(self, path: str, token: str, messages: list[bytes]) -> None:
        """Open the stream and send messages on it; the stream stays open.

        Args:
            path: The method.
            token: The session token, or nothing.
            messages: Framed gRPC messages; together less than the initial window.
        """
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", "{}:{}".format(*self._address)),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        if token:
            headers.append(("token", token))
        window = struct.pack(">HI", 4, _WINDOW_MAX)
        wider = struct.pack(">I", _WINDOW_MAX - _INITIAL_WINDOW)
        self.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, window)
            + _frame(_WINDOW_UPDATE, 0, 0, wider)
            + _frame(_HEADERS, _END_HEADERS, 1, Encoder().encode(headers))
            + b"".join(_frame(_DATA, 0, 1, message) for message in messages)
        )

    def receive(self) -> int:
        """Take what has come, without looking at it, and return how many bytes it was."""
        # Into the same place each time: what `recv` would make and throw away costs more than TLS.
        count = self.socket.recv_into(self._room)
        self._received += self._room[:count]
        return count

    def receive_all(self) -> int:
        """Take all that has come, without waiting for more, and return how many bytes it was.

        Raises:
            ConnectionError: The server has closed the connection.
        """
        taken = 0
        self.socket.setblocking(False)
        try:
            while count := self.receive():
                taken += count
        except (ssl.SSLWantReadError, BlockingIOError):
            return taken
        finally:
            self.socket.setblocking(True)
        raise ConnectionError("the stream was closed by the server")

    def forget(self) -> None:
        """Let go of what has come, for one who only wants it to come, and not more than 2 GiB."""
        self._received.clear()

    def messages(self) -> Iterator[bytes]:
        """Yield the messages that have come since the last time."""
        self._parse()
        start, pending = 0, self._messages
        while len(pending) - start >= 5:
            end = start + 5 + int.from_bytes(pending[start + 1 : start + 5], "big")
            if end > len(pending):
                break
            yield bytes(pending[start + 5 : end])
            start = end
        del pending[:start]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _parse(self) -> None:
        content, start = self._received, 0
        while len(content) - start >= 9:
            length = int.from_bytes(content[start : start + 3], "big")
            end = start + 9 + length
            if end > len(content):
                break
            kind, flags = content[start + 3], content[start + 4]
            payload = content[start + 9 : end]
            if kind == _DATA:
                self._owed += length
                padded = flags & _PADDED
                self._messages += payload[1 : length - payload[0]] if padded else payload
            elif kind == _SETTINGS and not flags & _ACK:
                self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self.socket.sendall(_frame(_PING, _ACK, 0, bytes(payload)))
            start = end
        del content[:start]
        if self._owed > _WINDOW_MAX // 2:
            wider = struct.pack(">I", self._owed)
            self._owed = 0
            self.socket.sendall(
                _frame(_WINDOW_UPDATE, 0, 0, wider) + _frame(_WINDOW_UPDATE, 0, 1, wider)
            )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload

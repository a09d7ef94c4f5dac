"""A peer on a real socket that may say anything: bytes out, frames in.

Owns: connecting with or without TLS, reading frames with a deadline, and one plain gRPC call.
Never: keeps the rules of HTTP/2 by itself; a test that wants them kept keeps them.
"""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, final

from hpack import Decoder
from support.certificates import KeyPair
from wire.rawframes import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Frame,
    begin,
    data,
    headers,
    message,
    read_frames,
    request_block,
)

__all__ = ["ANSWER_S", "Answered", "SocketPeer", "call_fields", "client_tls"]

# How long an answer may take before it is missing.
ANSWER_S: Final = 10.0
# So much is handed to the kernel at once where the answers are read at the same time.
_POURED_BYTES: Final = 64 * 1024
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def client_tls(
    authority: Path | None,
    certificate: KeyPair | None = None,
    *,
    alpn: tuple[str, ...] = ("h2",),
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """Return TLS of a client; without an authority it trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = maximum
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(authority)
    if certificate is not None:
        context.load_cert_chain(certificate.certificate, certificate.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def call_fields(path: str, token: str = "", **more: str) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a call; underscores in names stand for hyphens."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    if token:
        fields["token"] = token
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return [(name.encode(), value.encode()) for name, value in fields.items()]


@final
class Answered(NamedTuple):
    """What came back on one stream."""

    fields: dict[str, str]
    messages: list[bytes]
    reset: int | None

    @property
    def status(self) -> tuple[str, str]:
        """The gRPC status and its text."""
        return self.fields.get("grpc-status", ""), self.fields.get("grpc-message", "")


@final
class SocketPeer:
    """One connection."""

    def __init__(
        self, port: int, tls: ssl.SSLContext | None = None, *, receive_bytes: int | None = None
    ) -> None:
        """Connect, and shake hands if there is TLS.

        Args:
            port: On loopback.
            tls: How to shake hands; None does not.
            receive_bytes: How much the kernel may keep for us; None leaves it to the kernel.

        Raises:
            OSError: The server does not want us.
        """
        plain = socket.socket()
        self._buffer = b""
        try:
            if receive_bytes is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            plain.settimeout(ANSWER_S)
            plain.connect(("127.0.0.1", port))
            self.sock = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        except BaseException:
            plain.close()
            raise
        self._decoder = Decoder(max_header_list_size=1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        """Send bytes in one piece."""
        self.sock.sendall(b"".join(parts))

    def begin(self, changes: Iterable[tuple[int, int]] = ()) -> Self:
        """Send the preface and settings."""
        self.send(begin(changes))
        return self

    def frames_until(self, done: Callable[[list[Frame]], bool]) -> list[Frame]:
        """Read frames until enough have come, or the server hangs up.

        Raises:
            TimeoutError: Neither happened.
        """
        found: list[Frame] = []
        while not done(found):
            content = self._receive()
            if not content:
                return found
            self._buffer += content
            whole = _whole_frames(self._buffer)
            found += read_frames(self._buffer[:whole])
            self._buffer = self._buffer[whole:]
        return found

    def pour(self, content: bytes, until_s: float) -> tuple[list[Frame], bool]:
        """Send as much as the server takes, and read what it says meanwhile.

        Args:
            content: What is sent.
            until_s: When to stop, monotonic.

        Returns:
            The frames that came, and whether the server has hung up.
        """
        found: list[Frame] = []
        left = memoryview(content)
        self.sock.setblocking(False)
        try:
            while time.monotonic() < until_s:
                heard = None
                with contextlib.suppress(*_NOT_NOW):
                    heard = self.sock.recv(1 << 18)
                    self._buffer += heard
                    whole = _whole_frames(self._buffer)
                    found += read_frames(self._buffer[:whole])
                    self._buffer = self._buffer[whole:]
                if heard == b"":
                    return found, True
                with contextlib.suppress(*_NOT_NOW):
                    if left:
                        left = left[self.sock.send(left[:_POURED_BYTES]) :]
                        continue
                if heard is None:
                    wants = [self.sock] if left else []
                    select.select([self.sock], wants, [], max(0.0, until_s - time.monotonic()))
        except OSError:
            # A server that hangs up while we are still talking resets; what it said is read first.
            return found, True
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(ANSWER_S)
        return found, False

    def read_all(self) -> bytes:
        """Read until the server hangs up.

        Raises:
            TimeoutError: It does not.
        """
        parts = []
        while content := self._receive():
            parts.append(content)
        return b"".join(parts)

    def _receive(self) -> bytes:
        # A server that hangs up while we are still talking resets.
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError, BrokenPipeError):
            return self.sock.recv(1 << 20)
        return b""

    def request(
        self,
        stream: int,
        fields: Iterable[tuple[bytes, bytes]],
        content: bytes | None = None,
        *,
        ends: bool = True,
    ) -> bytes:
        """Return a request as frames, its content in one piece."""
        block = request_block(fields)
        if content is None:
            return headers(stream, block, END_HEADERS | (END_STREAM if ends else 0))
        pieces = [content[at : at + 16_384] for at in range(0, len(content), 16_384)] or [b""]
        out = [headers(stream, block)]
        for number, piece in enumerate(pieces, 1):
            out.append(data(stream, piece, END_STREAM if ends and number == len(pieces) else 0))
        return b"".join(out)

    def call(
        self, stream: int, path: str, *contents: bytes, token: str = "", **more: str
    ) -> Answered:
        """Make one call with messages, all in one piece, and wait for its end."""
        framed = b"".join(map(message, contents))
        self.send(self.request(stream, call_fields(path, token, **more), framed))
        return self.answer(stream)

    def answer(self, stream: int) -> Answered:
        """Wait for the end of a stream."""
        frames = self.frames_until(
            lambda found: any(one.stream == stream and _ends(one) for one in found)
        )
        return self.answered(stream, frames)

    def answered(self, stream: int, frames: Iterable[Frame]) -> Answered:
        """Put together what frames say of one stream."""
        fields: dict[str, str] = {}
        content = b""
        reset = None
        for one in frames:
            if one.stream != stream:
                continue
            if one.type == HEADERS:
                for name, value in self._decoder.decode(one.payload, raw=True):
                    fields[bytes(name).decode()] = bytes(value).decode()
            elif one.type == DATA:
                content += one.payload
            elif one.type == RST_STREAM:
                reset = int.from_bytes(one.payload, "big")
        messages = []
        if fields.get("content-type", "").startswith("application/grpc"):
            while content:
                end = 5 + int.from_bytes(content[1:5], "big")
                messages.append(content[5:end])
                content = content[end:]
        else:
            messages = [content]
        return Answered(fields, messages, reset)


def _ends(frame: Frame) -> bool:
    return frame.type == RST_STREAM or bool(
        frame.type in (DATA, HEADERS) and frame.flags & END_STREAM
    )


def _whole_frames(content: bytes) -> int:
    """Return how many bytes of content are whole frames."""
    end = 0
    while len(content) - end >= 9:
        following = end + 9 + int.from_bytes(content[end : end + 3], "big")
        if following > len(content):
            break
        end = following
    return end

"""Clients that make calls at a steady rate over raw HTTP/2, cheaply enough for thousands a second.

Owns: one connection each, its pace, and what came of every call.
Never: connects again: a connection that ends is a failure, and stays one.
"""

import socket
import ssl
import threading
import time
from types import TracebackType
from typing import Final, Self, final

from support.processes import wait_until
from wire.rawframes import (
    ACK,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    begin,
    data,
    fields_of,
    frame,
    headers,
    message,
    request_block,
    window_update,
)
from wire.socket_peer import ANSWER_S, call_fields

from kvsecure.proto import kv_pb2

__all__ = ["Swift"]

_PERIOD_S: Final = 0.02
_HEAD_BYTES: Final = 9
_ALL: Final = (1 << 30) - 1


@final
class Swift:
    """A client that puts once and reads several times in every period, and counts what fails."""

    def __init__(self, port: int, tls: ssl.SSLContext, key: bytes, rate: int) -> None:
        """Connect; nothing is asked yet.

        Args:
            port: On loopback.
            tls: Whom it trusts and what it shows.
            key: What it writes and reads.
            rate: Calls a second, a multiple of the periods of a second.
        """
        self._batch = round(rate * _PERIOD_S)
        plain = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self._sock = tls.wrap_socket(plain, server_hostname="localhost")
        self._sock.sendall(begin([(4, _ALL)]) + window_update(0, _ALL))
        self._put = self._call("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=key, value=b"v" * 100))
        self._get = self._call("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=key))
        self._stream = 1
        self._buffer = b""
        # What every call that went well ends with.
        self._well = b""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.failures: list[str] = []
        # When the first of them was, monotonic.
        self.failed_at = 0.0
        # Seconds of the slowest batch.
        self.slowest_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.done or self.failures, deadline_s=10, what="the first answers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._sock.close()

    @staticmethod
    def _call(path: str, request: kv_pb2.PutRequest | kv_pb2.RangeRequest) -> tuple[bytes, bytes]:
        return request_block(call_fields(path)), message(request.SerializeToString())

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            while not self._stopped.is_set():
                due_s += _PERIOD_S
                began_s = time.monotonic()
                self._exchange()
                ended_s = time.monotonic()
                self.slowest_s = max(self.slowest_s, ended_s - began_s)
                # Who is late makes up for it: the rate is what counts.
                time.sleep(max(0.0, due_s - ended_s))
        except (OSError, ConnectionError) as error:
            self._fail(f"{type(error).__name__}: {error}")

    def _exchange(self) -> None:
        """Make the calls of a period in one write, and wait for all answers."""
        parts = []
        for number in range(self._batch):
            block, content = self._get if number else self._put
            parts += [headers(self._stream, block), data(self._stream, content, END_STREAM)]
            self._stream += 2
        self._sock.sendall(b"".join(parts))
        missing = self._batch
        while missing:
            content = self._sock.recv(1 << 16)
            if not content:
                raise ConnectionError("the server hung up")
            missing -= self._take(content)

    def _take(self, content: bytes) -> int:
        """Read frames; return how many calls have ended."""
        self._buffer += content
        at, ended = 0, 0
        while len(self._buffer) - at >= _HEAD_BYTES:
            end = at + _HEAD_BYTES + int.from_bytes(self._buffer[at : at + 3], "big")
            if end > len(self._buffer):
                break
            kind, flags = self._buffer[at + 3], self._buffer[at + 4]
            payload = self._buffer[at + _HEAD_BYTES : end]
            at = end
            if kind == HEADERS and flags & END_STREAM:
                ended += 1
                self._end(payload)
            elif kind in (RST_STREAM, GOAWAY):
                raise ConnectionError(f"frame {kind}: {payload!r}")
            elif kind == SETTINGS and not flags & ACK:
                self._sock.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._sock.sendall(frame(PING, ACK, 0, payload))
        self._buffer = self._buffer[at:]
        return ended

    def _end(self, trailers: bytes) -> None:
        if trailers != self._well:
            fields = fields_of(trailers)
            if fields.get(b"grpc-status") != b"0":
                self._fail(str(fields))
                return
            self._well = trailers
        self.done += 1

    def _fail(self, why: str) -> None:
        self.failed_at = self.failed_at or time.monotonic()
        self.failures.append(why)

"""What a connection costs: to make one, and to keep it while it says nothing.

Owns: connections that shake hands and go, and connections that stay.
Never: calls anything on them.
"""

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.contestants import Server
from bench.load import LoadError
from bench.machine import cost_of
from bench.report import Figure

__all__ = ["measure_connections"]

# The preface, and empty settings.
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS: Final = 4
_SETTLE_S: Final = 1.0
_ANSWER_S_MAX: Final = 30.0


def measure_connections(server: Server, *, duration_s: float, count: int) -> Iterator[Figure]:
    """Yield what a handshake takes and costs, and the memory of an idle connection.

    Args:
        server: Running.
        duration_s: Seconds of handshakes, one after the other.
        count: How many idle connections.

    Raises:
        LoadError: A connection was not taken.
    """
    yield _handshakes(server, duration_s)
    yield _idle(server, count)


def _handshakes(server: Server, duration_s: float) -> Figure:
    before = cost_of(server.member.process.pid)
    made = 0
    begun = time.monotonic()
    context = _context(server)
    while time.monotonic() - begun < duration_s:
        _connect(server, context).close()
        made += 1
    elapsed_s = time.monotonic() - begun
    after = cost_of(server.member.process.pid)
    return Figure(
        work="connections made and greeted",
        contestant=server.contestant,
        value=made / elapsed_s,
        unit="connection/s",
        processor_us=(after.processor_s - before.processor_s) / made * 1e6,
        resident_mib=after.resident_bytes / 2**20,
    )


def _idle(server: Server, count: int) -> Figure:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = _context(server)
    with ExitStack() as stack:
        before = cost_of(server.member.process.pid).resident_bytes
        for _ in range(count):
            stack.enter_context(_connect(server, context))
        # What a server frees after a handshake, it frees a moment later and says nothing of it.
        time.sleep(_SETTLE_S)
        after = cost_of(server.member.process.pid).resident_bytes
    return Figure(
        work=f"{count:,} idle connections, memory of each",
        contestant=server.contestant,
        value=(after - before) / count / 1024,
        unit="KiB",
    )


def _context(server: Server) -> ssl.SSLContext | None:
    if not server.member.tls:
        return None
    context = ssl.create_default_context(cafile=str(server.member.authority.certificate))
    context.set_alpn_protocols(["h2"])
    return context


def _connect(server: Server, context: ssl.SSLContext | None) -> socket.socket:
    address = ("127.0.0.1", server.member.port)
    connection = socket.create_connection(address, timeout=_ANSWER_S_MAX)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname=address[0])
    connection.sendall(_GREETING)
    try:
        answer = connection.recv(9)
    except OSError as error:
        raise LoadError(f"a connection was not taken: {error}") from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise LoadError("a connection was not greeted")
    return connection

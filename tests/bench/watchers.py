"""Ten thousand watchers of a prefix each, and a client that does not read: what the others feel.

Owns: the watchers, the puts, when each event came, and what the slow client gets in the end.
Never: lets the slow client go without what it missed: it has to catch up.
"""

import contextlib
import itertools
import selectors
import ssl
import statistics
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.contestants import Server
from bench.load import LoadError, framed
from bench.machine import cost_of
from bench.rawstream import RawStream
from bench.report import Figure
from bench.watching import await_watches

from kvsecure.proto import kv_pb2, watch_pb2

__all__ = ["measure_watchers"]

_CONNECTIONS: Final = 10
_PUTS_UNDER_WAY: Final = 20
_VALUE_BYTES: Final = 256
_SLOW_WATCHERS: Final = 20
# No event for so long means that none will come.
_PATIENCE_S: Final = 30.0
# So long without a byte means that nothing more will come.
_QUIET_S: Final = 2.0
_time: Final = struct.Struct(">Q")


def measure_watchers(server: Server, *, duration_s: float, count: int) -> Iterator[Figure]:
    """Yield the figures of so many watchers on prefixes of their own.

    Puts go round the prefixes, each with the time in its value. One more connection has twenty
    watchers of all of them, more than kernels keep for it, and reads nothing until the puts are
    over.

    Raises:
        LoadError: A watch was not made, or an event did not arrive.
    """
    work = f"{count:,} watchers"

    def figure(what: str, value: float, unit: str, **more: Any) -> Figure:
        return Figure(
            work=f"{work}, {what}", contestant=server.contestant, value=value, unit=unit, **more
        )

    pid = server.member.process.pid
    with server.client() as client, contextlib.ExitStack() as stack:
        each = count // _CONNECTIONS
        streams = [
            _open(server, client.token, range(first * each, (first + 1) * each))
            for first in range(_CONNECTIONS)
        ]
        slow = _open(server, client.token, None)
        for stream in (*streams, slow):
            stack.callback(stream.close)
            await_watches(stream, _SLOW_WATCHERS if stream is slow else each)
        before = cost_of(pid)
        put_count, delays_ms, elapsed_s = _run(client, streams, duration_s, each * _CONNECTIONS)
        after = cost_of(pid)
        processor_us = (after.processor_s - before.processor_s) / put_count * 1e6
        yield figure("put and told", put_count / elapsed_s, "put/s", processor_us=processor_us)
        yield figure("median until told", statistics.median(delays_ms), "ms")
        yield figure("p99 until told", statistics.quantiles(delays_ms, n=100)[98], "ms")
        yield figure("memory", after.resident_bytes / 2**20, "MiB")
        begun = time.monotonic()
        missed = put_count * _SLOW_WATCHERS
        _catch_up(slow, missed)
        yield figure("slow one caught up", missed / (time.monotonic() - begun), "event/s")


def _prefix(number: int) -> bytes:
    return b"/app/w/%06d/" % number


def _open(server: Server, token: str, numbers: range | None) -> RawStream:
    member = server.member
    authority = member.authority.certificate if member.tls else None
    stream = RawStream(("127.0.0.1", member.port), authority)
    spans = [(b"/app/w/", b"/app/w0")] * _SLOW_WATCHERS
    if numbers is not None:
        spans = [(_prefix(number), _prefix(number)[:-1] + b"0") for number in numbers]
    creates = [
        watch_pb2.WatchRequest(
            create_request=watch_pb2.WatchCreateRequest(key=start, range_end=end)
        )
        for start, end in spans
    ]
    stream.open("/etcdserverpb.Watch/Watch", token, [framed(create) for create in creates])
    return stream


def _run(
    client: Any, streams: list[RawStream], duration_s: float, prefixes: int
) -> tuple[int, list[float], float]:
    """Put until the time is over and every event has come; return puts, delays and seconds."""
    put = client.prepared("/etcdserverpb.KV/Put")
    numbers = (number * 7_919 % prefixes for number in itertools.count())
    padding = bytes(_VALUE_BYTES - _time.size)
    delays_ms: list[float] = []
    started: list[Any] = []
    put_count = 0
    begun = last = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            stream.socket.setblocking(False)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while len(delays_ms) < put_count or time.monotonic() - begun < duration_s:
            while len(started) < _PUTS_UNDER_WAY and time.monotonic() - begun < duration_s:
                value = _time.pack(time.monotonic_ns()) + padding
                request = kv_pb2.PutRequest(key=_prefix(next(numbers)) + b"key", value=value)
                started.append(put(request.SerializeToString()))
                put_count += 1
            for key, _ in selector.select(timeout=0.001):
                last = time.monotonic()
                delays_ms += _delays_ms(key.data)
            for future in [future for future in started if future.done()]:
                future.result()
                started.remove(future)
            if time.monotonic() - last > _PATIENCE_S:
                raise LoadError(f"{len(delays_ms)} of {put_count} events arrived")
    return put_count, delays_ms, time.monotonic() - begun


def _delays_ms(stream: RawStream) -> Iterator[float]:
    """Yield how long each event that has come was on its way."""
    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        while stream.receive():
            pass
    now_ns = time.monotonic_ns()
    for message in stream.messages():
        for event in watch_pb2.WatchResponse.FromString(message).events:
            yield (now_ns - _time.unpack_from(event.kv.value)[0]) / 1e6


def _catch_up(stream: RawStream, expected: int) -> None:
    stream.socket.settimeout(_QUIET_S)
    came = 0
    while came < expected:
        try:
            stream.receive()
        except TimeoutError:
            raise LoadError(f"{came} of {expected} events reached the slow client") from None
        for message in stream.messages():
            came += len(watch_pb2.WatchResponse.FromString(message).events)

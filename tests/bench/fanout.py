"""One key and a thousand watchers: how many events a second reach them.

Owns: the watchers, the puts they see, and the count of what arrived.
Never: counts a response as an event: a server may put several events into one.
"""

import contextlib
import selectors
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.contestants import Server
from bench.load import LoadError, framed
from bench.machine import cost_of
from bench.rawstream import RawStream
from bench.report import Figure
from bench.watching import await_watches

from kvsecure.proto import kv_pb2, watch_pb2

__all__ = ["measure_fanout"]

_CONNECTIONS: Final = 10
_WATCHERS_PER_CONNECTION: Final = 100
_WATCHERS: Final = _CONNECTIONS * _WATCHERS_PER_CONNECTION
_PUTS: Final = 300
_PUTS_UNDER_WAY: Final = 10
_KEY: Final = b"/app/watched"
_BODY: Final = kv_pb2.PutRequest(key=_KEY, value=bytes(256)).SerializeToString()
# No event for so long means that none will come.
_PATIENCE_S: Final = 30.0
# So long without a byte means that everything has come.
_QUIET_S: Final = 0.5

_Put = Callable[[bytes], Any]


def measure_fanout(server: Server) -> Iterator[Figure]:
    """Yield the figures of event delivery.

    Paced: a put is sent when the one before has reached every watcher, so every event is a
    response of its own. In a burst: puts follow each other, and a server may fall behind and put
    several events into one response.

    Raises:
        LoadError: An event did not arrive, or the watches were not made.
    """
    for name, deliver in (("paced", _deliver_paced), ("burst", _deliver_burst)):
        with server.client() as client:
            streams = [_open(server, client.token) for _ in range(_CONNECTIONS)]
            try:
                for stream in streams:
                    await_watches(stream, _WATCHERS_PER_CONNECTION)
                before = cost_of(server.member.process.pid)
                put = client.prepared("/etcdserverpb.KV/Put")
                events, elapsed_s = deliver(put, streams)
                after = cost_of(server.member.process.pid)
            finally:
                for stream in streams:
                    stream.close()
        if events != _PUTS * _WATCHERS:
            raise LoadError(f"{events} of {_PUTS * _WATCHERS} events arrived")
        yield Figure(
            work=f"events, {_WATCHERS:,} watchers, {name}",
            contestant=server.contestant,
            value=events / elapsed_s,
            unit="event/s",
            processor_us=(after.processor_s - before.processor_s) / events * 1e6,
            resident_mib=after.resident_bytes / 2**20,
        )


def _open(server: Server, token: str) -> RawStream:
    member = server.member
    authority = member.authority.certificate if member.tls else None
    stream = RawStream(("127.0.0.1", member.port), authority)
    create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=_KEY))
    stream.open("/etcdserverpb.Watch/Watch", token, [framed(create)] * _WATCHERS_PER_CONNECTION)
    return stream


def _deliver_paced(put: _Put, streams: list[RawStream]) -> tuple[int, float]:
    """Put again and again when every watcher has heard; return events and seconds."""
    responses, begun = 0, time.monotonic()
    with _selecting(streams) as selector:
        for round_ in range(1, _PUTS + 1):
            future = put(_BODY)
            while responses < round_ * _WATCHERS:
                for key, _ in selector.select(timeout=_PATIENCE_S):
                    _drain(key.data)
                    # Nothing can be merged: there is one event under way.
                    responses += sum(1 for _ in key.data.messages())
            future.result()
    return responses, time.monotonic() - begun


def _deliver_burst(put: _Put, streams: list[RawStream]) -> tuple[int, float]:
    """Put without waiting; return events, and the seconds until the last byte had come."""
    begun = last = time.monotonic()
    started = [put(_BODY) for _ in range(_PUTS_UNDER_WAY)]
    left = _PUTS - _PUTS_UNDER_WAY
    with _selecting(streams) as selector:
        while started or time.monotonic() - last < _QUIET_S:
            for key, _ in selector.select(timeout=0.001):
                if _drain(key.data):
                    last = time.monotonic()
            finished = [future for future in started if future.done()]
            for future in finished:
                future.result()
                started.remove(future)
                if left:
                    started.append(put(_BODY))
                    left -= 1
    return sum(_count(stream) for stream in streams), last - begun


@contextlib.contextmanager
def _selecting(streams: list[RawStream]) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            stream.socket.setblocking(False)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        yield selector


def _drain(stream: RawStream) -> int:
    received = 0
    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        while count := stream.receive():
            received += count
    return received


def _count(stream: RawStream) -> int:
    return sum(
        len(watch_pb2.WatchResponse.FromString(message).events) for message in stream.messages()
    )

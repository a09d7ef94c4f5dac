"""A long mixed load over keys whose number stays the same: whether memory stays the same too.

Owns: the load, compaction as it goes, and the slope of the memory.
Never: judges; a slope over a minute says little, one over an hour much.
"""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import grpc
from bench.contestants import Server
from bench.load import LoadError, framed
from bench.machine import cost_of
from bench.rawstream import RawStream
from bench.report import Figure

from kvsecure.proto import kv_pb2, lease_pb2, watch_pb2

__all__ = ["measure_soak", "slope_per_hour"]

_KEYS: Final = 5_000
_CALLS_UNDER_WAY: Final = 20
_SAMPLE_S: Final = 1.0
_COMPACT_EVERY_S: Final = 5.0
_TTL_S: Final = 5
_LOGIN_EVERY_S: Final = 120.0
_MIB: Final = 2**20


def measure_soak(server: Server, *, duration_s: float) -> Iterator[Figure]:
    """Yield the calls that were made, and what memory was at first, at the end, and how it went.

    The first third does not count for the slope: caches fill.

    Raises:
        LoadError: A call failed.
    """
    pid = server.member.process.pid
    samples: list[tuple[float, float]] = []
    with server.client() as client, server.root() as root:
        watching = _watch(server, client.token)
        load = _Load(client)
        begun = last_compaction = last_login = time.monotonic()
        try:
            while (now := time.monotonic()) - begun < duration_s:
                load.run_for(min(_SAMPLE_S, duration_s))
                samples.append((now - begun, cost_of(pid).resident_bytes / _MIB))
                _take_events(watching)
                if now - last_login > _LOGIN_EVERY_S:
                    last_login = now
                    server.renew(client, root)
                    load.go_on_as(client)
                if now - last_compaction > _COMPACT_EVERY_S:
                    last_compaction = now
                    _compact(root)
        finally:
            watching.close()
    steady = samples[len(samples) // 3 :]

    def figure(what: str, value: float, unit: str) -> Figure:
        return Figure(work=f"soak, {what}", contestant=server.contestant, value=value, unit=unit)

    yield figure("calls", load.count / duration_s, "call/s")
    yield figure("memory at first", steady[0][1], "MiB")
    yield figure("memory at the end", steady[-1][1], "MiB")
    yield figure("memory, slope", slope_per_hour(steady), "MiB/h")


def slope_per_hour(samples: list[tuple[float, float]]) -> float:
    """Return the slope of the line that fits (seconds, value) best, for an hour."""
    count = len(samples)
    mean_s = sum(at_s for at_s, _ in samples) / count
    mean = sum(value for _, value in samples) / count
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in samples)
    if not spread:
        return 0.0
    return sum((at_s - mean_s) * (value - mean) for at_s, value in samples) / spread * 3_600


class _Load:
    """Calls of every kind, a bounded number of them under way."""

    def __init__(self, client: Any) -> None:
        self.count = 0
        self._chance = random.Random(4)  # the same load for every contestant
        self._room = threading.Semaphore(_CALLS_UNDER_WAY)
        self._failures: list[BaseException] = []
        self.go_on_as(client)

    def go_on_as(self, client: Any) -> None:
        """Make the calls that come with the token that the client has now."""
        self._calls = {
            name: client.prepared(f"/etcdserverpb.{name}")
            for name in ("KV/Put", "KV/Range", "KV/DeleteRange", "KV/Txn", "Lease/LeaseGrant")
        }

    def run_for(self, duration_s: float) -> None:
        """Make calls for so long."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            name, request = self._next()
            self._room.acquire()
            if self._failures:
                raise LoadError(str(self._failures[0]))
            self.count += 1
            self._calls[name](request.SerializeToString()).add_done_callback(self._done)

    def _next(self) -> tuple[str, Any]:
        chance = self._chance
        key = b"/app/soak/%05d" % chance.randrange(_KEYS)
        match chance.randrange(20):
            case 0:
                return "KV/DeleteRange", kv_pb2.DeleteRangeRequest(key=key)
            case 1:
                return "Lease/LeaseGrant", lease_pb2.LeaseGrantRequest(TTL=_TTL_S)
            case 2:
                return "KV/Range", kv_pb2.RangeRequest(key=key, range_end=b"/app/soak0", limit=50)
            case 3 | 4:
                put = kv_pb2.PutRequest(key=key, value=chance.randbytes(512))
                get = kv_pb2.RangeRequest(key=key)
                return "KV/Txn", kv_pb2.TxnRequest(
                    success=[
                        kv_pb2.RequestOp(request_put=put),
                        kv_pb2.RequestOp(request_range=get),
                    ]
                )
            case 5 | 6 | 7 | 8 | 9 | 10:
                value = chance.randbytes(chance.randrange(1_024))
                return "KV/Put", kv_pb2.PutRequest(key=key, value=value)
        return "KV/Range", kv_pb2.RangeRequest(key=key)

    def _done(self, future: grpc.Future) -> None:
        error = future.exception()
        if error is not None:
            self._failures.append(error)
        self._room.release()


def _watch(server: Server, token: str) -> RawStream:
    member = server.member
    authority = member.authority.certificate if member.tls else None
    stream = RawStream(("127.0.0.1", member.port), authority)
    create = watch_pb2.WatchCreateRequest(key=b"/app/soak/", range_end=b"/app/soak0")
    request = watch_pb2.WatchRequest(create_request=create)
    stream.open("/etcdserverpb.Watch/Watch", token, [framed(request)])
    return stream


def _take_events(watching: RawStream) -> None:
    """Take what the watch was told, so that it never falls behind a compaction.

    Raises:
        LoadError: It was ended.
    """
    try:
        watching.receive_all()
    except ConnectionError as error:
        raise LoadError(f"the watch: {error}") from None
    for message in watching.messages():
        if watch_pb2.WatchResponse.FromString(message).canceled:
            raise LoadError("the watch was cancelled")


def _compact(root: Any) -> None:
    newest = root.kv.Range(kv_pb2.RangeRequest(key=b"/app/soak/")).header.revision
    root.kv.Compact(kv_pb2.CompactionRequest(revision=newest))

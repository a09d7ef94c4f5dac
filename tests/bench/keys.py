"""A million keys: the time to write and to read them, what they hold, how they are served again.

Owns: loading a store, restarting the server over it, and making it smaller.
Never: stops a server in good order first: after a crash is when the time counts.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.calls import VALUE_BYTES
from bench.contestants import Contestant, Server
from bench.load import LoadError
from bench.machine import cost_of
from bench.probing import probing
from bench.report import Figure
from bench.streaming import call_all

from kvsecure.proto import kv_pb2

__all__ = ["load_keys", "measure_keys"]

# Below the 128 operations that a transaction may have by default.
_KEYS_PER_TXN: Final = 100
_TXNS_UNDER_WAY: Final = 20
_READS: Final = 5
_ANSWER_S: Final = 120.0


def measure_keys(server: Server, *, count: int) -> Iterator[Figure]:
    """Yield the figures of a store of so many keys with values of 256 bytes.

    Keys that a contestant loses by the crash are a figure of it like any other: etcd 3.5.0 to
    3.5.2 do lose some (etcd issue 13766), as their last transactions are marked as applied in the
    database before they are.

    Raises:
        LoadError: Keys are missing after the restart, and the contestant is kvsecure.
    """
    work = f"{count:,} keys"

    def figure(what: str, value: float, unit: str) -> Figure:
        return Figure(work=f"{work}, {what}", contestant=server.contestant, value=value, unit=unit)

    elapsed_s = load_keys(server, count)
    yield figure("written", count / elapsed_s, "key/s")
    yield figure("memory", _resident_mib(server), "MiB")
    yield figure("disk", _disk_mib(server), "MiB")
    some = kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0", limit=max(1, count // 100))
    everything = kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0", count_only=True)
    with server.client() as client:
        for what, request in ((f"range of {some.limit:,}", some), ("count", everything)):
            call = client.prepared("/etcdserverpb.KV/Range")
            times_ms = [_time_ms(call, request) for _ in range(_READS)]
            yield figure(what, statistics.median(times_ms), "ms")
    server.member.process.kill9_all()
    begun = time.monotonic()
    server.member.restart()
    with server.client() as client:
        found = client.kv.Range(everything).count
        # Whoever logs in and reads is served: a hash of a password is a part of it.
        yield figure("served again after", time.monotonic() - begun, "s")
    if found != count and server.contestant is Contestant.KVSECURE:
        raise LoadError(f"{found} of {count} keys are there")
    yield figure("kept", found, "key")
    yield figure("memory after", _resident_mib(server), "MiB")
    yield from _shrink(server, count, figure)


def _shrink(
    server: Server, count: int, figure: Callable[[str, float, str], Figure]
) -> Iterator[Figure]:
    """Delete a tenth of the keys in one request, and forget the past."""
    tenth = max(1, count // 10)
    delete = kv_pb2.DeleteRangeRequest(key=b"/app/", range_end=b"/app/%09d" % tenth)
    with probing(server) as probe, server.client() as client, server.root() as root:
        probe.begin()
        call = client.prepared("/etcdserverpb.KV/DeleteRange", timeout_s=_ANSWER_S)
        yield figure(f"delete of {tenth:,}", _time_ms(call, delete), "ms")
        yield figure(f"delete of {tenth:,}, longest of others", probe.end().longest_ms, "ms")
        newest = client.kv.Range(kv_pb2.RangeRequest(key=b"/app/probe")).header.revision
        compact = kv_pb2.CompactionRequest(revision=newest, physical=True)
        probe.begin()
        call = root.prepared("/etcdserverpb.KV/Compact", timeout_s=_ANSWER_S)
        yield figure("compaction", _time_ms(call, compact), "ms")
        yield figure("compaction, longest of others", probe.end().longest_ms, "ms")


def load_keys(server: Server, count: int) -> float:
    """Write so many keys, 100 a transaction; return how many seconds that took.

    Raises:
        LoadError: A transaction failed.
    """
    begun = time.monotonic()
    txns = (
        _txn(first, min(first + _KEYS_PER_TXN, count)) for first in range(0, count, _KEYS_PER_TXN)
    )
    with server.client() as client:
        call_all(client, "/etcdserverpb.KV/Txn", txns, under_way=_TXNS_UNDER_WAY)
    return time.monotonic() - begun


def _txn(first: int, end: int) -> bytes:
    request = kv_pb2.TxnRequest()
    for number in range(first, end):
        put = request.success.add().request_put
        put.key = b"/app/%09d" % number
        put.value = b"%032d" % number * (VALUE_BYTES // 32)
    return bytes(request.SerializeToString())


def _time_ms(call: Any, request: Any) -> float:
    """Make a call whose answer nobody looks at; return how long it took."""
    body = request.SerializeToString()
    begun = time.monotonic()
    call(body).result()
    return (time.monotonic() - begun) * 1000


def _disk_mib(server: Server) -> float:
    """Return what the files of the member take, as the file system has them."""
    files = [path for path in server.member.data_directory.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files) / 2**20


def _resident_mib(server: Server) -> float:
    return cost_of(server.member.process.pid).resident_bytes / 2**20

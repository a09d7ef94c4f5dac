"""A million keys: the time to write them, the memory they hold, the time to serve them again.

Owns: loading a store, and restarting the server over it.
Never: stops a server in good order first: after a crash is when the time counts.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.calls import VALUE_BYTES
from bench.contestants import Contestant, Server
from bench.load import LoadError
from bench.machine import cost_of
from bench.report import Figure

from kvsecure.proto import kv_pb2

__all__ = ["load_keys", "measure_keys"]

# Below the 128 operations that a transaction may have by default.
_KEYS_PER_TXN: Final = 100
_TXNS_UNDER_WAY: Final = 20


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
    server.member.process.kill9_all()
    begun = time.monotonic()
    server.member.restart()
    yield figure("served again after", time.monotonic() - begun, "s")
    with server.client() as client:
        everything = kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0", count_only=True)
        found = client.kv.Range(everything).count
    if found != count and server.contestant is Contestant.KVSECURE:
        raise LoadError(f"{found} of {count} keys are there")
    yield figure("kept", found, "key")
    yield figure("memory after", _resident_mib(server), "MiB")


def load_keys(server: Server, count: int) -> float:
    """Write so many keys, 100 a transaction; return how many seconds that took.

    Raises:
        LoadError: A transaction failed.
    """
    room = threading.Semaphore(_TXNS_UNDER_WAY)
    failures: list[BaseException] = []

    def done(future: Any) -> None:
        error = future.exception()
        if error is not None:
            failures.append(error)
        room.release()

    begun = time.monotonic()
    with server.client() as client:
        call = client.prepared("/etcdserverpb.KV/Txn")
        for first in range(0, count, _KEYS_PER_TXN):
            room.acquire()
            if failures:
                raise LoadError(str(failures[0]))
            call(_txn(first, min(first + _KEYS_PER_TXN, count))).add_done_callback(done)
        for _ in range(_TXNS_UNDER_WAY):
            room.acquire()
    if failures:
        raise LoadError(str(failures[0]))
    return time.monotonic() - begun


def _txn(first: int, end: int) -> bytes:
    request = kv_pb2.TxnRequest()
    for number in range(first, end):
        put = request.success.add().request_put
        put.key = b"/app/%09d" % number
        put.value = b"%032d" % number * (VALUE_BYTES // 32)
    return bytes(request.SerializeToString())


def _resident_mib(server: Server) -> float:
    return cost_of(server.member.process.pid).resident_bytes / 2**20

"""Puts and gets with a stock client library: several processes, many keys, many calls under way.

Owns: the worker processes, and what they add up to.
Never: explains a figure away: the client costs more than the server here, so ratios are smaller.
Follows: grpcio; h2load repeats one request, and this shows that the order is the same without.
"""

import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Final, final

import grpc
from bench.calls import VALUE_BYTES
from bench.contestants import PASSWORD, USER, Server
from bench.load import LoadError
from bench.machine import cost_of
from bench.report import Figure
from support.rpc import Client

from kvsecure.proto import kv_pb2

__all__ = ["measure_library"]

_WORKERS: Final = 2
_CALLS_UNDER_WAY: Final = 50
_KEYS: Final = 10_000
_WARM_UP_S: Final = 0.5


def measure_library(server: Server, *, duration_s: float) -> Iterator[Figure]:
    """Yield the figures of put and get over 10,000 keys.

    Raises:
        LoadError: A call failed.
    """
    for name, method in (("put", "Put"), ("get", "Range")):
        before = cost_of(server.member.process.pid)
        count, elapsed_s = _work_together(server, method, duration_s)
        after = cost_of(server.member.process.pid)
        yield Figure(
            work=f"{name}, grpcio, {_WORKERS} x {_CALLS_UNDER_WAY}",
            contestant=server.contestant,
            value=count / elapsed_s,
            unit="call/s",
            processor_us=(after.processor_s - before.processor_s)
            / (count * (1 + _WARM_UP_S / elapsed_s))
            * 1e6,
            resident_mib=after.resident_bytes / 2**20,
        )


def _work_together(server: Server, method: str, duration_s: float) -> tuple[int, float]:
    # A process that was forked may not use grpcio; one that was spawned may.
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for seed in range(_WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        ours.send(_settings(server, method, seed, duration_s))
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    counts = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    failures = sum(count["failures"] for count in counts)
    if failures:
        raise LoadError(f"{failures} calls of {method} failed")
    return sum(count["calls"] for count in counts), duration_s


def _settings(server: Server, method: str, seed: int, duration_s: float) -> dict[str, Any]:
    return {
        "endpoint": server.member.endpoint,
        "authority": server.member.authority.certificate if server.member.tls else None,
        "credentials": None if server.is_open else (USER, PASSWORD),
        "method": method,
        "seed": seed,
        "duration_s": duration_s,
    }


def _work(pipe: Connection) -> None:
    settings = pipe.recv()
    with Client(settings["endpoint"], settings["authority"]) as client:
        if settings["credentials"]:
            client.login(*settings["credentials"])
        runner = _Runner(client, settings["method"], settings["seed"])
        pipe.send("ready")
        pipe.recv()
        runner.run(_WARM_UP_S)
        calls, failures = runner.run(settings["duration_s"])
    pipe.send({"calls": calls, "failures": failures})


@final
class _Runner:
    """Keeps a number of calls under way."""

    def __init__(self, client: Client, method: str, seed: int) -> None:
        self._call = client.prepared(f"/etcdserverpb.KV/{method}")
        chance = random.Random(seed)
        keys = [b"/app/%06d" % chance.randrange(_KEYS) for _ in range(_KEYS)]
        value = chance.randbytes(VALUE_BYTES)
        requests = (
            [kv_pb2.PutRequest(key=key, value=value) for key in keys]
            if method == "Put"
            else [kv_pb2.RangeRequest(key=key) for key in keys]
        )
        self._bodies = [request.SerializeToString() for request in requests]
        self._room = threading.Semaphore(_CALLS_UNDER_WAY)
        self._calls = 0
        self._failures = 0

    def run(self, duration_s: float) -> tuple[int, int]:
        """Make calls for so long and return how many came back in that time, and failed."""
        self._calls = self._failures = 0
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            for body in self._bodies:
                self._room.acquire()
                if time.monotonic() >= end:
                    self._room.release()
                    break
                self._call(body).add_done_callback(self._done)
        calls = self._calls
        for _ in range(_CALLS_UNDER_WAY):
            self._room.acquire()
        self._room.release(_CALLS_UNDER_WAY)
        return calls, self._failures

    def _done(self, future: grpc.Future) -> None:
        if future.exception() is not None:
            self._failures += 1
        self._calls += 1
        self._room.release()

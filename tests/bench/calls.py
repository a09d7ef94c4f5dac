"""Puts and linearizable gets with h2load, as the budgets state them.

Owns: the requests, the order of runs, and the proof that the calls were carried out.
Never: compares runs of different times: contestants take turns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.contestants import Server
from bench.load import CONNECTIONS, WARM_UP_S, Load, LoadError, framed, run_h2load
from bench.machine import cost_of
from bench.report import Figure

from kvsecure.proto import kv_pb2

__all__ = ["STREAMS", "VALUE_BYTES", "measure_calls"]

STREAMS: Final = (1, 10, 100)
VALUE_BYTES: Final = 256
_KEY: Final = b"/app/db/password"


def measure_calls(server: Server, directory: Path, *, duration_s: float) -> Iterator[Figure]:
    """Yield the figures of put and get at each number of streams.

    Args:
        server: Running; its store may hold anything.
        directory: Where the request bodies may be written.
        duration_s: Seconds per run, after a warm-up.

    Raises:
        LoadError: Calls failed, or puts were answered and not carried out.
    """
    put = kv_pb2.PutRequest(key=_KEY, value=bytes(range(VALUE_BYTES)))
    get = kv_pb2.RangeRequest(key=_KEY)
    for name, method, request in (("put", "Put", put), ("get", "Range", get)):
        body = directory / f"{name}.bin"
        body.write_bytes(framed(request))
        for streams in STREAMS:
            yield _run(server, name, method, body, streams, duration_s)


def _run(
    server: Server, name: str, method: str, body: Path, streams: int, duration_s: float
) -> Figure:
    with server.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=_KEY, value=bytes(VALUE_BYTES)))
        before, revision = cost_of(server.member.process.pid), _revision(client)
        load = run_h2load(
            f"{server.member.url}/etcdserverpb.KV/{method}",
            body,
            streams=streams,
            duration_s=duration_s,
            token=client.token,
        )
        after = cost_of(server.member.process.pid)
        written = _revision(client) - revision
    _assert_carried_out(load, written if name == "put" else None, name)
    # The calls of the warm-up cost processor time too, and are not in the count of h2load.
    calls = written if name == "put" else load.succeeded * (duration_s + WARM_UP_S) / duration_s
    return Figure(
        work=f"{name}, {CONNECTIONS} x {streams}",
        contestant=server.contestant,
        value=load.calls_per_s,
        unit="call/s",
        processor_us=(after.processor_s - before.processor_s) / max(calls, 1) * 1e6,
        resident_mib=after.resident_bytes / 2**20,
    )


def _assert_carried_out(load: Load, written: int | None, name: str) -> None:
    if load.failed or not load.succeeded:
        raise LoadError(f"{name}: {load.failed} calls failed, {load.succeeded} did not")
    if written is not None and written < load.succeeded:
        # h2load takes a refusal for a success: gRPC answers it with HTTP status 200.
        raise LoadError(f"{load.succeeded} puts were answered and {written} carried out")


def _revision(client: Any) -> int:
    return int(client.kv.Range(kv_pb2.RangeRequest(key=_KEY)).header.revision)

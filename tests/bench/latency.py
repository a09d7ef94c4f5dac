"""How long a call takes: at a fixed rate, and alone.

Owns: the rate, and reading percentiles from h2load's log of requests.
Never: measures at the limit; part `calls` does, where times say how long the queue is.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.calls import VALUE_BYTES
from bench.contestants import Server
from bench.load import CONNECTIONS, LoadError, framed, run_h2load
from bench.report import Figure

from kvsecure.proto import kv_pb2

__all__ = ["measure_latency"]

_RATE_PER_S: Final = 5_000
_STREAMS: Final = 100
_KEY: Final = b"/app/db/password"


def measure_latency(server: Server, directory: Path, *, duration_s: float) -> Iterator[Figure]:
    """Yield medians and 99th percentiles of put and get, at a fixed rate and one at a time.

    Args:
        server: Running; its store may hold anything.
        directory: Where the request bodies and h2load's log may be written.
        duration_s: Seconds per run, after a warm-up.

    Raises:
        LoadError: Calls failed, or far fewer were made than the rate asks for.
    """
    put = kv_pb2.PutRequest(key=_KEY, value=bytes(range(VALUE_BYTES)))
    get = kv_pb2.RangeRequest(key=_KEY)
    for name, method, request in (("put", "Put", put), ("get", "Range", get)):
        body = directory / f"{name}.bin"
        body.write_bytes(framed(request))
        yield from _run(server, name, method, body, directory / "log", duration_s, rate=_RATE_PER_S)
        yield from _run(server, name, method, body, directory / "log", duration_s, rate=None)


def _run(
    server: Server,
    name: str,
    method: str,
    body: Path,
    log: Path,
    duration_s: float,
    *,
    rate: int | None,
) -> Iterator[Figure]:
    log.unlink(missing_ok=True)
    more = [f"--log-file={log}"]
    if rate is not None:
        more.append(f"--rps={rate / CONNECTIONS}")
    with server.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=_KEY, value=bytes(VALUE_BYTES)))
        load = run_h2load(
            f"{server.member.url}/etcdserverpb.KV/{method}",
            body,
            streams=_STREAMS if rate is not None else 1,
            connections=CONNECTIONS if rate is not None else 1,
            duration_s=duration_s,
            token=client.token,
            more=more,
        )
    if load.failed or not load.succeeded:
        raise LoadError(f"{name}: {load.failed} calls failed, {load.succeeded} did not")
    took_us = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    work = f"{name}, {rate:,}/s" if rate is not None else f"{name}, 1 x 1"
    if rate is not None and load.calls_per_s < rate * 0.9:
        # A server that cannot keep up is measured by the length of its queue: that is no latency.
        work += f" (made {load.calls_per_s:,.0f}/s)"
    for what, value_us in (
        ("median", statistics.median(took_us)),
        ("99th percentile", took_us[len(took_us) * 99 // 100]),
    ):
        yield Figure(
            work=f"{work}, {what}", contestant=server.contestant, value=value_us / 1000, unit="ms"
        )

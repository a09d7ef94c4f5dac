"""Puts and linearizable gets of a cluster of three, at its leader and through a follower.

Owns: the requests, whom they go to, and the proof that the calls were carried out.
Never: compares runs of different times: contestants take turns.
Follows: `calls`, which does the same with one member.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.calls import VALUE_BYTES
from bench.load import CONNECTIONS, WARM_UP_S, LoadError, framed, run_h2load
from bench.machine import Cost, cost_of
from bench.report import Figure
from bench.trio import Trio, TrioMember

from kvsecure.proto import kv_pb2

__all__ = ["measure_cluster"]

_KEY: Final = b"/app/db/password"
# Whom to, what, and how many streams a connection.
_WORKS: Final = (
    ("leader", "put", 1),
    ("leader", "put", 10),
    ("leader", "get", 10),
    ("leader", "get", 100),
    ("follower", "put", 10),
    ("follower", "get", 10),
)
_STREAMS_MAX: Final = 100
_METHODS: Final = {"put": "Put", "get": "Range"}


def measure_cluster(trio: Trio, directory: Path, *, duration_s: float) -> Iterator[Figure]:
    """Yield calls a second, and median and 99th percentile of their times, for each work.

    Args:
        trio: Running; its store may hold anything.
        directory: Where the request bodies and h2load's log may be written.
        duration_s: Seconds per run, after a warm-up.

    Raises:
        LoadError: Calls failed, puts were answered and not carried out, or another member leads
            at the end of a run than at its beginning.
    """
    (directory / "put").write_bytes(
        framed(kv_pb2.PutRequest(key=_KEY, value=bytes(range(VALUE_BYTES))))
    )
    (directory / "get").write_bytes(framed(kv_pb2.RangeRequest(key=_KEY)))
    # Both make room in their logs ahead, tens of megabytes once enough is written, and whoever is
    # measured at that moment pays for it.
    leader = trio.leader()
    for _ in _run(trio, leader, "leader put", directory, _STREAMS_MAX, duration_s):
        pass
    for whom, what, streams in _WORKS:
        leader = trio.leader()
        member = leader if whom == "leader" else trio.others(leader)[0]
        yield from _run(trio, member, f"{whom} {what}", directory, streams, duration_s)
        if trio.leader() is not leader:
            raise LoadError(f"{whom} {what}: another member leads now")


def _run(
    trio: Trio, member: TrioMember, name: str, directory: Path, streams: int, duration_s: float
) -> Iterator[Figure]:
    what = name.rpartition(" ")[2]
    log = directory / "log"
    log.unlink(missing_ok=True)
    with member.client() as client:
        revision = client.kv.Put(kv_pb2.PutRequest(key=_KEY, value=b"first")).header.revision
        before = _cost(trio)
        load = run_h2load(
            f"{member.url}/etcdserverpb.KV/{_METHODS[what]}",
            directory / what,
            streams=streams,
            duration_s=duration_s,
            token=client.token,
            more=[f"--log-file={log}"],
        )
        after = _cost(trio)
        newest = client.kv.Range(kv_pb2.RangeRequest(key=_KEY)).header.revision
    written = newest - revision
    if load.failed or not load.succeeded:
        raise LoadError(f"{name}: {load.failed} calls failed, {load.succeeded} did not")
    if what == "put" and written < load.succeeded:
        # h2load takes a refusal for a success: gRPC answers it with HTTP status 200.
        raise LoadError(f"{load.succeeded} puts were answered and {written} carried out")
    calls = written if what == "put" else load.succeeded * (duration_s + WARM_UP_S) / duration_s
    work = f"{name}, {CONNECTIONS} x {streams}"
    yield Figure(
        work=work,
        contestant=trio.contestant,
        value=load.calls_per_s,
        unit="call/s",
        processor_us=(after.processor_s - before.processor_s) / max(calls, 1) * 1e6,
        resident_mib=after.resident_bytes / 2**20,
    )
    took_us = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    for which, percent in (("median", 50), ("99th percentile", 99)):
        yield Figure(
            work=f"{work}, {which}",
            contestant=trio.contestant,
            value=took_us[len(took_us) * percent // 100] / 1000,
            unit="ms",
        )


def _cost(trio: Trio) -> Cost:
    """Return what all three have cost together."""
    costs = [cost_of(member.process.pid) for member in trio.members]
    return Cost(
        processor_s=sum(cost.processor_s for cost in costs),
        resident_bytes=sum(cost.resident_bytes for cost in costs),
    )

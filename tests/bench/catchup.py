"""A member that was away for many writes: how long it takes to catch up, and what others feel.

Owns: the writes that it misses, and another client's writes before it comes and while it does.
Never: asks the member itself when it is done before it answers at all.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import grpc
from bench.calls import VALUE_BYTES
from bench.contestants import PASSWORD, USER
from bench.load import LoadError
from bench.probing import probing_at
from bench.report import Figure
from bench.streaming import call_all
from bench.trio import Trio, TrioMember

from kvsecure.proto import kv_pb2

__all__ = ["measure_catchup"]

_WRITES_UNDER_WAY: Final = 100
_DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.005
_KEYS: Final = 10_000


def measure_catchup(trio: Trio, *, count: int, before_s: float) -> Iterator[Figure]:
    """Yield how long a member takes that was away for so many writes, and the leader's times.

    Args:
        trio: Running.
        count: How many writes the member misses.
        before_s: How long the leader's times are measured before the member comes again.

    Raises:
        LoadError: A write failed, or the member does not catch up.
    """
    leader = trio.leader()
    away = trio.others(leader)[0]
    away.process.kill9()
    begun = time.monotonic()
    wanted = _write(leader, count)
    yield _figure(trio, "writes with one member away", count / (time.monotonic() - begun), "call/s")
    put = kv_pb2.PutRequest(key=b"/app/probe", value=bytes(VALUE_BYTES)).SerializeToString()
    with probing_at(
        leader.endpoint, leader.authority, (USER, PASSWORD), "/etcdserverpb.KV/Put", put
    ) as probe:
        probe.begin()
        time.sleep(before_s)
        before = probe.end()
        probe.begin()
        begun = time.monotonic()
        away.process.spawn()
        _wait_for(away, wanted)
        took_s = time.monotonic() - begun
        during = probe.end()
    yield _figure(trio, f"caught up with {count:,} writes", took_s, "s")
    for when, felt in (("before", before), ("during", during)):
        yield _figure(trio, f"put at the leader {when}, median", felt.median_ms, "ms")
        yield _figure(trio, f"put at the leader {when}, 99th percentile", felt.p99_ms, "ms")
    times = during.p99_ms / before.p99_ms
    yield _figure(trio, "99th percentile, during to before", times, "times")


def _figure(trio: Trio, work: str, value: float, unit: str) -> Figure:
    return Figure(work=work, contestant=trio.contestant, value=value, unit=unit)


def _write(member: TrioMember, count: int) -> int:
    """Put so many keys; return the revision at the end.

    Raises:
        LoadError: A put failed.
    """
    with member.client() as client:
        puts = (
            kv_pb2.PutRequest(key=b"/app/%06d" % (number % _KEYS), value=bytes(VALUE_BYTES))
            for number in range(count)
        )
        bodies = (put.SerializeToString() for put in puts)
        call_all(client, "/etcdserverpb.KV/Put", bodies, under_way=_WRITES_UNDER_WAY)
        return int(client.kv.Range(kv_pb2.RangeRequest(key=b"/app/probe")).header.revision)


def _wait_for(member: TrioMember, revision: int) -> None:
    """Wait until a member that is starting has applied a revision.

    Raises:
        LoadError: It takes too long.
    """
    end = time.monotonic() + _DEADLINE_S
    request = kv_pb2.RangeRequest(key=b"/app/probe", serializable=True)
    while time.monotonic() < end:
        if not member.process.is_running:
            raise LoadError(f"{member.name} has ended:\n{member.process.log_tail()}")
        with contextlib.suppress(grpc.RpcError), member.client() as client:
            while time.monotonic() < end:
                if client.kv.Range(request).header.revision >= revision:
                    return
                time.sleep(_POLL_S)
        time.sleep(_POLL_S)
    raise LoadError(f"{member.name} does not catch up")

"""What large requests cost everybody else: another client's latency, and the loop's own gauge.

Owns: the large things that are done, one after the other, over a large store.
Never: counts what whoever asked for it waits; others must not notice.
"""

import http.client
import ssl
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import grpc
from bench.calls import VALUE_BYTES
from bench.contestants import Contestant, Server
from bench.keys import load_keys
from bench.load import LoadError, framed
from bench.probing import probing
from bench.rawstream import RawStream
from bench.report import Figure
from support.gateway import Gateway

from kvsecure.proto import kv_pb2, lease_pb2, maintenance_pb2, watch_pb2

__all__ = ["measure_pauses"]

_ANSWER_S: Final = 120.0
_LARGE_VALUE_BYTES: Final = 8 * 1024
_LARGE_TXN_PUTS: Final = 128
_LEASE: Final = 4711
_METRIC: Final = 'kvsecure_loop_pause_seconds_bucket{le="'


def measure_pauses(server: Server, *, count: int) -> Iterator[Figure]:
    """Yield what another client feels while each large thing is done to a store of so many keys.

    Raises:
        LoadError: Something large could not be done.
    """
    works = _Works(server, count)
    with probing(server) as probe:
        for name, act in works.each():
            before = _loop_pauses(server)
            probe.begin()
            begun = time.monotonic()
            try:
                act()
            except (grpc.RpcError, http.client.HTTPException, OSError) as error:
                raise LoadError(f"{name}: {error}") from None
            took_s = time.monotonic() - begun
            felt = probe.end()
            values = {
                "took": (took_s * 1000, "ms"),
                "p99 of others": (felt.p99_ms, "ms"),
                "longest of others": (felt.longest_ms, "ms"),
            }
            longest_ms = _longest_ms(before, _loop_pauses(server))
            if longest_ms is not None:
                values["loop, at most"] = (longest_ms, "ms")
            for what, (value, unit) in values.items():
                yield Figure(
                    work=f"{name}, {what}", contestant=server.contestant, value=value, unit=unit
                )


class _Works:
    """The large things."""

    def __init__(self, server: Server, count: int) -> None:
        self._server = server
        self._count = count
        # What is a hundred thousand of a million.
        self._tenth = max(1, count // 10)
        self._first_revision = 0
        self._client = server.client()
        self._root = server.root()

    def each(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield a name and what to do, in the order in which they have to be done."""
        count, tenth = self._count, self._tenth
        some = kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0", limit=max(1, count // 100))
        counting = kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0", count_only=True)
        self._first_revision = self._client.kv.Range(counting).header.revision
        yield f"write {count:,} keys", partial(load_keys, self._server, count)
        yield f"range of {some.limit:,}", partial(self._call, "KV/Range", some)
        yield f"count of {count:,}", partial(self._call, "KV/Range", counting)
        yield f"txn of {_LARGE_TXN_PUTS} large puts", self._large_txn
        yield f"catch up with {count:,}", self._catch_up
        yield f"JSON of {tenth:,}", partial(self._json, tenth)
        yield "hash", partial(self._call, "Maintenance/HashKV", maintenance_pb2.HashKVRequest())
        yield "snapshot", self._snapshot
        yield f"write {count:,} keys again", partial(load_keys, self._server, count)
        yield f"compact {count:,}", self._compact
        yield (
            "defragment",
            partial(self._call, "Maintenance/Defragment", maintenance_pb2.DefragmentRequest()),
        )
        self._lease(tenth)
        revoke = lease_pb2.LeaseRevokeRequest(ID=_LEASE)
        yield f"revoke a lease of {tenth:,}", partial(self._call, "Lease/LeaseRevoke", revoke)
        end = b"/app/%09d" % tenth
        delete = kv_pb2.DeleteRangeRequest(key=b"/app/", range_end=end)
        yield f"delete {tenth:,}", partial(self._call, "KV/DeleteRange", delete)

    def _call(self, method: str, request: Any) -> bytes:
        """Make a call of bytes: nobody here looks at the answer."""
        client = self._root if method.startswith("Maintenance") else self._client
        start = client.prepared(f"/etcdserverpb.{method}", timeout_s=_ANSWER_S)
        return bytes(start(request.SerializeToString()).result())

    def _large_txn(self) -> None:
        txn = kv_pb2.TxnRequest()
        for number in range(_LARGE_TXN_PUTS):
            put = txn.success.add().request_put
            put.key = b"/app/large/%03d" % number
            put.value = bytes(_LARGE_VALUE_BYTES)
        self._call("KV/Txn", txn)

    def _catch_up(self) -> None:
        member = self._server.member
        authority = member.authority.certificate if member.tls else None
        stream = RawStream(("127.0.0.1", member.port), authority)
        create = watch_pb2.WatchRequest(
            create_request=watch_pb2.WatchCreateRequest(
                key=b"/app/", range_end=b"/app0", start_revision=self._first_revision + 1
            )
        )
        stream.open("/etcdserverpb.Watch/Watch", self._client.token, [framed(create)])
        stream.socket.settimeout(_ANSWER_S)
        received = 0
        try:
            # The values alone are so much: with what is around them the last few may be missing.
            while received < self._count * VALUE_BYTES:
                count = stream.receive()
                received += count
                stream.forget()
                if not count:
                    raise LoadError(f"only {received} bytes of history came")
        finally:
            stream.close()

    def _json(self, limit: int) -> None:
        with Gateway(self._server.member) as gateway:
            if not self._server.is_open:
                gateway.fields["Authorization"] = self._client.token
            body = {"key": _text(b"/app/"), "range_end": _text(b"/app0"), "limit": limit}
            said = gateway.ask("/v3/kv/range", body)
        if said.status != 200:
            raise LoadError(f"the JSON gateway says {said.status}")

    def _snapshot(self) -> None:
        for _ in self._root.maintenance.Snapshot(maintenance_pb2.SnapshotRequest()):
            pass

    def _compact(self) -> None:
        newest = self._client.kv.Range(kv_pb2.RangeRequest(key=b"/app/probe")).header.revision
        request = kv_pb2.CompactionRequest(revision=newest, physical=True)
        start = self._root.prepared("/etcdserverpb.KV/Compact", timeout_s=_ANSWER_S)
        start(request.SerializeToString()).result()

    def _lease(self, count: int) -> None:
        self._client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=_LEASE, TTL=3_600))
        for first in range(0, count, 100):
            txn = kv_pb2.TxnRequest()
            for number in range(first, min(first + 100, count)):
                put = txn.success.add().request_put
                put.key = b"/app/leased/%09d" % number
                put.lease = _LEASE
            self._call("KV/Txn", txn)


def _text(key: bytes) -> str:
    return b64encode(key).decode()


def _loop_pauses(server: Server) -> list[tuple[float, float]]:
    """Return the upper bounds of the gauge's buckets in ms, and how many were at most that."""
    if server.contestant is not Contestant.KVSECURE:
        return []
    tls = ssl.create_default_context(cafile=str(server.member.authority.certificate))
    with urllib.request.urlopen(f"{server.member.url}/metrics", context=tls) as page:
        lines = page.read().decode().splitlines()
    found = []
    for line in lines:
        if line.startswith(_METRIC):
            bound, _, count = line.removeprefix(_METRIC).partition('"} ')
            found.append((float(bound) * 1000, float(count)))
    return found


def _longest_ms(
    before: list[tuple[float, float]], after: list[tuple[float, float]]
) -> float | None:
    """Return the bound that no pause between two looks was above."""
    total = after[-1][1] - before[-1][1] if after else 0
    for (_, earlier), (bound_ms, later) in zip(before, after, strict=True):
        if later - earlier == total:
            return bound_ms
    return None

"""100,000 keys, sealed anew under load, killed halfway, finished after the restart.

Run it with `pytest -m campaign -s tests/e2e/test_e2e_keys_campaign.py`; it prints what it saw.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, final

import grpc
import pytest
from e2e.world import Fortress
from support.processes import wait_until
from support.rpc import Client
from support.sealed import rows_by_term, segments_by_term

from kvsecure.proto import crypto_pb2, kv_pb2

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]

_KEYS: Final = 100_000
_AT_ONCE: Final = 100
_VALUE_BYTES: Final = 256
_RATE: Final = 10_000
_DEADLINE_S: Final = 300.0


@final
class _Load:
    """Puts and gets of a few clients, and how long each took; after a kill they come back."""

    def __init__(self, fortress: Fortress, clients: int = 4) -> None:
        self.latest: dict[bytes, bytes] = {}
        self.unknown: dict[bytes, set[bytes]] = {}
        self.took_s: list[float] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, fortress.root()))
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client_number: int, client: Client) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = b"/k/%06d" % (
                (number * 37 + client_number * 25_000) % 25_000 + client_number * 25_000
            )
            value = b"load %d of %d" % (number, client_number)
            begun_s = time.monotonic()
            try:
                client.kv.Put(kv_pb2.PutRequest(key=key, value=value), timeout=2)
                client.kv.Range(kv_pb2.RangeRequest(key=key), timeout=2)
            except grpc.RpcError:
                # It may have happened or not.
                self.unknown.setdefault(key, set()).add(value)
                time.sleep(0.05)
            else:
                self.took_s.append(time.monotonic() - begun_s)
                self.latest[key] = value
                self.unknown.pop(key, None)


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """A server with 100,000 keys."""
    with Fortress(tmp_path / "member") as fortress:
        put = fortress.root().prepared("/etcdserverpb.KV/Put")
        for at in range(0, _KEYS, _AT_ONCE):
            requests = [
                kv_pb2.PutRequest(key=b"/k/%06d" % number, value=b"v" * _VALUE_BYTES)
                for number in range(at, at + _AT_ONCE)
            ]
            for call in [put(request.SerializeToString()) for request in requests]:
                call.result()
        yield fortress


def _progress(client: Client) -> Any:
    return client.crypto.Status(crypto_pb2.CryptoStatusRequest()).progress


def _slowest(took_s: list[float]) -> str:
    ordered = sorted(took_s) or [0.0]
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {middle * 1e3:.1f} ms, p99 {late * 1e3:.1f} ms, max {ordered[-1] * 1e3:.1f} ms"


def test_hundred_thousand_keys_are_sealed_anew_under_load_through_a_kill(
    fortress: Fortress,
) -> None:
    """Nothing is lost, nothing is left, and the proof says so."""
    data, root = fortress.data, fortress.root()
    with _Load(fortress) as load:
        time.sleep(3)
        quiet, load.took_s = _slowest(load.took_s), []
        assert fortress.cli("crypto", "rotate").returncode == 0
        begun_s = time.monotonic()
        done = fortress.cli("crypto", "reencrypt", "--no-wait", f"--rows-per-second={_RATE}")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: _progress(root).rows > _KEYS // 2, deadline_s=_DEADLINE_S, what="half")
        busy, first_s = _slowest(load.took_s), time.monotonic() - begun_s
        fortress.server.process.kill9_all()
        halfway = dict(rows_by_term(data))
        fortress.server.restart()
        restarted_s = time.monotonic()
        resumed = _progress(root).rows
        wait_until(
            lambda: _progress(root).state == crypto_pb2.CryptoProgress.DONE,
            deadline_s=_DEADLINE_S,
            what="the end",
        )
        second_s = time.monotonic() - restarted_s
    # What was written last is in the tables within a moment.
    wait_until(lambda: set(rows_by_term(data)) == {2}, deadline_s=10, what="the last flush")
    proof = fortress.cli("crypto", "status")
    retired = fortress.cli("crypto", "retire", "1", "--yes")
    fortress.server.stop()
    fortress.server.restart()
    found = root.kv.Range(kv_pb2.RangeRequest(key=b"/k/", range_end=b"/k0"))

    print(f"\nbefore: {quiet}\nmeanwhile: {busy}")
    print(f"first half {first_s:.1f} s; killed with rows by term {halfway}")
    print(f"resumed at {resumed} rows, the end {second_s:.1f} s after the restart")
    print(f"segments of the log {dict(segments_by_term(data, 'wal'))}")
    print(proof.stdout.decode(), retired.stdout.decode(), retired.stderr.decode())
    assert halfway[1] > 1_000
    assert resumed > _KEYS // 3
    assert retired.returncode == 0
    assert set(segments_by_term(data, "wal")) == {2}
    assert found.count == _KEYS
    for kv in found.kvs:
        wanted = load.latest.get(kv.key, b"v" * _VALUE_BYTES)
        assert kv.value == wanted or kv.value in load.unknown.get(kv.key, ())
    assert fortress.verify().returncode == 0

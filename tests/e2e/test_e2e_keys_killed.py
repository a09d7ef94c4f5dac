"""A server that is killed at any moment of a rotation: it starts again, and everything is there.

`KEYS_KILL_ROUNDS=100 pytest tests/e2e/test_e2e_keys_killed.py` kills it more often.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import grpc
import pytest
from e2e.world import Fortress
from support.rpc import Client
from support.sealed import rows_by_term

from kvsecure.proto import crypto_pb2, kv_pb2

pytestmark = pytest.mark.timeout(600)

_ROUNDS: Final = int(os.environ.get("KEYS_KILL_ROUNDS", "6"))
_KEYS: Final = 400
# Long enough for several whole ways from one data key to the next.
_ALIVE_S_MAX: Final = 1.5


@final
class _Rounds:
    """Somebody who writes, and somebody who changes keys as fast as that goes."""

    def __init__(self, root: Client, acknowledged: dict[bytes, bytes], begin: int) -> None:
        self.unknown: dict[bytes, set[bytes]] = {}
        self.retired = 0
        self._root = root
        self._acknowledged = acknowledged
        self._number = begin
        self._threads = [threading.Thread(target=each) for each in (self._write, self._change)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until both have noticed that the server is gone."""
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        while True:
            self._number += 1
            key = b"/k/%d" % (self._number % _KEYS)
            value = b"%d " % self._number * 20
            try:
                self._root.kv.Put(kv_pb2.PutRequest(key=key, value=value), timeout=5)
            except grpc.RpcError:
                self.unknown.setdefault(key, set()).add(value)
                return
            self._acknowledged[key] = value

    def _change(self) -> None:
        keys, done = self._root.crypto, crypto_pb2.CryptoProgress.DONE
        with contextlib.suppress(grpc.RpcError):
            while True:
                term = keys.Rotate(crypto_pb2.CryptoRotateRequest()).term
                keys.Reencrypt(crypto_pb2.CryptoReencryptRequest(rows_per_second=1_000_000))
                while keys.Status(crypto_pb2.CryptoStatusRequest()).progress.state != done:
                    time.sleep(0.01)
                keys.Retire(crypto_pb2.CryptoRetireRequest(term=term - 1))
                self.retired += 1


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """A server."""
    with Fortress(tmp_path / "member") as fortress:
        yield fortress


def test_member_that_is_killed_while_its_keys_change_starts_with_everything(
    fortress: Fortress,
) -> None:
    """Whatever of a rotation was done when it was killed, nothing acknowledged is lost."""
    root, rng = fortress.root(), random.Random()
    acknowledged: dict[bytes, bytes] = {}
    retired = 0
    for number in range(_ROUNDS):
        rounds = _Rounds(root, acknowledged, number * 1_000_000)
        rounds.start()
        time.sleep(rng.random() * _ALIVE_S_MAX)
        fortress.server.process.kill9_all()
        rounds.join()
        retired += rounds.retired

        fortress.server.restart()
        # The connection that was cut comes back when it likes.
        root = fortress.root()

        found = root.kv.Range(kv_pb2.RangeRequest(key=b"/k/", range_end=b"/k0")).kvs
        stored = {kv.key: kv.value for kv in found}
        assert stored.keys() >= acknowledged.keys()
        for key, value in stored.items():
            assert value == acknowledged.get(key) or value in rounds.unknown.get(key, ())
        acknowledged.update(stored)
    status = root.crypto.Status(crypto_pb2.CryptoStatusRequest(count=True))
    known = {term.term for term in status.terms if not term.retired}
    assert known >= set(rows_by_term(fortress.data))
    assert retired or _ROUNDS < 20
    assert fortress.verify().returncode == 0

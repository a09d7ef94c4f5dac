"""Hashes, damage and defragmentation on a running server.

What is asked wrongly is in tests/compat, what may not be asked in test_e2e_advisories.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb
import pytest
from e2e.world import Fortress, refused
from support.rpc import Client, Refusal

from kvsecure.model.errors import Failure
from kvsecure.proto import kv_pb2, maintenance_pb2

_CORRUPT: Final = Refusal("DATA_LOSS", Failure.CORRUPT.text)


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """A server of its own, which is damaged on purpose."""
    with Fortress(tmp_path / "fortress") as built:
        yield built


def _fill(root: Client, count: int, size_bytes: int) -> None:
    for number in range(count):
        request = kv_pb2.PutRequest(key=b"key-%05d" % number, value=b"v" * size_bytes)
        root.kv.Put(request)


def _status(root: Client) -> maintenance_pb2.StatusResponse:
    return root.maintenance.Status(maintenance_pb2.StatusRequest())


def _hash(root: Client, revision: int = 0) -> maintenance_pb2.HashKVResponse:
    return root.maintenance.HashKV(maintenance_pb2.HashKVRequest(revision=revision))


def _change_a_record(data: Path) -> None:
    """Flip a bit of the newest record in the tables of a server that is stopped."""
    env = lmdb.open(str(data / "tables"), max_dbs=8, map_size=1 << 30)
    records = env.open_db(b"records")
    with env.begin(write=True) as transaction:
        cursor = transaction.cursor(db=records)
        assert cursor.last()
        sealed = bytearray(cursor.value())
        sealed[-1] ^= 1
        transaction.put(cursor.key(), bytes(sealed), db=records)
    env.close()


def test_the_file_shrinks_while_reads_and_writes_go_on(fortress: Fortress) -> None:
    """Free pages go back to the file system, no call fails meanwhile, and the hash stays."""
    root = fortress.root()
    _fill(root, 1_500, 8_000)
    root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"key-", range_end=b"key-01400"))
    revision = _status(root).header.revision
    root.kv.Compact(kv_pb2.CompactionRequest(revision=revision, physical=True))
    fortress.put(root, b"behind", b"the compaction")
    before, hashed = _status(root), _hash(root)
    ended = threading.Event()
    slowest: list[float] = []

    def keep_busy() -> None:
        other = fortress.root()
        while not ended.is_set():
            begun = time.monotonic()
            other.kv.Put(kv_pb2.PutRequest(key=b"busy", value=b"v"))
            other.kv.Range(kv_pb2.RangeRequest(key=b"key-01450"))
            slowest.append(time.monotonic() - begun)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    for _ in range(3):
        root.maintenance.Defragment(maintenance_pb2.DefragmentRequest())
    ended.set()
    busy.join()

    after = _status(root)
    assert before.dbSize > 10_000_000
    assert after.dbSize < 4_000_000
    # A page more or less for what was written meanwhile.
    assert (fortress.data / "tables" / "data.mdb").stat().st_size < 4_000_000
    assert slowest
    assert _hash(root, hashed.header.revision).hash == hashed.hash
    assert fortress.value(root, b"key-01450") == b"v" * 8_000


def test_a_kill_while_it_defragments_loses_nothing(fortress: Fortress) -> None:
    """Killed at any moment of it, the member has all that it acknowledged, and starts at once."""
    root = fortress.root()
    _fill(root, 600, 8_000)
    root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"key-", range_end=b"key-00300"))
    revision = _status(root).header.revision
    for delay_s in (0.0, 0.01, 0.02, 0.04, 0.06, 0.1):
        revision = fortress.put(root, b"before", b"%f" % delay_s)
        before = _hash(root, revision)
        start = root.maintenance.Defragment
        calling = threading.Thread(
            target=lambda call=start: refused(lambda: call(maintenance_pb2.DefragmentRequest()))
        )
        calling.start()
        time.sleep(delay_s)
        fortress.server.kill9()
        calling.join()
        fortress.server.restart()
        root = fortress.root()

        assert _hash(root, revision).hash == before.hash
    assert sorted(path.name for path in (fortress.data / "tables").iterdir()) == [
        "data.mdb",
        "lock.mdb",
    ]


def test_hash_survives_a_kill(fortress: Fortress) -> None:
    """What was acknowledged has the same hash after a kill and a restart."""
    root = fortress.root()
    _fill(root, 50, 10)
    before = _hash(root)

    fortress.server.kill9()
    fortress.server.restart()

    after = _hash(fortress.root())
    assert (after.hash, after.hash_revision) == (before.hash, before.hash_revision)


@pytest.mark.parametrize("how", ["start", "hash", "period"])
def test_damage_raises_the_alarm_and_nothing_more_is_written(tmp_path: Path, how: str) -> None:
    """At the start, on request or by the clock: damage is found, and writes are refused."""
    flags = {
        "start": ("--feature-gates=InitialCorruptCheck=true",),
        "hash": (),
        "period": ("--corrupt-check-time=1s",),
    }[how]
    with Fortress(tmp_path / "fortress", flags=flags) as fortress:
        root = fortress.root()
        fortress.put(root, b"whole", b"1")
        _status(root)
        _hash(root)
        fortress.put(root, b"damaged", b"2")
        _hash(root)
        fortress.server.stop()
        _change_a_record(fortress.data)
        fortress.server.restart()
        root = fortress.root()
        if how == "hash":
            assert refused(lambda: _hash(root)) == _CORRUPT
        deadline_s = time.monotonic() + 20
        while not any("CORRUPT" in error for error in _status(root).errors):
            assert time.monotonic() < deadline_s, "no alarm was raised"
            time.sleep(0.05)

        put = kv_pb2.PutRequest(key=b"more", value=b"3")
        assert refused(lambda: root.kv.Put(put)) == _CORRUPT
        assert fortress.value(root, b"whole") == b"1"
        root.maintenance.Alarm(
            maintenance_pb2.AlarmRequest(
                action=maintenance_pb2.AlarmRequest.DEACTIVATE,
                memberID=_status(root).header.member_id,
                alarm=maintenance_pb2.CORRUPT,
            )
        )
        if how != "period":
            root.kv.Put(put)

"""The crash test notices what it is there to notice: a canary for each of its complaints."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crash import Ledger, Writers
from support.servers import Member

from kvsecure.proto import kv_pb2


@pytest.fixture
def writers(etcd: Member) -> Iterator[Writers]:
    """A process that writes to etcd, and has written."""
    writers = Writers(etcd, 1)
    writers.go()
    writers.wait_acknowledged(20)
    writers.pause()
    yield writers
    writers.close()


def test_lost_write_is_noticed(etcd: Member, writers: Writers, tmp_path: Path) -> None:
    """A store that was put back to an earlier state lacks what was acknowledged since."""
    ledger = Ledger(writers)
    earlier = tmp_path / "earlier"
    etcd.stop()
    shutil.copytree(etcd.data_directory, earlier)
    etcd.restart()
    writers.go()
    writers.wait_acknowledged(20)
    writers.pause()
    etcd.stop()
    shutil.rmtree(etcd.data_directory)
    earlier.rename(etcd.data_directory)
    etcd.restart()

    with etcd.client() as client, pytest.raises(AssertionError, match="was told that write"):
        ledger.verify(client)


def test_rollback_behind_what_was_verified_is_noticed(
    etcd: Member, writers: Writers, tmp_path: Path
) -> None:
    """A revision that was seen once must be there for ever."""
    ledger = Ledger(writers)
    earlier = tmp_path / "earlier"
    etcd.stop()
    shutil.copytree(etcd.data_directory, earlier)
    etcd.restart()
    with etcd.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=b"later"))
        ledger.verify(client)
    etcd.stop()
    shutil.rmtree(etcd.data_directory)
    earlier.rename(etcd.data_directory)
    etcd.restart()

    with etcd.client() as client, pytest.raises(AssertionError, match="was told and is not there"):
        ledger.verify(client)


@pytest.mark.parametrize(
    ("key", "complaint"), [(b"w0/1", "nobody wrote"), (b"w0/pair/a", "half a pair")]
)
def test_foreign_write_is_noticed(
    etcd: Member, writers: Writers, key: bytes, complaint: str
) -> None:
    """A change of a writer's key that no writer made is nobody's, and one key is half a pair."""
    with etcd.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=key, value=b"w0:stranger"))

        with pytest.raises(AssertionError, match=complaint):
            Ledger(writers).verify(client)


def test_write_applied_twice_is_noticed(etcd: Member, writers: Writers) -> None:
    """A write whose number is there already was applied twice."""
    with etcd.client() as client:
        kept = client.kv.Range(kv_pb2.RangeRequest(key=b"w0/2")).kvs[0]
        client.kv.Put(kv_pb2.PutRequest(key=kept.key, value=kept.value))

        with pytest.raises(AssertionError, match="somebody twice"):
            Ledger(writers).verify(client)

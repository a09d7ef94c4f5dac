"""A disk that fills up under whatever a server does, and one that begins to fail.

The trail alone on a full disk is in `test_e2e_full_disk.py`.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

import grpc
import pytest
from e2e.world import Fortress, refused
from support.disk import small_disk_at, small_file_system_at
from support.processes import wait_until
from support.rpc import Client, Refusal

from kvsecure.model.errors import Failure
from kvsecure.proto import crypto_pb2, kv_pb2, maintenance_pb2

_UNRECORDED: Final = Refusal("UNAVAILABLE", Failure.AUDIT_UNAVAILABLE.text)
# A member whose log cannot be written either says so, or lets a call run into its time.
_NO_ROOM: Final = (
    _UNRECORDED,
    Refusal("RESOURCE_EXHAUSTED", Failure.NO_SPACE.text),
    Refusal("UNAVAILABLE", Failure.TIMEOUT.text),
    Refusal("DEADLINE_EXCEEDED", "Deadline Exceeded"),
)
_CALL_S_MAX: Final = 1.5


@final
class _Book:
    """What was acknowledged, and what may have happened besides."""

    def __init__(self) -> None:
        self.sure: dict[bytes, bytes] = {}
        self.unsure: dict[bytes, bytes] = {}

    def put(self, client: Client, size_bytes: int = 200) -> Refusal | None:
        """Put a key that never was, and take note of what came of it."""
        number = len(self.sure) + len(self.unsure)
        key, value = b"key/%06d" % number, b"%d." % number * (size_bytes // 4)
        request = kv_pb2.PutRequest(key=key, value=value)
        answer = refused(lambda: client.kv.Put(request, timeout=_CALL_S_MAX))
        (self.unsure if answer else self.sure)[key] = value
        return answer

    def check(self, client: Client) -> None:
        """Find everything that is sure, and nothing that nobody wrote."""
        request = kv_pb2.RangeRequest(key=b"key/", range_end=b"key0")
        found = {kv.key: kv.value for kv in client.kv.Range(request).kvs}
        assert found.items() >= self.sure.items()
        assert found.items() <= (self.sure | self.unsure).items()


def _until_refused(book: _Book, client: Client, size_bytes: int = 2_000) -> None:
    for _ in range(2_000):
        answer = book.put(client, size_bytes)
        if answer is not None:
            assert answer in _NO_ROOM
            return
    raise AssertionError("the disk is never full")


def _while_it_is_compacted(book: _Book, root: Client) -> None:
    revision = root.kv.Range(kv_pb2.RangeRequest(key=b"key/0")).header.revision
    compaction = kv_pb2.CompactionRequest(revision=revision)
    refused(lambda: root.kv.Compact(compaction, timeout=_CALL_S_MAX))
    _until_refused(book, root)


def _while_it_is_defragmented(book: _Book, root: Client) -> None:
    request = maintenance_pb2.DefragmentRequest()
    answer = refused(lambda: root.maintenance.Defragment(request, timeout=_CALL_S_MAX))
    assert answer is not None
    _until_refused(book, root)


def _while_it_is_sealed_anew(book: _Book, root: Client) -> None:
    refused(lambda: root.crypto.Rotate(crypto_pb2.CryptoRotateRequest(), timeout=_CALL_S_MAX))
    request = crypto_pb2.CryptoReencryptRequest(rows_per_second=100_000)
    refused(lambda: root.crypto.Reencrypt(request, timeout=_CALL_S_MAX))
    _until_refused(book, root)


def _while_a_backup_is_made(book: _Book, root: Client) -> None:
    request = maintenance_pb2.SnapshotRequest()
    with contextlib.suppress(grpc.RpcError):
        for _ in root.maintenance.Snapshot(request, timeout=_CALL_S_MAX):
            pass
    _until_refused(book, root)


_DOING: Final[dict[str, Callable[[_Book, Client], None]]] = {
    "puts": _until_refused,
    "large puts": lambda book, root: _until_refused(book, root, 200_000),
    "a compaction": _while_it_is_compacted,
    "a defragmentation": _while_it_is_defragmented,
    "sealing anew": _while_it_is_sealed_anew,
    "a backup": _while_a_backup_is_made,
}


def _goes_on(book: _Book, root: Client) -> None:
    wait_until(lambda: book.put(root) is None, deadline_s=20, what="room to be found")
    book.check(root)


@pytest.mark.campaign
def test_a_file_system_that_fills_up_under_anything_loses_nothing(tmp_path: Path) -> None:
    """Whatever a server does on a full disk, it refuses, keeps all, and goes on by itself."""
    fortress, book = Fortress(tmp_path / "full"), _Book()
    fortress.directory.mkdir(exist_ok=True)
    image = tmp_path / "image"
    with small_file_system_at(fortress.data, image, 48 << 20) as disk, fortress:
        root = fortress.root()
        for _ in range(50):
            assert book.put(root) is None

        for doing in _DOING.values():
            disk.fill(256 * 1024)
            doing(book, root)
            disk.make_room()
            _goes_on(book, root)

        assert fortress.verify().returncode == 0


@pytest.mark.parametrize(
    "leave_bytes",
    [
        0,
        pytest.param(8 * 1024, marks=pytest.mark.campaign),
        pytest.param(64 * 1024, marks=pytest.mark.campaign),
    ],
)
def test_a_server_that_is_killed_on_a_full_file_system_loses_nothing(
    tmp_path: Path, leave_bytes: int
) -> None:
    """Killed while there is no room, and started while there is none: with room it serves."""
    fortress, book = Fortress(tmp_path / "full"), _Book()
    image = tmp_path / "image"
    fortress.directory.mkdir(exist_ok=True)
    with small_file_system_at(fortress.data, image, 48 << 20) as disk, fortress:
        root = fortress.root()
        assert book.put(root) is None
        disk.fill(leave_bytes)
        _until_refused(book, root)
        process = fortress.server.process
        process.kill9()

        process.spawn()
        _has_begun_or_ended(fortress)
        disk.make_room()
        if not process.is_running:
            process.close()
            process.spawn()
        process.wait_ready()

        _goes_on(book, fortress.root())
        assert fortress.verify().returncode == 0


def test_reads_go_on_while_the_log_has_no_room(tmp_path: Path) -> None:
    """With a trail that can be written a full disk stops writes, and nothing else."""
    fortress, book = Fortress(tmp_path / "full"), _Book()
    fortress.directory.mkdir(exist_ok=True)
    with small_disk_at(fortress.data, 6 << 20) as disk, fortress, _trail_elsewhere(fortress):
        root = fortress.root()
        for _ in range(20):
            assert book.put(root) is None
        disk.fill(64 * 1024)
        _until_refused(book, root)

        # What was refused for want of time may yet be carried out.
        for _ in range(3):
            assert book.put(root) == Refusal("RESOURCE_EXHAUSTED", Failure.NO_SPACE.text)
            stale = kv_pb2.RangeRequest(key=b"key/000000", serializable=True)
            assert root.kv.Range(stale).kvs[0].value == book.sure[b"key/000000"]
            book.check(root)

        disk.make_room()
        _goes_on(book, root)


@contextlib.contextmanager
def _trail_elsewhere(fortress: Fortress) -> Iterator[None]:
    """Move the trail of a running server to a disk of its own, and start it again there."""
    fortress.server.stop()
    audit, aside = fortress.data / "audit", fortress.directory / "aside"
    shutil.move(audit, aside)
    with small_disk_at(audit, 8 << 20):
        for path in aside.iterdir():
            shutil.copy2(path, audit / path.name)
        fortress.server.restart()
        yield
        fortress.server.close()


def _has_begun_or_ended(fortress: Fortress) -> None:
    """Give a start the time that it takes, whatever comes of it."""
    process = fortress.server.process
    begun = process.log().count(b"\n")
    with contextlib.suppress(TimeoutError):
        wait_until(
            lambda: not process.is_running or process.log().count(b"\n") > begun,
            deadline_s=5,
            what="a word of it",
        )

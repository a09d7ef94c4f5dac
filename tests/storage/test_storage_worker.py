"""The disk processes, each a real process: what they answer, and when they end."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage.disk_process import DiskProcess, log_settings, started, table_settings
from storage.segments_lab import CLUSTER, KEYS, Bench, dirty_pages
from support.disk import small_disk_at
from support.processes import wait_until

from kvsecure.storage.files import DirectoryLock, StorageError
from kvsecure.storage.rows import NO_SCOPE, Row, Table, pack_rows
from kvsecure.storage.segment import HEADER_BYTES
from kvsecure.storage.tables import TableReader
from kvsecure.storage.worker import APPEND, APPENDED, WRITTEN, Order, Report

_DEADLINE_S = 10.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty directory of segments."""
    return Bench(tmp_path / "wal")


def _rows_of(directory: Path) -> dict[bytes, bytes]:
    reader = TableReader(directory, CLUSTER, KEYS, size_bytes_max=64 << 20)
    rows = dict(reader.scan(Table.STATE, NO_SCOPE))
    reader.close()
    return rows


def _row(key: bytes, value: bytes) -> bytes:
    return pack_rows([Row(Table.STATE, key, NO_SCOPE, value)])


# --- the log ------------------------------------------------------------------------------------


def test_log_process_answers_each_append_when_it_is_durable(bench: Bench) -> None:
    """What it says is appended is on the disk, whole, and where it says the log goes on."""
    with started(log_settings(bench)) as log:
        for number, count in enumerate((1, 3, 0, 2)):
            told = log.append(b"text %d" % number, count)
            following, took_us = APPENDED.unpack(told.body)

            assert told.kind is Report.APPENDED
            assert following == 1 + sum((1, 3, 0, 2)[: number + 1])
            assert took_us >= 0
            assert not dirty_pages(bench.paths()[-1])
        log.process.kill()

    texts, tail = bench.recover()
    assert texts == [b"text %d" % number for number in range(4)]
    assert tail.following == 7


def test_log_process_takes_orders_ahead_of_its_answers(bench: Bench) -> None:
    """Orders that are sent without waiting are carried out one by one, in order."""
    with started(log_settings(bench)) as log:
        for number in range(50):
            log.tell(Order.APPEND, APPEND.pack(number + 1, 1, False), b"%d" % number)
        followings = [APPENDED.unpack(log.listen().body)[0] for _ in range(50)]
        assert log.close() == 0

    assert followings == list(range(2, 52))
    assert bench.recover()[0] == [b"%d" % number for number in range(50)]


def test_log_process_goes_on_where_the_last_one_ended(bench: Bench) -> None:
    """A second process begins a segment of its own that joins on."""
    for number in range(3):
        with started(log_settings(bench)) as log:
            log.append(b"%d" % number)

    assert bench.recover()[0] == [b"0", b"1", b"2"]
    assert len(bench.paths()) == 3


def test_log_process_says_that_the_disk_is_full_and_goes_on(tmp_path: Path) -> None:
    """On a full disk it reports ENOSPC, and the same frame succeeds when there is room, once."""
    with small_disk_at(tmp_path / "disk", 64 * 1024) as disk:
        bench = Bench(disk.path / "wal")
        with started(log_settings(bench)) as log:
            assert log.append(b"before").kind is Report.APPENDED
            disk.fill()
            for _ in range(3):
                told = log.append(b"x" * 9_000)
                assert (told.kind, told.errno) == (Report.FAILED, errno.ENOSPC)
            disk.make_room()
            assert log.append(b"x" * 9_000).kind is Report.APPENDED
            assert log.append(b"after").kind is Report.APPENDED
            assert log.close() == 0

        assert bench.recover()[0] == [b"before", b"x" * 9_000, b"after"]


def test_log_process_purges_what_is_stored_elsewhere(bench: Bench) -> None:
    """Told that everything below an entry is in the tables, it deletes those segments alone."""
    with started(log_settings(bench, segment_bytes_max=HEADER_BYTES)) as log:
        for number in range(4):
            log.append(b"%d" % number)
        log.tell(Order.PURGE, (3).to_bytes(8, "big"))
        log.append(b"4")

    assert bench.recover()[0] == [b"2", b"3", b"4"]


def test_log_process_goes_on_where_it_cannot_purge(bench: Bench) -> None:
    """A segment that cannot be deleted now is no failed append, and is deleted later."""
    with started(log_settings(bench, segment_bytes_max=HEADER_BYTES)) as log:
        for number in range(3):
            log.append(b"%d" % number)
        with _immutable(bench.paths()[0]):
            log.tell(Order.PURGE, (3).to_bytes(8, "big"))
            assert log.append(b"3").kind is Report.APPENDED
            assert len(bench.paths()) == 4
        stranger = bench.place.directory / "copy.wal"
        stranger.touch()
        log.tell(Order.PURGE, (3).to_bytes(8, "big"))
        assert log.append(b"4").kind is Report.APPENDED
        stranger.unlink()
        log.tell(Order.PURGE, (3).to_bytes(8, "big"))
        assert log.append(b"5").kind is Report.APPENDED

    assert bench.recover()[0] == [b"2", b"3", b"4", b"5"]


@contextlib.contextmanager
def _immutable(path: Path) -> Iterator[None]:
    """Keep even root from deleting a file."""
    try:
        subprocess.run(["chattr", "+i", path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file can be made immutable here: {error}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_log_process_makes_the_audit_trail_durable_first(bench: Bench, tmp_path: Path) -> None:
    """What was written to the audit segment before an append is durable when that is answered."""
    trail = tmp_path / "trail"
    with started(log_settings(bench)) as log, trail.open("ab", buffering=0) as audit:
        log.tell(Order.AUDIT, os.fsencode(trail))
        audit.write(b"decided")
        if not dirty_pages(trail):
            pytest.skip("nobody can tell here which pages are on the disk")

        log.append(b"done")
        after_append = dirty_pages(trail)
        audit.write(b"more")
        log.tell(Order.SYNC_AUDIT)
        told = log.listen()

        assert after_append == 0
        assert told.kind is Report.AUDIT_SYNCED
        assert dirty_pages(trail) == 0


def test_log_process_does_not_sync_what_the_frame_carries(bench: Bench, tmp_path: Path) -> None:
    """The trail is left to the system where the frame carries it, until that segment is purged."""
    trail = tmp_path / "trail"
    settings = log_settings(bench, segment_bytes_max=HEADER_BYTES)
    with started(settings) as log, trail.open("ab", buffering=0) as audit:
        log.tell(Order.AUDIT, os.fsencode(trail))
        audit.write(b"decided")
        if not dirty_pages(trail):
            pytest.skip("nobody can tell here which pages are on the disk")

        for _ in range(3):
            log.append(b"done, and what was decided", carries_audit=True)
        after_append = dirty_pages(trail)
        log.tell(Order.PURGE, (1).to_bytes(8, "big"))
        log.append(b"more", carries_audit=True)
        after_needless_purge = dirty_pages(trail)
        log.tell(Order.PURGE, (3).to_bytes(8, "big"))
        log.append(b"more", carries_audit=True)

        assert (after_append, after_needless_purge) == (1, 1)
        assert dirty_pages(trail) == 0
        assert bench.recover()[0][0] == b"done, and what was decided"


def test_log_process_reports_an_audit_segment_that_is_not_there(
    bench: Bench, tmp_path: Path
) -> None:
    """An audit segment that cannot be opened is reported: nothing could be made durable in it."""
    with started(log_settings(bench)) as log:
        log.tell(Order.AUDIT, os.fsencode(tmp_path / "missing"))
        told = log.listen()

    assert (told.kind, told.errno) == (Report.FAILED, errno.ENOENT)


# --- the tables ---------------------------------------------------------------------------------


def test_table_process_answers_when_rows_are_written(tmp_path: Path) -> None:
    """Rows that it says are written are there after it is killed, and it tells its sizes."""
    with started(table_settings(tmp_path / "tables")) as tables:
        tables.tell(Order.WRITE, _row(b"a", b"1"))
        tables.tell(Order.WRITE, _row(b"b", b"2"))
        told = [tables.listen() for _ in range(2)]
        tables.process.kill()

    assert [report.kind for report in told] == [Report.WRITTEN] * 2
    total, in_use, _ = WRITTEN.unpack(told[1].body)
    assert total >= in_use > 0
    assert _rows_of(tmp_path / "tables") == {b"a": b"1", b"b": b"2"}


def test_table_process_reports_a_full_map_and_goes_on(tmp_path: Path) -> None:
    """A transaction that does not fit is reported as ENOSPC, and the next one is carried out."""
    settings = table_settings(tmp_path / "tables", size_bytes_max=256 * 1024)
    with started(settings) as tables:
        tables.tell(Order.WRITE, _row(b"a", b"x" * 300_000))
        full = tables.listen()
        tables.tell(Order.WRITE, _row(b"a", b"1"))
        after = tables.listen()

    assert (full.kind, full.errno) == (Report.FAILED, errno.ENOSPC)
    assert after.kind is Report.WRITTEN
    assert _rows_of(tmp_path / "tables") == {b"a": b"1"}


def test_table_process_goes_on_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    """Rows that a full disk refused are written when they are sent again with room."""
    with small_disk_at(tmp_path / "disk", 512 * 1024) as disk:
        with started(table_settings(disk.path / "tables")) as tables:
            disk.fill()
            told = []
            for _ in range(2):
                tables.tell(Order.WRITE, _row(b"a", b"x" * 50_000))
                told.append(tables.listen())
            disk.make_room()
            tables.tell(Order.WRITE, _row(b"a", b"x" * 50_000))
            told.append(tables.listen())

        assert [report.kind for report in told] == [Report.FAILED, Report.FAILED, Report.WRITTEN]
        assert told[0].errno == errno.ENOSPC
        assert _rows_of(disk.path / "tables") == {b"a": b"x" * 50_000}


def test_table_process_says_why_it_cannot_open(tmp_path: Path) -> None:
    """Tables of another cluster are named in what the process reports before it ends."""
    with started(table_settings(tmp_path / "tables")):
        pass
    process = DiskProcess()

    told = process.open(table_settings(tmp_path / "tables", cluster=5))

    assert told.kind is Report.FAILED
    assert f"belong to cluster {CLUSTER:x}, not to 5" in told.text
    assert process.process.wait(_DEADLINE_S) == 1
    process.end()


# --- life ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["log", "tables"])
def test_disk_process_ends_when_its_member_is_gone(bench: Bench, tmp_path: Path, role: str) -> None:
    """A closed socket ends it in good order, before and after it was told what to open."""
    settings = log_settings(bench) if role == "log" else table_settings(tmp_path / "tables")
    with started(settings) as process:
        assert process.hang_up() == 0
    unopened = DiskProcess()
    assert unopened.hang_up() == 1


def test_disk_process_outlives_the_signals_of_a_terminal(bench: Bench) -> None:
    """An interrupt or a request to end is the member's to decide on; it goes on appending."""
    with started(log_settings(bench)) as log:
        for number in (signal.SIGINT, signal.SIGTERM):
            log.process.send_signal(number)
            assert log.append(b"x").kind is Report.APPENDED


_MEMBER = """
import sys
from pathlib import Path
from storage.disk_process import log_settings
from storage.segments_lab import Bench
from kvsecure.core.link import DiskLink
from kvsecure.storage.files import DirectoryLock

bench = Bench(Path(sys.argv[1]))
lock = DirectoryLock(bench.place.directory)
link = DiskLink(log_settings(bench), lock)
link.wait_ready()
print(link.pid, flush=True)
sys.stdin.read()
"""


def test_disk_process_keeps_the_directory_locked_while_it_lives(bench: Bench) -> None:
    """After a member is killed nobody gets in until its disk process has ended, and it does end."""
    with subprocess.Popen(
        [sys.executable, "-c", _MEMBER, str(bench.place.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as member:
        assert member.stdout is not None
        child = int(member.stdout.readline())
        # Stopped, it stands for one that is still writing.
        os.kill(child, signal.SIGSTOP)
        member.kill()
        member.wait()

        with pytest.raises(StorageError, match="in use by another member process"):
            DirectoryLock(bench.place.directory)
        os.kill(child, signal.SIGCONT)

    def is_free() -> bool:
        try:
            DirectoryLock(bench.place.directory).close()
        except StorageError:
            return False
        return True

    wait_until(is_free, deadline_s=_DEADLINE_S, what="the disk process to end")

"""Spare segments: whole or not there, taken by the writer, cut when it leaves them."""

import errno
import shutil
import stat
from pathlib import Path

import pytest
from storage.disk_process import log_settings, started
from storage.segments_lab import KEYS, Bench, file_size_limit
from support.disk import small_disk_at
from support.processes import wait_until

from kvsecure.storage.segments import recover
from kvsecure.storage.spares import SPARE_AFTER_BYTES, SpareMaker, discard_spares, spare_of
from kvsecure.storage.worker import Report

_SIZE = 3 * 1024 * 1024 + 5
_DEADLINE_S = 10.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty directory of segments."""
    return Bench(tmp_path / "wal")


def _make(directory: Path, size_bytes: int = _SIZE) -> None:
    SpareMaker(directory, size_bytes).look(SPARE_AFTER_BYTES)
    wait_until(spare_of(directory).exists, deadline_s=_DEADLINE_S, what="a spare")


def test_spare_is_zeros_and_private(tmp_path: Path) -> None:
    """A spare has its size, nothing but zeros, and is for its owner alone."""
    _make(tmp_path)

    spare = spare_of(tmp_path)
    assert spare.read_bytes() == bytes(_SIZE)
    assert stat.S_IMODE(spare.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [spare]


def test_no_spare_is_made_for_whoever_writes_little(tmp_path: Path) -> None:
    """Below a megabyte nothing is made: most members of a test never write as much."""
    maker = SpareMaker(tmp_path, _SIZE)

    maker.look(SPARE_AFTER_BYTES - 1)

    assert not maker.is_making
    assert not spare_of(tmp_path).exists()


def test_no_spare_takes_the_room_that_data_may_need(tmp_path: Path) -> None:
    """Where four times its size are not free, no spare is begun."""
    with small_disk_at(tmp_path / "disk", 3 * _SIZE) as disk:
        maker = SpareMaker(disk.path, _SIZE)
        maker.look(SPARE_AFTER_BYTES)
        wait_until(lambda: not maker.is_making, deadline_s=_DEADLINE_S, what="its end")

        assert list(disk.path.iterdir()) == []


def test_spare_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    """A failed write takes back what it has written, and is no error of anybody's."""
    maker = SpareMaker(tmp_path, _SIZE)

    with file_size_limit(_SIZE // 2):
        maker.look(SPARE_AFTER_BYTES)
        wait_until(lambda: not maker.is_making, deadline_s=_DEADLINE_S, what="its end")

    assert list(tmp_path.iterdir()) == []


def test_spares_of_another_process_are_discarded(bench: Bench) -> None:
    """What was made or begun before is not trusted to be zeros."""
    directory = bench.place.directory
    spare_of(directory).write_bytes(b"not zeros")
    (directory / "spare.new").write_bytes(b"begun")

    bench.writer()

    assert list(directory.iterdir()) == []
    discard_spares(directory)


def test_writer_changes_to_a_spare_once_it_is_worth_it(bench: Bench) -> None:
    """A grown segment is left for a spare, a small one is not, and everything is read back."""
    writer = bench.writer(bytes_max=_SIZE)
    texts = [b"small", b"x" * SPARE_AFTER_BYTES, b"in the spare"]

    writer.append(1, texts[0])
    _make(bench.place.directory)
    assert not writer.is_full
    writer.append(1, texts[1])
    assert writer.is_full
    writer.append(1, texts[2])

    assert not spare_of(bench.place.directory).exists()
    assert bench.paths()[-1].stat().st_size == _SIZE
    writer.close()
    assert bench.paths()[-1].stat().st_size < 1_000
    assert bench.recover()[0] == texts


def test_recovery_cuts_the_room_that_a_killed_process_left(bench: Bench) -> None:
    """Zeros behind the last frame are no torn write, and are gone when the next process writes."""
    writer = bench.writer(bytes_max=_SIZE)
    _make(bench.place.directory)
    writer.append(1, b"in the spare")
    assert bench.paths()[-1].stat().st_size == _SIZE

    texts, tail = bench.recover()

    assert (texts, tail.cut_bytes) == ([b"in the spare"], 0)
    assert bench.paths()[-1].stat().st_size < 1_000
    bench.write([b"after"])
    assert bench.recover()[0] == [b"in the spare", b"after"]


def test_recovery_cuts_a_torn_write_in_a_spare(bench: Bench, tmp_path: Path) -> None:
    """A frame whose pages did not all arrive is cut, with what was written of it counted."""
    writer = bench.writer(bytes_max=_SIZE)
    _make(bench.place.directory)
    for text in (b"whole", b"y" * 20_000):
        writer.append(1, text)
    newest = bench.paths()[-1]
    content = newest.read_bytes()
    end = len(content.rstrip(b"\0"))

    # The first page holds what was durable before.
    for page in range(4_096, end, 4_096):
        copy = Bench(tmp_path / f"torn{page}")
        shutil.copytree(bench.place.directory, copy.place.directory, dirs_exist_ok=True)
        torn = content[:page] + bytes(4_096) + content[page + 4_096 :]
        (copy.place.directory / newest.name).write_bytes(torn)

        texts, tail = copy.recover()

        assert texts == [b"whole"]
        assert tail.cut_bytes > 0


def test_full_disk_is_told_also_from_a_spare(bench: Bench) -> None:
    """A write that fails in a spare is cut off like any other, and the next one goes on."""
    writer = bench.writer(bytes_max=2 * _SIZE)
    _make(bench.place.directory, size_bytes=SPARE_AFTER_BYTES)
    writer.append(1, b"in the spare")

    with file_size_limit(2 * SPARE_AFTER_BYTES), pytest.raises(OSError, match="large") as caught:
        writer.append(1, b"y" * 3 * SPARE_AFTER_BYTES)
    assert caught.value.errno == errno.EFBIG
    writer.append(1, b"after")
    writer.close()

    assert bench.recover()[0] == [b"in the spare", b"after"]


def test_log_process_makes_and_takes_a_spare(bench: Bench) -> None:
    """A process that writes much goes over to segments that were made ahead, and loses nothing."""
    texts = [b"%d" % number + bytes(100_000) for number in range(14)]
    with started(log_settings(bench, segment_bytes_max=8 * 1024 * 1024)) as log:
        for text in texts:
            assert log.append(text).kind is Report.APPENDED
        # The first one has grown, so a spare is on its way; the look is a part of each append.
        more = b"more"

        def took_spare() -> bool:
            assert log.append(more).kind is Report.APPENDED
            return len(bench.paths()) > 1

        wait_until(took_spare, deadline_s=_DEADLINE_S, what="a segment in a spare")

    read: list[bytes] = []
    recover(bench.place, KEYS, lambda frame: read.append(frame.text))
    assert read[: len(texts)] == texts
    assert set(read[len(texts) :]) == {more}

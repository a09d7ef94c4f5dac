"""Files that survive a crash, and directories that nobody else may enter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from storage.segments_lab import contents_of, dirty_pages, file_size_limit

from kvsecure.storage.files import (
    DirectoryLock,
    StorageError,
    make_directory,
    replace_file,
    write_all,
)


def test_directory_is_made_private(tmp_path: Path) -> None:
    """A new directory, with the ones above it, is there and is its owner's alone."""
    path = tmp_path / "above" / "it"

    make_directory(path)
    make_directory(path)

    assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o720])
def test_directory_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right of others to a directory is refused, with the command that takes it away."""
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)

    with pytest.raises(StorageError, match=f"run chmod 700 {path}"):
        make_directory(path)

    assert path.stat().st_mode & 0o777 == mode


def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A directory of another user is refused even if it is private."""
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    os.chown(path, 65_534, 65_534)

    with pytest.raises(StorageError, match="belongs to another user: chown"):
        make_directory(path)


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A file in the directory's place is named."""
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(StorageError, match="is not a directory"):
        make_directory(path)


def test_file_is_replaced_whole_and_durably(tmp_path: Path) -> None:
    """The new content is there, private and on the disk, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    replace_file(path, b"new" * 1_000)

    assert contents_of(tmp_path) == {"file": b"new" * 1_000}
    assert path.stat().st_mode & 0o777 == 0o600
    assert not dirty_pages(path)


@pytest.mark.parametrize("limit", [0, 1, 2_999])
def test_file_that_cannot_be_replaced_keeps_its_content(tmp_path: Path, limit: int) -> None:
    """Wherever the write stops, the old content stays, and the next attempt succeeds."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with file_size_limit(limit), pytest.raises(OSError, match="too large"):
        replace_file(path, b"new" * 1_000)
    kept = path.read_bytes()
    replace_file(path, b"new" * 1_000)

    assert kept == b"old"
    assert contents_of(tmp_path) == {"file": b"new" * 1_000}


def test_everything_is_written_however_little_fits_at_once() -> None:
    """Writes that take only a part go on until all is written."""
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    content = os.urandom(50_000)

    write_all(writing, content)
    os.close(writing)

    with os.fdopen(reading, "rb") as source:
        assert source.read() == content


def test_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """A second one is refused until the first has let go."""
    lock = DirectoryLock(tmp_path)

    with pytest.raises(StorageError, match=rf"in use by another member process \({os.getpid()}\)"):
        DirectoryLock(tmp_path)
    lock.close()

    DirectoryLock(tmp_path).close()
    assert (tmp_path / "LOCK").stat().st_mode & 0o777 == 0o600


_KILLED: Final = """
import subprocess, sys
from pathlib import Path
from kvsecure.storage.files import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
subprocess.Popen(["sleep", "0.5"], pass_fds=[lock.descriptor])
"""


def test_directory_of_a_member_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """What a killed member's disk processes still hold is taken once they have ended."""
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=True)

    DirectoryLock(tmp_path).close()

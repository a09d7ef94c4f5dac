"""A disk that is small enough to be filled.

Owns: mounting a tmpfs of some kilobytes or a file system of some megabytes, filling it, making
    room again, and taking it away.
Never: pretends: where it cannot be mounted, the test that needs it is skipped and says so.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest

__all__ = ["SmallDisk", "small_disk_at", "small_file_system_at"]


@final
class SmallDisk:
    """A small mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Write until nothing more fits, and free some bytes again (pages of 4 KiB count)."""
        with contextlib.suppress(FileNotFoundError):
            self._ballast.unlink()
        with self._ballast.open("wb", buffering=0) as sink:
            with contextlib.suppress(OSError):
                while True:
                    sink.write(bytes(4_096))
            size = os.fstat(sink.fileno()).st_size
            sink.truncate(max(0, size - leave_bytes))

    def make_room(self) -> None:
        """Take away what `fill` has written."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk_at(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of this size, with a directory that only its owner may enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size_bytes},mode=0700"
    with _mounted(path, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield SmallDisk(path)


@contextlib.contextmanager
def small_file_system_at(path: Path, image: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a journalling file system that is in a file, as `small_disk_at`."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # Without room that is kept for its owner, or this would never be full.
    made = ["mkfs.ext4", "-q", "-m", "0", str(image)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system cannot be made here: {error}")
    path.mkdir(mode=0o700, exist_ok=True)
    with _mounted(path, "-o", "loop", str(image)):
        (path / "lost+found").rmdir()
        path.chmod(0o700)
        yield SmallDisk(path)


@contextlib.contextmanager
def _mounted(path: Path, *options: str) -> Iterator[None]:
    try:
        subprocess.run(["mount", *options, str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

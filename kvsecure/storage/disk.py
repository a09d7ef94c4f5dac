"""The disk as storage sees it: every system call that changes a file or makes one durable.

    Disk            what is asked of a disk
    SYSTEM_DISK     the operating system's

Owns: the one place where storage changes files; LMDB, which writes from C, is beside it.
Never: decides anything, tries again, or hides an error. Reading needs no seam and has none.
Follows: POSIX; what may be lost between two syncs is in docs/operations/disks.md.
Keeps: a disk of the tests sees every step that a crash can come between, because there is no other
    way to take one.
"""

import os
import shutil
from pathlib import Path
from typing import Final, Protocol, final

__all__ = ["DIRECTORY_MODE", "FILE_MODE", "SYSTEM_DISK", "Disk"]

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


class Disk(Protocol):
    """What storage asks of a disk; each call raises OSError when it is not carried out."""

    def open(self, path: Path, flags: int) -> int:
        """Return a descriptor of a file; one that is made belongs to its owner alone."""
        ...

    def close(self, descriptor: int) -> None:
        """Give up a descriptor; this makes nothing durable."""
        ...

    def write(self, descriptor: int, content: bytes | memoryview, /) -> int:
        """Write at the descriptor's place; return how many bytes went."""
        ...

    def write_at(self, descriptor: int, content: bytes | memoryview, offset: int, /) -> int:
        """Write at an offset in bytes; return how many bytes went."""
        ...

    def resize(self, descriptor: int, size_bytes: int) -> None:
        """Cut a file off, or lengthen it by a hole."""
        ...

    def reserve(self, descriptor: int, size_bytes: int) -> None:
        """See to it that so much of a file can be written later."""
        ...

    def sync(self, descriptor: int, /) -> None:
        """Make a file's content and attributes, or a directory's names, durable."""
        ...

    def sync_content(self, descriptor: int, /) -> None:
        """Make a file's content durable, and of its attributes what reading that needs."""
        ...

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name, and take that from whatever has it."""
        ...

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        ...

    def make_directory(self, path: Path) -> None:
        """Make a directory that its owner alone may enter."""
        ...

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        ...

    def free_bytes(self, directory: Path) -> int:
        """Return how much room there is."""
        ...


@final
class _SystemDisk:
    """The operating system's calls; what is called for every write is nothing but that call."""

    close = staticmethod(os.close)
    write = staticmethod(os.write)
    write_at = staticmethod(os.pwrite)
    sync = staticmethod(os.fsync)
    sync_content = staticmethod(os.fdatasync)

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)

    def resize(self, descriptor: int, size_bytes: int) -> None:
        os.ftruncate(descriptor, size_bytes)

    def reserve(self, descriptor: int, size_bytes: int) -> None:
        os.posix_fallocate(descriptor, 0, size_bytes)

    def rename(self, path: Path, to: Path) -> None:
        path.rename(to)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def make_directory(self, path: Path) -> None:
        path.mkdir(mode=DIRECTORY_MODE)

    def remove_directory(self, path: Path) -> None:
        path.rmdir()

    def free_bytes(self, directory: Path) -> int:
        return shutil.disk_usage(directory).free


SYSTEM_DISK: Final[Disk] = _SystemDisk()

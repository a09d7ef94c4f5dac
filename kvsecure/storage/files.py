"""Files that survive a crash.

Owns: writing aside and renaming, syncing directories, the lock on a data directory, and the check
    that nobody else may read it.
Never: knows what a file means; changes one other than through a `Disk`.
Follows: the rename protocol of crash-safe writes: data first, then name, then directory.
"""

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final, final

from kvsecure.storage.disk import DIRECTORY_MODE, FILE_MODE, SYSTEM_DISK, Disk

__all__ = [
    "DirectoryLock",
    "StorageError",
    "make_directory",
    "remove_flat_directory",
    "remove_tree",
    "replace_file",
    "sync_directory",
    "sync_file",
    "write_all",
]

# How long the disk processes of a member that is gone may take to finish what they were told.
_LINGER_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.02


@final
class StorageError(Exception):
    """The store cannot be used as it is; the text says what is wrong and what to do."""


def make_directory(path: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Make a private directory, and those that it is in; or check that an existing one is private.

    Its name is durable afterwards, also where a process before this one was killed too soon for it.

    Raises:
        StorageError: It exists and others may enter it, or it belongs to somebody else.
    """
    if not path.parent.exists():
        make_directory(path.parent, disk)
    try:
        disk.make_directory(path)
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise StorageError(f"{path} is not a directory") from None
        if status.st_uid != os.geteuid():
            raise StorageError(f"{path} belongs to another user: chown it to this one") from None
        if status.st_mode & 0o077:
            raise StorageError(f"{path} is open to others: run chmod 700 {path}") from None
    _sync_names(path, disk)


def _sync_names(path: Path, disk: Disk) -> None:
    """Make a directory's name durable, and those above it that may have been made by a start."""
    for each in (path, *path.parents):
        status = each.stat()
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != DIRECTORY_MODE:
            break
        if os.access(each.parent, os.R_OK):
            sync_directory(each.parent, disk)


def remove_flat_directory(path: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Remove a directory and the files in it, if it is there."""
    if path.is_dir():
        for file in path.iterdir():
            disk.unlink(file)
        disk.remove_directory(path)


def remove_tree(path: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Remove a directory with all that is in it, if it is there."""
    if path.is_dir():
        for each in path.iterdir():
            if each.is_dir() and not each.is_symlink():
                remove_tree(each, disk)
            else:
                disk.unlink(each)
        disk.remove_directory(path)


def sync_directory(path: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Make the names in a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY, disk)


def sync_file(path: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Make a file's content durable."""
    _sync(path, os.O_RDONLY, disk)


def _sync(path: Path, flags: int, disk: Disk) -> None:
    descriptor = disk.open(path, flags)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def write_all(descriptor: int, content: bytes, disk: Disk = SYSTEM_DISK) -> None:
    """Write everything, however many calls it takes.

    Raises:
        OSError: The device is full or broken; an unknown part may have been written.
    """
    view = memoryview(content)
    while view:
        view = view[disk.write(descriptor, view) :]


def replace_file(path: Path, content: bytes, disk: Disk = SYSTEM_DISK) -> None:
    """Give a file new content, so that a crash leaves the old or the new one, whole."""
    aside = path.with_name(path.name + ".new")
    descriptor = disk.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, content, disk)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(aside, path)
    sync_directory(path.parent, disk)


@final
class DirectoryLock:
    """The right to write into a data directory.

    The descriptor is inherited by the disk processes: while any of them lives, nobody else gets in.
    What is written in the file, the number of the member's process, is for people.
    """

    __slots__ = ("descriptor",)

    def __init__(self, directory: Path) -> None:
        self.descriptor = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT, FILE_MODE)
        deadline_s = time.monotonic() + _LINGER_S
        while not _try_lock(self.descriptor):
            holder = os.pread(self.descriptor, 32, 0).decode("ascii", "replace").strip()
            if _is_alive(holder) or time.monotonic() > deadline_s:
                os.close(self.descriptor)
                raise StorageError(
                    f"{directory} is in use by another member process ({holder or 'unknown'})"
                )
            # Killed a moment ago; its disk processes notice that and end.
            time.sleep(_LOOK_EVERY_S)
        # On a full disk a member has to start all the same: to make room, for one.
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            write_all(self.descriptor, f"{os.getpid()}\n".encode())
        os.set_inheritable(self.descriptor, True)

    def close(self) -> None:
        """Give up the lock; a child that inherited it may still hold it."""
        os.close(self.descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(holder: str) -> bool:
    """Tell whether a process of this number exists; where there is none, nobody can tell."""
    if not holder.isdigit():
        return True
    try:
        os.kill(int(holder), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

"""Files with keys and certificates: written whole, private from the start, checked when read.

Owns: how such a file comes to be, and which files are too exposed to be trusted with a key.
Never: opens a path twice; what was checked is what is read.
Keeps: a reader sees the old content or the new one, never a part; a private file never exists, not
    even for a moment or under another name, with more than mode 0600.
"""

import contextlib
import os
import pwd
import shlex
import stat
from enum import Enum, auto
from pathlib import Path
from secrets import token_hex
from typing import Final, final

from kvsecure.model.secret import Secret

__all__ = [
    "FILE_BYTES_MAX",
    "Existing",
    "UnsafeFile",
    "check_private",
    "ensure_directory",
    "read_private",
    "read_public",
    "sync_directory",
    "write_private",
    "write_public",
]

# A bundle of some hundred certificates; more is a mistake in a path.
FILE_BYTES_MAX: Final = 1024 * 1024

_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
# Where systemd puts what `LoadCredential=` names. It may give the unit access by an access control
# list, whose mask is shown as the mode of the group.
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Existing(Enum):
    """What to do about a file that is there already."""

    REPLACE = auto()
    REFUSE = auto()


@final
class UnsafeFile(Exception):
    """A file must not be used as it is; the text says why and what to run."""


def write_private(
    path: Path, content: bytes | Secret, existing: Existing = Existing.REPLACE
) -> None:
    """Write a file that only its owner can read, whole or not at all, and durably.

    Args:
        path: Where; the directory must exist.
        content: What.
        existing: Whether a file that is there may be replaced.

    Raises:
        FileExistsError: The file is there and must not be replaced.
        OSError: It could not be written; nothing is left behind.
    """
    revealed = content.reveal() if isinstance(content, Secret) else content
    _write(path, revealed, _PRIVATE, existing)


def write_public(path: Path, content: bytes, existing: Existing = Existing.REPLACE) -> None:
    """Write a file that everybody can read (0644), whole or not at all, and durably.

    Raises:
        FileExistsError: The file is there and must not be replaced.
        OSError: It could not be written; nothing is left behind.
    """
    _write(path, content, _PUBLIC, existing)


def ensure_directory(path: Path) -> None:
    """Make the directory and those above it, 0700; those that are there are left as they are.

    Raises:
        OSError: One could not be made.
    """
    # `parents=True` would give those above whatever the umask leaves of 0777.
    for directory in (*reversed(path.parents), path):
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)


def check_private(path: Path) -> None:
    """Check that a file is fit to hold a key.

    A credential of systemd may be readable by its group; see `$CREDENTIALS_DIRECTORY`.

    Raises:
        UnsafeFile: It is exposed, not owned by us or root, not a file, or replaceable by others.
        OSError: It cannot be opened.
    """
    os.close(_open_private(path))


def read_private(path: Path) -> Secret:
    """Return the content of a file that holds a key, after checking the very file that is read.

    Raises:
        UnsafeFile: See `check_private`; or it has more than `FILE_BYTES_MAX`.
        OSError: It cannot be opened or read.
    """
    descriptor = _open_private(path)
    with open(descriptor, "rb") as source:  # noqa: PTH123 - a descriptor, not a path
        return Secret(_read_whole(source.read(FILE_BYTES_MAX + 1), path))


def read_public(path: Path) -> bytes:
    """Return the content of a file without secrets.

    Raises:
        UnsafeFile: It is not a file or has more than `FILE_BYTES_MAX`.
        OSError: It cannot be opened or read.
    """
    descriptor = os.open(path, _OPEN)
    with open(descriptor, "rb") as source:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafeFile(f"{path} is not a regular file")
        return _read_whole(source.read(FILE_BYTES_MAX + 1), path)


def _read_whole(content: bytes, path: Path) -> bytes:
    if len(content) > FILE_BYTES_MAX:
        raise UnsafeFile(f"{path} has more than {FILE_BYTES_MAX} bytes: it is not a key file")
    return content


def _open_private(path: Path) -> int:
    # Without O_NONBLOCK, opening a pipe in the place of a key would wait for ever.
    descriptor = os.open(path, _OPEN)
    try:
        _check_descriptor(path, os.fstat(descriptor))
        # A link may be fine (container platforms use them), but then both directories count: who
        # can write to either decides which file is read next time.
        for directory in {path.parent, Path(os.path.realpath(path)).parent}:
            _check_directory(path, directory)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_descriptor(path: Path, status: os.stat_result) -> None:
    quoted = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(f"{path} is not a regular file")
    if status.st_uid not in {os.geteuid(), 0}:
        raise UnsafeFile(
            f"{path} belongs to {_user_name(status.st_uid)}, who can read and replace it: "
            f"run `chown {_user_name(os.geteuid())} {quoted}`"
        )
    exposed = stat.S_IMODE(status.st_mode) & 0o066
    if exposed and (exposed != stat.S_IRGRP or not _is_credential(path, status)):
        raise UnsafeFile(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others than its owner can "
            f"read or change it: run `chmod 600 {quoted}`"
        )


def _is_credential(path: Path, status: os.stat_result) -> bool:
    """Tell whether an open file is one of those that systemd has brought for this unit alone."""
    named = os.environ.get(_CREDENTIALS, "")
    if not named:
        return False
    try:
        directory = Path(named).stat()
        found = (Path(named) / Path(os.path.realpath(path)).name).lstat()
    except OSError:
        return False
    # Neither may be a place where others than root and we can put something.
    ours = directory.st_uid in {os.geteuid(), 0}
    closed = not directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return ours and closed and os.path.samestat(found, status)


def _check_directory(path: Path, directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UnsafeFile(
            f"everybody can replace {path}, because its directory is world-writable: "
            f"run `chmod o-w {shlex.quote(str(directory))}`"
        )


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _write(path: Path, content: bytes, mode: int, existing: Existing) -> None:
    aside = path.parent / f".{token_hex(8)}.aside"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, _PRIVATE)
    try:
        with open(descriptor, "wb") as sink:  # noqa: PTH123 - a descriptor, not a path
            sink.write(content)
            sink.flush()
            # The umask narrows what a new file gets; a certificate is for everybody to read.
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if existing is Existing.REFUSE:
            # A link fails where a rename would replace, in one step with no moment between.
            os.link(aside, path)
            aside.unlink()
        else:
            aside.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make what was made, renamed or removed in a directory durable.

    Raises:
        OSError: It could not be done.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Unix sockets: a listening socket and its file.

Owns: making the file so that only we can use it, replacing the one of a server that is dead, and
    removing our own.
Never: follows a link, touches a file that is somebody else's or no socket, or takes a name from a
    server that lives.
Follows: etcd's transport.NewUnixListener; differs: etcd removes whatever is in the way, and lets
    everybody connect until it has changed the mode.
Keeps: of two servers that start at once on one name, one gets it: the directory is locked while
    they look.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self, final

__all__ = ["SocketFile", "UnixSocketError"]

_LOCK_S_MAX: Final = 5.0
_LOCK_PAUSE_S: Final = 0.02
# The file is ours alone, from the moment that it is there.
_UMASK: Final = 0o177


@final
class UnixSocketError(OSError):
    """A unix socket cannot be listened on; the text names it and says why."""


@final
class SocketFile:
    """A socket that listens, and its name."""

    def __init__(self, path: Path, sock: socket.socket, found: os.stat_result) -> None:
        self.socket = sock
        self._path = path
        self._device, self._inode = found.st_dev, found.st_ino

    @classmethod
    async def listen(cls, path: Path, backlog: int) -> Self:
        """Listen on a name, which becomes a file of mode 0600.

        Raises:
            UnixSocketError: The name is taken, or its directory is no safe place.
            OSError: The operating system refuses.
        """
        async with _locked(path):
            _make_room(path)
            return cls(path, *_bind(path, backlog))

    def remove(self) -> None:
        """Remove the file, if it is still ours.

        The socket must be open yet: as long as it is, no other file has its number.
        """
        with contextlib.suppress(OSError):
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == (self._device, self._inode):
                self._path.unlink()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the directory of a socket: who looks whether a name is free must find it so."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnixSocketError(f"unix socket {path}: its directory: {error.strerror}") from None
    try:
        _check_directory(path, os.fstat(directory))
        until_s = asyncio.get_running_loop().time() + _LOCK_S_MAX
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > until_s:
                    raise UnixSocketError(
                        f"unix socket {path}: somebody holds a lock on its directory"
                    ) from None
                await asyncio.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(directory)


def _check_directory(path: Path, found: os.stat_result) -> None:
    """Refuse a directory in which somebody else could put a socket in our place."""
    others_write = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    if found.st_uid not in {os.geteuid(), 0}:
        raise UnixSocketError(f"unix socket {path}: its directory belongs to somebody else")
    if others_write and not found.st_mode & stat.S_ISVTX:
        raise UnixSocketError(f"unix socket {path}: others can write to its directory")


def _bind(path: Path, backlog: int) -> tuple[socket.socket, os.stat_result]:
    """Return a socket that listens, and what its file is."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        umask = os.umask(_UMASK)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        sock.listen(backlog)
        return sock, path.lstat()
    except OSError:
        sock.close()
        raise


def _make_room(path: Path) -> None:
    """Remove what a dead server of ours has left behind."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UnixSocketError(f"unix socket {path}: there is something that is no socket")
    if found.st_uid != os.geteuid():
        raise UnixSocketError(f"unix socket {path}: there is one that belongs to somebody else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            # Nobody listens any more.
            path.unlink()
            return
        except BlockingIOError:
            # Somebody listens who has more to do than it can.
            pass
    raise UnixSocketError(f"unix socket {path}: another server listens there")

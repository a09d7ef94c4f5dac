"""The file of a unix socket: whose it is, who may use it, and when it is replaced."""

import asyncio
import contextlib
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvsecure.server.unix_socket import SocketFile, UnixSocketError

_BACKLOG = 64
_SERVERS = 6
_ROUNDS = 20


def _listen(path: Path) -> SocketFile:
    return asyncio.run(SocketFile.listen(path, _BACKLOG))


def _refused(path: Path) -> str:
    with pytest.raises(UnixSocketError) as caught:
        _listen(path)
    return str(caught.value)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_socket_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Its mode is 0600 whatever the umask was, and the umask is what it was."""
    path = tmp_path / "kv.sock"
    umask = os.umask(0)
    try:
        file = _listen(path)
        after = os.umask(0)
    finally:
        os.umask(umask)

    with file.socket:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert after == 0
        assert _is_alive(path)


def test_socket_file_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    """What nobody listens on any more is in nobody's way."""
    path = tmp_path / "kv.sock"
    _listen(path).socket.close()
    assert path.exists()

    with _listen(path).socket:
        assert _is_alive(path)


def test_socket_file_of_a_live_server_stays(tmp_path: Path) -> None:
    """Who listens there already keeps it."""
    path = tmp_path / "kv.sock"
    with _listen(path).socket:
        assert "another server listens there" in _refused(path)
        assert _is_alive(path)


def test_socket_file_of_a_busy_server_stays(tmp_path: Path) -> None:
    """A server that has no time to accept is alive all the same."""
    path = tmp_path / "kv.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as waiting:
        server.bind(str(path))
        server.listen(0)
        waiting.connect(str(path))

        assert "another server listens there" in _refused(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "link to nothing"])
def test_something_else_is_not_touched(tmp_path: Path, kind: str) -> None:
    """A name that is taken by anything but a socket is refused, and what is there stays."""
    path, target = tmp_path / "kv.sock", tmp_path / "target"
    match kind:
        case "file":
            path.write_text("mine")
        case "directory":
            path.mkdir()
        case "link to a socket":
            _listen(target).socket.close()
            path.symlink_to(target)
        case _:
            path.symlink_to(target)
    before = path.lstat()

    assert "something that is no socket" in _refused(path)
    assert path.lstat() == before
    assert target.exists() == (kind == "link to a socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_socket_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    """A dead socket of another user may be a trap."""
    path = tmp_path / "kv.sock"
    _listen(path).socket.close()
    os.chown(path, 1, 1)

    assert "belongs to somebody else" in _refused(path)
    assert path.exists()


def test_directory_that_others_write_to_is_refused(tmp_path: Path) -> None:
    """Whoever can write there could put a socket of theirs in our place."""
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)

    assert "others can write to its directory" in _refused(directory / "kv.sock")


def test_directory_that_everybody_shares_is_taken(tmp_path: Path) -> None:
    """With the sticky bit nobody can remove what is ours, as in /tmp."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)

    with _listen(directory / "kv.sock").socket:
        assert _is_alive(directory / "kv.sock")


def test_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The error names the socket and what is wrong."""
    path = tmp_path / "nowhere" / "kv.sock"

    assert _refused(path) == f"unix socket {path}: its directory: No such file or directory"


def test_those_that_begin_at_once_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    """Of several servers that find a dead socket, one gets the name and keeps it."""
    path = tmp_path / "kv.sock"
    for _ in range(_ROUNDS):
        _listen(path).socket.close()
        together = threading.Barrier(_SERVERS)

        def begin(together: threading.Barrier = together) -> SocketFile | None:
            together.wait()
            with contextlib.suppress(UnixSocketError):
                return _listen(path)
            return None

        with ThreadPoolExecutor(_SERVERS) as threads:
            found = [each.result() for each in [threads.submit(begin) for _ in range(_SERVERS)]]

        (file,) = filter(None, found)
        with file.socket:
            assert _is_alive(path)


def test_removing_takes_the_own_file_only(tmp_path: Path) -> None:
    """A socket that somebody has put there since stays."""
    path = tmp_path / "kv.sock"
    first = _listen(path)
    path.unlink()
    second = _listen(path)

    with first.socket, second.socket:
        first.remove()
        assert _is_alive(path)
        second.remove()
        assert not path.exists()

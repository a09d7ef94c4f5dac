"""A disk that begins to fail under a running server: system calls of its disk processes give EIO.

Done with strace, which makes calls fail without a disk that does; skipped where it is not there or
may not look into processes.
"""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from e2e.world import Fortress, refused
from support.processes import wait_until

from kvsecure.proto import kv_pb2

_CALL_S_MAX: Final = 2.0


@contextlib.contextmanager
def _failing(pid: int, what: str, notes: Path) -> Iterator[None]:
    """Let a system call of a process fail, from now on."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not there")
    line = ["strace", "-f", "-o", str(notes), "-e", f"inject={what}:error=EIO", "-p", str(pid)]
    with subprocess.Popen(line, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        try:
            if b"attached" not in said:
                pytest.skip(f"strace may not attach here: {said.decode()}")
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.stderr.read()


def _disk_process(fortress: Fortress, file: str) -> int:
    """Return the process that holds a file of the data directory open for writing."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) != fortress.server.process.pid:
                continue
            names = {each.readlink().suffix for each in (process / "fd").iterdir()}
            if file in names:
                return int(process.name)
    raise AssertionError(f"nobody has {file} open")


@pytest.mark.parametrize(
    ("file", "what"), [(".wal", "fdatasync"), (".wal", "write"), (".mdb", "fdatasync,pwrite64")]
)
def test_a_disk_that_begins_to_fail_stops_the_server(tmp_path: Path, file: str, what: str) -> None:
    """What may not be durable is not answered; the server ends, says why, and comes back whole."""
    with Fortress(tmp_path / "failing") as fortress:
        root = fortress.root()
        sure = {b"before/%d" % number: b"v" for number in range(20)}
        for key, value in sure.items():
            fortress.put(root, key, value)
        server = fortress.server

        with _failing(_disk_process(fortress, file), what, tmp_path / "notes"):
            for number in range(200):
                key = b"after/%d" % number
                request = kv_pb2.PutRequest(key=key, value=b"v")
                if refused(lambda each=request: root.kv.Put(each, timeout=_CALL_S_MAX)):
                    break
                sure[key] = b"v"
            wait_until(
                lambda: not server.process.is_running, deadline_s=15, what="the server to end"
            )

        assert b"Input/output error" in server.log.read_bytes()
        server.process.close()
        server.restart()
        root = fortress.root()
        assert {key: fortress.value(root, key) for key in sure} == sure
        assert fortress.verify().returncode == 0

"""How long a person waits for `kvsecure get`, from the shell to the value.

Owns: the command lines of both tools, as a person has them after logging in.
Never: warms anything up but the page cache.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.contestants import PASSWORD, USER, Contestant, Server
from bench.load import LoadError
from bench.report import Figure
from support.etcdctl import Credentials, Etcdctl

import kvsecure
from kvsecure.proto import kv_pb2

__all__ = ["measure_cold_start"]

_RUNS: Final = 15
_KEY: Final = "/app/db/password"
_VALUE: Final = b"a secret of the benchmark"


def measure_cold_start(server: Server, directory: Path) -> Iterator[Figure]:
    """Yield the time of one `get` from the command line, each in a process of its own.

    Raises:
        LoadError: A command failed, or printed something else than the value.
    """
    with server.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=_KEY.encode(), value=_VALUE))
    if server.contestant is Contestant.KVSECURE:
        command, environment = _kvsecure(server, directory)
    else:
        command, environment = _etcdctl(server)
    elapsed_s = []
    for _ in range(_RUNS + 1):
        begun = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        elapsed_s.append(time.monotonic() - begun)
        if done.returncode != 0 or _VALUE not in done.stdout:
            raise LoadError(f"{done.stdout.decode()}\n{done.stderr.decode()}")
    # The first run may have had to compile, or to read from the disk.
    yield Figure(
        work="get, command line, cold",
        contestant=server.contestant,
        value=statistics.median(elapsed_s[1:]),
        unit="s",
    )


def _etcdctl(server: Server) -> tuple[Sequence[str], Mapping[str, str]]:
    credentials = Credentials() if server.is_open else Credentials(user=USER, password=PASSWORD)
    return Etcdctl(server.member).command(["get", _KEY], credentials=credentials)


def _kvsecure(server: Server, directory: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "KVSECURE_HOME": str(directory / "home"),
        "PYTHONPATH": str(Path(kvsecure.__file__).parent.parent),
    }
    login = [
        *(sys.executable, "-m", "kvsecure"),
        f"--endpoint={server.member.endpoint}",
        f"--cacert={server.member.authority.certificate}",
        f"--user={USER}",
        f"--password-file={password}",
        "login",
    ]
    done = subprocess.run(login, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        raise LoadError(done.stderr.decode())
    return [sys.executable, "-m", "kvsecure", "get", _KEY], environment

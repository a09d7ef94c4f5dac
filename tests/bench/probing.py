"""Another client: what it feels while something large is done.

Owns: a process that makes one call again and again, and how long each answer took.
Never: shares a process with whoever asks for the large thing: Python would let it wait.
"""

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, final

from bench.contestants import PASSWORD, USER, Server
from support.rpc import Client

from kvsecure.proto import kv_pb2

__all__ = ["Felt", "Probe", "probing", "probing_at"]

_PAUSE_S: Final = 0.001
_KEY: Final = b"/app/probe"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """How long answers took, in milliseconds."""

    times_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """The median."""
        return statistics.median(self.times_ms)

    @property
    def longest_ms(self) -> float:
        """The longest."""
        return max(self.times_ms)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile."""
        return sorted(self.times_ms)[len(self.times_ms) * 99 // 100]


@final
class Probe:
    """The other client, from outside."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def begin(self) -> None:
        """Count from now on."""
        self._pipe.send("begin")
        self._pipe.recv()

    def end(self) -> Felt:
        """Return what was felt since `begin`."""
        self._pipe.send("end")
        return Felt(times_ms=self._pipe.recv())


def probing(server: Server) -> AbstractContextManager[Probe]:
    """Start another client that reads one key."""
    return probing_at(
        server.member.endpoint,
        server.member.authority.certificate if server.member.tls else None,
        None if server.is_open else (USER, PASSWORD),
        "/etcdserverpb.KV/Range",
        kv_pb2.RangeRequest(key=_KEY).SerializeToString(),
    )


@contextmanager
def probing_at(
    endpoint: str,
    authority: Path | None,
    credentials: tuple[str, str] | None,
    path: str,
    request: bytes,
) -> Iterator[Probe]:
    """Start another client.

    Args:
        endpoint: Host and port.
        authority: The certificate of whom the server's comes from; None for plaintext.
        credentials: User and password, where the server asks for them.
        path: Of the call that it makes.
        request: What it asks, each time.
    """
    # A process that was forked may not use grpcio; one that was spawned may.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs,), daemon=True)
    process.start()
    ours.send(
        {
            "endpoint": endpoint,
            "authority": authority,
            "credentials": credentials,
            "path": path,
            "request": request,
        }
    )
    try:
        ours.recv()
        yield Probe(ours)
    finally:
        process.kill()
        process.join()


def _run(pipe: Connection) -> None:
    settings: dict[str, Any] = pipe.recv()
    with Client(settings["endpoint"], settings["authority"]) as client:
        if settings["credentials"]:
            client.login(*settings["credentials"])
        client.kv.Put(kv_pb2.PutRequest(key=_KEY, value=b"here"))
        call = client.prepared(settings["path"])
        request = settings["request"]
        pipe.send("ready")
        times_ms: list[float] = []
        while True:
            begun = time.monotonic()
            call(request).result()
            times_ms.append((time.monotonic() - begun) * 1000)
            if pipe.poll():
                if pipe.recv() == "end":
                    pipe.send(times_ms)
                else:
                    pipe.send("begun")
                times_ms = []
            time.sleep(_PAUSE_S)

"""python's etcd3 in front of three members that have trouble; peers.py says how this is called.

etcd3 knows one endpoint; gRPC's own resolver, by which it is found here, knows several.

Owns: puts and gets, a watch that is made anew where it ended, and a lease that is kept alive.
Never: stops for an error; it tells it, and goes on.
"""

import itertools
import sys
import threading
import time
from typing import Any, Final

import etcd3
import grpc
from verdicts import run, told

__all__ = ["CALL_S_MAX", "PREFIX", "TTL_S", "connect", "ride", "tell"]

PREFIX: Final = f"/etcd3/ride/{time.time_ns()}/"
CALL_S_MAX: Final = 10
TTL_S: Final = 5
# So that somebody asks while a member dies.
_WORKERS: Final = 3


def connect() -> Any:
    """Return a client of all members."""
    host, _, port = f"ipv4:{told('ENDPOINT')}".rpartition(":")
    return etcd3.client(
        host=host,
        port=int(port),
        ca_cert=told("CA"),
        user=told("USER"),
        password=told("PASSWORD"),
        timeout=CALL_S_MAX,
        grpc_options=[
            # What the certificates of all members name.
            ("grpc.ssl_target_name_override", "127.0.0.1"),
            ("grpc.lb_policy_name", "round_robin"),
        ],
    )


def tell(operation: str, error: Exception) -> None:
    """Print an error on one line; etcd3 keeps what gRPC said only as the context of its own."""
    failure = error.__context__ if isinstance(error, etcd3.exceptions.Etcd3Exception) else error
    code, text = type(error).__name__, str(error)
    if isinstance(failure, grpc.Call):
        code, text = failure.code().name, failure.details()
    print("error", operation, code, text.replace("\n", " "), flush=True)


def _keep(lease: Any, is_over: threading.Event) -> None:
    while not is_over.wait(TTL_S / 5):
        try:
            for answer in lease.refresh():
                if answer.TTL != TTL_S:
                    tell("lease", ValueError("it has ended"))
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tell("lease", error)


def _follow(client: Any, begin: int, watched: list[int], end: threading.Event) -> None:
    while not end.is_set():
        try:
            events, _ = client.watch_prefix(PREFIX, start_revision=begin)
            for event in events:
                watched.append(event.mod_revision)
                begin = event.mod_revision + 1
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tell("watch", error)
            # A member that is gone refuses at once: what is told is not to be the same all day.
            time.sleep(0.1)


def _work(
    client: Any, worker: int, acknowledged: dict[bytes, int], is_over: threading.Event
) -> None:
    for number in itertools.count():
        if is_over.wait(0.01):
            return
        key = f"{PREFIX}{worker}/{number:06}"
        try:
            acknowledged[key.encode()] = client.put(key, "v").header.revision
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tell("put", error)
            continue
        try:
            assert client.get(key)[0] == b"v"
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tell("get", error)
        else:
            print("served", flush=True)


def ride(client: Any) -> None:
    """Put and get, watch and keep a lease, until told to end; find out whether all is there."""
    is_over = threading.Event()
    lease = client.lease(TTL_S)
    leased = client.put(f"/leased{PREFIX}", "v", lease=lease).header.revision
    watched: list[int] = []
    for work, arguments in (
        (_keep, (lease, is_over)),
        (_follow, (client, leased + 1, watched, is_over)),
        (lambda: sys.stdin.readline() and is_over.set(), ()),
    ):
        threading.Thread(target=work, args=arguments, daemon=True).start()
    acknowledged: dict[bytes, int] = {}
    workers = [
        threading.Thread(target=_work, args=(client, number, acknowledged, is_over))
        for number in range(_WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    end = client.put(f"{PREFIX}end", "v").header.revision
    deadline = time.monotonic() + CALL_S_MAX
    while watched[-1] < end:
        assert time.monotonic() < deadline, f"the watch is at {watched[-1]}"
        time.sleep(0.01)
    there = [metadata for _, metadata in client.get_prefix(PREFIX)]
    revisions = {metadata.key: metadata.mod_revision for metadata in there}
    assert {key: revisions.get(key) for key in acknowledged} == acknowledged
    assert watched == sorted(set(watched)), "the watch saw something twice or out of order"
    assert len(watched) == sum(metadata.version for metadata in there)
    found = client.get(f"/leased{PREFIX}")[1]
    assert found is not None, "the key is gone though its lease was kept alive"
    assert found.create_revision == leased


if __name__ == "__main__":
    run({"ride": ride}, connect())

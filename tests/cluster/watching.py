"""Watchers that follow a real cluster through every trouble, one at each member.

Owns: going on after the last revision that was seen, when a stream ends.
Never: judges; `judging` compares what was seen.
"""

import queue
import threading
from types import TracebackType
from typing import Final, NamedTuple, Self, final

import grpc
from cluster.members import DEADLINE_S, RealCluster
from support.processes import wait_until

from kvsecure.proto import mvcc_pb2, watch_pb2

__all__ = ["Change", "Watchers", "history"]

_AGAIN_S: Final = 0.1


@final
class Change(NamedTuple):
    """An event."""

    revision: int
    key: bytes
    # None for a deletion.
    value: bytes | None


@final
class _Watcher:
    """One watcher at one member, from a revision on."""

    def __init__(self, cluster: RealCluster, name: str, start: int) -> None:
        self.seen: list[Change] = []
        self.next = start
        self.name = name
        self._cluster = cluster
        self._is_over = threading.Event()
        self._stream: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._is_over.set()
        while self._thread.is_alive():
            stream = self._stream
            if stream is not None:
                stream.cancel()
            self._thread.join(_AGAIN_S)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._follow()
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._cluster.forget_token()
            self._is_over.wait(_AGAIN_S)

    def _follow(self) -> None:
        requests: queue.SimpleQueue[watch_pb2.WatchRequest | None] = queue.SimpleQueue()
        create = watch_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=self.next)
        requests.put(watch_pb2.WatchRequest(create_request=create))
        client = self._cluster.client(self.name)
        stream = self._stream = client.watch.Watch(iter(requests.get, None))
        try:
            for response in stream:
                if response.canceled:
                    return
                self.seen += [_change(event) for event in response.events]
                if response.events:
                    self.next = response.events[-1].kv.mod_revision + 1
        finally:
            requests.put(None)
            stream.cancel()


def _change(event: mvcc_pb2.Event) -> Change:
    is_gone = event.type == mvcc_pb2.Event.DELETE
    return Change(event.kv.mod_revision, event.kv.key, None if is_gone else event.kv.value)


@final
class Watchers:
    """A watcher at each member."""

    def __init__(self, cluster: RealCluster, start: int) -> None:
        """Prepare; nobody watches yet.

        Args:
            cluster: What is watched.
            start: The first revision that is wanted.
        """
        self._cluster = cluster
        self._start = start
        self._watchers: list[_Watcher] = []

    def __enter__(self) -> Self:
        names = [member.name for member in self._cluster.members]
        self._watchers = [_Watcher(self._cluster, name, self._start) for name in names]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watcher in self._watchers:
            watcher.close()

    def seen(self, end: int) -> dict[str, list[Change]]:
        """Wait until all have seen a revision; return what each has seen up to it.

        Raises:
            TimeoutError: One does not.
        """
        for watcher in self._watchers:
            wait_until(
                lambda at=watcher: at.next > end,
                deadline_s=DEADLINE_S,
                what=f"revision {end} at a watcher of {watcher.name}, which is at {watcher.next}",
            )
        return {
            watcher.name: [each for each in watcher.seen if each.revision <= end]
            for watcher in self._watchers
        }


def history(cluster: RealCluster, name: str, start: int, end: int) -> list[Change]:
    """Return all changes of all keys between two revisions, as one member tells them later.

    Raises:
        TimeoutError: It does not.
    """
    watcher = _Watcher(cluster, name, start)
    try:
        wait_until(
            lambda: watcher.next > end, deadline_s=DEADLINE_S, what=f"revision {end} of {name}"
        )
    finally:
        watcher.close()
    return [each for each in watcher.seen if each.revision <= end]

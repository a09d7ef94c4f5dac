"""A watch stream as a script drives it: requests in, responses counted and kept.

Owns: the thread that reads the stream, and what a comparison may look at.
Never: sleeps; a script waits for responses.
"""

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, final

import grpc
from support.processes import wait_until
from support.rpc import Client

from kvsecure.proto import kv_pb2, lease_pb2, maintenance_pb2, mvcc_pb2, watch_pb2

__all__ = ["Control", "Observed", "WatchScript"]

_DEADLINE_S: Final = 15.0


@final
class Control(NamedTuple):
    """A response without events."""

    watch_id: int
    created: bool
    canceled: bool
    compact_revision: int
    cancel_reason: str
    revision: int


@final
class Observed(NamedTuple):
    """All that a client learned from a stream: how events were batched is no part of it."""

    controls: list[Control]
    events: dict[int, list[mvcc_pb2.Event]]


@final
class WatchScript:
    """One watch stream of one client, and writes beside it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._requests: queue.SimpleQueue[watch_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._controls: list[Control] = []
        self._events: defaultdict[int, list[mvcc_pb2.Event]] = defaultdict(list)
        self._event_count = 0
        self._stream = client.watch.Watch(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # A user without permissions is told the revision too.
        status = client.maintenance.Status(maintenance_pb2.StatusRequest())
        self.base = int(status.header.revision)

    def create(self, key: bytes, **fields: Any) -> None:
        """Ask for a watch."""
        request = watch_pb2.WatchCreateRequest(key=key, **fields)
        self._requests.put(watch_pb2.WatchRequest(create_request=request))

    def cancel(self, watch_id: int) -> None:
        """Ask for the end of a watch."""
        request = watch_pb2.WatchCancelRequest(watch_id=watch_id)
        self._requests.put(watch_pb2.WatchRequest(cancel_request=request))

    def progress(self) -> None:
        """Ask how far the stream is."""
        request = watch_pb2.WatchProgressRequest()
        self._requests.put(watch_pb2.WatchRequest(progress_request=request))

    def nothing(self) -> None:
        """Send a request that asks for nothing."""
        self._requests.put(watch_pb2.WatchRequest())

    def put(self, key: bytes, value: bytes = b"v", **fields: Any) -> None:
        """Write a key over the same connection."""
        self._client.kv.Put(kv_pb2.PutRequest(key=key, value=value, **fields))

    def delete(self, key: bytes, range_end: bytes = b"") -> None:
        """Delete keys over the same connection."""
        self._client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=key, range_end=range_end))

    def txn(self, *operations: kv_pb2.RequestOp) -> None:
        """Write several keys in one revision."""
        self._client.kv.Txn(kv_pb2.TxnRequest(success=operations))

    def lease(self, lease: int) -> None:
        """Grant a lease of a minute."""
        self._client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=lease, TTL=60))

    def revoke(self, lease: int) -> None:
        """Revoke a lease."""
        self._client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=lease))

    def compact(self, revision: int) -> None:
        """Forget what was before the revision."""
        self._client.kv.Compact(kv_pb2.CompactionRequest(revision=revision))

    def wait(self, *, controls: int, events: int = 0) -> None:
        """Wait until that many responses without events, and events, have come in all.

        Raises:
            TimeoutError: They did not come.
        """
        self._wait(
            lambda: len(self._controls) >= controls and self._event_count >= events,
            f"{controls} responses and {events} events",
        )

    def wait_for_key(self, key: bytes) -> None:
        """Wait until an event of this key has come.

        Raises:
            TimeoutError: It did not come.
        """
        self._wait(
            lambda: any(event.kv.key == key for event in self._newest()), f"an event of {key!r}"
        )

    def wait_for_revision(self, revision: int) -> None:
        """Wait until an event of this revision, or a later one, has come.

        Raises:
            TimeoutError: It did not come.
        """
        self._wait(
            lambda: any(event.kv.mod_revision >= revision for event in self._newest()),
            f"an event of revision {revision}",
        )

    def wait_for_progress(self, revision: int) -> None:
        """Wait until a response without events, of a watch that is open, tells this revision.

        Raises:
            TimeoutError: It did not come.
        """
        self._wait(
            lambda: any(
                each.revision == revision and not (each.created or each.canceled)
                for each in list(self._controls)
            ),
            f"progress to revision {revision}",
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, deadline_s=_DEADLINE_S, what=what)
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; there are {self._controls} and {self._event_count} events"
            ) from None

    def _newest(self) -> list[mvcc_pb2.Event]:
        return [events[-1] for events in list(self._events.values()) if events]

    def observed(self) -> Observed:
        """Return what has come so far."""
        events = {key: list(value) for key, value in list(self._events.items())}
        return Observed(list(self._controls), events)

    def close(self) -> None:
        """End the stream."""
        self._requests.put(None)
        self._stream.cancel()
        self._reader.join()

    def _read(self) -> None:
        try:
            for response in self._responses():
                if response.events:
                    self._events[response.watch_id].extend(response.events)
                    self._event_count += len(response.events)
                else:
                    self._controls.append(_control(response))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise

    def _responses(self) -> Iterator[watch_pb2.WatchResponse]:
        return iter(self._stream)


def _control(response: watch_pb2.WatchResponse) -> Control:
    return Control(
        watch_id=response.watch_id,
        created=response.created,
        canceled=response.canceled,
        compact_revision=response.compact_revision,
        cancel_reason=response.cancel_reason,
        revision=response.header.revision,
    )

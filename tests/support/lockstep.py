"""One plan of operations on one server, and all that its client was told.

    Run(client, ...).carry_out(plan)   ->  what each call was answered, and what each watch saw

Owns: carrying out calls in order, watches that are open meanwhile, and the points at which these
    have seen everything.
Never: compares; knows which server it talks to.
Keeps: two right servers that begin at the same revision tell exactly the same: what is each
    server's own is taken out, and a watch is only ended, and history only compacted, when what was
    to be seen has been seen.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, final

import grpc
from support.operations import CANCEL, CREATE, KEEP_ALIVE, Operation
from support.rpc import CALL_TIMEOUT_S, Client, refusal_of

from kvsecure.model.keys import span_of
from kvsecure.proto import kv_pb2, lease_pb2, watch_pb2

__all__ = ["Run", "Told", "reset", "revision_of"]

_EVERYTHING: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}
_PUT: Final = 0
_DELETE: Final = 1
# What leaves out events of which kind.
_FILTERS: Final = {
    _PUT: watch_pb2.WatchCreateRequest.NOPUT,
    _DELETE: watch_pb2.WatchCreateRequest.NODELETE,
}
# Half of the watches are on each.
_STREAMS: Final = 2


@final
class Told(NamedTuple):
    """What a client was told."""

    # For each operation the answer's bytes, or code and text of the refusal.
    answers: list[object]
    # For each watch, by its number, every event and every other response, in order.
    watches: dict[int, list[object]]
    # The store's revision afterwards.
    revision: int


@final
@dataclass
class _Watch:
    """One watch, as its client sees it."""

    stream: int
    request: watch_pb2.WatchCreateRequest
    seen: list[object] = field(default_factory=list)
    # Revisions of its newest put and deletion.
    newest: dict[int, int] = field(default_factory=dict)
    is_created: bool = False
    is_over: bool = False
    # Whether it may still be reading history.
    is_behind: bool = False


@final
class Run:
    """One run of one client."""

    def __init__(self, client: Client, compact: Callable[[Any], Any]) -> None:
        """Begin.

        Args:
            client: Carries out everything else.
            compact: Carries out compactions, for which a client may have no right.
        """
        self._client = client
        self._compact = compact
        self._compacted = 0
        self._watches: dict[int, _Watch] = {}
        self._changed = threading.Condition()
        self._requests: list[queue.SimpleQueue[watch_pb2.WatchRequest | None]] = []
        self._calls: list[Any] = []
        self._readers: list[threading.Thread] = []
        self._failure: BaseException | None = None
        for _ in range(_STREAMS):
            requests: queue.SimpleQueue[watch_pb2.WatchRequest | None] = queue.SimpleQueue()
            call = client.watch.Watch(iter(requests.get, None))
            reader = threading.Thread(target=self._read, args=(call,), daemon=True)
            self._requests.append(requests)
            self._calls.append(call)
            self._readers.append(reader)
            reader.start()

    def carry_out(self, plan: Sequence[Operation]) -> Told:
        """Carry out a plan, and let every watch see the end of it."""
        answers = [self._answer(operation) for operation in plan]
        self._settle(self._watches.values())
        revision = revision_of(self._client)
        self.close()
        return Told(
            answers, {number: each.seen for number, each in self._watches.items()}, revision
        )

    def close(self) -> None:
        """End the streams."""
        for requests, call, reader in zip(self._requests, self._calls, self._readers, strict=True):
            requests.put(None)
            call.cancel()
            reader.join()

    # --- calls ----------------------------------------------------------------------------------

    def _answer(self, operation: Operation) -> object:
        method, request = operation
        try:
            match method:
                case "kv.Compact":
                    return self._compaction(request)
                case _ if method == CREATE:
                    return self._create(request)
                case _ if method == CANCEL:
                    return self._cancel(request.watch_id)
                case _ if method == KEEP_ALIVE:
                    (message,) = self._client.lease.LeaseKeepAlive(iter((request,)), timeout=20)
                case _:
                    message = self._client.call(method, request)
        except grpc.RpcError as error:
            return refusal_of(error)
        return _plain(message)

    def _compaction(self, request: kv_pb2.CompactionRequest) -> object:
        # Whether a watch that is behind sees what goes is a matter of time.
        self._settle(each for each in self._watches.values() if each.is_behind)
        message = self._compact(request)
        self._compacted = request.revision
        return _plain(message)

    # --- watches --------------------------------------------------------------------------------

    def _create(self, request: watch_pb2.WatchCreateRequest) -> object:
        each = _Watch(request.watch_id % _STREAMS, request)
        now = revision_of(self._client)
        each.is_behind = 0 < request.start_revision <= now
        self._watches[request.watch_id] = each
        self._requests[each.stream].put(watch_pb2.WatchRequest(create_request=request))
        self._wait(lambda: each.is_created, f"watch {request.watch_id} to be made")
        if 0 < request.start_revision < self._compacted:
            self._wait(lambda: each.is_over, f"watch {request.watch_id} to be refused")
        return None

    def _cancel(self, number: int) -> object:
        each = self._watches.get(number)
        if each is None or each.is_over:
            return None
        self._settle((each,))
        cancel = watch_pb2.WatchCancelRequest(watch_id=number)
        self._requests[each.stream].put(watch_pb2.WatchRequest(cancel_request=cancel))
        self._wait(lambda: each.is_over, f"watch {number} to be cancelled")
        return None

    def _settle(self, watches: Iterable[_Watch]) -> None:
        """Let watches see everything: the first key of each is written and deleted, and seen."""
        settling = [each for each in watches if not each.is_over]
        written: list[tuple[bytes, int, int]] = []
        for each in settling:
            key = each.request.key or b"\0"
            put = self._client.kv.Put(kv_pb2.PutRequest(key=key, value=b"settle"))
            delete = self._client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=key))
            each.is_behind = False
            written += ((key, _PUT, put.header.revision), (key, _DELETE, delete.header.revision))
        for each in settling:
            for kind, revision in self._last_of(each, written).items():
                self._await_event(each, kind, revision)

    @staticmethod
    def _last_of(each: _Watch, written: list[tuple[bytes, int, int]]) -> dict[int, int]:
        """Return the revisions of the last put and the last deletion that a watch has to see."""
        request = each.request
        span = span_of(request.key or b"\0", request.range_end)
        return {
            kind: revision
            for key, kind, revision in written
            if span.holds(key)
            and revision >= request.start_revision
            and _FILTERS[kind] not in request.filters
        }

    def _await_event(self, each: _Watch, kind: int, revision: int) -> None:
        self._wait(
            lambda: each.is_over or each.newest.get(kind, 0) >= revision,
            f"watch {each.request.watch_id} to see revision {revision}",
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(
                lambda: condition() or self._failure is not None, CALL_TIMEOUT_S
            ):
                raise TimeoutError(f"waited for {what}")
        if self._failure is not None:
            raise self._failure

    def _read(self, call: Any) -> None:
        try:
            for response in call:
                with self._changed:
                    self._take(response)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()

    def _take(self, response: watch_pb2.WatchResponse) -> None:
        each = self._watches[response.watch_id]
        for event in response.events:
            each.seen.append(event.SerializeToString(deterministic=True))
            each.newest[event.type] = event.kv.mod_revision
        if not response.events:
            each.seen.append(
                (
                    response.created,
                    response.canceled,
                    response.compact_revision,
                    response.cancel_reason,
                )
            )
        each.is_created = each.is_created or response.created
        each.is_over = each.is_over or response.canceled


def reset(client: Client) -> None:
    """Leave no key and no lease."""
    for status in client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases:
        client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=status.ID))
    client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(**_EVERYTHING))


def revision_of(client: Client) -> int:
    """Return the store's revision."""
    answer = client.kv.Range(kv_pb2.RangeRequest(key=b"\0", count_only=True, serializable=True))
    return int(answer.header.revision)


def _plain(message: Any) -> bytes:
    """Return an answer's bytes, without what is the server's own."""
    header = message.header
    header.cluster_id = header.member_id = header.raft_term = 0
    if isinstance(message, lease_pb2.LeaseTimeToLiveResponse):
        # The clock goes on.
        message.TTL = min(message.TTL, 1)
        message.keys.sort()
    return bytes(message.SerializeToString(deterministic=True))

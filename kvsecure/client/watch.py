"""Watching keys: every change from a revision on, in order, once, across broken connections.

Owns: one watch on a stream of its own, and where it goes on after a break.
Never: skips or repeats an event, or hides that history is gone.
Follows: etcd's client: a stream is opened again after UNAVAILABLE and INTERNAL; any other end is
    final. Fragments are asked for, so that no answer outgrows a message.
Keeps: `_next_revision` is the oldest revision not yet wholly handed out.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self, final

from kvsecure.client.connection import Backoff, Connection
from kvsecure.client.errors import (
    ClientError,
    CompactedError,
    error_of_cancel_reason,
    was_never_sent,
)
from kvsecure.client.keys import Keys
from kvsecure.client.session import Relogin, refuses_token
from kvsecure.client.stream import Stream
from kvsecure.client.values import KeyValue
from kvsecure.model.errors import Code
from kvsecure.proto import mvcc_pb2, watch_pb2

__all__ = ["Event", "EventType", "Watch", "WatchBatch"]

_PATH: Final = "/etcdserverpb.Watch/Watch"
# A member that lost its leader must end the stream, or the watch would be silent for ever.
_METADATA: Final = (("hasleader", "true"),)
_RESUMABLE: Final = frozenset({Code.UNAVAILABLE, Code.INTERNAL})


class EventType(Enum):
    """What happened to a key."""

    PUT = "PUT"
    DELETE = "DELETE"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one key.

    Attributes:
        type: What happened.
        kv: The key as it is now; a deleted one has only key and mod_revision.
        previous: The key as it was, if that was asked for and is still known.
    """

    type: EventType
    kv: KeyValue
    previous: KeyValue | None

    @classmethod
    def of(cls, message: mvcc_pb2.Event) -> Self:
        """Return the value of a message."""
        return cls(
            type=EventType(mvcc_pb2.Event.EventType.Name(message.type)),
            kv=KeyValue.of(message.kv),
            previous=KeyValue.of(message.prev_kv) if message.HasField("prev_kv") else None,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Changes that came together; without events it is a notice of progress.

    Attributes:
        revision: All changes up to this revision have been handed out.
        events: The changes, oldest first.
    """

    revision: int
    events: tuple[Event, ...]


@final
class Watch:
    """A watch; iterate over it for the changes, and close it when done.

    When it is made the server has acknowledged it: no change after that moment is missed. One
    thread iterates; any thread may close it.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        start_revision: int = 0,
        previous: bool = False,
        progress: bool = False,
        resume_s: float = 300.0,
    ) -> None:
        """Open the watch.

        Args:
            connection: Where.
            keys: Which keys.
            start_revision: The first revision to report; 0 for what comes next.
            previous: Whether events also tell what was there before; that needs the right to read.
            progress: Whether the server shall say now and then how far it is.
            resume_s: How long after a break to try to go on, in seconds.

        Raises:
            ClientError: It was refused or no member could be reached. That the start is gone comes
                out later, when the changes are asked for.
        """
        self._connection = connection
        self._keys = keys
        self._previous = previous
        self._progress = progress
        self._resume_s = resume_s
        self._next_revision = start_revision
        self._held: list[mvcc_pb2.Event] = []
        self._closed = threading.Event()
        self._relogin = Relogin(connection.renew, may_help=_may_be_about_token)
        self._stream: Stream[watch_pb2.WatchResponse] | None = None
        self._reopen(connection.settings.reach_s)

    @property
    def next_revision(self) -> int:
        """The oldest revision that was not yet wholly handed out."""
        return self._next_revision

    def __iter__(self) -> Iterator[WatchBatch]:
        return self

    def __next__(self) -> WatchBatch:
        """Return what happened next, however long it takes.

        Raises:
            StopIteration: The watch was closed.
            CompactedError: The history to start or go on with is gone.
            ClientError: The server ended the watch, or no member could be reached in time.
        """
        while not self._closed.is_set():
            # Another thread may close the watch between any two lines of this one.
            stream = self._stream
            if stream is None:
                self._reopen(self._resume_s)
                continue
            try:
                batch = self._take(stream.receive(), stream.endpoint)
            except ClientError as error:
                if not self._survives(error):
                    self._drop()
                    raise
                continue
            if batch is not None:
                return batch
        self._drop()
        raise StopIteration

    def request_progress(self) -> None:
        """Ask the server to say how far it is; it answers with a batch without events."""
        stream = self._stream
        if stream is not None:
            message = watch_pb2.WatchProgressRequest()
            stream.send(watch_pb2.WatchRequest(progress_request=message))

    def close(self) -> None:
        """End the watch; whoever iterates over it stops."""
        self._closed.set()
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reopen(self, patience_s: float) -> None:
        """Open the stream and wait until the watch is acknowledged."""
        deadline = time.monotonic() + patience_s
        backoff = Backoff()
        while not self._closed.is_set():
            try:
                self._open_once()
            except ClientError as error:
                wait_s = backoff.next_s()
                survives = self._survives(error)
                self._drop()
                if self._closed.wait(0 if not survives else wait_s):
                    return
                if not survives or time.monotonic() > deadline:
                    raise
            else:
                self._relogin.came()
                return

    def _open_once(self) -> None:
        stream = self._connection.open_stream(_PATH, watch_pb2.WatchResponse, more=_METADATA)
        self._stream = stream
        self._held.clear()
        stream.send(
            watch_pb2.WatchRequest(
                create_request=watch_pb2.WatchCreateRequest(
                    key=self._keys.key,
                    range_end=self._keys.range_end,
                    start_revision=self._next_revision,
                    prev_kv=self._previous,
                    progress_notify=self._progress,
                    fragment=True,
                )
            )
        )
        answer = stream.receive()
        _refuse_cancelled(answer, stream.endpoint)
        # Without a start the watch begins after this revision, also if the stream breaks now.
        if self._next_revision == 0:
            self._next_revision = answer.header.revision + 1

    def _survives(self, error: ClientError) -> bool:
        """Tell whether the watch can go on after this error, and get ready for it."""
        if self._closed.is_set():
            return True
        stream = self._stream
        if error.code in _RESUMABLE or was_never_sent(error.code, error.text):
            self._drop()
            return True
        if stream is None or not self._relogin.helps(error, stream.token):
            return False
        self._drop()
        return True

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _take(self, answer: watch_pb2.WatchResponse, endpoint: str) -> WatchBatch | None:
        """Return what can be handed out of an answer; None when that is nothing."""
        _refuse_cancelled(answer, endpoint)
        events = [*self._held, *answer.events]
        self._held.clear()
        if answer.fragment:
            # The last revision may go on in the next fragment. It waits for its rest, so that a
            # break in between neither loses nor repeats a part of it.
            cut = _start_of_last_revision(events)
            self._held, events = events[cut:], events[:cut]
            if not events:
                return None
        elif not events and answer.created:
            return None
        # With events the header does not count: while catching up it is ahead of them.
        revision = events[-1].kv.mod_revision if events else answer.header.revision
        self._next_revision = max(self._next_revision, revision + 1)
        return WatchBatch(
            revision=self._next_revision - 1, events=tuple(Event.of(event) for event in events)
        )


def _may_be_about_token(error: ClientError) -> bool:
    # etcd up to now says "permission denied" when a watch comes with a token that has ended, so
    # that answer too is worth one new log-in.
    return refuses_token(error) or error.code is Code.PERMISSION_DENIED


def _refuse_cancelled(answer: watch_pb2.WatchResponse, endpoint: str) -> None:
    if not answer.canceled:
        return
    if answer.compact_revision:
        raise CompactedError(answer.compact_revision, endpoint=endpoint)
    raise error_of_cancel_reason(answer.cancel_reason, endpoint=endpoint)


def _start_of_last_revision(events: list[mvcc_pb2.Event]) -> int:
    if not events:
        return 0
    last = events[-1].kv.mod_revision
    start = len(events)
    while start and events[start - 1].kv.mod_revision == last:
        start -= 1
    return start

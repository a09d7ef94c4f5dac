"""One watch stream on the bench: a client that takes its time, above a real gate, hub and state.

Owns: the client's side of the stream, and timers that are turned by hand.
Never: replaces a part of the stream, the gate, the feeds or the hub.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, final

from api.client_end import ClientEnd
from google.protobuf.message import Message
from security.lab import CLUSTER, MEMBER, NO_ADMISSION, NO_KEYS, World

from kvsecure.api.header import HeaderEncoder
from kvsecure.api.services import Services
from kvsecure.api.watch import watch
from kvsecure.proto import kv_pb2, mvcc_pb2, watch_pb2
from kvsecure.security.long_ranges import LongRanges
from kvsecure.security.membership import Membership
from kvsecure.security.queues import Queues
from kvsecure.security.session import Peer

__all__ = ["PROGRESS_S", "REQUEST_BYTES_MAX", "Bench", "Stream", "Timers", "keys_of"]

PROGRESS_S: Final = 600.0
REQUEST_BYTES_MAX: Final = 1_000_000


@final
class Timers:
    """What is to happen later, until somebody lets time pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay_s: float, act: Callable[[], None]) -> Callable[[], None]:
        """Do something later; the answer takes it back."""
        entry = (self.now_s + delay_s, act)
        self._due.append(entry)

        def cancel() -> None:
            if entry in self._due:
                self._due.remove(entry)

        return cancel

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now_s + seconds
        while self._due and min(self._due, key=lambda entry: entry[0])[0] <= end:
            entry = min(self._due, key=lambda one: one[0])
            self._due.remove(entry)
            self.now_s = entry[0]
            entry[1]()
        self.now_s = end

    @property
    def count(self) -> int:
        """How many things are still to happen."""
        return len(self._due)


@final
class Stream(ClientEnd):
    """A client's end of one stream."""

    def __init__(self, peer: Peer, token: bytes) -> None:
        super().__init__(peer, token)
        # Whether the client has stopped reading.
        self.is_full = False
        # After how many more responses it will have stopped, if it will.
        self.full_after: int | None = None
        self.responses: list[watch_pb2.WatchResponse] = []
        self.sizes_bytes: list[int] = []

    def send(self, message: bytes) -> None:
        """Take a response."""
        assert not self.is_over
        self.sizes_bytes.append(len(message))
        self.responses.append(watch_pb2.WatchResponse.FromString(message))
        if self.full_after is not None:
            self.full_after -= 1
            if self.full_after <= 0:
                self.is_full, self.full_after = True, None

    def send_each(self, header: bytes, marks: Sequence[bytes], tail: bytes) -> None:
        """Take a response for each of the marks."""
        assert len({len(mark) for mark in marks}) == 1
        for mark in marks:
            self.send(header + mark + tail)

    def take(self) -> list[watch_pb2.WatchResponse]:
        """Return what has come since the last look."""
        taken, self.responses = self.responses, []
        return taken

    def events(self, watch_id: int = 0) -> list[mvcc_pb2.Event]:
        """Return the events that a watcher has got."""
        return [event for one in self.responses if one.watch_id == watch_id for event in one.events]


@final
class Bench:
    """A world with streams."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.timers = Timers()
        encoder = HeaderEncoder(CLUSTER, MEMBER)
        self.services = Services(
            gate=self.world.gate,
            feeds=self.world.feeds,
            queues=Queues(
                self.world.gate, at_turn_end=self.world.turn.at_end, in_turn=self.world.turn.at_end
            ),
            upkeep=self.world.upkeep,
            membership=Membership(
                self.world.gate, wall_ns=self.world.clock, later=self.timers.later
            ),
            keys=NO_KEYS,
            admission=NO_ADMISSION,
            ranges=LongRanges(self.world.gate, self.world.turn.at_end),
            header=lambda revision: encoder.field(revision, 3),
            at_turn_end=self.world.turn.at_end,
            in_turn=self.world.turn.at_end,
            later=self.timers.later,
            spawn=self._spawn,
            txn_ops_max=128,
            request_bytes_max=REQUEST_BYTES_MAX,
            progress_interval_s=PROGRESS_S,
            random_bytes=bytes,
        )

    @staticmethod
    def _spawn(work: object) -> None:
        raise AssertionError(work)

    @property
    def revision(self) -> int:
        """The store's revision."""
        return self.world.state.store.revision

    def stream(self, user: str = "root", *, token: bytes = b"") -> Stream:
        """Open a stream; without a user nobody does."""
        stream = Stream(self.world.peer(user), token)
        stream.receiver = watch(self.services, stream)
        return stream

    def create(self, stream: Stream, key: bytes = b"k", **fields: Any) -> None:
        """Ask for a watcher, and end the turn."""
        request = watch_pb2.WatchCreateRequest(key=key, **fields)
        self.ask(stream, create_request=request)

    def cancel(self, stream: Stream, watch_id: int) -> None:
        """Ask for a watcher's end, and end the turn."""
        self.ask(stream, cancel_request=watch_pb2.WatchCancelRequest(watch_id=watch_id))

    def progress(self, stream: Stream) -> None:
        """Ask how far the stream is, and end the turn."""
        self.ask(stream, progress_request=watch_pb2.WatchProgressRequest())

    def ask(self, stream: Stream, **request: Any) -> None:
        """Send any request, and end the turn."""
        stream.receiver.received(watch_pb2.WatchRequest(**request))
        self.end_turn()

    def put(self, key: bytes = b"k", value: bytes = b"v") -> int:
        """Write a key, end the turn, return the revision."""
        return self.write(kv_pb2.PutRequest(key=key, value=value))

    def write(self, *commands: Message) -> int:
        """Carry out commands, end the turn, return the revision."""
        for command in commands:
            self.world.system(command)
        self.end_turn()
        return self.revision

    def end_turn(self) -> None:
        """End the turn, and those that it asks for."""
        self.world.turn.end()

    def read_on(self, stream: Stream) -> None:
        """Let a client that had stopped read on."""
        stream.is_full = False
        stream.receiver.drained()
        self.end_turn()

    def close(self) -> None:
        """Let go of files and threads."""
        self.world.close()


def keys_of(events: Iterable[mvcc_pb2.Event]) -> list[bytes]:
    """Return the keys of events."""
    return [event.kv.key for event in events]

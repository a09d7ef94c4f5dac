"""Clients that read slowly, in any pattern: nothing is missed, repeated or promised too early."""

import tempfile
from pathlib import Path
from typing import Any

from api.watching import Bench, Stream
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvsecure.proto import kv_pb2, watch_pb2

_KEYS = (b"a", b"b", b"c")
_KEY = st.sampled_from(_KEYS)
_SPANS = st.sampled_from([(b"a", b""), (b"b", b""), (b"a", b"c"), (b"b", b"\0"), (b"\0", b"\0")])


def _holds(span: tuple[bytes, bytes], key: bytes) -> bool:
    start, end = span
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


@settings(max_examples=80, stateful_step_count=40, deadline=None)
class SlowMachine(RuleBasedStateMachine):
    """Writes, watchers and a client that stops and goes on, against a list of what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.bench = Bench(Path(self.directory.name))
        self.stream: Stream = self.bench.stream()
        # (revision, key) of everything written, in order.
        self.written: list[tuple[int, bytes]] = []
        self.wanted: dict[int, tuple[tuple[bytes, bytes], int]] = {}
        self.got: dict[int, list[tuple[int, bytes]]] = {}
        # How far each watcher was told that it is.
        self.promised: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.fragment: int | None = None

    @rule(span=_SPANS, back=st.integers(-2, 6), fragment=st.booleans(), notify=st.booleans())
    def create(self, span: tuple[bytes, bytes], back: int, *, fragment: bool, notify: bool) -> None:
        """Ask for a watcher, of the past, the present or the future."""
        start = max(self.bench.revision + 1 - back, 1)
        self.wanted[len(self.wanted)] = span, start
        key, end = span
        self.bench.create(
            self.stream,
            key,
            range_end=end,
            start_revision=start,
            fragment=fragment,
            progress_notify=notify,
        )

    @rule(
        keys=st.lists(_KEY, min_size=1, max_size=3, unique=True),
        size=st.sampled_from([1, 1, 300_000]),
    )
    def write(self, keys: list[bytes], size: int) -> None:
        """Write one or more keys in one revision."""
        puts = [
            kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=bytes(size)))
            for key in keys
        ]
        revision = self.bench.write(kv_pb2.TxnRequest(success=puts))
        self.written += [(revision, key) for key in keys]

    @rule()
    def stop_reading(self) -> None:
        """Let the client read no more."""
        self.stream.is_full = True

    @rule(count=st.integers(1, 4))
    def read_some(self, count: int) -> None:
        """Let the client read a few responses, and then no more."""
        self.stream.full_after = count
        self.bench.read_on(self.stream)

    @rule()
    def read_on(self) -> None:
        """Let the client read on."""
        self.stream.full_after = None
        self.bench.read_on(self.stream)

    @rule(seconds=st.sampled_from([1.0, 600.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.bench.timers.forward(seconds)

    @rule()
    def ask_for_progress(self) -> None:
        """Ask how far the stream is."""
        self.bench.progress(self.stream)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a watcher."""
        alive = sorted(self.wanted.keys() - self.cancelled)
        if alive:
            chosen = data.draw(st.sampled_from(alive))
            self.bench.cancel(self.stream, chosen)
            self._read()
            assert chosen in self.cancelled

    def _read(self) -> None:
        for one in self.stream.take():
            self._check(one)

    def _check(self, one: watch_pb2.WatchResponse) -> None:
        # Nothing stands between the fragments of a response.
        assert self.fragment in (None, one.watch_id)
        self.fragment = one.watch_id if one.fragment else None
        if one.created:
            assert one.watch_id not in self.got
            self.got[one.watch_id] = []
            return
        assert one.watch_id not in self.cancelled
        if one.canceled:
            self.cancelled.add(one.watch_id)
            return
        for event in one.events:
            self.got[one.watch_id].append((event.kv.mod_revision, event.kv.key))
        if not one.fragment:
            told = self.got if one.watch_id == -1 else [one.watch_id]
            for watch_id in told:
                if watch_id not in self.cancelled:
                    self._promise(watch_id, one.header.revision)

    def _promise(self, watch_id: int, revision: int) -> None:
        """Check that who resumes behind this revision misses nothing."""
        assert self._expected(watch_id, revision) == self.got[watch_id]
        assert revision >= self.promised.get(watch_id, 0)
        self.promised[watch_id] = revision

    def _expected(self, watch_id: int, through: int) -> list[tuple[int, bytes]]:
        span, start = self.wanted[watch_id]
        return [
            (revision, key)
            for revision, key in self.written
            if start <= revision <= through and _holds(span, key)
        ]

    @invariant()
    def what_came_is_the_beginning(self) -> None:
        """What a watcher has got is the beginning of what it wants, each once, in order."""
        self._read()
        for watch_id, got in self.got.items():
            if watch_id not in self.cancelled:
                expected = self._expected(watch_id, self.bench.revision)
                assert expected[: len(got)] == got
                if not self.stream.is_full:
                    assert got == expected

    def teardown(self) -> None:
        """Let the client read everything: then nothing is missing."""
        self.stream.full_after = None
        self.bench.read_on(self.stream)
        self.what_came_is_the_beginning()
        self.bench.close()
        self.directory.cleanup()


test_slow_client_misses_nothing: Any = SlowMachine.TestCase

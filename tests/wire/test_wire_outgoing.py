"""The sending half: answers become frames, in order, and never exceed what the peer allows."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from wire.rawframes import DATA, END_STREAM, HEADERS, RST_STREAM, Frame, read_frames

from kvsecure.wire.h2.frames import ErrorCode
from kvsecure.wire.h2.outgoing import DRAINED, Outgoing
from kvsecure.wire.h2.stream import Stream

_HEAD = b"\x88"
_TAIL = b"\x00\x0bgrpc-status\x010"


def _open(outgoing: Outgoing, *streams: int) -> None:
    """Open streams whose requests are whole."""
    outgoing.streams.update(dict.fromkeys(streams))


def _open_half(outgoing: Outgoing, stream: int) -> None:
    """Open a stream whose request goes on."""
    outgoing.streams[stream] = Stream(outgoing.peer_window, 1024, remote_ended=False)


def _sent(outgoing: Outgoing) -> list[Frame]:
    """Take what there is to be written."""
    frames = read_frames(b"".join(outgoing.out))
    outgoing.out.clear()
    return frames


def _content(frames: list[Frame], stream: int) -> bytes:
    return b"".join(one.payload for one in frames if one.stream == stream and one.type == DATA)


# --- one answer -------------------------------------------------------------------------------


def test_answer_is_headers_content_and_trailers() -> None:
    """A whole answer is a header block, its content, and a header block that ends the stream."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)

    outgoing.respond(1, _HEAD, b"prefix", b"content", _TAIL)

    assert _sent(outgoing) == [
        Frame(HEADERS, 4, 1, _HEAD),
        Frame(DATA, 0, 1, b"prefixcontent"),
        Frame(HEADERS, 5, 1, _TAIL),
    ]
    assert not outgoing.streams


@pytest.mark.parametrize("length", [0, 4_090, 4_096, 16_384, 16_385, 65_535])
def test_answer_looks_the_same_at_every_size(length: int) -> None:
    """The short way and the long way to answer say the same."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)

    outgoing.respond(1, _HEAD, b"", bytes(length), _TAIL)
    frames = _sent(outgoing)

    assert frames[0] == Frame(HEADERS, 4, 1, _HEAD)
    assert frames[-1] == Frame(HEADERS, 5, 1, _TAIL)
    assert _content(frames, 1) == bytes(length)
    assert not outgoing.streams


@pytest.mark.parametrize("window", [65_535, 3_000, 900])
def test_answers_together_are_as_one_by_one(window: int) -> None:
    """What is written for many answers is what is written for each, whatever the windows hold."""
    streams = [1, 3, 5, 7, 9, 11]
    messages = [b"a" * length for length in (0, 1, 800, 4_096, 16_379, 16_380)]
    together, alone = Outgoing(65_536), Outgoing(65_536)
    for outgoing in (together, alone):
        outgoing.peer_window = window
        _open(outgoing, 1, 3, 7, 9, 11)
        # Somebody has begun to answer by hand, and nobody waits on 5.
        outgoing.stream(3)

    together.respond_each(streams, _HEAD, messages, _TAIL)
    for stream, content in zip(streams, messages, strict=True):
        prefix = b"\0" + len(content).to_bytes(4, "big")
        alone.respond(stream, _HEAD, prefix, content, _TAIL)

    assert b"".join(together.out) == b"".join(alone.out)
    assert together.send_window == alone.send_window
    assert together.streams.keys() == alone.streams.keys()


def test_answer_to_nobody_is_dropped() -> None:
    """A stream that is gone is answered with nothing, whatever way is taken."""
    outgoing = Outgoing(1024)

    outgoing.respond(1, _HEAD, b"", b"x", _TAIL)
    outgoing.respond(1, _HEAD, b"", bytes(10_000), _TAIL)
    outgoing.send_headers(1, _HEAD)
    outgoing.send_data(1, b"x")
    outgoing.end(1, _TAIL)
    outgoing.refuse(1, _TAIL)

    assert _sent(outgoing) == []


def test_refusal_is_one_frame() -> None:
    """A refusal is one header block that ends the stream."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)

    outgoing.refuse(1, _TAIL)

    assert _sent(outgoing) == [Frame(HEADERS, 5, 1, _TAIL)]
    assert not outgoing.streams


def test_early_refusal_stops_the_request() -> None:
    """The rest of a request that has its answer is not wanted (section 8.1)."""
    outgoing = Outgoing(1024)
    _open_half(outgoing, 1)

    outgoing.refuse(1, _TAIL)

    assert _sent(outgoing) == [Frame(HEADERS, 5, 1, _TAIL), Frame(RST_STREAM, 0, 1, bytes(4))]
    assert 1 in outgoing.reset_lately


@pytest.mark.parametrize("trailers", [_TAIL, b""])
def test_early_end_stops_the_request(trailers: bytes) -> None:
    """An answer that ends before its request does stops it, with trailers or without."""
    outgoing = Outgoing(1024)
    _open_half(outgoing, 1)
    outgoing.send_headers(1, _HEAD)

    outgoing.end(1, trailers)
    frames = _sent(outgoing)

    assert frames[-2].flags & END_STREAM
    assert frames[-1] == Frame(RST_STREAM, 0, 1, bytes(4))
    assert 1 in outgoing.reset_lately


def test_end_without_trailers_is_empty_content() -> None:
    """An answer without trailers ends with an empty frame."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)
    outgoing.send_headers(1, _HEAD)
    outgoing.send_data(1, b"x")

    outgoing.end(1, b"")

    assert _sent(outgoing)[1:] == [Frame(DATA, 0, 1, b"x"), Frame(DATA, END_STREAM, 1, b"")]


# --- flow control -----------------------------------------------------------------------------


def test_content_waits_for_the_stream() -> None:
    """No more leaves than the stream's window allows; an update lets the rest go."""
    outgoing = Outgoing(1024)
    outgoing.peer_window = 10
    _open(outgoing, 1)

    outgoing.respond(1, _HEAD, b"", b"0123456789abcdef", _TAIL)
    first = _sent(outgoing)
    outgoing.open_stream(1, 4)
    outgoing.send_queued([])
    second = _sent(outgoing)
    outgoing.open_stream(1, 2)
    outgoing.send_queued([])

    assert first == [Frame(HEADERS, 4, 1, _HEAD), Frame(DATA, 0, 1, b"0123456789")]
    assert second == [Frame(DATA, 0, 1, b"abcd")]
    assert _sent(outgoing) == [Frame(DATA, 0, 1, b"ef"), Frame(HEADERS, 5, 1, _TAIL)]


def test_content_waits_for_the_connection() -> None:
    """All streams together send no more than the connection's window."""
    outgoing = Outgoing(1024)
    outgoing.send_window = 10
    _open(outgoing, 1, 3)

    outgoing.respond(1, _HEAD, b"", bytes(8), _TAIL)
    outgoing.respond(3, _HEAD, b"", bytes(8), _TAIL)
    first = _sent(outgoing)
    outgoing.open_connection(6)
    outgoing.send_queued([])

    assert (len(_content(first, 1)), len(_content(first, 3))) == (8, 2)
    assert len(_content(_sent(outgoing), 3)) == 6


def test_content_is_cut_to_the_peers_frames() -> None:
    """No frame is longer than the peer takes, and larger ones are used when it takes them."""
    outgoing = Outgoing(1024)
    outgoing.send_window = outgoing.peer_window = 100_000
    _open(outgoing, 1, 3)

    outgoing.respond(1, _HEAD, b"", bytes(40_000), _TAIL)
    small = [len(one.payload) for one in _sent(outgoing) if one.type == DATA]
    outgoing.peer_frame_bytes_max = 50_000
    outgoing.respond(3, _HEAD, b"", bytes(40_000), _TAIL)

    assert small == [16_384, 16_384, 7_232]
    assert [len(one.payload) for one in _sent(outgoing) if one.type == DATA] == [40_000]


def test_streams_take_turns() -> None:
    """When the connection opens, each waiting stream sends a frame in turn (section 5.2)."""
    outgoing = Outgoing(1024)
    outgoing.send_window, outgoing.peer_window = 0, 1_000_000
    _open(outgoing, 1, 3, 5)
    for stream in (1, 3, 5):
        outgoing.respond(stream, _HEAD, b"", bytes(50_000), _TAIL)
    _sent(outgoing)

    outgoing.open_connection(6 * 16_384)
    outgoing.send_queued([])

    assert [one.stream for one in _sent(outgoing)] == [1, 3, 5, 1, 3, 5]


def test_waiting_streams_keep_their_turn() -> None:
    """A stream whose own window is closed does not lose its place to later ones."""
    outgoing = Outgoing(1024)
    outgoing.send_window, outgoing.peer_window = 0, 0
    _open(outgoing, 1, 3)
    outgoing.respond(1, _HEAD, b"", bytes(10), _TAIL)
    outgoing.respond(3, _HEAD, b"", bytes(10), _TAIL)
    _sent(outgoing)

    outgoing.open_connection(10)
    outgoing.send_queued([])
    outgoing.shift(10)
    outgoing.send_queued([])

    assert [one.stream for one in _sent(outgoing) if one.type == DATA] == [1]


def test_smaller_initial_window_may_be_negative() -> None:
    """A smaller initial window takes back what open streams have not used (section 6.9.2)."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)
    outgoing.send_headers(1, _HEAD)
    outgoing.send_data(1, bytes(60_000))
    _sent(outgoing)

    outgoing.shift(10)
    outgoing.send_data(1, b"x")
    closed = _sent(outgoing)
    outgoing.open_stream(1, 59_990)
    outgoing.send_queued([])
    still = _sent(outgoing)
    outgoing.open_stream(1, 1)
    outgoing.send_queued([])

    assert (closed, still) == ([], [])
    assert _content(_sent(outgoing), 1) == b"x"


@pytest.mark.parametrize("room", [0, 1])
def test_window_has_an_upper_bound(room: int) -> None:
    """A window of more than 2^31-1 is an error of the peer's (section 6.9.1)."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)
    most = 2**31 - 1 - 65_535 + room

    assert outgoing.open_connection(most) is (room == 0)
    assert outgoing.open_stream(1, most) is (room == 0)


def test_initial_window_may_overflow_a_stream() -> None:
    """A larger initial window is an error if it makes an open stream's window too large."""
    outgoing = Outgoing(1024)
    _open(outgoing, 1)
    outgoing.open_stream(1, 2**31 - 1 - 65_535)

    assert outgoing.shift(65_535)
    assert not outgoing.shift(65_536)


# --- giving up --------------------------------------------------------------------------------


def test_reset_drops_what_is_queued() -> None:
    """A stream that is given up sends nothing more, and what it had queued counts no more."""
    outgoing = Outgoing(1024)
    outgoing.send_window = 5
    _open(outgoing, 1, 3)
    outgoing.respond(1, _HEAD, b"", b"0123456789", _TAIL)
    outgoing.respond(3, _HEAD, b"", b"abcdefghij", _TAIL)
    _sent(outgoing)

    outgoing.reset(1, ErrorCode.CANCEL)
    after = _sent(outgoing)
    outgoing.open_connection(100)
    outgoing.send_queued([])

    assert after == [Frame(RST_STREAM, 0, 1, bytes((0, 0, 0, 8)))]
    assert [(one.type, one.stream) for one in _sent(outgoing)] == [(DATA, 3), (HEADERS, 3)]
    assert outgoing.unsent_bytes == 0


def test_few_resets_are_remembered() -> None:
    """What is remembered of streams that were given up is bounded."""
    outgoing = Outgoing(1024)
    for stream in range(1, 10_001, 2):
        outgoing.reset(stream, ErrorCode.CANCEL)

    assert len(outgoing.reset_lately) <= 256
    assert 9_999 in outgoing.reset_lately


# --- producers --------------------------------------------------------------------------------


def test_producer_waits_until_its_stream_is_drained() -> None:
    """Who was told to wait is told, once, when everything queued has been sent."""
    outgoing = Outgoing(1024)
    outgoing.peer_window = 0
    _open(outgoing, 1)
    outgoing.send_headers(1, _HEAD)
    outgoing.send_data(1, bytes(100))
    events: list[Any] = []

    assert not outgoing.is_full(1, 100)
    assert outgoing.is_full(1, 99)

    outgoing.open_stream(1, 99)
    outgoing.send_queued(events)
    assert events == []
    outgoing.open_stream(1, 1)
    outgoing.send_queued(events)
    outgoing.send_queued(events)

    assert events == [(DRAINED, 1)]
    assert not outgoing.is_full(1, 0)


def test_producer_that_was_not_held_is_not_told() -> None:
    """A stream whose producer never had to wait drains without a word."""
    outgoing = Outgoing(1024)
    outgoing.peer_window = 0
    _open(outgoing, 1)
    outgoing.send_headers(1, _HEAD)
    outgoing.send_data(1, bytes(100))
    events: list[Any] = []

    outgoing.open_stream(1, 100)
    outgoing.send_queued(events)

    assert events == []


@pytest.mark.timeout(10)
def test_huge_answer_is_sent_in_time_proportional_to_its_size() -> None:
    """Cutting an answer into frames does not copy what is left of it for each of them."""
    outgoing = Outgoing(1024)
    outgoing.send_window = outgoing.peer_window = 2**31 - 1
    _open(outgoing, 1)
    size_bytes = 96 * 1024 * 1024

    outgoing.respond(1, _HEAD, b"", bytes(size_bytes), _TAIL)

    assert sum(map(len, outgoing.out)) > size_bytes
    assert outgoing.unsent_bytes == 0


@pytest.mark.parametrize("count", [1, 3])
def test_one_huge_answer_is_no_crowd(count: int) -> None:
    """Of each stream a megabyte counts: many answers pile up, a single one does not."""
    outgoing = Outgoing(1024)
    outgoing.peer_window = 0
    streams = range(1, 2 * count + 1, 2)
    _open(outgoing, *streams)
    mib = 1024 * 1024

    for stream in streams:
        outgoing.respond(stream, _HEAD, b"", bytes(5 * mib), _TAIL)
    full = outgoing.crowd_bytes
    outgoing.open_connection(2**30)
    outgoing.open_stream(1, 5 * mib - 10)
    outgoing.send_queued([])
    nearly = outgoing.crowd_bytes
    outgoing.reset(1, ErrorCode.CANCEL)

    assert full == count * mib
    assert nearly == (count - 1) * mib + 10
    assert outgoing.crowd_bytes == (count - 1) * mib


# --- all of it together -----------------------------------------------------------------------


@settings(max_examples=60, stateful_step_count=40)
class OutgoingMachine(RuleBasedStateMachine):
    """Answers, windows and settings in any order, against an account of what is allowed."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.outgoing = Outgoing(1024)
        self.next_stream = 1
        self.connection = 65_535
        self.initial = 65_535
        self.windows: dict[int, int] = {}
        self.wanted: dict[int, bytes] = {}
        self.seen: dict[int, bytes] = {}
        self.ending: set[int] = set()
        self.ended: set[int] = set()
        self.headed: set[int] = set()
        self.waiting: set[int] = set()
        self.frame_bytes_max = 16_384

    @rule(target=streams, whole=st.booleans())
    def begin(self, *, whole: bool) -> int:
        """Open a stream and begin its answer."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        (_open if whole else _open_half)(self.outgoing, stream)
        self.windows[stream] = self.initial
        self.wanted[stream] = self.seen[stream] = b""
        self.outgoing.send_headers(stream, _HEAD)
        self._account([])
        return stream

    @rule(length=st.integers(0, 30_000))
    def answer(self, length: int) -> None:
        """Answer a new stream whole."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        _open(self.outgoing, stream)
        self.windows[stream] = self.initial
        self.wanted[stream] = bytes((stream & 0xFF,)) * length
        self.seen[stream] = b""
        self.ending.add(stream)
        self.outgoing.respond(stream, _HEAD, b"", self.wanted[stream], _TAIL)
        self._account([])

    @rule(stream=streams, length=st.integers(1, 40_000))
    def send(self, stream: int, length: int) -> None:
        """Go on with an answer."""
        if stream in self.ending:
            return
        content = bytes((length & 0xFF,)) * length
        self.wanted[stream] += content
        self.outgoing.send_data(stream, content)
        self._account([])

    @rule(stream=consumes(streams), trailers=st.sampled_from([_TAIL, b""]))
    def end(self, stream: int, trailers: bytes) -> None:
        """End an answer."""
        self.ending.add(stream)
        self.waiting.discard(stream)
        self.outgoing.end(stream, trailers)
        self._account([])

    @rule(stream=consumes(streams))
    def give_up(self, stream: int) -> None:
        """Reset a stream."""
        self.outgoing.reset(stream, ErrorCode.CANCEL)
        self.wanted[stream] = self.seen[stream]
        self.waiting.discard(stream)
        self.ended.add(stream)
        self._account([])

    @rule(stream=streams, bytes_max=st.integers(0, 20_000))
    def ask(self, stream: int, bytes_max: int) -> None:
        """Ask whether a producer has to wait."""
        queued = len(self.wanted[stream]) - len(self.seen[stream])
        full = self.outgoing.is_full(stream, bytes_max)
        assert full is (queued > bytes_max)
        if full:
            self.waiting.add(stream)

    @rule(increment=st.integers(1, 60_000))
    def open_connection(self, increment: int) -> None:
        """Let the connection send more."""
        self.connection += increment
        assert self.outgoing.open_connection(increment)
        self._pump()

    @rule(stream=streams, increment=st.integers(1, 60_000))
    def open_stream(self, stream: int, increment: int) -> None:
        """Let a stream send more."""
        if stream in self.outgoing.streams:
            self.windows[stream] += increment
            assert self.outgoing.open_stream(stream, increment)
            self._pump()

    @rule(window=st.sampled_from([0, 1, 1_000, 65_535, 200_000]))
    def change_initial_window(self, window: int) -> None:
        """Change what streams may send."""
        for stream in self.windows:
            self.windows[stream] += window - self.initial
        self.initial = window
        assert self.outgoing.shift(window)
        self._pump()

    @rule(frame_bytes_max=st.sampled_from([16_384, 20_000, 100_000]))
    def change_frames(self, frame_bytes_max: int) -> None:
        """Change how long frames may be."""
        self.frame_bytes_max = self.outgoing.peer_frame_bytes_max = frame_bytes_max

    def _pump(self) -> None:
        events: list[Any] = []
        self.outgoing.send_queued(events)
        self._account(events)

    def _account(self, events: list[Any]) -> None:
        for one in _sent(self.outgoing):
            if one.type == RST_STREAM:
                continue
            assert one.stream not in self.ended
            if one.type == DATA:
                length = len(one.payload)
                assert one.stream in self.headed
                assert length <= self.frame_bytes_max
                self.connection -= length
                self.windows[one.stream] -= length
                # An empty frame needs no window.
                assert not length or (self.connection >= 0 and self.windows[one.stream] >= 0)
                self.seen[one.stream] += one.payload
            elif not one.flags & END_STREAM:
                assert one.stream not in self.headed
                self.headed.add(one.stream)
            if one.flags & END_STREAM:
                assert one.stream in self.ending
                assert self.seen[one.stream] == self.wanted[one.stream]
                self.ended.add(one.stream)
        for kind, stream in events:
            assert kind == DRAINED
            assert self.seen[stream] == self.wanted[stream]
            # Nobody is told who did not ask, or twice.
            self.waiting.remove(stream)

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        """What could be sent has been sent, and the account of what waits is right."""
        for stream, wanted in self.wanted.items():
            seen = self.seen[stream]
            assert wanted.startswith(seen)
            if len(seen) < len(wanted):
                assert self.connection <= 0 or self.windows[stream] <= 0
            else:
                assert stream not in self.waiting
                assert stream in self.ended or stream not in self.ending
        queued = sum(len(self.wanted[one]) - len(self.seen[one]) for one in self.wanted)
        assert self.outgoing.unsent_bytes == queued
        assert self.outgoing.crowd_bytes == queued
        assert self.outgoing.send_window == self.connection


test_outgoing_keeps_its_account = OutgoingMachine.TestCase

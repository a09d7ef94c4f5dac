"""The sending half of a connection: answers to frames, as far as flow control allows.

Owns: the open streams, what is queued on them, the peer's windows, and the bytes to be written.
Never: reads; the receiving half tells it of window updates and settings.
Follows: RFC 9113 sections 5.1, 5.2 and 6.9.
Keeps: data never exceeds a window of the peer's; a stream that is whole when it comes and whole
    when it is answered never has an object: `streams[id]` is None then; a request that lingers
    is heard out for a second before its answer ends, so that it may still prove malformed.
"""

import struct
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, final

from kvsecure.wire.h2.frames import (
    END_HEADERS,
    END_STREAM,
    ErrorCode,
    FrameType,
    encode_reset,
    frame_header,
)
from kvsecure.wire.h2.stream import Stream
from kvsecure.wire.h2.windows import WINDOW_DEFAULT, WINDOW_MAX

__all__ = ["DRAINED", "Outgoing"]

# An event: (DRAINED, stream id): what was queued on a stream whose producer waits has been sent.
DRAINED: Final = 4

_u32: Final = struct.Struct(">I").pack
_LENGTHS: Final = tuple(_u32(length)[1:] for length in range(4096))
_HEADERS_FLAGS: Final = bytes((FrameType.HEADERS, END_HEADERS))
_TRAILERS_FLAGS: Final = bytes((FrameType.HEADERS, END_HEADERS | END_STREAM))
_DATA_FLAGS: Final = bytes((FrameType.DATA, 0))
# The head of a DATA frame, and behind it what stands in front of a message of gRPC.
_data_head: Final = struct.Struct(">IBIBI").pack
_prefix: Final = struct.Struct(">BI").pack
_PREFIX_BYTES: Final = 5
# Longer answers are split, if the peer has not said that it takes longer frames.
_WHOLE_BYTES_MAX: Final = 16_384
_RESET_REMEMBERED_MAX: Final = 256
# One huge answer is no crowd: of each stream so much counts.
_CROWD_STREAM_BYTES_MAX: Final = 1024 * 1024


@final
class Outgoing:
    """What a server sends on one connection."""

    __slots__ = (
        "_ahead",
        "_is_patient",
        "_lingering",
        "_queued",
        "_stream_window_bytes",
        "answers",
        "crowd_bytes",
        "given_up_lately",
        "out",
        "peer_frame_bytes_max",
        "peer_window",
        "reset_lately",
        "send_window",
        "streams",
        "unsent_bytes",
    )

    def __init__(self, stream_window_bytes: int) -> None:
        self._stream_window_bytes = stream_window_bytes
        # What is to be written, in order; whoever writes it empties the list.
        self.out: list[bytes] = []
        # None: its request is whole and its answer not begun.
        self.streams: dict[int, Stream | None] = {}
        self.send_window = WINDOW_DEFAULT
        # What a new stream may send (the peer's INITIAL_WINDOW_SIZE).
        self.peer_window = WINDOW_DEFAULT
        self.peer_frame_bytes_max = 16_384
        # Data that flow control holds back, over all streams.
        self.unsent_bytes = 0
        # The same, of each stream no more than a bound: how many answers pile up.
        self.crowd_bytes = 0
        # How many frames were sent in answer to something, whole answers as one.
        self.answers = 0
        # Streams that were reset here: what the peer had sent before it knew is ignored.
        self.reset_lately: deque[int] = deque(maxlen=_RESET_REMEMBERED_MAX)
        # Streams that the peer has reset, and that nothing has come on since.
        self.given_up_lately: deque[int] = deque(maxlen=_RESET_REMEMBERED_MAX)
        # Streams that have data and a window of their own for it, in the order of their turns.
        # Those whose window is closed are not looked at until it opens.
        self._queued: OrderedDict[int, None] = OrderedDict()
        # Answers that have nothing left to send but their end, and the seconds they have waited.
        self._lingering: dict[int, int] = {}
        self._is_patient = True
        # How much more than others those streams may send that have no object.
        self._ahead: dict[int, int] = {}

    # --- sending --------------------------------------------------------------------------------

    def respond(
        self, stream_id: int, headers: bytes, prefix: bytes, data: bytes, trailers: bytes
    ) -> None:
        """Answer a request whole; if the stream is gone, nothing happens.

        Args:
            stream_id: Its stream, on which nothing has been sent.
            headers: Encoded header block.
            prefix: What stands in front of the data, to spare the caller a copy.
            data: What goes between.
            trailers: Encoded header block.
        """
        streams = self.streams
        length = len(prefix) + len(data)
        if (
            length < 4096
            and length <= self.send_window
            and length <= self.peer_window
            and streams.get(stream_id, self) is None
        ):
            del streams[stream_id]
            self._ahead.pop(stream_id, None)
            self.answers += 1
            self.send_window -= length
            packed = _u32(stream_id)
            self.out.append(
                b"%b%b%b%b%b%b%b%b%b%b%b%b%b"
                % (
                    _LENGTHS[len(headers)],
                    _HEADERS_FLAGS,
                    packed,
                    headers,
                    _LENGTHS[length],
                    _DATA_FLAGS,
                    packed,
                    prefix,
                    data,
                    _LENGTHS[len(trailers)],
                    _TRAILERS_FLAGS,
                    packed,
                    trailers,
                )
            )
            return
        if stream_id in streams:
            self.send_headers(stream_id, headers)
            self.send_data(stream_id, prefix + data)
            self.end(stream_id, trailers)

    def respond_each(
        self, streams: Sequence[int], headers: bytes, messages: Iterable[bytes], trailers: bytes
    ) -> None:
        """Answer requests whole, each with one message of gRPC, not compressed; see `respond`."""
        opened = self.streams
        out, ahead = self.out, self._ahead
        begin = _LENGTHS[len(headers)] + _HEADERS_FLAGS
        end = _LENGTHS[len(trailers)] + _TRAILERS_FLAGS
        window, window_max = self.send_window, self.peer_window
        for stream_id, message in zip(streams, messages, strict=True):
            length = len(message) + _PREFIX_BYTES
            if (
                length > window_max
                or length > window
                or length > _WHOLE_BYTES_MAX
                or opened.get(stream_id, self) is not None
            ):
                self.send_window = window
                self.respond(
                    stream_id, headers, _prefix(0, length - _PREFIX_BYTES), message, trailers
                )
                window = self.send_window
                continue
            del opened[stream_id]
            if ahead:
                ahead.pop(stream_id, None)
            self.answers += 1
            window -= length
            packed = _u32(stream_id)
            # Pieces: whoever writes joins them all at once.
            out += (
                begin,
                packed,
                headers,
                _data_head(length << 8, 0, stream_id, 0, length - _PREFIX_BYTES),
                message,
                end,
                packed,
                trailers,
            )
        self.send_window = window

    def send_headers(self, stream_id: int, headers: bytes) -> None:
        """Begin an answer."""
        if stream_id in self.streams:
            self.answers += 1
            self.stream(stream_id).headers_sent = True
            self.out.append(
                frame_header(len(headers), FrameType.HEADERS, END_HEADERS, stream_id) + headers
            )

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Go on with an answer, as far as flow control allows; the rest is queued."""
        if stream_id not in self.streams or not data:
            return
        stream = self.stream(stream_id)
        if stream.send_window > 0:
            self._queued[stream_id] = None
        stream.queue.append(data)
        self._count(stream, len(data))
        self.send_queued([])

    def end(self, stream_id: int, trailers: bytes) -> None:
        """End an answer, after what is queued, with trailers or without any."""
        if stream_id not in self.streams:
            return
        stream = self.stream(stream_id)
        stream.trailers = trailers
        if not stream.queue:
            self._finish(stream_id, stream)

    def refuse(self, stream_id: int, headers: bytes) -> None:
        """Answer with headers alone (a trailers-only answer)."""
        if stream_id not in self.streams:
            return
        self.answers += 1
        stream = self.streams[stream_id]
        if stream is not None:
            stream.trailers = headers
            self._finish(stream_id, stream)
            return
        del self.streams[stream_id]
        self._ahead.pop(stream_id, None)
        self.out.append(
            frame_header(len(headers), FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id)
            + headers
        )

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Give a stream up; one that is closed already is told so again."""
        if stream_id in self.streams:
            self.forget(stream_id)
        self.reset_lately.append(stream_id)
        self.out.append(encode_reset(stream_id, code))

    def forget(self, stream_id: int) -> None:
        """Let go of an open stream without a word."""
        stream = self.streams.pop(stream_id)
        self._ahead.pop(stream_id, None)
        if stream is not None:
            self._lingering.pop(stream_id, None)
            self._queued.pop(stream_id, None)
            self._count(stream, -stream.queued_bytes)
            stream.queue.clear()

    def is_full(self, stream_id: int, bytes_max: int) -> bool:
        """Tell whether more than this is queued on a stream; if so DRAINED says when it is not."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.queued_bytes <= bytes_max:
            return False
        stream.was_full = True
        return True

    # --- lingering ------------------------------------------------------------------------------

    def request_ended(self, stream_id: int) -> None:
        """End the answer that has waited for the end of its request, if it has."""
        if stream_id in self._lingering:
            self._finish(stream_id, self.stream(stream_id))

    def tick(self) -> None:
        """Take note that a second has passed: no answer waits for more than two."""
        for stream_id, waited_s in list(self._lingering.items()):
            if waited_s:
                self._end_early(stream_id)
            else:
                self._lingering[stream_id] = 1

    def hurry(self) -> None:
        """Let no answer wait for its request any more."""
        self._is_patient = False
        for stream_id in list(self._lingering):
            self._end_early(stream_id)

    def _end_early(self, stream_id: int) -> None:
        if stream_id in self.streams:
            stream = self.stream(stream_id)
            stream.lingers = False
            self._finish(stream_id, stream)

    # --- windows --------------------------------------------------------------------------------

    def open_connection(self, increment: int) -> bool:
        """Let the connection send more; return False if its window is too large then."""
        self.send_window += increment
        return self.send_window <= WINDOW_MAX

    def open_ahead(self, stream_id: int, increment: int) -> None:
        """Let a stream that needs no object send more, by no more than `OPENING_MAX`."""
        self._ahead[stream_id] = increment

    def open_stream(self, stream_id: int, increment: int) -> bool:
        """Let an open stream send more; return False if its window is too large then."""
        stream = self.stream(stream_id)
        stream.send_window += increment
        self._line_up(stream_id, stream)
        return stream.send_window <= WINDOW_MAX

    def shift(self, window: int, highest: int = 0) -> bool:
        """Section 6.9.2: a new initial window moves those of open streams; False if too large.

        It looks at every stream: whoever lets the peer do this has to count it.

        Args:
            window: What new streams may send from now on.
            highest: The largest that it was on the way there, if that is more: it must not be too
                large either.
        """
        difference = window - self.peer_window
        send_window_max = WINDOW_MAX - max(highest - window, 0)
        self.peer_window = window
        sound = max(highest, window) + max(self._ahead.values(), default=0) <= WINDOW_MAX
        for stream_id, stream in self.streams.items():
            if stream is not None:
                stream.send_window += difference
                self._line_up(stream_id, stream)
                sound = sound and stream.send_window <= send_window_max
        return sound

    def _line_up(self, stream_id: int, stream: Stream) -> None:
        """Let a stream have its turns again once its window has opened."""
        if stream.queue and stream.send_window > 0:
            self._queued[stream_id] = None

    def stream(self, stream_id: int) -> Stream:
        """Return an open stream's state, making it now for one that needed none so far."""
        stream = self.streams[stream_id]
        if stream is None:
            window = self.peer_window + self._ahead.pop(stream_id, 0)
            stream = Stream(window, self._stream_window_bytes, remote_ended=True)
            self.streams[stream_id] = stream
        return stream

    def send_queued(self, events: list[Any]) -> None:
        """Send what the windows allow, a frame of each waiting stream in turn."""
        queued = self._queued
        while queued and self.send_window > 0:
            stream_id, _ = queued.popitem(last=False)
            stream = self.stream(stream_id)
            if stream.send_window <= 0:
                # Closed by the peer's settings since.
                continue
            self._send_some(stream_id, stream)
            if not stream.queue:
                self._drained(stream_id, stream, events)
            elif stream.send_window > 0:
                queued[stream_id] = None

    def _send_some(self, stream_id: int, stream: Stream) -> None:
        length_max = min(self.send_window, stream.send_window, self.peer_frame_bytes_max)
        data = stream.queue.popleft()
        if len(data) > length_max:
            # A view: what is left is not copied for every frame.
            left = memoryview(data)
            stream.queue.appendleft(left[length_max:])
            data = left[:length_max]
        length = len(data)
        self.send_window -= length
        stream.send_window -= length
        self._count(stream, -length)
        self.answers += 1
        self.out.append(frame_header(length, FrameType.DATA, 0, stream_id) + data)

    def _count(self, stream: Stream, change: int) -> None:
        """Count data that was queued, or is not any more."""
        before = stream.queued_bytes
        stream.queued_bytes = after = before + change
        self.unsent_bytes += change
        self.crowd_bytes += min(after, _CROWD_STREAM_BYTES_MAX) - min(
            before, _CROWD_STREAM_BYTES_MAX
        )

    def _drained(self, stream_id: int, stream: Stream, events: list[Any]) -> None:
        if stream.trailers is not None:
            self._finish(stream_id, stream)
        elif stream.was_full:
            stream.was_full = False
            events.append((DRAINED, stream_id))

    def _finish(self, stream_id: int, stream: Stream) -> None:
        if stream.lingers and self._is_patient and not stream.remote_ended:
            self._lingering[stream_id] = 0
            return
        trailers = stream.trailers or b""
        if trailers:
            header = frame_header(
                len(trailers), FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id
            )
        else:
            header = frame_header(0, FrameType.DATA, END_STREAM, stream_id)
        self.out.append(header + trailers)
        self._close_local(stream_id, stream)
        if not stream.remote_ended:
            # Section 8.1: the answer is whole, the rest of the request is not wanted.
            self.out.append(encode_reset(stream_id, ErrorCode.NO_ERROR))

    def _close_local(self, stream_id: int, stream: Stream) -> None:
        if not stream.remote_ended:
            self.reset_lately.append(stream_id)
        self.forget(stream_id)

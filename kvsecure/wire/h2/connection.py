"""A server's side of one HTTP/2 connection: bytes in, events out, answers to bytes.

Owns: the connection's state: streams, windows, settings, limits on what a peer may make us do.
Never: reads, writes, waits or looks at a clock; it is given one for pings, which are rare, and
    `tick` tells it that a second has passed.
Follows: RFC 9113, section by section where the code says so.
Keeps: any bytes give events, or one GOAWAY after which nothing more is read. A unary call that
    arrives in one piece makes no object but its event: `streams[id]` is then None.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, final

from kvsecure.wire.h2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_BYTES,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    ErrorCode,
    FrameType,
    Setting,
    encode_goaway,
    encode_ping,
    encode_ping_ack,
    encode_settings,
    encode_window_update,
    frame_header,
)
from kvsecure.wire.h2.head import CompressionFailed, Head, HeadReader, MalformedHead
from kvsecure.wire.h2.limits import Limits
from kvsecure.wire.h2.outgoing import DRAINED, Outgoing
from kvsecure.wire.h2.pings import Pings, Probe
from kvsecure.wire.h2.stream import Stream
from kvsecure.wire.h2.windows import WINDOW_DEFAULT, WINDOW_MAX, ReceiveWindow

__all__ = ["DATA", "DRAINED", "REQUEST", "RESET", "Connection"]

# Events are tuples that begin with one of these.
# (REQUEST, stream id, Head, data so far, whether that is all)
REQUEST: Final = 1
# (DATA, stream id, data, whether that is all)
DATA: Final = 2
# (RESET, stream id, error code): the peer does not want an answer any more
RESET: Final = 3
# And those of the sending half, whose frames leave when window updates come in: DRAINED.

_u32_from: Final = struct.Struct(">I").unpack_from
_SETTINGS_ACK: Final = frame_header(0, FrameType.SETTINGS, ACK, 0)


@final
class _ConnectionFailed(Exception):
    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


@final
class Connection:
    """One peer's connection."""

    __slots__ = (
        "_answers_seen",
        "_begun",
        "_buffer",
        "_header_block",
        "_header_flags",
        "_header_stream",
        "_held",
        "_idle_budget",
        "_last_taken",
        "_limits",
        "_now_ns",
        "_pings",
        "_preface_left",
        "_receive_window",
        "_reset_budget",
        "_windows_opened",
        "closing",
        "failed",
        "has_begun",
        "heads",
        "heard",
        "highest_stream",
        "outgoing",
        "silent",
    )

    def __init__(self, limits: Limits, now_ns: Callable[[], int]) -> None:
        """Begin with our settings in `out`; `now_ns` is monotonic, in nanoseconds."""
        self._limits = limits
        self._now_ns = now_ns
        self._pings = Pings(limits.pings)
        self.heads = HeadReader(limits.header_list_bytes_max)
        self.outgoing = Outgoing(limits.stream_window_bytes)
        self.outgoing.out += [
            encode_settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: limits.streams_max,
                    Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                    Setting.MAX_HEADER_LIST_SIZE: limits.header_list_bytes_max,
                }
            ),
            encode_window_update(0, limits.connection_window_bytes - WINDOW_DEFAULT),
        ]
        self.highest_stream = 0
        # Why nothing is read any more, once that is so.
        self.failed: ErrorCode | None = None
        # Whether new streams are turned away.
        self.closing = False
        # Whether the peer has left our ping without an answer, and may be taken for gone.
        self.silent = False
        self.heard = False  # any sign of life since the last tick
        # The last stream that was taken before that.
        self._last_taken = 0
        self._receive_window = ReceiveWindow(limits.connection_window_bytes)
        self._held = False
        self._buffer = b""
        # Requests of which nothing but the head has come, within one read.
        self._begun: dict[int, Head] = {}
        self._preface_left = PREFACE
        # Whether the peer has sent what a client sends first.
        self.has_begun = False
        self._header_block = b""
        self._header_stream = 0
        self._header_flags = 0
        self._idle_budget = limits.idle_frames_per_s_max
        self._reset_budget = limits.resets_per_s_max
        self._answers_seen = self._windows_opened = 0

    # --- receiving ------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[tuple[Any, ...]]:
        """Take in bytes; return what they mean, in order.

        After an error `failed` is set, a GOAWAY is in `out`, and what follows is ignored.
        """
        events: list[tuple[Any, ...]] = []
        if self.failed is not None:
            return events
        self.heard = True
        try:
            self._receive(data, events)
        except _ConnectionFailed as failure:
            self.fail(failure.code, str(failure))
        return events

    def _receive(self, data: bytes, events: list[tuple[Any, ...]]) -> None:
        buffer = self._buffer + data if self._buffer else data
        offset = 0
        if self._preface_left:
            offset = min(len(buffer), len(self._preface_left))
            if buffer[:offset] != self._preface_left[:offset]:
                raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._preface_left = self._preface_left[offset:]
        end = len(buffer)
        frame_bytes_max = self._limits.frame_bytes_max
        while end - offset >= FRAME_HEADER_BYTES:
            length = _u32_from(buffer, offset)[0] >> 8
            if length > frame_bytes_max:
                raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            frame_type = buffer[offset + 3]
            flags = buffer[offset + 4]
            stream_id = _u32_from(buffer, offset + 5)[0] & 0x7FFF_FFFF
            start = offset + FRAME_HEADER_BYTES
            stop = start + length
            if stop > end:
                break
            offset = stop
            if self._is_plain(frame_type, flags, stream_id):
                # A request whose data is likely to follow in the same read: no stream object yet.
                self._begin(stream_id, buffer[start:stop])
                continue
            if (
                frame_type == 0
                and flags == END_STREAM
                and stream_id in self._begun
                and not self._header_stream
            ):
                self._take_window(length)
                head = self._begun.pop(stream_id)
                if head.content_length is None or head.content_length == length:
                    self.outgoing.streams[stream_id] = None
                    events.append((REQUEST, stream_id, head, buffer[start:stop], True))
                else:
                    self._reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
                continue
            if stream_id in self._begun:
                self._promote(stream_id, events)
            self._frame(frame_type, flags, stream_id, buffer[start:stop], events)
        for stream_id in list(self._begun):
            self._promote(stream_id, events)
        self._buffer = buffer[offset:] if offset < end else b""
        if not self._held:
            self._reopen()

    def _is_plain(self, frame_type: int, flags: int, stream_id: int) -> bool:
        """Tell whether a frame is the whole header block of a new request that has data."""
        return (
            frame_type == 1
            and flags == END_HEADERS
            and stream_id > self.highest_stream
            and bool(stream_id & 1)
            and not self._header_stream
            and self.has_begun
            and not self._is_full
        )

    def _begin(self, stream_id: int, block: bytes) -> None:
        """Remember a request's head until its data comes, or the read ends."""
        self.highest_stream = stream_id
        head = self._head_of(block, stream_id)
        if head is not None:
            self._begun[stream_id] = head

    def _promote(self, stream_id: int, events: list[tuple[Any, ...]]) -> None:
        """Make a stream of a request that does not come in one piece."""
        self._open(stream_id, self._begun.pop(stream_id), events, ended=False)

    def _open(self, stream_id: int, head: Head, events: list[Any], *, ended: bool) -> None:
        """Make a stream of a request."""
        stream = Stream(
            self.outgoing.peer_window, self._limits.stream_window_bytes, remote_ended=ended
        )
        stream.content_left = head.content_length
        # Who takes trailers leads a conversation, and is told at once when it is over. Others are
        # heard out: a request that was answered cannot be found malformed any more (8.1.1).
        stream.lingers = not head.takes_trailers
        self.outgoing.streams[stream_id] = stream
        events.append((REQUEST, stream_id, head, b"", ended))

    def _frame(
        self, frame_type: int, flags: int, stream_id: int, payload: bytes, events: list[Any]
    ) -> None:
        if not self.has_begun and frame_type != FrameType.SETTINGS:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._header_stream and (
            frame_type != FrameType.CONTINUATION or stream_id != self._header_stream
        ):
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        match frame_type:
            case FrameType.DATA:
                self._on_data(flags, stream_id, payload, events)
            case FrameType.HEADERS:
                self._on_headers(flags, stream_id, payload, events)
            case FrameType.PRIORITY:
                self._on_priority(stream_id, payload, events)
            case FrameType.RST_STREAM:
                self._on_reset(stream_id, payload, events)
            case FrameType.SETTINGS:
                self._on_settings(flags, stream_id, payload, events)
            case FrameType.PUSH_PROMISE:
                raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "clients do not push")
            case FrameType.PING:
                self._on_ping(flags, stream_id, payload)
            case FrameType.GOAWAY:
                self._on_goaway(stream_id, payload)
            case FrameType.WINDOW_UPDATE:
                self._on_window_update(stream_id, payload, events)
            case FrameType.CONTINUATION:
                self._on_continuation(flags, payload, events)
            case _:
                # Section 5.5: frames of unknown types are ignored.
                self._spend_idle()

    @property
    def _is_full(self) -> bool:
        """Whether no new stream is taken."""
        count = len(self.outgoing.streams) + len(self._begun)
        return self.closing or count >= self._limits.streams_max

    # --- headers --------------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        if not stream_id & 1:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream id that is no client's")
        payload = _without_padding(flags, payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a cut priority")
            if _u32_from(payload)[0] & 0x7FFF_FFFF == stream_id:
                raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream that rests on itself")
            payload = payload[5:]
        closed = stream_id <= self.highest_stream and stream_id not in self.outgoing.streams
        if closed and stream_id not in self.outgoing.reset_lately:
            raise _ConnectionFailed(ErrorCode.STREAM_CLOSED, "headers on a closed stream")
        self._header_stream = stream_id
        self._header_flags = flags
        self._header_block = payload
        self._check_block()
        if flags & END_HEADERS:
            self._end_headers(events)

    def _on_continuation(self, flags: int, payload: bytes, events: list[Any]) -> None:
        if not self._header_stream:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        if not payload:
            self._spend_idle()
        self._header_block += payload
        self._check_block()
        if flags & END_HEADERS:
            self._end_headers(events)

    def _check_block(self) -> None:
        if len(self._header_block) > self._limits.header_block_bytes_max:
            raise _ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")

    def _end_headers(self, events: list[Any]) -> None:
        stream_id, flags, block = self._header_stream, self._header_flags, self._header_block
        self._header_stream = 0
        self._header_block = b""
        if stream_id <= self.highest_stream:
            self._trailers(stream_id, flags, block, events)
            return
        self.highest_stream = stream_id
        head = self._head_of(block, stream_id)
        if head is None:
            return
        ended = bool(flags & END_STREAM)
        if self.closing:
            # Section 6.8: it was on its way when we went away, which is no fault of the peer's.
            self.outgoing.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if self._is_full:
            # Section 5.1.2: it was not begun, so it may be tried again elsewhere.
            self._reset_stream(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if ended and head.content_length:
            self._reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        self._open(stream_id, head, events, ended=ended)

    def _trailers(self, stream_id: int, flags: int, block: bytes, events: list[Any]) -> None:
        """Section 8.1: a second header block ends a request."""
        is_sound = bool(flags & END_STREAM)
        try:
            self.heads.read_trailers(block)
        except CompressionFailed as failure:
            raise _ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(failure)) from None
        except MalformedHead:
            is_sound = False
        if stream_id not in self.outgoing.streams:
            # Section 5.1: reset here, lately. What was sent before the peer knew is dropped,
            # whatever it is; the compression state has had its part.
            self._spend_idle()
            return
        stream = self.outgoing.streams[stream_id]
        if stream is None or stream.remote_ended:
            # Section 5.1: that it has ended comes before what is wrong with the block.
            self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED, events)
        elif not is_sound or stream.content_left:
            self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
        else:
            stream.remote_ended = True
            self.outgoing.request_ended(stream_id)
            events.append((DATA, stream_id, b"", True))

    def _head_of(self, block: bytes, stream_id: int) -> Head | None:
        try:
            return self.heads.read(block)
        except CompressionFailed as failure:
            raise _ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(failure)) from None
        except MalformedHead:
            self._reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None

    # --- data -----------------------------------------------------------------------------------

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        self._take_window(len(payload))
        if not stream_id or stream_id > self.highest_stream:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "data on a stream that is idle")
        length = len(payload)
        content = _without_padding(flags, payload)
        if stream_id not in self.outgoing.streams:
            if stream_id not in self.outgoing.reset_lately:
                raise _ConnectionFailed(ErrorCode.STREAM_CLOSED, "data on a closed stream")
            if not content:
                self._spend_idle()
            return
        stream = self.outgoing.streams[stream_id]
        if stream is None or stream.remote_ended:
            self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED, events)
            return
        if not stream.receive_window.take(length):
            self._fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR, events)
            return
        ended = bool(flags & END_STREAM)
        if not content and not ended:
            self._spend_idle()
            return
        if stream.content_left is not None:
            stream.content_left -= len(content)
            if stream.content_left < 0 or (ended and stream.content_left):
                self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
                return
        if ended:
            stream.remote_ended = True
            self.outgoing.request_ended(stream_id)
        else:
            window = stream.receive_window.reopen()
            if window:
                self.outgoing.out.append(encode_window_update(stream_id, window))
        events.append((DATA, stream_id, content, ended))

    def _take_window(self, length: int) -> None:
        if not self._receive_window.take(length):
            raise _ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "more data than allowed")

    def hold(self) -> None:
        """Promise the peer no more data until `release`: what has come is still being held."""
        self._held = True

    def release(self) -> None:
        """Promise the peer more data again."""
        self._held = False
        self._reopen()

    def _reopen(self) -> None:
        window = self._receive_window.reopen()
        if window:
            self.outgoing.out.append(encode_window_update(0, window))

    # --- control --------------------------------------------------------------------------------

    def _on_priority(self, stream_id: int, payload: bytes, events: list[Any]) -> None:
        self._spend_idle()
        if not stream_id:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the priority of no stream")
        if len(payload) != 5:
            self._fail_stream(stream_id, ErrorCode.FRAME_SIZE_ERROR, events)
        elif _u32_from(payload)[0] & 0x7FFF_FFFF == stream_id:
            self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)

    def _on_reset(self, stream_id: int, payload: bytes, events: list[Any]) -> None:
        if len(payload) != 4:
            raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a reset of a wrong size")
        if not stream_id or stream_id > self.highest_stream:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a reset of a stream that is idle")
        self._reset_budget -= 1
        if self._reset_budget < 0:
            raise _ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many resets")
        if stream_id in self.outgoing.streams:
            self.outgoing.forget(stream_id)
            events.append((RESET, stream_id, _u32_from(payload)[0]))
        elif stream_id in self.outgoing.reset_lately:
            # It knows: nothing that comes on it from here on is merely late.
            self.outgoing.reset_lately.remove(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        if stream_id:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            if payload:
                raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "an ack with settings")
            return
        if len(payload) % 6:
            raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "settings of a wrong size")
        if self.has_begun:
            self._spend_idle()
        self.has_begun = True
        for start in range(0, len(payload), 6):
            setting = int.from_bytes(payload[start : start + 2], "big")
            self._set(setting, _u32_from(payload, start + 2)[0])
        # Section 6.5.3: the peer counts by its new settings from here on, and not before.
        self.outgoing.out.append(_SETTINGS_ACK)
        self.outgoing.send_queued(events)

    def _set(self, setting: int, value: int) -> None:
        match setting:
            case Setting.ENABLE_PUSH:
                if value > 1:
                    raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "push neither on nor off")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise _ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
                if not self.outgoing.shift(value):
                    raise _ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
            case Setting.MAX_FRAME_SIZE:
                if not 16_384 <= value <= 16_777_215:
                    raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
                self.outgoing.peer_frame_bytes_max = value
            case _:
                # The others limit what we never do: push, and compress with a table.
                pass

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a ping of a stream")
        if len(payload) != 8:
            raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a ping of a wrong size")
        if flags & ACK:
            return
        self._spend_idle()
        self.outgoing.out.append(encode_ping_ack(payload))
        has_streams = bool(self.outgoing.streams or self._begun)
        if not self._pings.is_tolerable(self._now_ns(), has_streams=has_streams):
            # grpc-go's word, on which its clients ping less often from then on.
            raise _ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a goaway of a stream")
        if len(payload) < 8:
            raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a goaway of a wrong size")
        self._spend_idle()

    def _on_window_update(self, stream_id: int, payload: bytes, events: list[Any]) -> None:
        if len(payload) != 4:
            raise _ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a window update of a wrong size")
        increment = _u32_from(payload)[0] & 0x7FFF_FFFF
        outgoing = self.outgoing
        if not stream_id:
            if not increment:
                raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window update of nothing")
            if not outgoing.open_connection(increment):
                raise _ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
        elif stream_id > self.highest_stream:
            raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window of an idle stream")
        elif not increment:
            # Section 6.9: whatever state the stream is in.
            self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
            return
        elif stream_id in outgoing.streams and not outgoing.open_stream(stream_id, increment):
            self._fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR, events)
            return
        if self._windows_opened < 2 * outgoing.answers:
            # For each frame of ours a peer may open two windows, and it may do so late.
            self._windows_opened += 1
        elif not outgoing.waits_for_window:
            self._spend_idle()
        outgoing.send_queued(events)

    def _spend_idle(self) -> None:
        """Count a frame that costs us work and moves nothing; answers earn new ones."""
        if self._answers_seen != self.outgoing.answers:
            self._answers_seen = self.outgoing.answers
            self._pings.answered = True
            self._idle_budget = self._limits.idle_frames_per_s_max
        self._idle_budget -= 1
        if self._idle_budget < 0:
            raise _ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many frames about nothing")

    # --- ending ---------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Take no new streams; those that are open go on."""
        if not self.closing:
            self.closing = True
            self._last_taken = self.highest_stream
            self.outgoing.out.append(encode_goaway(self.highest_stream, ErrorCode.NO_ERROR))
            self.outgoing.hurry()

    def fail(self, code: ErrorCode, why: str) -> None:
        """End the connection for an error of the peer's."""
        if self.failed is None:
            self.failed = code
            if not self.closing:
                self.closing = True
                self._last_taken = self.highest_stream
            self._buffer = b""
            self.outgoing.out.append(encode_goaway(self._last_taken, code, why.encode()))

    def tick(self) -> None:
        """Take note that a second has passed: a peer may do some idle things again."""
        self._idle_budget = self._limits.idle_frames_per_s_max
        self._reset_budget = self._limits.resets_per_s_max
        self.outgoing.tick()
        heard, self.heard = self.heard, False
        probe = self._pings.tick(self._now_ns(), heard=heard)
        if probe is Probe.PING:
            self.outgoing.out.append(encode_ping(bytes(8)))
        elif probe is Probe.GIVE_UP:
            self.silent = True

    def _fail_stream(self, stream_id: int, code: ErrorCode, events: list[Any]) -> None:
        if stream_id in self.outgoing.streams:
            self.outgoing.forget(stream_id)
            events.append((RESET, stream_id, code))
        self._reset_stream(stream_id, code)

    def _reset_stream(self, stream_id: int, code: ErrorCode) -> None:
        """Send a reset; it counts against the peer, who made us do it (2025's MadeYouReset)."""
        self._reset_budget -= 1
        if self._reset_budget < 0:
            raise _ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many stream errors")
        self.outgoing.reset(stream_id, code)


def _without_padding(flags: int, payload: bytes) -> bytes:
    """Section 6.1: the padding and its length are no content."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]

"""A server's side of one HTTP/2 connection: bytes in, events out, answers to bytes.

Owns: the frames as they come, requests and their data, receive windows, and the connection's end.
Never: reads, writes, waits or looks at a clock; it is given one for pings, which are rare, and
    `tick` tells it that a second has passed.
Follows: RFC 9113, section by section where the code says so.
Keeps: any bytes give events, or one GOAWAY after which nothing more is read. A unary call that
    arrives in one piece makes no object but its event: `streams[id]` is then None.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, final

from kvsecure.wire.h2.control import RESET, ConnectionFailed, Control
from kvsecure.wire.h2.frames import (
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
    encode_settings,
    encode_window_update,
)
from kvsecure.wire.h2.head import CompressionFailed, Head, HeadReader, MalformedHead
from kvsecure.wire.h2.limits import Limits
from kvsecure.wire.h2.outgoing import DRAINED, Outgoing
from kvsecure.wire.h2.stream import Stream
from kvsecure.wire.h2.windows import OPENING_MAX, WINDOW_DEFAULT, WINDOW_MAX, ReceiveWindow

__all__ = ["DATA", "DRAINED", "REQUEST", "RESET", "Connection"]

# Events are tuples that begin with one of these.
# (REQUEST, stream id, Head, data so far, whether that is all)
REQUEST: Final = 1
# (DATA, stream id, data, whether that is all)
DATA: Final = 2
# And those of the control frames, RESET, and of the sending half, whose frames leave when window
# updates come in: DRAINED.

_u32_from: Final = struct.Struct(">I").unpack_from
# The head of a frame: length and type together, flags, stream.
_frame_from: Final = struct.Struct(">IBI").unpack_from
_STREAM_ID_MAX: Final = 0x7FFF_FFFF
# Members of an enum are slow to look up: these are compared for every request.
_HEADERS_TYPE: Final = int(FrameType.HEADERS)
_DATA_TYPE: Final = int(FrameType.DATA)
# Length and type of a window update, and how long all of it is.
_WINDOW_HEAD: Final = 4 << 8 | FrameType.WINDOW_UPDATE
_WINDOW_BYTES: Final = FRAME_HEADER_BYTES + 4


@final
class Connection:
    """One peer's connection."""

    __slots__ = (
        "_begun",
        "_buffer",
        "_control",
        "_header_block",
        "_header_flags",
        "_header_stream",
        "_held",
        "_last_taken",
        "_limits",
        "_preface_left",
        "_receive_window",
        "closing",
        "failed",
        "heads",
        "heard",
        "highest_stream",
        "outgoing",
        "silent",
    )

    def __init__(self, limits: Limits, now_ns: Callable[[], int]) -> None:
        """Begin with our settings in `out`; `now_ns` is monotonic, in nanoseconds."""
        self._limits = limits
        self.heads = HeadReader(limits.header_list_bytes_max)
        self.outgoing = Outgoing(limits.stream_window_bytes)
        self._control = Control(limits, self.outgoing, now_ns)
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
        self._header_block = b""
        self._header_stream = 0
        self._header_flags = 0

    @property
    def has_begun(self) -> bool:
        """Whether the peer has sent what a client sends first."""
        return self._control.has_begun

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
        except ConnectionFailed as failure:
            self.fail(failure.code, str(failure))
        return events

    def _receive(self, data: bytes, events: list[tuple[Any, ...]]) -> None:
        buffer = self._buffer + data if self._buffer else data
        offset = 0
        if self._preface_left:
            offset = min(len(buffer), len(self._preface_left))
            if buffer[:offset] != self._preface_left[:offset]:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._preface_left = self._preface_left[offset:]
        end = len(buffer)
        frame_bytes_max = self._limits.frame_bytes_max
        while True:
            if not self._begun and not self._header_stream:
                offset = self._take_whole(buffer, offset, events)
            if end - offset < FRAME_HEADER_BYTES:
                break
            length = _u32_from(buffer, offset)[0] >> 8
            if length > frame_bytes_max:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
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
                    self._control.reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
                continue
            if stream_id in self._begun:
                self._promote(stream_id, events)
            self._frame(frame_type, flags, stream_id, buffer[start:stop], events)
        for stream_id in list(self._begun):
            self._promote(stream_id, events)
        self._buffer = buffer[offset:] if offset < end else b""
        if not self._held:
            self._reopen()

    def _take_whole(self, buffer: bytes, offset: int, events: list[tuple[Any, ...]]) -> int:
        """Take in the requests that lie here whole: a header block and a frame of data each.

        Nearly all are like that, some with a window update between the two; whatever else lies here
        is left to the caller.

        Returns:
            Where what is left begins.
        """
        if self.closing or not self.has_begun:
            return offset
        streams, frame_bytes_max = self.outgoing.streams, self._limits.frame_bytes_max
        opening_max = min(OPENING_MAX, WINDOW_MAX - self.outgoing.peer_window)
        room = self._limits.streams_max - len(streams)
        end = len(buffer)
        while room > 0 and end - offset >= 2 * FRAME_HEADER_BYTES:
            first, flags, stream_id = _frame_from(buffer, offset)
            if (
                first & 0xFF != _HEADERS_TYPE
                or flags != END_HEADERS
                or not self.highest_stream < stream_id <= _STREAM_ID_MAX
                or not stream_id & 1
            ):
                break
            start = offset + FRAME_HEADER_BYTES
            behind = stop = start + (first >> 8)
            if end - stop < FRAME_HEADER_BYTES:
                break
            second, flags, other_id = _frame_from(buffer, stop)
            opening = 0
            if second == _WINDOW_HEAD and other_id == stream_id:
                # gRPC's C core, and all that is built on it, makes room for the answer in between.
                if end - stop < _WINDOW_BYTES + FRAME_HEADER_BYTES:
                    break
                opening = _u32_from(buffer, stop + FRAME_HEADER_BYTES)[0]
                if not 0 < opening <= opening_max:
                    break
                stop += _WINDOW_BYTES
                second, flags, other_id = _frame_from(buffer, stop)
            length = second >> 8
            data = stop + FRAME_HEADER_BYTES
            if (
                second & 0xFF != _DATA_TYPE
                or flags != END_STREAM
                or other_id != stream_id
                or max(first >> 8, length) > frame_bytes_max
                or end - data < length
            ):
                break
            self.highest_stream = stream_id
            offset = behind
            head = self._head_of(buffer[start:behind], stream_id)
            if head is None:
                # Its stream is gone; what becomes of its data is not for here.
                break
            offset = data + length
            self._take_window(length)
            if head.content_length is None or head.content_length == length:
                streams[stream_id] = None
                room -= 1
                if opening:
                    self._control.open_ahead(stream_id, opening)
                events.append((REQUEST, stream_id, head, buffer[data:offset], True))
            else:
                self._control.reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
        return offset

    def _is_plain(self, frame_type: int, flags: int, stream_id: int) -> bool:
        """Tell whether a frame is the whole header block of a new request that has data."""
        return (
            frame_type == 1
            and flags == END_HEADERS
            and stream_id > self.highest_stream
            and bool(stream_id & 1)
            and not self._header_stream
            and self._control.has_begun
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
        if not self._control.has_begun and frame_type != FrameType.SETTINGS:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._header_stream and (
            frame_type != FrameType.CONTINUATION or stream_id != self._header_stream
        ):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        match frame_type:
            case FrameType.DATA:
                self._on_data(flags, stream_id, payload, events)
            case FrameType.HEADERS:
                self._on_headers(flags, stream_id, payload, events)
            case FrameType.PRIORITY:
                self._control.priority(stream_id, payload, events)
            case FrameType.RST_STREAM:
                self._control.reset(stream_id, self.highest_stream, payload, events)
            case FrameType.SETTINGS:
                self._control.settings(flags, stream_id, payload, events)
            case FrameType.PUSH_PROMISE:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "clients do not push")
            case FrameType.PING:
                has_streams = bool(self.outgoing.streams or self._begun)
                self._control.ping(flags, stream_id, payload, has_streams=has_streams)
            case FrameType.GOAWAY:
                self._control.goaway(stream_id, payload)
            case FrameType.WINDOW_UPDATE:
                self._control.window_update(stream_id, self.highest_stream, payload, events)
            case FrameType.CONTINUATION:
                self._on_continuation(flags, payload, events)
            case _:
                # Section 5.5: frames of unknown types are ignored.
                self._control.spend_idle()

    @property
    def _is_full(self) -> bool:
        """Whether no new stream is taken."""
        count = len(self.outgoing.streams) + len(self._begun)
        return self.closing or count >= self._limits.streams_max

    # --- headers --------------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        if not stream_id & 1:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream id that is no client's")
        payload = _without_padding(flags, payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a cut priority")
            if _u32_from(payload)[0] & 0x7FFF_FFFF == stream_id:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream that rests on itself")
            payload = payload[5:]
        closed = stream_id <= self.highest_stream and stream_id not in self.outgoing.streams
        if closed and stream_id not in self.outgoing.reset_lately:
            raise ConnectionFailed(ErrorCode.STREAM_CLOSED, "headers on a closed stream")
        self._header_stream = stream_id
        self._header_flags = flags
        self._header_block = payload
        self._check_block()
        if flags & END_HEADERS:
            self._end_headers(events)

    def _on_continuation(self, flags: int, payload: bytes, events: list[Any]) -> None:
        if not self._header_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        # A block that is as large as it may be fits into five frames.
        self._control.spend_idle()
        self._header_block += payload
        self._check_block()
        if flags & END_HEADERS:
            self._end_headers(events)

    def _check_block(self) -> None:
        if len(self._header_block) > self._limits.header_block_bytes_max:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")

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
            self._control.refuse_stream(stream_id)
            return
        if ended and head.content_length:
            self._control.reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        self._open(stream_id, head, events, ended=ended)

    def _trailers(self, stream_id: int, flags: int, block: bytes, events: list[Any]) -> None:
        """Section 8.1: a second header block ends a request."""
        is_sound = bool(flags & END_STREAM)
        try:
            self.heads.read_trailers(block)
        except CompressionFailed as failure:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(failure)) from None
        except MalformedHead:
            is_sound = False
        if stream_id not in self.outgoing.streams:
            # Section 5.1: reset here, lately. What was sent before the peer knew is dropped,
            # whatever it is; the compression state has had its part.
            self._control.spend_idle()
            return
        stream = self.outgoing.streams[stream_id]
        if stream is None or stream.remote_ended:
            # Section 5.1: that it has ended comes before what is wrong with the block.
            self._control.fail_stream(stream_id, ErrorCode.STREAM_CLOSED, events)
        elif not is_sound or stream.content_left:
            self._control.fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
        else:
            stream.remote_ended = True
            self.outgoing.request_ended(stream_id)
            events.append((DATA, stream_id, b"", True))

    def _head_of(self, block: bytes, stream_id: int) -> Head | None:
        try:
            return self.heads.read(block)
        except CompressionFailed as failure:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(failure)) from None
        except MalformedHead:
            self._control.reset_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None

    # --- data -----------------------------------------------------------------------------------

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        self._take_window(len(payload))
        if not stream_id or stream_id > self.highest_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "data on a stream that is idle")
        length = len(payload)
        content = _without_padding(flags, payload)
        if stream_id not in self.outgoing.streams:
            if stream_id in self.outgoing.given_up_lately:
                # grpc-java lets the data of a call follow its reset. It is an error of the stream
                # (RFC 7540 section 5.1), and as the reset was counted this costs nothing more.
                self.outgoing.given_up_lately.remove(stream_id)
                self.outgoing.reset(stream_id, ErrorCode.STREAM_CLOSED)
                return
            if stream_id not in self.outgoing.reset_lately:
                raise ConnectionFailed(ErrorCode.STREAM_CLOSED, "data on a closed stream")
            if not content:
                self._control.spend_idle()
            return
        stream = self.outgoing.streams[stream_id]
        if stream is None or stream.remote_ended:
            self._control.fail_stream(stream_id, ErrorCode.STREAM_CLOSED, events)
            return
        if not stream.receive_window.take(length):
            self._control.fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR, events)
            return
        ended = bool(flags & END_STREAM)
        if not content and not ended:
            self._control.spend_idle()
            return
        if stream.content_left is not None:
            stream.content_left -= len(content)
            if stream.content_left < 0 or (ended and stream.content_left):
                self._control.fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
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
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "more data than allowed")

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
        self.outgoing.tick()
        heard, self.heard = self.heard, False
        self.silent = self._control.tick(heard=heard) or self.silent


def _without_padding(flags: int, payload: bytes) -> bytes:
    """Section 6.1: the padding and its length are no content."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]

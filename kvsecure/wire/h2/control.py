"""What a peer says about the connection itself, and how much of that it may say.

Owns: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY and RST_STREAM, the budgets of frames that
    cost the peer nothing and us work, and the resets that its mistakes make us send.
Never: sees a request or its data; the connection does.
Follows: RFC 9113 sections 5.4, 6.3 to 6.9, and 10.5.
Keeps: whatever ends the connection is a `ConnectionFailed`.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, final

from kvsecure.wire.h2.frames import (
    ACK,
    ErrorCode,
    FrameType,
    Setting,
    encode_ping,
    encode_ping_ack,
    frame_header,
)
from kvsecure.wire.h2.limits import Limits
from kvsecure.wire.h2.outgoing import Outgoing
from kvsecure.wire.h2.pings import Pings, Probe
from kvsecure.wire.h2.windows import WINDOW_MAX

__all__ = ["RESET", "ConnectionFailed", "Control"]

# An event: (RESET, stream id, error code): the peer does not want an answer any more.
RESET: Final = 3

# Moving the windows of so many streams takes as long as another frame.
_STREAMS_PER_IDLE_FRAME: Final = 16
_u32_from: Final = struct.Struct(">I").unpack_from
_SETTINGS_ACK: Final = frame_header(0, FrameType.SETTINGS, ACK, 0)


@final
class ConnectionFailed(Exception):
    """The peer has broken a rule of the connection's; this is its end."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


@final
class Control:
    """The frames of one connection that carry no request."""

    __slots__ = (
        "_answers_seen",
        "_idle_budget",
        "_limits",
        "_mistake_budget",
        "_now_ns",
        "_pings",
        "_reset_budget",
        "_windows_opened",
        "has_begun",
        "outgoing",
    )

    def __init__(self, limits: Limits, outgoing: Outgoing, now_ns: Callable[[], int]) -> None:
        """Begin with full budgets; `now_ns` is monotonic, in nanoseconds."""
        self._limits = limits
        self._now_ns = now_ns
        self._pings = Pings(limits.pings)
        self.outgoing = outgoing
        # Whether the peer has sent what a client sends first.
        self.has_begun = False
        self._idle_budget = limits.idle_frames_per_s_max
        self._reset_budget = limits.resets_per_s_max
        self._mistake_budget = limits.mistakes_per_s_max
        self._answers_seen = self._windows_opened = 0

    # --- frames ---------------------------------------------------------------------------------

    def priority(self, stream_id: int, payload: bytes, events: list[Any]) -> None:
        """Ignore a PRIORITY that is sound; section 5.3.2 has done away with what it says."""
        self.spend_idle()
        if not stream_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the priority of no stream")
        if len(payload) != 5:
            self.fail_stream(stream_id, ErrorCode.FRAME_SIZE_ERROR, events)
        elif _u32_from(payload)[0] & 0x7FFF_FFFF == stream_id:
            self.fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)

    def reset(self, stream_id: int, highest_stream: int, payload: bytes, events: list[Any]) -> None:
        """Let go of a stream that the peer takes back (RST_STREAM)."""
        if len(payload) != 4:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a reset of a wrong size")
        if not stream_id or stream_id > highest_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a reset of a stream that is idle")
        self._reset_budget -= 1
        if self._reset_budget < 0:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many resets")
        if stream_id in self.outgoing.streams:
            self.outgoing.forget(stream_id)
            self.outgoing.given_up_lately.append(stream_id)
            events.append((RESET, stream_id, _u32_from(payload)[0]))
        elif stream_id in self.outgoing.reset_lately:
            # It knows: nothing that comes on it from here on is merely late.
            self.outgoing.reset_lately.remove(stream_id)

    def settings(self, flags: int, stream_id: int, payload: bytes, events: list[Any]) -> None:
        """Take over the peer's settings, and say so."""
        if stream_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "an ack with settings")
            # One is expected, and a flood of them is one.
            self.spend_idle()
            return
        if len(payload) % 6:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "settings of a wrong size")
        if self.has_begun:
            self.spend_idle()
        self.has_begun = True
        windows: list[int] = []
        for start in range(0, len(payload), 6):
            setting = int.from_bytes(payload[start : start + 2], "big")
            self._set(setting, _u32_from(payload, start + 2)[0], windows)
        if windows:
            self._shift(windows)
        # Section 6.5.3: the peer counts by its new settings from here on, and not before.
        self.outgoing.out.append(_SETTINGS_ACK)
        self.outgoing.send_queued(events)

    def _shift(self, windows: list[int]) -> None:
        """Move the windows of all streams once, however often one frame has changed its mind."""
        if not self.outgoing.shift(windows[-1], max(windows)):
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
        self.spend_idle(len(self.outgoing.streams) // _STREAMS_PER_IDLE_FRAME)

    def _set(self, setting: int, value: int, windows: list[int]) -> None:
        match setting:
            case Setting.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "push neither on nor off")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
                windows.append(value)
            case Setting.MAX_FRAME_SIZE:
                if not 16_384 <= value <= 16_777_215:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
                self.outgoing.peer_frame_bytes_max = value
            case _:
                # The others limit what we never do: push, and compress with a table.
                pass

    def ping(self, flags: int, stream_id: int, payload: bytes, *, has_streams: bool) -> None:
        """Answer a PING; too many of them end the connection."""
        if stream_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a ping of a stream")
        if len(payload) != 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a ping of a wrong size")
        self.spend_idle()
        if flags & ACK:
            return
        self.outgoing.out.append(encode_ping_ack(payload))
        if not self._pings.is_tolerable(self._now_ns(), has_streams=has_streams):
            # grpc-go's word, on which its clients ping less often from then on.
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def goaway(self, stream_id: int, payload: bytes) -> None:
        """Take note that the peer will begin nothing new, which it need not tell a server."""
        if stream_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a goaway of a stream")
        if len(payload) < 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a goaway of a wrong size")
        self.spend_idle()

    def window_update(
        self, stream_id: int, highest_stream: int, payload: bytes, events: list[Any]
    ) -> None:
        """Send what a window of the peer's was too small for."""
        if len(payload) != 4:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a window update of a wrong size")
        increment = _u32_from(payload)[0] & 0x7FFF_FFFF
        outgoing = self.outgoing
        if not stream_id:
            if not increment:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window update of nothing")
            if not outgoing.open_connection(increment):
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
        elif stream_id > highest_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window of an idle stream")
        elif not increment:
            # Section 6.9: whatever state the stream is in.
            self.fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR, events)
            return
        elif stream_id in outgoing.streams and not outgoing.open_stream(stream_id, increment):
            self.fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR, events)
            return
        answers = outgoing.answers
        outgoing.send_queued(events)
        if outgoing.answers == answers:
            self._spend_window()
        # Otherwise it was waited for.

    def open_ahead(self, stream_id: int, increment: int) -> None:
        """Let a stream send more that nothing was sent on yet; the increment is small."""
        self.outgoing.open_ahead(stream_id, increment)
        self._spend_window()

    def _spend_window(self) -> None:
        """Count a window that was opened before anybody waited for it."""
        if self._windows_opened < 2 * self.outgoing.answers:
            # For each frame of ours a peer may open two windows, and it may do so late.
            self._windows_opened += 1
        else:
            self.spend_idle()

    # --- budgets --------------------------------------------------------------------------------

    def spend_idle(self, count: int = 1) -> None:
        """Count a frame that costs us work and moves nothing; answers earn new ones.

        Args:
            count: More than 1 for one that costs as much as so many.
        """
        if self._answers_seen != self.outgoing.answers:
            self._answers_seen = self.outgoing.answers
            self._pings.answered = True
            self._idle_budget = self._limits.idle_frames_per_s_max
        self._idle_budget -= count
        if self._idle_budget < 0:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many frames about nothing")

    def fail_stream(self, stream_id: int, code: ErrorCode, events: list[Any]) -> None:
        """Give up a stream on which the peer has broken a rule."""
        if stream_id in self.outgoing.streams:
            self.outgoing.forget(stream_id)
            events.append((RESET, stream_id, code))
        self.reset_stream(stream_id, code)

    def reset_stream(self, stream_id: int, code: ErrorCode) -> None:
        """Send a reset; it counts against the peer, who made us do it (2025's MadeYouReset).

        Those who keep the rules never do, so fewer are borne than of the resets of the peer's own.
        """
        self._mistake_budget -= 1
        if self._mistake_budget < 0:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many stream errors")
        self.outgoing.reset(stream_id, code)

    def refuse_stream(self, stream_id: int) -> None:
        """Turn away a stream that is one too many, as it may seem to a peer that is fast."""
        self._reset_budget -= 1
        if self._reset_budget < 0:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many streams")
        self.outgoing.reset(stream_id, ErrorCode.REFUSED_STREAM)

    def tick(self, *, heard: bool) -> bool:
        """Take note that a second has passed: a peer may do some idle things again.

        Args:
            heard: Whether the peer said anything in it.

        Returns:
            Whether the peer has left our ping without an answer, and may be taken for gone.
        """
        self._idle_budget = self._limits.idle_frames_per_s_max
        self._reset_budget = self._limits.resets_per_s_max
        self._mistake_budget = self._limits.mistakes_per_s_max
        probe = self._pings.tick(self._now_ns(), heard=heard)
        if probe is Probe.PING:
            self.outgoing.out.append(encode_ping(bytes(8)))
        return probe is Probe.GIVE_UP

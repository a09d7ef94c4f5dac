"""Frames: numbers, flags, error codes, and their encoding.

Owns: RFC 9113 section 4.1, 6 and 7 as constants and bytes.
Never: keeps state.
"""

import struct
from enum import IntEnum
from typing import Final

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEADER_BYTES",
    "PADDED",
    "PREFACE",
    "PRIORITY_FLAG",
    "ErrorCode",
    "FrameType",
    "Setting",
    "encode_goaway",
    "encode_ping",
    "encode_ping_ack",
    "encode_reset",
    "encode_settings",
    "encode_window_update",
    "frame_header",
]

# Section 3.4.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

_u32: Final = struct.Struct(">I").pack
_setting: Final = struct.Struct(">HI").pack


class FrameType(IntEnum):
    """Section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


def frame_header(length: int, frame_type: int, flags: int, stream_id: int) -> bytes:
    """Return the nine bytes in front of a payload."""
    return b"%b%c%c%b" % (_u32(length)[1:], frame_type, flags, _u32(stream_id))


def encode_settings(settings: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_setting(setting, value) for setting, value in settings.items())
    return frame_header(len(payload), FrameType.SETTINGS, 0, 0) + payload


def encode_ping(payload: bytes) -> bytes:
    """Return a PING frame; its payload has eight bytes."""
    return frame_header(8, FrameType.PING, 0, 0) + payload


def encode_ping_ack(payload: bytes) -> bytes:
    """Return the answer to a PING."""
    return frame_header(8, FrameType.PING, ACK, 0) + payload


def encode_reset(stream_id: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return frame_header(4, FrameType.RST_STREAM, 0, stream_id) + _u32(code)


def encode_goaway(last_stream_id: int, code: ErrorCode, why: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    payload = _u32(last_stream_id) + _u32(code) + why
    return frame_header(len(payload), FrameType.GOAWAY, 0, 0) + payload


def encode_window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; the increment is at least 1."""
    return frame_header(4, FrameType.WINDOW_UPDATE, 0, stream_id) + _u32(increment)

"""Frames as a peer writes and reads them, made without any of the program's own code.

Owns: building frames of any kind, right or wrong, and reading what a server sends.
Never: judges a frame, or imports the program's own.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, final

from hpack import Decoder, Encoder

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PUSH_PROMISE",
    "REQUEST_FIELDS",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frame",
    "begin",
    "data",
    "fields_of",
    "frame",
    "goaway_code",
    "headers",
    "message",
    "ping",
    "read_frames",
    "request_block",
    "reset",
    "settings",
    "window_update",
]

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST_FIELDS: Final = (
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":path", b"/etcdserverpb.KV/Range"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


@final
class Frame(NamedTuple):
    """One frame as it came."""

    type: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return any frame, whether it makes sense or not."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def begin(changes: Iterable[tuple[int, int]] = ()) -> bytes:
    """Return what a client sends first: the preface and its settings."""
    return PREFACE + settings(changes)


def settings(changes: Iterable[tuple[int, int]] = ()) -> bytes:
    """Return a SETTINGS frame of (number, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *change) for change in changes))


def headers(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    """Return a HEADERS frame."""
    return frame(HEADERS, flags, stream, block)


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return frame(DATA, flags, stream, content)


def reset(stream: int, code: int = 8) -> bytes:
    """Return a RST_STREAM frame; without a code it cancels."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def ping(content: bytes = b"12345678", flags: int = 0) -> bytes:
    """Return a PING frame."""
    return frame(PING, flags, 0, content)


def message(content: bytes, flag: int = 0) -> bytes:
    """Return a message as gRPC frames it."""
    return struct.pack(">BI", flag, len(content)) + content


def request_block(
    fields: Iterable[tuple[bytes, bytes]] = REQUEST_FIELDS, encoder: Encoder | None = None
) -> bytes:
    """Return a header block; without an encoder it leaves the dynamic table alone."""
    if encoder is not None:
        return encoder.encode(list(fields))
    return b"".join(_literal(name) + _literal(value, b"") for name, value in fields)


def _literal(text: bytes, mark: bytes = b"\0") -> bytes:
    length = len(text)
    if length < 127:
        return mark + bytes((length,)) + text
    out, rest = bytearray((127,)), length - 127
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return mark + bytes(out) + text


def read_frames(content: bytes) -> list[Frame]:
    """Return the frames that bytes consist of.

    Raises:
        ValueError: They end within a frame.
    """
    found = []
    offset = 0
    while offset < len(content):
        if len(content) - offset < 9:
            raise ValueError("a cut frame header")
        length = int.from_bytes(content[offset : offset + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", content, offset + 3)
        end = offset + 9 + length
        if end > len(content):
            raise ValueError("a cut frame")
        found.append(Frame(kind, flags, stream, content[offset + 9 : end]))
        offset = end
    return found


def fields_of(block: bytes) -> dict[bytes, bytes]:
    """Return the fields of a header block that needs no dynamic table."""
    return dict(Decoder().decode(block, raw=True))


def goaway_code(frames: Iterable[Frame]) -> int | None:
    """Return the error code of the last GOAWAY, or None if there is none."""
    codes = [int.from_bytes(one.payload[4:8], "big") for one in frames if one.type == GOAWAY]
    return codes[-1] if codes else None

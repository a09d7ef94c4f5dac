"""gRPC over HTTP/2: what a call's headers say, message framing, and the headers of answers.

Owns: the grammar of gRPC requests and responses as bytes.
Never: knows services; never sends.
Follows: gRPC's PROTOCOL-HTTP2 and the HTTP-to-gRPC status mapping.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, final

from kvsecure.wire.h2.head import Head

__all__ = [
    "OK_HEADERS",
    "OK_TRAILERS",
    "Call",
    "FramingError",
    "MessageReader",
    "NotGrpc",
    "Packing",
    "encode_http",
    "encode_refusal",
    "encode_trailers",
    "packing_for",
    "prefix_of",
    "read_call",
    "read_timeout",
]

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_NS: Final = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
_PREFIX_BYTES: Final = 5
_ENCODINGS: Final = (b"identity", b"gzip")
# A longer message is sent as it is: packing it would keep everybody else waiting.
_PACKED_BYTES_MAX: Final = 256 * 1024
# Speed before size: level 1 takes a third of the time of the default.
_GZIP_LEVEL: Final = 1


@final
class NotGrpc(Exception):
    """A request is not a gRPC call; the status is what HTTP answers it with."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@final
class FramingError(Exception):
    """A call's data is not a row of messages as gRPC frames them."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        # "large", "encoding" or "malformed"
        self.kind = kind


class Call(NamedTuple):
    """What the head of a call says."""

    path: str
    timeout_ns: int | None
    # The request's grpc-encoding.
    encoding: bytes
    token: bytes
    metadata: dict[bytes, bytes]


def read_call(head: Head) -> Call:
    """Read a request's head as that of a gRPC call.

    Raises:
        NotGrpc: It is none; 415 for a foreign content type, 405 for another method than POST, 400
            for a timeout that is none.
    """
    metadata: dict[bytes, bytes] = {}
    for name, value in head.fields:
        if name not in metadata:
            metadata[name] = value
        elif name != b"token" or metadata[name] != value:
            # A token is one however often it comes: python's etcd3 sends it twice with every call.
            metadata[name] += b"," + value
    if not _is_grpc(metadata.get(b"content-type", b"")):
        raise NotGrpc(415)
    if head.method != b"POST":
        raise NotGrpc(405)
    timeout_ns = None
    if (timeout := metadata.get(b"grpc-timeout")) is not None:
        timeout_ns = read_timeout(timeout)
        if timeout_ns is None:
            raise NotGrpc(400)
    token = metadata.get(b"token", b"")
    if not token:
        token = metadata.get(b"authorization", b"").removeprefix(b"Bearer ")
    return Call(
        path=head.path.decode(errors="replace"),
        timeout_ns=timeout_ns,
        encoding=metadata.get(b"grpc-encoding", b"identity"),
        token=token,
        metadata=metadata,
    )


def read_timeout(value: bytes) -> int | None:
    """Return the nanoseconds that a grpc-timeout stands for, or None if it is none."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _UNIT_NS[found[2]] if found is not None else None


def _is_grpc(content_type: bytes) -> bool:
    return content_type == b"application/grpc" or content_type.startswith(
        (b"application/grpc+", b"application/grpc;")
    )


@final
class MessageReader:
    """Puts a stream's data together into messages."""

    __slots__ = ("_encoding", "_needed", "_pending", "_size_max")

    def __init__(self, encoding: bytes, size_bytes_max: int) -> None:
        self._encoding = encoding
        self._size_max = size_bytes_max
        # The beginning of a message, and how long it has to be before there is anything to see.
        self._pending = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take in data; return the messages that are whole now.

        Raises:
            FramingError: A message is too large, compressed in a way not known, or malformed.
        """
        if self._pending:
            # Looked at once it is long enough: not copied for every piece that comes.
            self._pending += data
            if len(self._pending) < self._needed:
                return []
            data = bytes(self._pending)
            self._pending.clear()
        messages: list[bytes] = []
        offset, end = 0, _PREFIX_BYTES
        while end <= len(data):
            length = int.from_bytes(data[offset + 1 : end], "big")
            if length > self._size_max:
                raise FramingError("large", f"{length} vs. {self._size_max}")
            end += length
            if end > len(data):
                break
            content = data[offset + _PREFIX_BYTES : end]
            messages.append(self._inflate(content) if self._flag(data[offset]) else content)
            offset, end = end, end + _PREFIX_BYTES
        self._pending += data[offset:]
        self._needed = end - offset
        return messages

    @property
    def is_empty(self) -> bool:
        """Whether no part of a message is waiting for its rest."""
        return not self._pending

    def _flag(self, flag: int) -> bool:
        if flag > 1:
            raise FramingError("malformed", "a message flag that is neither 0 nor 1")
        return bool(flag)

    def _inflate(self, content: bytes) -> bytes:
        """Decompress a message; it may not grow beyond the limit."""
        if self._encoding == b"identity":
            raise FramingError("malformed", "a compressed message without grpc-encoding")
        if self._encoding != b"gzip":
            raise FramingError("encoding", self._encoding.decode("latin-1"))
        inflater = zlib.decompressobj(wbits=31)
        try:
            message = inflater.decompress(content, self._size_max + 1)
        except zlib.error:
            raise FramingError("malformed", "a compressed message that does not inflate") from None
        if len(message) > self._size_max:
            raise FramingError("large", f"over {self._size_max} inflated")
        if not inflater.eof or inflater.unused_data:
            raise FramingError("malformed", "a compressed message that does not end")
        return message


def prefix_of(length: int) -> bytes:
    """Return what stands in front of an uncompressed message of so many bytes."""
    return b"\0" + length.to_bytes(4, "big")


class Packing(NamedTuple):
    """How the messages of one answer are sent."""

    # The header block that the answer begins with.
    headers: bytes
    # Returns what stands in front of a message, and what is sent for it.
    pack: Callable[[bytes], tuple[bytes, bytes]]
    # Whether what is sent for a message is not always the message.
    is_packed: bool


def _as_it_is(message: bytes) -> tuple[bytes, bytes]:
    return prefix_of(len(message)), message


def _gzipped(message: bytes) -> tuple[bytes, bytes]:
    if len(message) > _PACKED_BYTES_MAX:
        return _as_it_is(message)
    packed = gzip.compress(message, _GZIP_LEVEL, mtime=0)
    return b"\1" + len(packed).to_bytes(4, "big"), packed


def packing_for(encoding: bytes) -> Packing:
    """Return how a request in this encoding is answered: in the same (as by Go's gRPC), or plainly.

    Who packs its requests takes packed answers; whoever does not is never sent any.
    """
    return _GZIP if encoding == b"gzip" else _IDENTITY


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a field without touching the dynamic table (RFC 7541 section 6.2.2)."""
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def _integer(number: int, prefix_bits: int) -> bytes:
    """Encode an integer (RFC 7541 section 5.1)."""
    limit = (1 << prefix_bits) - 1
    if number < limit:
        return bytes((number,))
    out = bytearray((limit,))
    number -= limit
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _percent(text: str) -> bytes:
    """Encode a grpc-message: what is not printable ASCII, and the percent sign, is escaped."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode()
    )


_STATUS_200: Final = b"\x88"
# Index 31 of the static table is content-type.
_CONTENT_TYPE: Final = b"\x0f\x10" + _integer(16, 7) + b"application/grpc"

# The header block of every answer that has messages.
OK_HEADERS: Final = _STATUS_200 + _CONTENT_TYPE
_IDENTITY: Final = Packing(OK_HEADERS, _as_it_is, is_packed=False)
_GZIP: Final = Packing(OK_HEADERS + _literal(b"grpc-encoding", b"gzip"), _gzipped, is_packed=True)
OK_TRAILERS: Final = _literal(b"grpc-status", b"0")


def encode_trailers(code: int, message: str) -> bytes:
    """Return the header block that ends an answer."""
    block = _literal(b"grpc-status", b"%d" % code)
    return block + _literal(b"grpc-message", _percent(message)) if message else block


def encode_refusal(code: int, message: str) -> bytes:
    """Return the one header block of an answer without messages."""
    refusal = OK_HEADERS + encode_trailers(code, message)
    if code == 12:
        return refusal + _literal(b"grpc-accept-encoding", b",".join(_ENCODINGS))
    return refusal


def encode_http(
    status: int,
    content_type: str = "",
    length: int | None = 0,
    fields: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header block of a plain HTTP answer; without a length its end is the stream's."""
    # Index 8 of the static table is :status, 28 is content-length, 31 is content-type.
    block = b"\x08\x03%d" % status
    if content_type:
        encoded = content_type.encode()
        block += b"\x0f\x10" + _integer(len(encoded), 7) + encoded
        if length is not None:
            digits = b"%d" % length
            block += b"\x0f\x0d" + _integer(len(digits), 7) + digits
    return block + b"".join(_literal(name, value) for name, value in fields)

"""Messages of gRPC: any bytes are messages, or one error of three kinds.

Owns: what is tried with the reader of messages, and a second reading of the same bytes.
Never: replaces a part of it.
"""

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from fuzz.target import Broken, Target, agree, places
from wire.dialogue import cut
from wire.rawframes import message

from kvsecure.wire.grpc import FramingError, MessageReader

__all__ = ["MESSAGES", "attempt"]

_SIZE_BYTES_MAX: Final = 4_096
_ENCODINGS: Final = (b"identity", b"gzip", b"deflate", b"")
_IS_PACKED, _IS_REPEATED = 0x80, 0x40
# A message that is both is called the one or the other.
_BADLY_PACKED: Final = "large or malformed"
# What a few bytes are repeated to, so that they inflate to more than is allowed.
_REPEATED: Final = 40


def attempt(content: bytes, make: Callable[[bytes, int], MessageReader] = MessageReader) -> None:
    """Try bytes whole and cut, and read them a second time in a plain way.

    The first byte says where to cut; the second, what they claim to be compressed by, and whether
    the rest is to be framed, and compressed, before it is tried.

    Args:
        content: The input.
        make: Makes what is tried.

    Raises:
        Broken: The rule is; any other error but the decoder's own breaks it too.
    """
    if len(content) < 2:
        return
    how, kind, stream = content[0], content[1], content[2:]
    encoding = _ENCODINGS[kind & 3]
    if kind & _IS_PACKED:
        inflated = stream * _REPEATED if kind & _IS_REPEATED else stream
        packed = gzip.compress(inflated, mtime=0)
        stream = message(packed, 1) + message(stream)[: how + 1] + message(packed[: how * 2], 1)
    messages, failure = _expected(stream, encoding)
    for pieces in ([stream], cut(stream, places(how, len(stream)))):
        found, kind_of_failure = _read(pieces, make(encoding, _SIZE_BYTES_MAX))
        if failure == _BADLY_PACKED and kind_of_failure in ("large", "malformed"):
            kind_of_failure = failure
        agree("errors", failure, kind_of_failure)
        # Those that came in one piece with what is wrong are not handed on.
        agree("messages", messages[: len(found)] if failure else messages, found)


def _read(pieces: list[bytes], reader: MessageReader) -> tuple[list[bytes], str]:
    found: list[bytes] = []
    for piece in pieces:
        try:
            found += reader.feed(piece)
        except FramingError as error:
            return found, error.kind
        if len(reader._pending) > _SIZE_BYTES_MAX + 5:
            raise Broken("more than a message is kept")
    if any(len(each) > _SIZE_BYTES_MAX for each in found):
        raise Broken("a message is too large")
    return found, "" if reader.is_empty else "unfinished"


def _expected(stream: bytes, encoding: bytes) -> tuple[list[bytes], str]:
    """Read messages as they are written down in gRPC's own words."""
    found: list[bytes] = []
    while stream:
        if len(stream) < 5:
            return found, "unfinished"
        flag, length = stream[0], int.from_bytes(stream[1:5], "big")
        if length > _SIZE_BYTES_MAX:
            return found, "large"
        content, stream = stream[5 : 5 + length], stream[5 + length :]
        if len(content) < length:
            return found, "unfinished"
        if flag > 1 or (flag and encoding == b"identity"):
            return found, "malformed"
        if flag and encoding != b"gzip":
            return found, "encoding"
        if flag:
            inflated = _inflated(content)
            if isinstance(inflated, str):
                return found, inflated
            content = inflated
        found.append(content)
    return found, ""


def _inflated(content: bytes) -> bytes | str:
    """Inflate byte by byte; return the message, or that there is none."""
    inflater = zlib.decompressobj(wbits=31)
    found = b""
    for number in range(len(content)):
        if inflater.eof or len(found) > _SIZE_BYTES_MAX:
            return _BADLY_PACKED
        try:
            found += inflater.decompress(content[number : number + 1])
        except zlib.error:
            return _BADLY_PACKED
    return found if inflater.eof and len(found) <= _SIZE_BYTES_MAX else _BADLY_PACKED


MESSAGES: Final = Target(
    name="grpc",
    attempt=attempt,
    size_bytes_max=8_192,
)

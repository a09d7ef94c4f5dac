"""Header blocks: any bytes are a head, or one of the two errors, and a bound holds for its fields.

Owns: what is tried with the reader of heads, and with what gRPC makes of a head.
Never: replaces a part of it.
"""

from typing import Any, Final

from fuzz.target import Broken, Target, agree, places
from wire.dialogue import LIMITS, cut, told
from wire.rawframes import CONTINUATION, END_HEADERS, END_STREAM, begin, frame, headers

from kvsecure.wire.grpc import Call, NotGrpc, read_call
from kvsecure.wire.h2.head import CompressionFailed, Head, HeadReader, MalformedHead

__all__ = ["HEADS"]

# Low, so that a short input gets to it.
_LIST_BYTES_MAX: Final = 2_048
_FIELD_OVERHEAD_BYTES: Final = 32
_BLOCKS_MAX: Final = 40


def _attempt(content: bytes) -> None:
    """Try header blocks one after another, as requests and as trailers.

    The first byte says where blocks are cut into frames. In front of each block stands its length,
    whose lowest bit says whether it is trailers.
    """
    if not content:
        return
    blocks = _blocks(content[1:])
    agree("heads", _read(blocks, remembers=True), _read(blocks, remembers=False))
    whole = begin() + b"".join(_request(2 * n + 1, block, 0) for n, (block, _) in enumerate(blocks))
    pieces = begin() + b"".join(
        _request(2 * n + 1, block, content[0] | 1) for n, (block, _) in enumerate(blocks)
    )
    agree("heads", told([whole], LIMITS), told([pieces], LIMITS))


def _request(stream: int, block: bytes, how: int) -> bytes:
    """Return a whole request as frames: its header block in one, or cut into several.

    Args:
        stream: Its stream.
        block: Its header block.
        how: 0 leaves it whole.
    """
    pieces = cut(block, places(how, len(block))) if how else [block]
    out = headers(stream, pieces[0], END_STREAM | (0 if pieces[1:] else END_HEADERS))
    for number, piece in enumerate(pieces[1:], 2):
        out += frame(CONTINUATION, END_HEADERS if number == len(pieces) else 0, stream, piece)
    return out


def _blocks(content: bytes) -> list[tuple[bytes, bool]]:
    found = []
    while content and len(found) < _BLOCKS_MAX:
        length, is_trailers = content[0] >> 1, bool(content[0] & 1)
        found.append((content[1 : 1 + length], is_trailers))
        content = content[1 + length :]
    return found


def _read(blocks: list[tuple[bytes, bool]], *, remembers: bool) -> list[Any]:
    """Return what blocks mean, with and without the memory of blocks seen before."""
    reader = HeadReader(_LIST_BYTES_MAX)
    found: list[Any] = []
    for block, is_trailers in blocks:
        if not remembers:
            reader._remembered.clear()
        try:
            if is_trailers:
                reader.read_trailers(block)
                found.append(None)
            else:
                found.append(_look(reader.read(block)))
        except MalformedHead:
            found.append("malformed")
        except CompressionFailed:
            found.append("compression")
            break
    return found


def _look(head: Head) -> tuple[Any, ...]:
    size_bytes = sum(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in head.fields)
    if size_bytes > _LIST_BYTES_MAX:
        raise Broken(f"fields of {size_bytes} bytes")
    said = (head.method, head.scheme, head.path, head.authority, tuple(head.fields))
    return (*said, head.content_length, head.takes_trailers, _call(head))


def _call(head: Head) -> Any:
    try:
        call: Call = read_call(head)
    except NotGrpc as other:
        if other.status not in (400, 405, 415):
            raise Broken(f"status {other.status}") from None
        return other.status
    if call.timeout_ns is not None and call.timeout_ns < 0:
        raise Broken("a deadline before the call")
    return call.path, call.timeout_ns, call.encoding, call.token, tuple(call.metadata.items())


HEADS: Final = Target(
    name="hpack",
    attempt=_attempt,
    size_bytes_max=2_048,
)

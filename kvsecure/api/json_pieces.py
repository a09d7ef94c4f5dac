"""Large messages as JSON: read and written in pieces, so that nobody waits for the whole.

    1 header | 2 kvs | 2 kvs | 2 kvs ... | 4 count       fields on the wire
    '--- piece ----' '--- piece ----' ...                each parsed, written, and let go of

Owns: where the bytes of a message can be cut, and putting the texts of the parts together.
Never: knows which message it is; writes a value itself.
Follows: the wire format of protocol buffers: the parts of a message are messages of its kind.
Keeps: the text is what writing the message at once would have given.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from google.protobuf.message import Message

from kvsecure.api.json_form import encode_fields, encode_json

__all__ = ["encode_json_in_pieces"]

# Parsed and written in a millisecond or so, during which Python lets nobody else have a turn.
_PIECE_BYTES: Final = 64 * 1024

# Wire types.
_VARINT: Final = 0
_EIGHT_BYTES: Final = 1
_LENGTH: Final = 2
_FOUR_BYTES: Final = 5


def encode_json_in_pieces(
    kind: type[Message], content: bytes, piece_bytes: int = _PIECE_BYTES
) -> Iterator[bytes]:
    """Yield the JSON text of an encoded message in pieces.

    Args:
        kind: What message it is.
        content: It, valid.
        piece_bytes: How much of it is read at once, unless one field is longer.
    """
    lists = {field.number for field in kind.DESCRIPTOR.fields if field.is_repeated}
    cuts = _cuts(content, lists, piece_bytes)
    if cuts is None:
        yield encode_json(kind.FromString(content)).encode("ascii")
        return
    before = "{"
    # The list that has been begun.
    begun = 0
    start = 0
    for end in cuts:
        parts = []
        for number, name, text in encode_fields(kind.FromString(content[start:end])):
            is_list = number in lists
            if number == begun:
                parts.append(f",{text[1:-1]}")
                continue
            if begun:
                parts.append("]")
            parts.append(f"{before}{name}{text[:-1] if is_list else text}")
            before, begun = ",", number if is_list else 0
        start = end
        yield "".join(parts).encode("ascii")
    yield (b"{" if before == "{" else b"") + (b"]" if begun else b"") + b"}"


def _cuts(content: bytes, lists: AbstractSet[int], piece_bytes: int) -> list[int] | None:
    """Return where the pieces of a message end, or None if it is not to be cut.

    It is not if its fields do not come in the order of their numbers, in which JSON has them, or
    one that is no list comes twice, which would be one field.
    """
    cuts = []
    at, start, last = 0, 0, 0
    while at < len(content):
        if at - start >= piece_bytes:
            cuts.append(at)
            start = at
        tag, at = _varint(content, at)
        number = tag >> 3
        if number < last or (number == last and number not in lists):
            return None
        last = number
        match tag & 7:
            case wire if wire == _LENGTH:
                length, at = _varint(content, at)
                at += length
            case wire if wire == _VARINT:
                _, at = _varint(content, at)
            case wire if wire == _EIGHT_BYTES:
                at += 8
            case wire if wire == _FOUR_BYTES:
                at += 4
            case _:
                return None
    return [*cuts, len(content)]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7

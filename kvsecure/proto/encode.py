"""The few protobuf encodings that are written by hand because they are written on every call.

Owns: varints and length-delimited fields as bytes; a message is the concatenation of its fields.
Never: decodes; the generated messages do that.
Follows: the protobuf encoding guide; a field at its default value is left out (proto3).
"""

from typing import Final, final

__all__ = ["bytes_field", "length_prefixed", "varint", "varint_field"]

_UINT64_MASK: Final = (1 << 64) - 1


@final
class _Small(dict[int, bytes]):
    """Numbers below 2**14 as varints, each made when it is first asked for."""

    def __missing__(self, number: int) -> bytes:
        encoded = bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))
        self[number] = encoded
        return encoded


@final
class _Low(dict[int, bytes]):
    """The lower 14 bits of larger numbers."""

    def __missing__(self, bits: int) -> bytes:
        self[bits] = encoded = bytes((bits & 0x7F | 0x80, bits >> 7 | 0x80))
        return encoded


_SMALL: Final = _Small()
_LOW: Final = _Low()


def varint(number: int) -> bytes:
    """Encode an integer; a negative one as its 64-bit two's complement, as int64 fields do."""
    if 0 <= number < 0x4000:
        return _SMALL[number]
    if 0 < number < 0x1000_0000:
        return _LOW[number & 0x3FFF] + _SMALL[number >> 14]
    if number < 0:
        number &= _UINT64_MASK
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_prefixed(content: bytes) -> bytes:
    """Return the content behind its length."""
    return varint(len(content)) + content


def bytes_field(tag: bytes, content: bytes) -> bytes:
    """Encode a length-delimited field; `tag` is its one-byte key (number << 3 | 2)."""
    return tag + varint(len(content)) + content


def varint_field(tag: bytes, number: int) -> bytes:
    """Encode an integer field, or nothing when it is zero; `tag` is its key (number << 3)."""
    return tag + varint(number) if number else b""

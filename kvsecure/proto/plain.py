"""Reading the two most frequent requests without building a message.

Owns: recognising a RangeRequest of one key, and a PutRequest of one key and its value.
Never: reads anything that is written in another way: `None` says that the message is to be built.
Follows: the protobuf encoding guide; fields in the order of their numbers, as every library writes
    them.
Keeps: what is read here is what the generated message would have read.
"""

from typing import Final

__all__ = ["plain_get", "plain_put"]

# Field 1 (key) and field 2 (value), length-delimited.
_KEY: Final = 0x0A
_VALUE: Final = 0x12


def plain_get(content: bytes) -> bytes | None:
    """Return the key of a RangeRequest that is nothing but a key of 1 to 127 bytes."""
    length = len(content) - 2
    if 0 < length < 0x80 and content[0] == _KEY and content[1] == length:
        return content[2:]
    return None


def plain_put(content: bytes) -> tuple[bytes, bytes] | None:
    """Return key and value of a PutRequest that is nothing but these.

    The key has 1 to 127 bytes, the value 1 byte to 2 MiB.
    """
    size = len(content)
    if size < 5 or content[0] != _KEY:
        return None
    # Where the key ends.
    end = 2 + content[1]
    if end < 3 or content[1] >= 0x80 or size < end + 3 or content[end] != _VALUE:
        return None
    length = content[end + 1]
    start = end + 2
    if length >= 0x80:
        length += (content[start] << 7) - 0x80
        start += 1
        if length >= 0x4000:
            if size <= start or content[start] >= 0x80:
                return None
            length += (content[start] << 14) - 0x4000
            start += 1
    if not length or start + length != size:
        return None
    return content[2:end], content[start:]

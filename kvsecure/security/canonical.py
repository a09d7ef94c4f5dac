"""Canonical JSON for audit records.

Owns: one byte string for one value (RFC 8785), and times as RFC 3339.
Never: numbers that are not integers: records have none, so the hard part of the RFC is not needed.
"""

import json
import re
import time
from json.encoder import encode_basestring
from typing import Final

__all__ = ["canonical", "json_bytes", "json_list", "json_text", "text_of"]

# What stands in a JSON string as it is: printable ASCII but the quotation mark and the backslash.
_ESCAPED: Final = re.compile(rb"[^ !#-\[\]-~]")


def canonical(value: object) -> bytes:
    """Return the canonical form of a value of dicts, lists, strings, integers and booleans.

    Keys are ASCII: sorting by code point is sorting by UTF-16 code unit (RFC 8785 section 3.2.3).
    """
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def json_text(text: str) -> bytes:
    """Return a string as JSON; the escapes are those of RFC 8785 section 3.2.2.2."""
    return encode_basestring(text).encode()


def json_bytes(name: str, content: bytes) -> bytes:
    """Return a member of an object for bytes: as text, or `<name>_hex` where they are no UTF-8.

    `name_hex` sorts right behind `name`, as canonical form wants it, if no other name lies between.
    """
    try:
        return b'"%b":%b' % (name.encode(), json_text(content.decode()))
    except UnicodeDecodeError:
        return b'"%b_hex":"%b"' % (name.encode(), content.hex().encode())


def json_list(name: str, contents: list[bytes]) -> bytes:
    """Return a member of an object for a list of bytes.

    As texts, or `<name>_hex` where any of them is no UTF-8.
    """
    if not _ESCAPED.search(b"".join(contents)):
        return b'"%b":["%b"]' % (name.encode(), b'","'.join(contents))
    try:
        texts = [json_text(content.decode()) for content in contents]
    except UnicodeDecodeError:
        texts = [b'"%b"' % content.hex().encode() for content in contents]
        name += "_hex"
    return b'"%b":[%b]' % (name.encode(), b",".join(texts))


def text_of(second: int) -> str:
    """Return a second since 1970 as RFC 3339 without fraction and zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))

"""Keys and values as text: on the command line, on a terminal, and in JSON.

Owns: every translation between bytes and what a person or a script reads.
Never: sends a control character from the store to a terminal, except in a value printed alone.
Keeps: what is shown of different bytes is different.
"""

import base64
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvsecure.model.keys import FROM_KEY, prefix_end

__all__ = [
    "bytes_of_argument",
    "described",
    "id_text",
    "json_bytes",
    "json_text",
    "shown",
    "table_text",
]

_NAMED_ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CELL_CHARACTERS_MAX: Final = 60


def bytes_of_argument(argument: str) -> bytes:
    """Return the bytes that were typed on the command line."""
    return os.fsencode(argument)


def shown(content: bytes) -> str:
    r"""Return bytes as one line of text without control characters.

    Text in UTF-8 stays as it is. A backslash is doubled; tab, newline and carriage return become
    `\t`, `\n` and `\r`; every other byte that is not printable becomes `\xNN`.
    """
    text = content.decode(errors="surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_shown_character(character) for character in text)


def _shown_character(character: str) -> str:
    if character in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[character]
    if character.isprintable():
        return character
    encoded = character.encode(errors="surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in encoded)


def described(key: bytes, range_end: bytes) -> str:
    """Return in words which keys a pair of the wire stands for."""
    if not range_end:
        return shown(key)
    if range_end == FROM_KEY:
        return "every key" if key in {b"", FROM_KEY} else f"{shown(key)} and every key after it"
    if range_end == prefix_end(key):
        return f"{shown(key)} (prefix)"
    return f"[{shown(key)}, {shown(range_end)})"


def id_text(number: int) -> str:
    """Return the id of a lease, a member or a cluster as it is written: 16 hexadecimal digits."""
    return f"{number & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def json_bytes(name: str, content: bytes) -> dict[str, str]:
    """Return the fields for bytes: base64, and the text as well when they are text."""
    fields = {name: base64.b64encode(content).decode()}
    with contextlib.suppress(UnicodeDecodeError):
        fields[f"{name}_utf8"] = content.decode()
    return fields


def json_text(form: Mapping[str, Any]) -> str:
    """Return an object as one line of JSON in ASCII."""
    return json.dumps(form)


def table_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for people: columns aligned, long cells cut.

    Args:
        columns: The headings.
        rows: The cells, already fit to be shown.
    """
    cells = [list(columns), *([_cut(cell) for cell in row] for row in rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def _cut(cell: str) -> str:
    if len(cell) <= _CELL_CHARACTERS_MAX:
        return cell
    return f"{cell[: _CELL_CHARACTERS_MAX - 1]}…"

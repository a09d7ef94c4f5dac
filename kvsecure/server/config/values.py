"""Texts and YAML values turned into values of the kind their flag has.

Owns: what counts as a number, a switch, a duration, a list; on the command line and in a file.
Never: checks bounds or meaning; that needs the whole configuration, and has its own texts.
Follows: Go's flag and strconv packages, with their texts; YAML types as etcd's configuration file.
"""

import json
import re
from typing import Final

from kvsecure.server.config.durations import parse_duration
from kvsecure.server.config.flag import Flag, Kind, Value
from kvsecure.server.config.urls import parse_urls

__all__ = ["TEXT_BYTES_MAX", "default_of", "parse_text", "parse_yaml", "quoted"]

TEXT_BYTES_MAX: Final = 4_096

_QUOTED_CHARACTERS_MAX: Final = 128
_PARSE_ERROR: Final = "parse error"
_SWITCHES: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
# Base by prefix, underscores between digits: Go's integer literals (strconv, base 0).
_INTEGER: Final = re.compile(
    r"0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|[1-9](?:_?[0-9])*|0"
)
_INTEGER_CHARACTERS_MAX: Final = 128
_INT64: Final = range(-(1 << 63), 1 << 63)
_UINT64: Final = range(1 << 64)


def default_of(flag: Flag) -> Value:
    """Return the value of a flag that is not set."""
    return parse_text(flag, flag.default)


def parse_text(flag: Flag, text: str) -> Value:
    """Return the value that a text on the command line or in a variable stands for.

    Raises:
        ValueError: It is none; the text says why and does not repeat the value.
    """
    _check_text(text)
    match flag.kind:
        case Kind.SWITCH:
            return _switch(text)
        case Kind.UNSIGNED:
            return _number(text, _UINT64)
        case Kind.INTEGER:
            return _number(text, _INT64)
        case Kind.DURATION:
            return _duration(text)
        case Kind.URLS:
            return parse_urls(text)
        case Kind.LIST:
            return _list(text.split(","))
        case Kind.CHOICE:
            return _choice(flag, text)
        case Kind.TEXT | Kind.PATH:
            return text


def parse_yaml(flag: Flag, value: object) -> Value:
    """Return the value that a value in the configuration file stands for.

    Raises:
        TypeError: It has another type than the flag; the text names the one that is wanted.
        ValueError: It has the type and is no value all the same.
    """
    match flag.kind:
        case Kind.SWITCH:
            if not isinstance(value, bool):
                raise TypeError("must be true or false")
            return value
        case Kind.UNSIGNED | Kind.INTEGER:
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError("must be a whole number")
            return _in_range(value, _UINT64 if flag.kind is Kind.UNSIGNED else _INT64)
        case Kind.DURATION:
            return _yaml_duration(value)
        case Kind.LIST if isinstance(value, list):
            return _list([_yaml_text(part) for part in value])
        case _:
            if _reads_as_text(flag) and isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            return parse_text(flag, _yaml_text(value))


def _yaml_duration(value: object) -> int:
    # etcd's file has durations as nanoseconds; we also take what the command line takes.
    if isinstance(value, str):
        return _duration(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("must be a duration such as 1m0s, or a number of nanoseconds")
    return _in_range(value, _INT64)


def _yaml_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text; put it in quotes")
    _check_text(value)
    return value


def quoted(flag: Flag, text: str) -> str:
    """Return a refused text for an error message: on one line, short, and never free text."""
    if flag.kind in {Kind.TEXT, Kind.PATH}:
        # Somebody may have put a password here.
        return '"..."'
    return json.dumps(text[:_QUOTED_CHARACTERS_MAX])


def _reads_as_text(flag: Flag) -> bool:
    # The one text that is most often a bare number: hours, or revisions.
    return flag.name == "auto-compaction-retention"


def _check_text(text: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("not valid UTF-8") from None
    if size_bytes > TEXT_BYTES_MAX:
        raise ValueError(f"longer than {TEXT_BYTES_MAX} bytes")
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("contains a control character")


def _switch(text: str) -> bool:
    switch = _SWITCHES.get(text)
    if switch is None:
        raise ValueError(_PARSE_ERROR)
    return switch


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(_PARSE_ERROR) from None


def _number(text: str, allowed: range) -> int:
    signed = allowed.start < 0
    sign = text[:1] if signed and text[:1] in {"+", "-"} else ""
    digits = text[len(sign) :]
    if len(digits) > _INTEGER_CHARACTERS_MAX or _INTEGER.fullmatch(digits) is None:
        raise ValueError(_PARSE_ERROR)
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "_01234567":
        digits = "0o" + digits[1:]
    number = int(digits, 0)
    return _in_range(-number if sign == "-" else number, allowed)


def _in_range(number: int, allowed: range) -> int:
    if number not in allowed:
        raise ValueError("value out of range")
    return number


def _list(parts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stripped for part in parts if (stripped := part.strip())))


def _choice(flag: Flag, text: str) -> str:
    if not text:
        # An empty text is a choice that was not made.
        return flag.default
    if text not in flag.choices:
        allowed = ", ".join(choice for choice in flag.choices if choice)
        raise ValueError(f"must be one of {allowed}" if "," in allowed else f"must be {allowed}")
    return text

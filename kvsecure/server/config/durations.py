"""Durations in Go's notation: `1m0s`, `100ms`, `1.5h`.

Owns: reading and writing that notation, exactly, in whole nanoseconds.
Never: guesses a unit; a number without one is an error, as it is in Go.
Follows: the documentation of Go's time.ParseDuration and Duration.String.
"""

import re
from fractions import Fraction
from typing import Final

__all__ = [
    "HOUR_NS",
    "MILLISECOND_NS",
    "MINUTE_NS",
    "SECOND_NS",
    "format_duration",
    "parse_duration",
]

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000 * MILLISECOND_NS
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS

_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "\u03bcs": 1_000,
    "ms": MILLISECOND_NS,
    "s": SECOND_NS,
    "m": MINUTE_NS,
    "h": HOUR_NS,
}
_TERM: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|\u03bcs|ms|s|m|h)")
# Go counts durations in a signed 64-bit number of nanoseconds, about 292 years.
_LARGEST_NS: Final = (1 << 63) - 1
# No duration that fits is longer, and digits beyond it cost time and mean nothing.
_CHARACTERS_MAX: Final = 64


def parse_duration(text: str) -> int:
    """Return the duration in nanoseconds; fractions of one are cut off.

    Args:
        text: A sign or none, then numbers each with a unit of ns, us, ms, s, m or h; or `0`.

    Raises:
        ValueError: The text is not a duration, or is one beyond 292 years.
    """
    body = text[1:] if text[:1] in {"+", "-"} else text
    if body == "0":
        return 0
    total = Fraction(0)
    position = 0
    while position < len(body) <= _CHARACTERS_MAX:
        term = _TERM.match(body, position)
        if term is None or not (term[1] or term[2]):
            break
        total += Fraction(f"{term[1] or '0'}.{term[2] or '0'}") * _UNITS_NS[term[3]]
        position = term.end()
    if not body or position != len(body) or total > _LARGEST_NS:
        raise ValueError(f'time: invalid duration "{text}"')
    return -int(total) if text.startswith("-") else int(total)


def format_duration(duration_ns: int) -> str:
    """Return the duration as Go prints it: `0s`, `1.5ms`, `2h0m0s`."""
    if duration_ns < 0:
        return f"-{format_duration(-duration_ns)}"
    if duration_ns == 0:
        return "0s"
    for unit, size_ns in (("ns", 1), ("µs", 1_000), ("ms", MILLISECOND_NS)):
        if duration_ns < size_ns * 1_000:
            return f"{_decimal(duration_ns, size_ns)}{unit}"
    minutes, rest_ns = divmod(duration_ns, MINUTE_NS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest_ns, SECOND_NS)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(count: int, size: int) -> str:
    """Return count divided by size, a power of ten, in as many digits as it needs."""
    whole, rest = divmod(count, size)
    fraction = str(rest).zfill(len(str(size)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)

"""Key ranges: etcd's convention for `key` and `range_end`, in one place.

Owns: what a pair of (key, range_end) on the wire means, as a half-open span.
Never: looks at tenants; a tenant's keys live in an index of their own and begin where they say.
Follows: etcd's range convention: no end is one key, a single zero byte is "from here on".
Keeps: `Span.end is None` means open-ended and nothing else does.
"""

from typing import Final, NamedTuple

__all__ = ["FROM_KEY", "Span", "prefix_end", "span_of"]

# A range_end of one zero byte asks for every key at or after the start.
FROM_KEY: Final = b"\0"


class Span(NamedTuple):
    """A half-open interval of keys; `end` is None when it is open-ended."""

    start: bytes
    end: bytes | None

    def holds(self, key: bytes) -> bool:
        """Tell whether the key lies in the span."""
        return self.start <= key and (self.end is None or key < self.end)

    @property
    def empty(self) -> bool:
        """Whether no key can lie in the span."""
        return self.end is not None and self.end <= self.start


def span_of(key: bytes, range_end: bytes) -> Span:
    """Return the span that a request's key and range_end stand for."""
    if not range_end:
        return Span(key, key + b"\0")
    if range_end == FROM_KEY:
        return Span(key, None)
    return Span(key, range_end)


def prefix_end(prefix: bytes) -> bytes:
    """Return the range_end that makes (prefix, range_end) mean "all keys with this prefix".

    A prefix of nothing but 0xff bytes has no upper neighbour: the answer is then FROM_KEY.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return FROM_KEY
    return stem[:-1] + bytes((stem[-1] + 1,))

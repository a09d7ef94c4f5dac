"""Grants: what one user may do, compiled from roles.

Owns: merging permissions into intervals, and asking whether an interval is covered.
Never: knows requests.
Follows: etcd's rangePermCache (server/auth/range_perm_cache.go): the union of all intervals of a
    type must contain the request's; WRITE does not imply READ.
Keeps: intervals are disjoint, not adjacent, sorted, and half-open.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from kvsecure.model.keys import Span

__all__ = ["EVERYTHING", "NOTHING", "Grants", "Intervals"]


@final
class Intervals:
    """A set of keys as disjoint intervals."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[Span]) -> None:
        starts: list[bytes] = []
        ends: list[bytes | None] = []
        for span in sorted((s for s in spans if not s.empty), key=lambda s: s.start):
            if starts and (ends[-1] is None or span.start <= ends[-1]):
                last = ends[-1]
                if last is not None and (span.end is None or span.end > last):
                    ends[-1] = span.end
            else:
                starts.append(span.start)
                ends.append(span.end)
        self._starts = starts
        self._ends = ends

    def cover_key(self, key: bytes) -> bool:
        """Tell whether a key is in the set."""
        found = bisect_right(self._starts, key) - 1
        if found < 0:
            return False
        end = self._ends[found]
        return end is None or key < end

    def cover_keys(self, keys: Iterable[bytes]) -> bool:
        """Tell whether all of these keys are in the set."""
        starts, ends = self._starts, self._ends
        for key in keys:
            found = bisect_right(starts, key) - 1
            if found < 0:
                return False
            end = ends[found]
            if end is not None and key >= end:
                return False
        return True

    def cover(self, span: Span) -> bool:
        """Tell whether every key of a span is in the set; an empty span asks about its start."""
        found = bisect_right(self._starts, span.start) - 1
        if found < 0:
            return False
        end = self._ends[found]
        if end is None:
            return True
        if span.empty:
            return span.start < end
        return span.end is not None and span.end <= end


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What a user may do in a tenant, as of one auth revision."""

    user: str
    roles: frozenset[str]
    read: Intervals
    write: Intervals
    # Holds the tenant's role root.
    admin: bool
    # May carry out cluster operations as well: a root of the default or the system tenant.
    cluster_admin: bool


NOTHING: Final = Intervals(())
EVERYTHING: Final = Intervals((Span(b"", None),))

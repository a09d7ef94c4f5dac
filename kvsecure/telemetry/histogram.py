"""Histograms that cost the hot path one bisection and three additions.

Owns: counting durations into buckets, and a frozen view for the scrape.
Never: touches prometheus_client, a lock or a clock.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, final

__all__ = [
    "DISK_BUCKETS_S",
    "METHOD_BUCKETS_S",
    "PAUSE_BUCKETS_S",
    "ROUND_TRIP_BUCKETS_S",
    "TRANSFER_BUCKETS_S",
    "Histogram",
    "HistogramView",
]

# etcd's buckets for fsync and commit: 1 ms doubled thirteen times, up to 8.192 s.
DISK_BUCKETS_S: Final = tuple(0.001 * 2**power for power in range(14))
# What grpc_server_handling_seconds has everywhere: Prometheus' default buckets.
METHOD_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# How long the event loop was away: above 50 ms has to be looked into, above 300 ms clients notice.
PAUSE_BUCKETS_S: Final = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
    *(0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
)
# etcd's buckets for round trips between members: 0.1 ms doubled fifteen times, up to 3.2768 s; and
# for snapshots that are sent: 0.1 s doubled nine times, up to 51.2 s.
ROUND_TRIP_BUCKETS_S: Final = tuple(0.0001 * 2**power for power in range(16))
TRANSFER_BUCKETS_S: Final = tuple(0.1 * 2**power for power in range(10))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramView:
    """A histogram at one moment.

    Attributes:
        bounds_s: Upper bounds of the buckets in seconds, ascending; a value at a bound is inside.
        counts: Observations per bucket, not cumulative; one more for those beyond the last bound.
        sum_s: The sum of all observations in seconds.
    """

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float

    def cumulative(self) -> list[tuple[str, float]]:
        """Return how many observations were within each bound, under the bound's text."""
        bounds = (*(_bound(bound_s) for bound_s in self.bounds_s), "+Inf")
        return list(zip(bounds, accumulate(self.counts), strict=True))


@final
class Histogram:
    """Counts durations. One thread observes; another may take a view that lags by one value."""

    __slots__ = ("_bounds_s", "_counts", "_sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration in seconds."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s

    def view(self) -> HistogramView:
        """Return the counts of this moment."""
        return HistogramView(bounds_s=self._bounds_s, counts=tuple(self._counts), sum_s=self._sum_s)


def _bound(bound_s: float) -> str:
    # Go prints 1 where Python prints 1.0, and a series is matched by its text.
    return f"{bound_s:.12g}"

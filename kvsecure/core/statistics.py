"""What an engine counts.

Owns: plain counts and times of the log, the tables and the event loop.
Never: shows them; `telemetry` does.
"""

from typing import final

from kvsecure.telemetry.histogram import DISK_BUCKETS_S, PAUSE_BUCKETS_S, Histogram

__all__ = ["EngineStatistics"]


@final
class EngineStatistics:
    """Plain counts for whoever shows them."""

    __slots__ = (
        "commits",
        "leader_changes",
        "log_bytes",
        "pauses",
        "proposals_failed",
        "slow_applies",
        "syncs",
        "table_bytes",
        "table_bytes_in_use",
    )

    def __init__(self) -> None:
        self.proposals_failed = 0
        self.leader_changes = 0
        self.slow_applies = 0
        self.log_bytes = 0
        # Of the log process, and of the table process.
        self.syncs = Histogram(DISK_BUCKETS_S)
        self.commits = Histogram(DISK_BUCKETS_S)
        # Of the event loop.
        self.pauses = Histogram(PAUSE_BUCKETS_S)
        self.table_bytes = 0
        self.table_bytes_in_use = 0

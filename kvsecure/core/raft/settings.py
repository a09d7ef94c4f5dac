"""How patient a member is, and how much it takes on at once.

Owns: the numbers that the algorithm leaves open, and which of them go together.
Never: says how long a tick is.
Follows: Raft section 5.6: heartbeats come much more often than elections.
"""

from dataclasses import dataclass
from typing import final

from kvsecure.model.errors import invariant
from kvsecure.model.limits import UNFLUSHED_BYTES_MAX

__all__ = ["Settings"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in ticks, sizes in bytes."""

    # Without a leader for this many ticks at least, and less than twice as many, a voter stands.
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    # Entries in one message; a single entry may be larger.
    append_bytes_max: int = 1024 * 1024
    # Messages with entries, and bytes in them, that one peer has not answered yet.
    in_flight_max: int = 64
    in_flight_bytes_max: int = 8 * 1024 * 1024
    # What a leader takes before anything of it is committed. Who hands it over says no before that,
    # and counts what is not in the tables as well.
    uncommitted_bytes_max: int = 2 * UNFLUSHED_BYTES_MAX
    # Reads that wait for their index.
    reads_max: int = 65_536

    def __post_init__(self) -> None:
        """Check that every number is possible."""
        invariant(0 < self.heartbeat_ticks < self.election_ticks, "heartbeats outpace elections")
        invariant(
            min(
                self.append_bytes_max,
                self.in_flight_max,
                self.in_flight_bytes_max,
                self.uncommitted_bytes_max,
                self.reads_max,
            )
            > 0,
            "something can be sent and taken",
        )

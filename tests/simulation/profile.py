"""What a run is like: how many members, what fails, and how often.

    drawn(seed)     a run of its own, in which some faults are left out and others are many

Owns: which faults there are, and their weights in a run.
Never: makes one happen.
Follows: swarm testing (Groce et al., 2012): a run without some faults goes further with the others.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, final

from simulation.disk import Pace
from simulation.kernel import MS, SECOND
from simulation.network import Weather

from kvsecure.core.raft.settings import Settings

__all__ = ["Mishap", "Profile", "drawn"]


class Mishap(Enum):
    """What befalls a cluster."""

    HEAL = "heal"
    HALVES = "cut in two"
    ALONE = "one cut off"
    LEADER_ALONE = "leader cut off"
    DEAF = "one hears nothing"
    MUTE = "one is not heard"
    BRIDGE = "bridge"
    CRASH = "power lost"
    CRASH_LEADER = "leader's power lost"
    CRASH_ALL = "all power lost"
    CRASH_WRITING = "power lost while writing"
    KILL = "killed"
    PAUSE = "stopped for a while"
    PAUSE_LEADER = "leader stopped for a while"
    SLOW_DISK = "slow disk"
    FAIL_SYNC = "failed sync"
    JUMP = "clock jumps"
    DRIFT = "clock drifts"
    WEATHER = "weather"
    TRANSFER = "leader transferred"
    ADD_LEARNER = "learner added"
    PROMOTE = "learner promoted"
    REMOVE = "member removed"
    REPLACE = "members replaced"
    REPLACE_HALF_WAY = "members replaced, and cut in two"
    TABLES = "tables written"
    SUSPECT = "leader suspected"


_WEIGHTS: Final[dict[Mishap, int]] = {
    Mishap.HEAL: 6,
    Mishap.HALVES: 2,
    Mishap.ALONE: 2,
    Mishap.LEADER_ALONE: 3,
    Mishap.DEAF: 2,
    Mishap.MUTE: 2,
    Mishap.BRIDGE: 1,
    Mishap.CRASH: 3,
    Mishap.CRASH_LEADER: 2,
    Mishap.CRASH_ALL: 1,
    Mishap.CRASH_WRITING: 4,
    Mishap.KILL: 1,
    Mishap.PAUSE: 2,
    Mishap.PAUSE_LEADER: 2,
    Mishap.SLOW_DISK: 2,
    Mishap.FAIL_SYNC: 1,
    Mishap.JUMP: 1,
    Mishap.DRIFT: 1,
    Mishap.WEATHER: 2,
    Mishap.TRANSFER: 2,
    Mishap.ADD_LEARNER: 2,
    Mishap.PROMOTE: 3,
    Mishap.REMOVE: 2,
    Mishap.REPLACE: 2,
    Mishap.REPLACE_HALF_WAY: 2,
    Mishap.TABLES: 2,
    Mishap.SUSPECT: 2,
}
_ALWAYS: Final = frozenset({Mishap.HEAL})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A run."""

    voters: int = 3
    clients: int = 4
    # Shares of what clients send and are sent that is lost.
    client_lost: float = 0.02
    client_pause_us: int = 60 * MS
    # How long things go wrong, and how long there may be between two of them.
    troubled_us: int = 12 * SECOND
    mishap_us_max: int = 800 * MS
    # How long a crash lasts at most.
    down_us_max: int = 1_500 * MS
    tick_us: int = 20 * MS
    # Tables are written, and the log forgotten, after so many entries.
    tables_every: int = 60
    # How much of the log is left behind the tables, for members that are not far behind.
    kept_behind: int = 10
    settings: Settings = field(default_factory=Settings)
    pace: Pace = field(default_factory=Pace)
    weathers: tuple[Weather, ...] = (Weather(),)
    # Whether the leader hears nobody for a while before everything is well.
    ends_deaf: bool = False
    weights: Mapping[Mishap, int] = field(default_factory=lambda: dict(_WEIGHTS))


def drawn(seed: int) -> Profile:
    """Draw a run by its seed."""
    chance = random.Random(f"profile {seed}")
    weights = {
        mishap: weight * chance.choice((1, 1, 1, 3))
        for mishap, weight in _WEIGHTS.items()
        if mishap in _ALWAYS or chance.random() < 0.6
    }
    return Profile(
        voters=chance.choices((1, 2, 3, 4, 5, 7), (1, 1, 10, 2, 5, 1))[0],
        clients=chance.choice((3, 6, 9)),
        client_lost=chance.choice((0.0, 0.02, 0.1)),
        client_pause_us=chance.choice((30, 80, 200)) * MS,
        mishap_us_max=chance.choice((100, 300, 800, 2_000)) * MS,
        down_us_max=chance.choice((30, 300, 1_500, 5_000)) * MS,
        tables_every=chance.choice((15, 60, 200, 1_000)),
        kept_behind=chance.choice((0, 5, 50)),
        tick_us=chance.choice((20, 50)) * MS,
        settings=Settings(
            election_ticks=chance.choice((3, 10)),
            heartbeat_ticks=chance.choice((1, 2)),
            append_bytes_max=chance.choice((100, 4_096)),
            in_flight_max=chance.choice((1, 4, 64)),
            in_flight_bytes_max=chance.choice((300, 1 << 20)),
            uncommitted_bytes_max=chance.choice((2_000, 1 << 20)),
        ),
        pace=Pace(
            sync_us_max=chance.choice((500, 3 * MS, 15 * MS)),
            slow=chance.choice((0.0, 0.02)),
            segment_bytes=chance.choice((2_048, 16_384)),
        ),
        weathers=tuple(_weather(chance) for _ in range(3)),
        ends_deaf=chance.random() < 0.2,
        weights=weights,
    )


def _weather(chance: random.Random) -> Weather:
    return Weather(
        delay_us_max=chance.choice((1, 2, 10, 30)) * MS,
        late=chance.choice((0.0, 0.02, 0.2)),
        late_us_max=chance.choice((50, 300, 2_000)) * MS,
        lost=chance.choice((0.0, 0.02, 0.2)),
        doubled=chance.choice((0.0, 0.02, 0.2)),
        damaged=chance.choice((0.0, 0.0, 0.01)),
    )

"""What goes wrong, and when; all of it is put right in the end.

    Nemesis      brings a mishap upon a cluster every now and then
    put_right    ends whatever is wrong

Owns: how each mishap is done.
Never: decides how often; a profile does.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from simulation.cluster import Cluster
from simulation.kernel import MS, SECOND
from simulation.member import Member
from simulation.network import Weather
from simulation.profile import Mishap, Profile

__all__ = ["Nemesis", "put_right"]

_JUMP_TICKS_MAX: Final = 40
_DRIFT: Final = (0.9, 0.95, 1.0, 1.05, 1.1)
_CLOSED_US_MAX: Final = 30 * MS
_SLOW_SYNC_US: Final = 400 * MS


@final
class Nemesis:
    """What befalls a cluster."""

    def __init__(self, cluster: Cluster, profile: Profile) -> None:
        self.counts: Counter[str] = Counter()
        self.is_stopped = False
        self._cluster = cluster
        self._profile = profile
        self._mishaps = list(profile.weights)
        self._weights = list(profile.weights.values())
        self._next()

    def _next(self) -> None:
        kernel = self._cluster.kernel
        if self._mishaps:
            delay_us = kernel.chance.randrange(MS, self._profile.mishap_us_max)
            kernel.after(delay_us, self._strike)

    def _strike(self) -> None:
        if self.is_stopped:
            return
        mishap = self._cluster.kernel.chance.choices(self._mishaps, self._weights)[0]
        if self._do(mishap):
            self.counts[mishap.value] += 1
            self._cluster.say(f"mishap: {mishap.value}")
        self._next()

    def _do(self, mishap: Mishap) -> bool:
        """Let it happen; return whether it did."""
        chance = self._cluster.kernel.chance
        match mishap:
            case Mishap.HEAL:
                self._cluster.network.heal()
                return True
            case Mishap.WEATHER:
                self._cluster.network.weather = chance.choice(self._profile.weathers)
                return True
            case Mishap.HALVES | Mishap.BRIDGE:
                return self._split(has_bridge=mishap is Mishap.BRIDGE)
            case Mishap.ALONE | Mishap.LEADER_ALONE | Mishap.DEAF | Mishap.MUTE:
                return self._cut_off(mishap)
            case Mishap.CRASH | Mishap.CRASH_LEADER | Mishap.CRASH_ALL | Mishap.KILL:
                return self._crash(mishap)
            case (
                Mishap.TRANSFER
                | Mishap.ADD_LEARNER
                | Mishap.PROMOTE
                | Mishap.REMOVE
                | Mishap.REPLACE
            ):
                return self._cluster.reconfigure(mishap)
            case Mishap.REPLACE_HALF_WAY:
                return self._replace_half_way()
            case _:
                return self._disturb(mishap)

    # --- the network ------------------------------------------------------------------------------

    def _split(self, *, has_bridge: bool) -> bool:
        members = list(self._cluster.members)
        chance = self._cluster.kernel.chance
        chance.shuffle(members)
        bridge = members.pop() if has_bridge else None
        if len(members) < 2:
            return False
        size = chance.randint(1, len(members) // 2)
        one, other = members[:size], members[size:]
        network = self._cluster.network
        network.cut(one, other)
        network.cut(other, one)
        if bridge is not None:
            self._cluster.say(f"{bridge} is the bridge between {one} and {other}")
        return True

    def _replace_half_way(self) -> bool:
        """Cut the cluster in two while old and new members have to agree."""
        cluster, chance = self._cluster, self._cluster.kernel.chance
        leader = cluster.leader
        if not cluster.reconfigure(Mishap.REPLACE) or leader is None or leader.node is None:
            return False
        configuration = leader.node.configuration
        coming = set(configuration.voters) - set(configuration.outgoing)
        one = [leader.member, *sorted(coming)]
        other = [member for member in cluster.members if member not in one]

        def cut() -> None:
            if not self.is_stopped:
                cluster.network.cut(one, other)
                cluster.network.cut(other, one)

        def crash() -> None:
            if not self.is_stopped:
                self._crash(Mishap.CRASH_LEADER)

        cluster.kernel.after(chance.randrange(20 * MS), cut)
        cluster.kernel.after(chance.randrange(20 * MS, 2 * SECOND), crash)
        return True

    def _cut_off(self, mishap: Mishap) -> bool:
        cluster = self._cluster
        leader = cluster.leader
        if mishap is Mishap.LEADER_ALONE and leader is None:
            return False
        member = self._any(lambda _: True)
        if mishap is Mishap.LEADER_ALONE and leader is not None:
            member = leader
        if member is None:
            return False
        others = [each for each in cluster.members if each != member.member]
        if mishap is not Mishap.DEAF:
            cluster.network.cut([member.member], others)
        if mishap is not Mishap.MUTE:
            cluster.network.cut(others, [member.member])
        return True

    # --- members ----------------------------------------------------------------------------------

    def _crash(self, mishap: Mishap) -> bool:
        cluster = self._cluster
        leader = cluster.leader
        match mishap:
            case Mishap.CRASH_ALL:
                victims = [member for member in cluster.members.values() if member.is_up]
            case Mishap.CRASH_LEADER:
                victims = [leader] if leader is not None else []
            case _:
                victim = self._any(lambda member: member.is_up)
                victims = [victim] if victim is not None else []
        for member in victims:
            member.crash(is_power_lost=mishap is not Mishap.KILL)
            member.start_later()
            if mishap is Mishap.KILL:
                # Its machine goes on and closes its connections, as far as those get through.
                for other in cluster.members.values():
                    delay_us = cluster.kernel.chance.randrange(_CLOSED_US_MAX)
                    cluster.kernel.after(delay_us, other.suspect, member.member)
        return bool(victims)

    def _disturb(self, mishap: Mishap) -> bool:
        cluster, chance = self._cluster, self._cluster.kernel.chance
        is_of_leader = mishap is Mishap.PAUSE_LEADER
        member = cluster.leader if is_of_leader else self._any(lambda each: each.is_up)
        if member is None:
            return False
        match mishap:
            case Mishap.PAUSE | Mishap.PAUSE_LEADER:
                member.pause()
                if is_of_leader and chance.random() < 0.5:
                    # It wakes up without being told that somebody else leads.
                    self._cut_off(Mishap.LEADER_ALONE)
                delay_us = chance.randrange(10 * MS, 2 * self._profile.down_us_max)
                cluster.kernel.after(delay_us, member.go_on)
            case Mishap.SLOW_DISK:
                member.disk.pace = replace(self._profile.pace, sync_us_max=_SLOW_SYNC_US)
            case Mishap.FAIL_SYNC:
                member.disk.is_failing = True
            case Mishap.CRASH_WRITING:
                member.is_doomed = True
            case Mishap.JUMP:
                member.jump(chance.randrange(_JUMP_TICKS_MAX))
            case Mishap.DRIFT:
                member.drift(chance.choice(_DRIFT))
            case Mishap.TABLES:
                member.write_tables()
            case Mishap.SUSPECT:
                member.suspect()
            case _:
                raise AssertionError(f"nothing is done for {mishap}")
        return True

    def _any(self, is_wanted: Callable[[Member], bool]) -> Member | None:
        found = [member for member in self._cluster.members.values() if is_wanted(member)]
        return self._cluster.kernel.chance.choice(found) if found else None


def put_right(cluster: Cluster, profile: Profile) -> None:
    """Let everybody be up, hear everybody, and be as fast as they can."""
    cluster.network.heal()
    cluster.network.weather = Weather()
    for member in cluster.members.values():
        member.disk.pace = profile.pace
        member.disk.is_failing = member.is_doomed = False
        member.go_on()
        member.start()

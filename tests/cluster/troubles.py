"""What is done to a real cluster, and how it is put right.

    Scene          a cluster, its wire, its disks, and chance
    TROUBLES       by name, what each does; it returns when its time is over
    CLOCK_TROUBLES those for which members have clocks that can be turned

Owns: how each trouble begins; `Scene.put_right` ends all of them.
Never: looks at what clients are told.
"""

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import grpc
from cluster.clocks import Clock
from cluster.members import RealCluster, RealMember, eventually
from cluster.wire import Rules, Wire
from support.disk import SmallDisk

from kvsecure.model.limits import WAL_SEGMENT_BYTES_MAX
from kvsecure.proto import cluster_pb2, kv_pb2, maintenance_pb2

__all__ = ["CLOCK_TROUBLES", "TROUBLES", "Scene"]

_SHORT_S: Final = 0.7
_LONG_S: Final = 3.0
# Ten times what a clock is slewed by when it is set to the right time.
_PACE: Final = 0.005
_LARGE_BYTES: Final = 1 << 20
# The segment of the log that is written, the spare one, and a little more.
_SEGMENTS_BYTES: Final = 2 * WAL_SEGMENT_BYTES_MAX + 8 * _LARGE_BYTES


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that trouble can be made with."""

    cluster: RealCluster
    wire: Wire
    # By the name of a member, what its directory is on.
    disks: Mapping[str, SmallDisk]
    chance: random.Random
    # By the name of a member, its time of day; none if no clock can be turned.
    clocks: Mapping[str, Clock]
    # Of all members but for trouble. It is ahead of ours, so that it can be set back by more than
    # certificates are old.
    ahead_s: float

    def hold(self, seconds: float = _LONG_S) -> None:
        """Let the trouble last: its length is what it is, and nothing is waited for."""
        time.sleep(seconds)

    def any(self) -> RealMember:
        """Return some member that answers."""
        return self.chance.choice(self.cluster.answering)

    def follower(self) -> RealMember:
        """Return some member that follows."""
        return self.chance.choice(self.cluster.followers())

    def hosts(self) -> frozenset[int]:
        """Return the hosts of all members."""
        return frozenset(_host(member) for member in self.cluster.members)

    def jump(self, member: RealMember, seconds: float) -> None:
        """Have a member's time of day be so many seconds away from what it is at the others."""
        self.clocks[member.name].set(self.ahead_s + seconds)
        self.cluster.set_apart(member.name, is_apart=bool(seconds))

    def put_right(self) -> None:
        """End all troubles, and wait until every member serves.

        Raises:
            TimeoutError: One does not.
        """
        if self.clocks:
            for member in self.cluster.members:
                self.jump(member, 0)
        self.wire.set(Rules())
        for disk in self.disks.values():
            with contextlib.suppress(FileNotFoundError):
                disk.make_room()
        self.cluster.mend()
        for member in self.cluster.members:
            eventually(lambda at=member.name: self.cluster.put(at, b"well", b"v"))

    def compact(self, revision: int) -> None:
        """Give up what was before a revision, so that disks do not fill by themselves."""
        request = kv_pb2.CompactionRequest(revision=revision)
        self.cluster.client(self.cluster.leader().name).kv.Compact(request)


def _host(member: RealMember) -> int:
    return int(member.name[1:])


def _kill_leader(scene: Scene) -> None:
    scene.cluster.leader().kill9()
    scene.hold()


def _kill_follower(scene: Scene) -> None:
    scene.follower().kill9()
    scene.hold()


def _kill_all(scene: Scene) -> None:
    for member in scene.cluster.members:
        member.kill9()
    scene.hold(_SHORT_S)


def _stop_leader(scene: Scene) -> None:
    leader = scene.cluster.leader()
    leader.pause()
    scene.hold()
    leader.resume()
    scene.hold(_SHORT_S)


def _stop_follower(scene: Scene) -> None:
    follower = scene.follower()
    follower.pause()
    scene.hold()
    follower.resume()
    scene.hold(_SHORT_S)


def _cut_off(scene: Scene, member: RealMember) -> None:
    host = _host(member)
    scene.wire.set(Rules(cut=Rules.apart([host], scene.hosts() - {host})))
    scene.hold()


def _leader_alone(scene: Scene) -> None:
    _cut_off(scene, scene.cluster.leader())


def _follower_alone(scene: Scene) -> None:
    _cut_off(scene, scene.follower())


def _leader_unheard(scene: Scene) -> None:
    host = _host(scene.cluster.leader())
    scene.wire.set(Rules(cut=frozenset((host, other) for other in scene.hosts() - {host})))
    scene.hold()


def _leader_deaf(scene: Scene) -> None:
    host = _host(scene.cluster.leader())
    scene.wire.set(Rules(cut=frozenset((other, host) for other in scene.hosts() - {host})))
    scene.hold()


def _bridge(scene: Scene) -> None:
    """Leave one member that hears both sides, which do not hear each other."""
    middle = _host(scene.follower())
    others = sorted(scene.hosts() - {middle})
    half = len(others) // 2
    scene.wire.set(Rules(cut=Rules.apart(others[:half], others[half:])))
    scene.hold()


def _lossy(scene: Scene) -> None:
    scene.wire.set(Rules(lost=0.1, late_s=0.02, later_s=0.03))
    scene.hold()


def _very_late(scene: Scene) -> None:
    scene.wire.set(Rules(late_s=0.15, later_s=0.2))
    scene.hold()


def _fill(scene: Scene, member: RealMember) -> None:
    """Fill a disk, and then the segments of the log that were there already."""
    scene.disks[member.name].fill()
    other = scene.chance.choice([each for each in scene.cluster.answering if each is not member])
    ends_at = time.monotonic() + 6 * _LONG_S
    written = 0
    while written < _SEGMENTS_BYTES and time.monotonic() < ends_at:
        with contextlib.suppress(grpc.RpcError):
            scene.cluster.put(other.name, b"large", bytes(_LARGE_BYTES))
            written += _LARGE_BYTES
    scene.hold()


def _fill_leader(scene: Scene) -> None:
    _fill(scene, scene.cluster.leader())


def _fill_follower(scene: Scene) -> None:
    _fill(scene, scene.follower())


def _rolling_restart(scene: Scene) -> None:
    for member in scene.cluster.members:
        member.process.stop()
        member.process.start()
        scene.cluster.leader()


def _hand_over(scene: Scene) -> None:
    for _ in range(3):
        _move_to(scene, scene.follower())
        scene.hold(_SHORT_S)


def _move_to(scene: Scene, heir: RealMember) -> None:
    leader = scene.cluster.leader()
    request = maintenance_pb2.MoveLeaderRequest(targetID=scene.cluster.member_id(heir.name))
    # It may be one no more.
    with contextlib.suppress(grpc.RpcError):
        scene.cluster.client(leader.name).maintenance.MoveLeader(request)


def _new_certificates(scene: Scene) -> None:
    """Replace every certificate while all members run, and then have links made anew."""
    for member in scene.cluster.members:
        scene.cluster.renew_certificates(member.name)
        scene.hold(_SHORT_S)
    scene.wire.set(Rules(cut=Rules.apart(scene.hosts(), scene.hosts())))
    scene.hold()


def _replace(scene: Scene) -> None:
    """Lose a member for good, take it out, and have another in its place."""
    cluster, lost = scene.cluster, scene.follower()
    member_id = cluster.member_id(lost.name)
    lost.kill9()
    lost.wipe()

    def ask(change: str, request: object) -> None:
        def asked() -> object:
            return getattr(cluster.client(cluster.leader().name).cluster, change)(request)

        eventually(asked)

    ask("MemberRemove", cluster_pb2.MemberRemoveRequest(ID=member_id))
    ask("MemberAdd", cluster_pb2.MemberAddRequest(peerURLs=[lost.place.peer_url]))
    cluster.rejoin(lost.name)
    lost.process.start()


def _some_hours(scene: Scene) -> float:
    """Return how far a clock jumps: minutes to hours, never out of the time of certificates."""
    return scene.chance.choice((-6_600.0, -600.0, 70.0, 900.0, 6 * 3_600.0))


def _leader_jumps(scene: Scene) -> None:
    leader = scene.cluster.leader()
    for seconds in (_some_hours(scene), 0.0, _some_hours(scene)):
        scene.jump(leader, seconds)
        scene.hold(_LONG_S / 2)


def _all_jump(scene: Scene) -> None:
    for _ in range(3):
        for member in scene.cluster.members:
            scene.jump(member, _some_hours(scene))
        scene.hold(_LONG_S / 2)


def _leader_dies_of_another_time(scene: Scene) -> None:
    """Let members start with another time than they ended with, and lead with it."""
    leader = scene.cluster.leader()
    leader.kill9()
    scene.jump(leader, _some_hours(scene))
    scene.hold(_SHORT_S)
    leader.process.start()
    _move_to(scene, leader)
    scene.hold()


def _other_pace(scene: Scene, rate: float) -> None:
    """Have somebody lead whose monotonic time goes at another rate."""
    member = scene.follower()
    clock = scene.clocks[member.name]
    member.process.stop()
    member.surround(clock.at_pace(rate))
    member.process.start()
    _move_to(scene, member)
    scene.hold()
    member.process.stop()
    member.surround(clock.environment)
    member.process.start()


def _fast_leader(scene: Scene) -> None:
    _other_pace(scene, 1 + _PACE)


def _slow_leader(scene: Scene) -> None:
    _other_pace(scene, 1 - _PACE)


def _storm(scene: Scene) -> None:
    """Let one trouble come over the other."""
    for _ in range(6):
        hosts = sorted(scene.hosts())
        draw = scene.chance.random()
        running = scene.cluster.answering
        if draw < 0.3 and running:
            scene.chance.choice(running).kill9()
        elif draw < 0.5 and running:
            scene.chance.choice(running).pause()
        elif draw < 0.7:
            for member in scene.cluster.members:
                if member.is_paused:
                    member.resume()
                elif not member.is_running:
                    member.process.spawn()
        else:
            pairs = [(one, other) for one in hosts for other in hosts if one != other]
            cut = frozenset(scene.chance.sample(pairs, len(pairs) // 3))
            scene.wire.set(Rules(cut=cut, lost=scene.chance.choice((0.0, 0.05))))
        scene.hold(_SHORT_S)


TROUBLES: Final[Mapping[str, Callable[[Scene], None]]] = {
    "kill -9 of the leader": _kill_leader,
    "kill -9 of a follower": _kill_follower,
    "kill -9 of all": _kill_all,
    "SIGSTOP of the leader": _stop_leader,
    "SIGSTOP of a follower": _stop_follower,
    "the leader cut off": _leader_alone,
    "a follower cut off": _follower_alone,
    "the leader not heard": _leader_unheard,
    "the leader hears nobody": _leader_deaf,
    "only one hears all": _bridge,
    "a tenth lost, 20 to 50 ms late": _lossy,
    "150 to 350 ms late": _very_late,
    "the leader's disk full": _fill_leader,
    "a follower's disk full": _fill_follower,
    "rolling restart": _rolling_restart,
    "three hand-overs": _hand_over,
    "all certificates replaced, then all links cut": _new_certificates,
    "a member replaced": _replace,
    "several at once": _storm,
}

CLOCK_TROUBLES: Final[Mapping[str, Callable[[Scene], None]]] = {
    "the leader's clock jumps": _leader_jumps,
    "all clocks jump": _all_jump,
    "the leader's clock jumps while it is dead": _leader_dies_of_another_time,
    "the leader's clock too fast": _fast_leader,
    "the leader's clock too slow": _slow_leader,
}

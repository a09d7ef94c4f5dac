"""Several replicas and their engines on the bench, with a network that does what a test says.

    async with cluster(path, 3) as lab:      one leads, and all have heard of it
        await lab.leader.put(b"k", b"v")
        lab.cut(1)                           nothing reaches it, nothing comes from it

Owns: which bytes reach whom, at the next turn of the event loop and in order.
Never: looks into the bytes, or does anything that a member does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import final

from core.engine_lab import WANTED, EngineLab, eventually, running

from kvsecure.core.members import Members
from kvsecure.core.peering import SnapshotDone
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import MemberId
from kvsecure.proto import state_pb2
from kvsecure.server.datadir import MemberIdentity

__all__ = ["ClusterLab", "cluster", "member_record"]

_PATIENCE = Settings(election_ticks=10, heartbeat_ticks=1)
_TICK_S = 0.02


def _wanted(number: int) -> MemberIdentity:
    """Return the identity of one of the members, who are numbered from 1."""
    return MemberIdentity(
        cluster=WANTED.cluster,
        member=MemberId(number),
        token=WANTED.token,
        trust_domain=WANTED.trust_domain,
    )


def member_record(number: int, *, is_learner: bool = False) -> state_pb2.Member:
    """Return what the state declares of a member."""
    urls = [f"http://m{number}:1"]
    return state_pb2.Member(id=number, name=f"m{number}", peer_urls=urls, is_learner=is_learner)


@final
class _Ways:
    """What one member can send."""

    def __init__(self, lab: "ClusterLab", own: MemberId) -> None:
        self._lab = lab
        self._own = own

    def follow(self, members: Members, partners: frozenset[MemberId]) -> None:
        """Leave the ways as they are: a test says who can be reached."""

    def send(self, member: MemberId, text: bytes) -> bool:
        """Carry bytes to another member, if nothing is in the way."""
        return self._lab.carry(self._own, member, text)

    def send_snapshot(self, order: SnapshotOrder, done: SnapshotDone) -> None:
        """Take note that it was ordered."""
        self._lab.snapshots.append(order)
        done(is_installed=False)


@final
class ClusterLab:
    """Members that hear each other."""

    def __init__(self) -> None:
        self.members: dict[MemberId, EngineLab] = {}
        self.snapshots: list[SnapshotOrder] = []
        self.said: list[tuple[MemberId, MemberId, bytes]] = []
        # Tells of bytes on their way whether they get lost.
        self.loses: Callable[[MemberId, MemberId, bytes], bool] = lambda *_: False
        self._cut: set[MemberId] = set()

    def ways(self, own: MemberId) -> _Ways:
        """Return what a member can send."""
        return _Ways(self, own)

    def carry(self, sender: MemberId, receiver: MemberId, text: bytes) -> bool:
        """Take bytes on their way; return False where they cannot go."""
        if {sender, receiver} & self._cut or receiver not in self.members:
            return False
        if not self.loses(sender, receiver, text):
            asyncio.get_running_loop().call_soon(self._arrive, sender, receiver, text)
        return True

    def cut(self, *members: int) -> None:
        """Let nothing reach or leave these members, and everything the others."""
        self._cut = {MemberId(member) for member in members}

    @property
    def leader(self) -> EngineLab:
        """The member that leads in the newest term and acts as one."""
        leading = [lab for lab in self.members.values() if lab.engine.leading.is_own]
        return max(leading, key=lambda lab: lab.engine.replica.node.term)

    @property
    def followers(self) -> list[EngineLab]:
        """The others."""
        leader = self.leader
        return [lab for lab in self.members.values() if lab is not leader]

    async def settled(self) -> None:
        """Wait until all have applied what is committed anywhere."""

        def is_settled() -> bool:
            nodes = [lab.engine.replica.node for lab in self.members.values()]
            newest = max(node.log.committed for node in nodes)
            return all(node.log.applied == newest for node in nodes)

        await eventually(is_settled)

    def _arrive(self, sender: MemberId, receiver: MemberId, text: bytes) -> None:
        if not {sender, receiver} & self._cut:
            self.said.append((sender, receiver, text))
            self.members[receiver].engine.peering.take(sender, text)


@contextlib.asynccontextmanager
async def cluster(
    path: Path, count: int, *, learners: int = 0, declared: bool = False
) -> AsyncIterator[ClusterLab]:
    """Run so many members until one leads and all have heard of it.

    Args:
        path: Where their data directories are made.
        count: How many vote.
        learners: How many others there are, whose numbers follow.
        declared: Whether the state declares them all, so that consensus follows what it declares.
    """
    numbers = [MemberId(number) for number in range(1, count + learners + 1)]
    founders = Configuration(tuple(numbers[:count]), learners=tuple(numbers[count:]))
    records = [member_record(each, is_learner=each > count) for each in numbers]
    async with contextlib.AsyncExitStack() as stack:
        lab = ClusterLab()
        for member in numbers:
            lab.members[member] = await stack.enter_async_context(
                running(
                    path / str(member),
                    leads=False,
                    identity=_wanted(member),
                    founders=founders,
                    members=records if declared else (),
                    patience=_PATIENCE,
                    peers=lab.ways(member),
                    tick_s=_TICK_S,
                )
            )
        await asyncio.gather(*(member.starting for member in lab.members.values()))
        await eventually(lambda: any(m.engine.leading.is_own for m in lab.members.values()))
        yield lab

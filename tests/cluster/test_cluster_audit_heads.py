"""A member that is taken back to an earlier copy of its disk, and members that are only killed."""

import random
import shutil
from collections.abc import Callable

import pytest
from cluster.members import DEADLINE_S, RealCluster, RealMember, eventually
from cluster.writing import Load
from support.processes import wait_until
from support.seeds import seed_of

from kvsecure.proto import cluster_pb2
from kvsecure.server.audit_verify import BrokenTrail, Checkpoint, KekSettings, verify

_ERROR = b"audit trail was cut off or rewritten"


def _wait_told(trio: RealCluster, at: RealMember, name: str, beyond: int) -> None:
    """Wait until a member has told of a record beyond one."""
    wait_until(
        lambda: trio.heads(at.name)[name].seq > beyond,
        deadline_s=DEADLINE_S,
        what=f"{name} to tell of its trail",
    )


def _leader(trio: RealCluster) -> RealMember:
    return trio.leader()


def _follower(trio: RealCluster) -> RealMember:
    return trio.followers()[0]


def _anew(trio: RealCluster, name: str, member_id: int) -> None:
    """Do what is to be done about such a member: remove it, and add it with an empty disk."""
    client = trio.client(trio.answering[0].name)
    remove = cluster_pb2.MemberRemoveRequest(ID=member_id)
    add = cluster_pb2.MemberAddRequest(peerURLs=[trio[name].place.peer_url])
    eventually(lambda: client.cluster.MemberRemove(remove))
    trio[name].wipe()
    trio.leader()
    eventually(lambda: client.cluster.MemberAdd(add))
    trio.rejoin(name)
    trio[name].process.start()


def _verify(trio: RealCluster, whose: RealMember, told_by: RealMember) -> None:
    """Check a member's files against what another one has heard of its trail, as an auditor does.

    Raises:
        BrokenTrail: They do not hold it.
    """
    heads = [
        Checkpoint(head.stream, head.seq, head.hash, head.signature)
        for head in trio.heads(told_by.name).values()
    ]
    verify(whose.data_directory, KekSettings(file=whose.directory / "kek"), heads, None)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_members_that_are_killed_are_never_reported(
    trio: RealCluster, request: pytest.FixtureRequest
) -> None:
    """What was told is on the disk: kill -9 at any moment takes none of it away."""
    rng = random.Random(seed_of(request.config))
    before = {name: head.seq for name, head in trio.heads(trio.leader().name).items()}

    with Load(trio, b"/killed") as load:
        for _ in range(60):
            victim = rng.choice(trio.members)
            load.wait_for_more(rng.randrange(1, 3_000))
            victim.kill9()
            victim.process.start()
            trio.leader()

    reader = trio.leader()
    for name, seq in before.items():
        _wait_told(trio, reader, name, seq)
    assert not any(head.is_missing for head in trio.heads(reader.name).values())
    assert all(_ERROR not in member.process.log() for member in trio.members)


@pytest.mark.parametrize("whom", [_follower, pytest.param(_leader, marks=pytest.mark.campaign)])
def test_member_on_an_earlier_copy_of_its_disk_is_reported(
    trio: RealCluster, whom: Callable[[RealCluster], RealMember]
) -> None:
    """Tables, log and trail of one moment fit together; the others know that there was more."""
    victim = whom(trio)
    member_id = trio.member_id(victim.name)
    other = next(member for member in trio.members if member is not victim)
    copy = victim.directory / "copy"
    victim.kill9()
    shutil.copytree(victim.data_directory, copy)
    victim.process.start()
    for _ in range(20):
        trio.put(victim.name, b"/rolled-back", b"v")
    _wait_told(trio, other, victim.name, trio.heads(other.name)[victim.name].seq)
    victim.kill9()
    _verify(trio, victim, told_by=other)
    victim.wipe()
    copy.rename(victim.data_directory)

    victim.process.spawn()

    wait_until(
        lambda: trio.heads(other.name)[victim.name].is_missing,
        deadline_s=DEADLINE_S,
        what="the report",
    )
    for member in (victim, other):
        wait_until(
            lambda log=member.process.log: _ERROR in log(), deadline_s=DEADLINE_S, what="the error"
        )
    victim.kill9()
    with pytest.raises(BrokenTrail, match="it is missing"):
        _verify(trio, victim, told_by=other)
    _anew(trio, victim.name, member_id)
    _wait_told(trio, other, victim.name, 0)

"""Snapshots: Raft section 7."""

import pytest
from support.raft_cluster import TICKS, Cluster, command

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import Append, Heartbeat
from kvsecure.core.raft.node import Node
from kvsecure.core.raft.progress import Sending
from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import Index, MemberId, Term


def _three(settings: Settings | None = None) -> Cluster:
    cluster = Cluster((1, 2, 3), settings=settings)
    cluster.elect(1)
    return cluster


def _compacted(*words: str) -> Cluster:
    """Three members, of which the third is down and lacks what the leader has compacted."""
    cluster = _three()
    cluster.crash(3)
    cluster.propose(1, *words)
    cluster.settle()
    cluster.compact(1)
    return cluster


def _pass_by(cluster: Cluster) -> None:
    """Let the leader's time pass, and the third member answer; no snapshot is carried out."""
    cluster.tick(1)
    cluster.deliver()
    cluster.persist(3)


def _given_two(cluster: Cluster) -> Node:
    """Send the third member two entries, which no disk has yet; return it."""
    node = cluster.node(3)
    node.step(
        Append(
            *(MemberId(1), MemberId(3), Term(1), Index(1), Term(1), Term(1), Index(1)),
            [command("a"), command("b")],
        )
    )
    return node


def test_lost_messages_that_are_compacted_meanwhile_are_made_good_section_7() -> None:
    """A member whose window is full of what is lost and compacted is sent a snapshot."""
    cluster = _three(Settings(election_ticks=TICKS, append_bytes_max=3, in_flight_max=2))
    cluster.cut = {(1, 3)}
    cluster.propose(1, *["ab"] * 9)
    cluster.settle()
    cluster.compact(1)
    cluster.heal()

    cluster.pass_time(4)

    assert len(cluster.applied(3)) == 9


def test_snapshot_brings_a_member_up_to_date_section_7() -> None:
    """Who needs what is compacted is sent a snapshot, and the entries behind it."""
    cluster = _compacted("a", "b")
    cluster.propose(1, "c")
    cluster.settle()

    cluster.start(3)
    cluster.pass_time(3)
    cluster.propose(1, "d")
    cluster.settle()

    assert cluster.applied(3) == [command(word) for word in "abcd"]
    assert cluster.disks[3].offset == 4
    assert cluster.node(1).status().peers[MemberId(3)].sending is Sending.REPLICATE


def test_snapshot_that_fails_is_tried_again_section_7() -> None:
    """A snapshot that was given up is ordered again when the member answers, and not before."""
    cluster = _compacted("a")
    cluster.start(3)
    leader = cluster.node(1)
    for _ in range(3):
        _pass_by(cluster)
        if cluster.orders:
            break
    cluster.orders.clear()

    leader.report_snapshot(MemberId(3), ok=False)
    cluster._collect(1)
    at_once = list(cluster.orders)
    cluster.pass_time(3)

    assert at_once == []
    assert cluster.applied(3) == [command("a")]


def test_nothing_is_sent_while_a_snapshot_is_section_7() -> None:
    """A member that is being sent a snapshot gets heartbeats and nothing else."""
    cluster = _compacted("a")
    cluster.start(3)
    while not cluster.orders:
        _pass_by(cluster)
    cluster.wire.clear()
    cluster.propose(1, "b")
    cluster.tick(1)

    assert [type(m) for m in cluster.wire if m.to == 3] == [Heartbeat]


def test_snapshot_carries_the_configuration_of_its_index_section_7() -> None:
    """What is ordered is the configuration at the snapshot's index, not a later one."""
    cluster = _compacted("a")
    cluster.stuck_disks = {2}
    cluster.change(1, [1, 2, 3, 4])
    cluster.start(3)
    for _ in range(5):
        _pass_by(cluster)

    orders = {order.to: order for _, order in cluster.orders}
    assert orders[MemberId(3)].index == 2
    assert orders[MemberId(3)].configuration == cluster.configuration


def test_snapshot_keeps_what_is_behind_it_section_7() -> None:
    """A snapshot of what a member has leaves the durable entries behind it in place."""
    cluster = _three()
    node = _given_two(cluster)
    cluster.persist(3)

    assert node.restore(Index(2), Term(1), cluster.configuration)
    assert (node.log.offset, node.log.last, node.log.committed) == (2, 3, 2)


def test_snapshot_drops_what_is_still_being_written_section_7() -> None:
    """What no disk has behind a snapshot goes: what is written there may be of another log."""
    cluster = _three()
    node = _given_two(cluster)
    node.ready()

    assert node.restore(Index(2), Term(1), cluster.configuration)
    node.persisted()
    assert (node.log.offset, node.log.durable, node.log.last) == (2, 2, 2)


def test_snapshot_replaces_what_conflicts_section_7() -> None:
    """A snapshot whose last entry a member does not have takes the whole log's place."""
    node = _given_two(_three())

    assert node.restore(Index(2), Term(2), Configuration((MemberId(2),)))
    assert (node.log.offset, node.log.last, node.log.last_term) == (2, 2, 2)
    assert (node.term, node.configuration.voters) == (2, (2,))


@pytest.mark.parametrize("member", [1, 3])
def test_snapshot_never_goes_back_section_7(member: int) -> None:
    """A leader takes no snapshot, and nobody one of what it has committed."""
    cluster = _three()
    cluster.propose(1, "a")
    cluster.settle()
    node = cluster.node(member)
    index = Index(9) if member == 1 else Index(2)

    assert not node.restore(index, Term(1), cluster.configuration)
    assert (node.log.offset, node.log.last) == (0, 2)

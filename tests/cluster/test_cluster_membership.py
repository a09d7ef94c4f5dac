"""Members that are added, promoted, removed, and lost for good, while a cluster serves."""

from collections.abc import Callable
from typing import Any

import grpc
from cluster.members import DEADLINE_S, Place, RealCluster, RealMember, places_on_loopback
from cluster.writing import Load
from e2e.world import refused
from support.processes import wait_until
from support.rpc import Client

from kvsecure.proto import cluster_pb2, maintenance_pb2

_NOT_IN_SYNC = "etcdserver: can only promote a learner member which is in sync with leader"
# Nobody is added while a member has not been heard of for a while.
_UNHEALTHY = "etcdserver: unhealthy cluster"


def _other(trio: RealCluster, member: RealMember) -> RealMember:
    return next(each for each in trio.answering if each is not member)


def _members(client: Client) -> dict[str, cluster_pb2.Member]:
    answer = client.cluster.MemberList(cluster_pb2.MemberListRequest(linearizable=True))
    return {member.name: member for member in answer.members}


def _when_fit(change: Callable[[], Any], passing: str) -> Any:
    """Ask for a change until the cluster is fit for it; return the answer."""
    answers = []

    def changed() -> bool:
        try:
            answers.append(change())
        except grpc.RpcError as error:
            if error.details() != passing:
                raise
        return bool(answers)

    wait_until(changed, deadline_s=DEADLINE_S, what=f"an end of {passing!r}")
    return answers[0]


def _promote(client: Client, member_id: int) -> None:
    request = cluster_pb2.MemberPromoteRequest(ID=member_id)
    _when_fit(lambda: client.cluster.MemberPromote(request), _NOT_IN_SYNC)


def _add(client: Client, place: Place, *, learner: bool = False) -> cluster_pb2.Member:
    request = cluster_pb2.MemberAddRequest(peerURLs=[place.peer_url], isLearner=learner)
    return _when_fit(lambda: client.cluster.MemberAdd(request), _UNHEALTHY).member


def _remove(client: Client, member_id: int) -> None:
    client.cluster.MemberRemove(cluster_pb2.MemberRemoveRequest(ID=member_id))


def test_member_is_added_learns_leads_and_stops_when_it_is_removed(trio: RealCluster) -> None:
    """Under load a learner catches up, votes, leads, and ends when it is removed as the leader."""
    client = trio.client("m1")
    (place,) = places_on_loopback(1)

    with Load(trio, b"/grown") as load:
        load.wait_for_more(50)
        added = _add(client, place, learner=True)
        newcomer = trio.make_newcomer("m4", place)
        newcomer.process.start()
        while_learning = refused(lambda: trio.put("m4", b"k", b"v"))
        _promote(trio.client(trio.followers()[0].name), added.ID)
        load.wait_for_more(50)
        trio.put("m4", b"/grown-to-four", b"v")
        told = _members(trio.client("m4"))
        move = maintenance_pb2.MoveLeaderRequest(targetID=added.ID)
        trio.client(trio.leader().name).maintenance.MoveLeader(move)
        assert trio.leader() is newcomer
        _remove(client, added.ID)
        status = newcomer.process.wait_exit()
        load.wait_for_more(50)
    log = newcomer.process.log()
    trio.forget("m4")

    assert added.isLearner
    assert while_learning == ("UNAVAILABLE", "etcdserver: rpc not supported for learner")
    assert told["m4"].ID == added.ID
    assert not told["m4"].isLearner
    assert status != 0
    assert b"removed" in log
    assert set(_members(client)) == {"m1", "m2", "m3"}
    assert [load.lost(member.name) for member in trio.members] == [set()] * 3


def test_member_that_lost_its_directory_comes_back_as_another(trio: RealCluster) -> None:
    """Under its old id it is not let in; removed and added again it has everything."""
    lost = trio.followers()[0]
    before = trio.member_id(lost.name)
    trio.put(lost.name, b"/lost", b"v")

    lost.kill9()
    lost.wipe()
    lost.process.spawn()
    status = lost.process.wait_exit()
    log = lost.process.log()

    assert status != 0
    assert b"has already been bootstrapped" in log
    client = trio.client(_other(trio, lost).name)
    _remove(client, before)
    trio.leader()
    added = _add(client, lost.place)
    trio.rejoin(lost.name)
    lost.process.start()
    assert trio.member_id(lost.name) == added.ID != before
    assert trio.value(lost.name, b"/lost") == b"v"
    assert set(_members(client)) == {"m1", "m2", "m3"}

"""Membership: what is checked before a change, who may make one, and when it is answered."""

from types import SimpleNamespace
from typing import Any, Final

import pytest
from api.watching import Timers
from google.protobuf.message import Message
from security.lab import MEMBER, Asked, World
from support.raft_cluster import Cluster

from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.model.limits import REQUEST_TIMEOUT_S
from kvsecure.proto import cluster_pb2, state_pb2
from kvsecure.security.membership import Membership

_B, _C, _D, _L, _NEW = 0xB, 0xC, 0xD, 0x1E, 5
_URL: Final = ["https://new:2380"]


def _place(world: World, *voters: int, started: int, learners: tuple[int, ...] = ()) -> None:
    """Declare members; so many of the voters, this one first, have said what they are called."""
    for count, member in enumerate((*voters, *learners)):
        record = state_pb2.Member(
            id=member,
            name=f"m{count}" if count < started else "",
            peer_urls=[f"https://m{member}:2380"],
            is_learner=member in learners,
        )
        world.system(state_pb2.MemberAdd(member=record, learners_max=9), SYSTEM_TENANT)


def _membership(world: World, *active: int, strict: bool = True, timers: Any = None) -> Membership:
    return Membership(
        world.gate,
        wall_ns=world.clock,
        later=(timers or Timers()).later,
        active=lambda: frozenset(active),
        is_strict=strict,
    )


def _asked(world: World, user: str = "root") -> Asked:
    return Asked(world.turn, world.peer(user), b"")


def _add(membership: Membership, world: World, *, learner: bool = False) -> str:
    asked = _asked(world)
    membership.add(asked, cluster_pb2.MemberAddRequest(peerURLs=_URL, isLearner=learner))
    world.turn.end()
    return asked.why


def _remove(membership: Membership, world: World, member: int) -> str:
    asked = _asked(world)
    membership.remove(asked, cluster_pb2.MemberRemoveRequest(ID=member))
    world.turn.end()
    return asked.why


@pytest.mark.parametrize(
    ("voters", "started", "active", "learner", "expected"),
    [
        # One may become two, whoever is there.
        ((MEMBER,), 1, (), False, ""),
        ((MEMBER,), 1, (), True, ""),
        # Two of three have to be there, and started.
        ((MEMBER, _B), 1, (), False, "NOT_ENOUGH_STARTED"),
        ((MEMBER, _B), 2, (), False, "UNHEALTHY"),
        ((MEMBER, _B), 2, (_B,), False, ""),
        # A learner is nobody's quorum, but the links have to work all the same.
        ((MEMBER, _B), 1, (_B,), True, ""),
        ((MEMBER, _B), 2, (), True, "UNHEALTHY"),
        # Three of four.
        ((MEMBER, _B, _C), 3, (_B,), False, "UNHEALTHY"),
        ((MEMBER, _B, _C), 3, (_B, _C), False, ""),
        ((MEMBER, _B, _C), 2, (_B, _C), False, "NOT_ENOUGH_STARTED"),
        # Three of five: one may be down.
        ((MEMBER, _B, _C, _D), 4, (_B, _C), False, ""),
        ((MEMBER, _B, _C, _D), 4, (_B,), False, "UNHEALTHY"),
        # Who is no voter helps nobody.
        ((MEMBER, _B), 2, (_L,), False, "UNHEALTHY"),
    ],
)
def test_a_member_is_added_while_enough_are_there(
    world: World,
    voters: tuple[int, ...],
    started: int,
    active: tuple[int, ...],
    *,
    learner: bool,
    expected: str,
) -> None:
    """A change that could leave the cluster without a quorum is refused, as etcd refuses it."""
    _place(world, *voters, started=started)

    assert _add(_membership(world, *active), world, learner=learner) == expected
    assert len(world.state.members) == len(voters) + (not expected)


@pytest.mark.parametrize(
    ("voters", "started", "active", "removed", "expected"),
    [
        ((MEMBER,), 1, (), MEMBER, "NOT_ENOUGH_STARTED"),
        # Who is not there may go, if the others are enough.
        ((MEMBER, _B), 2, (), _B, ""),
        ((MEMBER, _B), 1, (), _B, ""),
        ((MEMBER, _B), 1, (), MEMBER, "NOT_ENOUGH_STARTED"),
        ((MEMBER, _B), 2, (), MEMBER, "UNHEALTHY"),
        ((MEMBER, _B), 2, (_B,), MEMBER, ""),
        ((MEMBER, _B), 2, (_B,), _B, ""),
        ((MEMBER, _B, _C), 3, (_B,), _C, ""),
        # Who is there is part of the quorum that there is.
        ((MEMBER, _B, _C), 3, (_B,), _B, "UNHEALTHY"),
        ((MEMBER, _B, _C), 3, (_B,), MEMBER, "UNHEALTHY"),
        ((MEMBER, _B, _C), 3, (_B, _C), _B, ""),
        ((MEMBER, _B, _C), 1, (), _C, "NOT_ENOUGH_STARTED"),
        ((MEMBER,), 1, (), _NEW, "MEMBER_NOT_FOUND"),
    ],
)
def test_a_member_is_removed_while_enough_stay(
    world: World,
    voters: tuple[int, ...],
    started: int,
    active: tuple[int, ...],
    removed: int,
    expected: str,
) -> None:
    """Those who stay must be able to go on."""
    _place(world, *voters, started=started)

    assert _remove(_membership(world, *active), world, removed) == expected
    assert len(world.state.members) == len(voters) - (not expected)


def test_a_learner_is_removed_whoever_is_there(world: World) -> None:
    """Nobody's quorum changes by it."""
    _place(world, MEMBER, _B, _C, started=1, learners=(_L,))

    assert _remove(_membership(world), world, _L) == ""


def test_nothing_is_checked_where_that_was_asked_for(world: World) -> None:
    """With `--strict-reconfig-check=false` only what cannot be is refused."""
    _place(world, MEMBER, _B, _C, started=1)
    membership = _membership(world, strict=False)

    assert _add(membership, world) == ""
    assert _remove(membership, world, _B) == ""
    assert _remove(membership, world, _B) == "MEMBER_NOT_FOUND"


# --- promotion ----------------------------------------------------------------------------------


def _with_learner(world: World) -> Cluster:
    """Return a cluster of this member, which leads, another voter and a learner."""
    cluster = Cluster((MEMBER, _B), (_L,))
    cluster.elect(MEMBER)
    world.engine.replica = SimpleNamespace(node=cluster.node(MEMBER))
    _place(world, MEMBER, _B, started=2, learners=(_L,))
    return cluster


def _promote(membership: Membership, world: World, member: int = _L) -> str:
    asked = _asked(world)
    membership.promote(asked, cluster_pb2.MemberPromoteRequest(ID=member))
    world.turn.end()
    return asked.why


def test_a_learner_is_promoted_once_it_is_in_step(world: World) -> None:
    """It has to have nine tenths of what the leader has, and to be heard of."""
    cluster = _with_learner(world)
    membership = _membership(world, _B, _L)
    cluster.cut = {(MEMBER, _L)}
    cluster.propose(MEMBER, *[b"%d" % number for number in range(30)])
    cluster.settle()

    behind = _promote(membership, world)
    cluster.heal()
    cluster.pass_time(3)
    in_step = _promote(membership, world)

    assert (behind, in_step) == ("LEARNER_NOT_READY", "")
    assert world.state.members.voters == tuple(sorted((MEMBER, _B, _L)))


def test_a_learner_that_went_silent_is_not_promoted(world: World) -> None:
    """What it had before it went does not count."""
    cluster = _with_learner(world)
    cluster.pass_time(3)
    cluster.isolate([_L])
    cluster.pass_time(2 * cluster.settings.election_ticks + 1)

    assert _promote(_membership(world, _B), world) == "LEARNER_NOT_READY"


@pytest.mark.parametrize(
    ("member", "expected"), [(_NEW, "MEMBER_NOT_FOUND"), (_B, "MEMBER_NOT_LEARNER")]
)
def test_only_learners_are_promoted(world: World, member: int, expected: str) -> None:
    """Who votes already, or is nobody, is not promoted."""
    _with_learner(world)

    assert _promote(_membership(world, _B), world, member) == expected


def test_a_follower_promotes_a_learner_as_the_leader_says(world: World) -> None:
    """Only the leader knows how far a learner is, and is asked by a member that may be asked."""
    cluster = _with_learner(world)
    asked: list[Any] = []
    world.engine.replica = SimpleNamespace(node=cluster.node(_B))
    world.engine.peering = SimpleNamespace(ask=lambda *question: asked.append(question))
    first, second = _asked(world), _asked(world)
    for each in (first, second):
        _membership(world, _B).promote(each, cluster_pb2.MemberPromoteRequest(ID=_L))

    ((_, question, answered), (_, _, answered_again)) = asked
    answered(0, Refused(Failure.LEARNER_NOT_READY))
    world.turn.end()
    applied = list(world.engine.applied)
    answered_again(0, b"")
    world.turn.end()

    assert question == state_pb2.LearnerReadiness(id=_L)
    assert first.why == "LEARNER_NOT_READY"
    assert applied == []
    assert world.state.members.voters == tuple(sorted((MEMBER, _B, _L)))


def test_a_learner_that_was_never_started_is_not_promoted(world: World) -> None:
    """Its vote would be missed where too few of the others have been started."""
    cluster = Cluster((MEMBER, _B, _C, _D), (_L,))
    cluster.elect(MEMBER)
    cluster.pass_time(3)
    world.engine.replica = SimpleNamespace(node=cluster.node(MEMBER))
    _place(world, MEMBER, _B, _C, _D, started=1, learners=(_L,))

    assert _promote(_membership(world), world) == "NOT_ENOUGH_STARTED"


# --- who, when, and what is said of it ------------------------------------------------------------


def _requests() -> list[tuple[str, Message]]:
    return [
        ("add", cluster_pb2.MemberAddRequest(peerURLs=_URL)),
        ("remove", cluster_pb2.MemberRemoveRequest(ID=_B)),
        ("update", cluster_pb2.MemberUpdateRequest(ID=_B, peerURLs=_URL)),
        ("promote", cluster_pb2.MemberPromoteRequest(ID=_B)),
    ]


@pytest.mark.parametrize(("method", "request_"), _requests(), ids=lambda case: str(case)[:7])
def test_members_are_changed_by_a_root_of_the_cluster(
    world: World, method: str, request_: Message
) -> None:
    """A user is refused before anything is checked that would tell how the cluster is."""
    _place(world, MEMBER, _B, started=1)
    world.user("web")
    world.tenant("acme")
    membership = _membership(world)

    for peer in (world.peer("web"), world.peer("root", "acme")):
        asked = Asked(world.turn, peer, b"")
        getattr(membership, method)(asked, request_)
        world.turn.end()

        assert asked.why == "PERMISSION_DENIED"
    assert world.engine.applied == []


def test_a_right_that_is_lost_on_the_way_is_lost(world: World) -> None:
    """Whoever is no root any more when its change is applied changes nothing."""
    _place(world, MEMBER, _B, started=2)
    asked = _asked(world)
    _membership(world).remove(asked, cluster_pb2.MemberRemoveRequest(ID=_B))
    world.user("other")
    for change in (
        {"name": "other", "roles": ["root"]},
        {"name": "root", "roles": []},
    ):
        user = world.state.accounts.tenant_named("default").users[str(change["name"])]
        del user.roles[:]
        user.roles.extend(change["roles"])
    world.state.accounts.tenant_named("default").changed()
    world.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert _B in world.state.members


def test_a_change_and_its_refusal_are_on_the_record(world: World) -> None:
    """The trail says who asked for what, and what became of it."""
    _place(world, MEMBER, _B, started=2)
    membership = _membership(world, _B)
    _add(membership, world)
    _add(membership, world)

    intents = [each for each in world.records() if each["stage"] == "intent"][-2:]
    outcomes = [each for each in world.records() if each["stage"] == "outcome"][-2:]
    assert [each["op"] for each in intents] == [{"rpc": "MemberAdd", "peerURLs": _URL}] * 2
    assert [each["actor"]["user"] for each in intents] == ["root", "root"]
    # Two that were started are too few for four; the code is etcd's.
    assert [each["result"]["code"] for each in outcomes] == ["OK", "UNKNOWN"]


def test_a_change_is_answered_when_consensus_has_made_it(world: World) -> None:
    """A member that was removed is one until then, and so is a learner that is to be."""
    _place(world, MEMBER, _B, started=2)
    membership = _membership(world, _B)
    asked = _asked(world)
    membership.remove(asked, cluster_pb2.MemberRemoveRequest(ID=_B))
    world.turn.end()
    before = asked.body

    for resume in world.engine.unsettled:
        resume()
    world.turn.end()

    assert before is None
    assert asked.body is not None
    answer = cluster_pb2.MemberRemoveResponse.FromString(asked.body)
    assert [member.ID for member in answer.members] == [MEMBER]


def test_a_voter_is_answered_for_when_it_is_declared(world: World) -> None:
    """Two that were one agree on nothing before the second is there, who waits for the answer."""
    _place(world, MEMBER, started=1)
    asked = _asked(world)
    _membership(world).add(asked, cluster_pb2.MemberAddRequest(peerURLs=_URL))
    world.turn.end()

    assert asked.body is not None
    assert not world.engine.unsettled


def test_nobody_waits_for_ever(world: World) -> None:
    """A change that does not settle is declared all the same; whoever asked is let go, once."""
    _place(world, MEMBER, _B, started=2)
    timers = Timers()
    membership = _membership(world, _B, timers=timers)
    asked = _asked(world)
    membership.remove(asked, cluster_pb2.MemberRemoveRequest(ID=_B))
    world.turn.end()

    timers.forward(REQUEST_TIMEOUT_S)
    world.turn.end()
    late = asked.why
    for resume in world.engine.unsettled:
        resume()
    world.turn.end()

    assert late == asked.why == "TIMEOUT"
    assert _B not in world.state.members

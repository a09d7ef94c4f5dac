"""The introduction: what a member says of itself, once, until the state has it."""

from typing import Final

from security.lab import MEMBER, World

from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import state_pb2
from kvsecure.security.introduction import Introduction

_SAID: Final = ["SigningKeyAdd", "MemberPublish"]


def _introduction(world: World) -> Introduction:
    return Introduction(world.gate, world.token_key, world.turn.schedule)


def _join(world: World) -> None:
    record = state_pb2.Member(id=MEMBER, peer_urls=["https://bench:2380"])
    world.system(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)


def _applied(world: World) -> list[str]:
    return [type(command).__name__ for command in world.engine.applied]


def test_a_member_says_who_it_is_and_what_it_signs_with(world: World) -> None:
    """The state gets its name, its client URLs and its key, on the record, and once."""
    _join(world)
    introduction = _introduction(world)

    introduction.look()
    # Its answer is due: it is not said twice.
    introduction.look()
    world.turn.end()
    introduction.look()
    world.turn.end()

    record = world.state.members.get(MEMBER)
    assert record is not None
    assert (record.name, list(record.client_urls)) == ("bench", list(world.gate.facts.client_urls))
    assert world.state.members.key_of(MEMBER) == world.token_key.raw
    assert _applied(world) == _SAID
    intents = [each for each in world.records() if each["stage"] == "intent"]
    assert [each["op"]["rpc"] for each in intents] == _SAID


def test_nobody_speaks_who_is_no_member(world: World) -> None:
    """A member that is not declared yet, or was removed, says nothing."""
    _introduction(world).look()
    world.turn.end()

    assert _applied(world) == []


def test_what_was_not_taken_is_said_again(world: World) -> None:
    """A full disk costs no record and no word: the next look says it."""
    _join(world)
    introduction = _introduction(world)
    world.engine.refusal = Refused(Failure.NO_SPACE)
    introduction.look()
    world.turn.end()
    before = [each["stage"] for each in world.records()]
    world.engine.refusal = None

    introduction.look()
    world.turn.end()

    assert "intent" not in before
    assert _applied(world) == _SAID


def test_nothing_is_said_while_nobody_leads(world: World) -> None:
    """Without a leader nobody would hear it."""
    _join(world)
    world.engine.has_leader = False

    _introduction(world).look()
    world.turn.end()

    assert _applied(world) == []

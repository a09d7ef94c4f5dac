"""Engines that are members of one cluster, over a network that does what a test says."""

import asyncio
from pathlib import Path

import pytest
from core.cluster_lab import ClusterLab, cluster
from core.engine_lab import EngineLab, eventually, value_of

from kvsecure.core.raft.status import Role
from kvsecure.core.relay_codec import Propose, Proposed, decode
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import MemberId

_MANY = 99


def _is(text: bytes, kind: type) -> bool:
    return text[0] == 0x80 and isinstance(decode(text), kind)


async def _read(member: EngineLab, key: bytes) -> bytes | None:
    """Read a key linearizably at one member."""
    came: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    member.engine.when_readable(
        lambda: came.set_result(value_of(member.state, key)),
        came.set_exception,
    )
    return await asyncio.wait_for(came, 20)


async def _leads_anew(lab: ClusterLab, old: EngineLab) -> EngineLab:
    """Wait until another member than one leads."""
    others = [member for member in lab.members.values() if member is not old]
    await eventually(lambda: any(member.engine.leading.is_own for member in others))
    return next(member for member in others if member.engine.leading.is_own)


def test_every_member_takes_a_write_and_all_apply_it(tmp_path: Path) -> None:
    """A write at any member is answered by it, and is in the state of all of them."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            for number, member in lab.members.items():
                answer = await member.put(b"k%d" % number, b"v")
                assert answer.revision

            await lab.settled()
            for member in lab.members.values():
                assert [value_of(member.state, b"k%d" % n) for n in lab.members] == [b"v"] * 3
                assert member.engine.pending_count == member.engine._pending_bytes == 0

    asyncio.run(act())


def test_member_that_is_behind_catches_up_in_turns(tmp_path: Path) -> None:
    """What it has to apply and nobody waits for here is applied bit by bit all the same."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            leader, behind = lab.leader, lab.followers[0]
            behind.held = []
            behind.glance_ns = 6_000_000
            told = [leader.submit_put(b"k%02d" % n, b"v") for n in range(_MANY)]
            leader.engine.end_turn()
            await asyncio.gather(*told)
            newest = leader.state.store.revision
            turns = 0
            while behind.state.store.revision < newest:
                await eventually(lambda: behind.held or behind.state.store.revision == newest)
                turns += 1
                steps, behind.held = behind.held, []
                for step in steps:
                    step()

            assert turns > 2

    asyncio.run(act())


def test_read_at_any_member_sees_what_was_answered_at_another(tmp_path: Path) -> None:
    """A linearizable read at any member sees every write that was answered before it."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            members = list(lab.members.values())
            for number in range(30):
                await members[number % 3].put(b"k", b"%d" % number)
                assert await _read(members[(number + 1) % 3], b"k") == b"%d" % number

    asyncio.run(act())


def test_member_that_is_cut_off_answers_no_read_and_no_write(tmp_path: Path) -> None:
    """A leader without a majority answers nothing linearizable; what it took may be lost."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            old = lab.leader
            await old.put(b"k", b"before")
            lab.cut(old.engine.replica.node.member)
            told = old.submit_put(b"k", b"lost")
            old.engine.end_turn()
            reading = asyncio.ensure_future(_read(old, b"k"))
            leader = await _leads_anew(lab, old)
            await leader.put(b"k", b"after")

            assert not told.done()
            assert not reading.done()
            lab.cut()
            outcome = await asyncio.wait_for(told, 20)
            assert isinstance(outcome, Refused)
            assert outcome.failure is Failure.TIMEOUT_LEADER_LOST
            assert await reading == b"after"
            await lab.settled()
            assert value_of(old.state, b"k") == b"after"

    asyncio.run(act())


def test_member_that_is_cut_off_is_out_of_touch_until_it_is_not(tmp_path: Path) -> None:
    """Who leads and who follows knows within seconds that no majority is there, and that it is."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            members = [lab.leader, lab.followers[0]]
            await eventually(lambda: all(member.engine.is_in_touch() for member in members))
            lab.cut(*lab.members)
            for member in members:
                # As seconds go by.
                member.forward_ns += 4_000_000_000
            await eventually(lambda: not any(m.engine.has_leader for m in members))
            assert not any(member.engine.is_in_touch() for member in members)

            lab.cut()
            await eventually(lambda: all(member.engine.is_in_touch() for member in members))

    asyncio.run(act())


def test_write_that_waits_for_a_leader_is_carried_out_once(tmp_path: Path) -> None:
    """What a member takes while nobody leads goes to whoever does next, and once."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            old, member = lab.leader, lab.followers[0]
            lab.cut(*lab.members)
            await eventually(lambda: not member.engine.has_leader)
            told = member.submit_put(b"k", b"v")
            member.engine.end_turn()
            lab.cut(old.engine.replica.node.member)

            outcome = await asyncio.wait_for(told, 20)

            assert isinstance(outcome, Answer)
            lab.cut()
            await lab.settled()
            assert member.state.store.revision == outcome.revision

    asyncio.run(act())


def test_write_whose_leader_is_lost_is_finished_once_another_leads(tmp_path: Path) -> None:
    """Who waits for a leader's answer that never comes is told that the leader was lost."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            old, member = lab.leader, lab.followers[0]
            lab.loses = lambda _sender, _receiver, text: _is(text, Propose) or _is(text, Proposed)
            told = member.submit_put(b"k", b"v")
            member.engine.end_turn()
            lab.cut(old.engine.replica.node.member)

            outcome = await asyncio.wait_for(told, 20)

            assert isinstance(outcome, Refused)
            assert outcome.failure is Failure.TIMEOUT_LEADER_LOST
            assert member.engine.pending_count == 0

    asyncio.run(act())


def test_write_whose_way_is_lost_is_finished_while_the_leader_goes_on(tmp_path: Path) -> None:
    """Not at once, for the leader may be gone; but it is told once it is heard again."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            leader, member = lab.leader.engine.replica.node.member, lab.followers[0]
            lab.loses = lambda _sender, _receiver, text: _is(text, Propose)
            told = member.submit_put(b"k", b"v")
            member.engine.end_turn()

            member.engine.peering.lost(leader)
            is_told_at_once = told.done()
            outcome = await asyncio.wait_for(told, 5)

            assert not is_told_at_once
            assert isinstance(outcome, Refused)
            assert outcome.failure is Failure.TIMEOUT_LEADER_LOST

    asyncio.run(act())


def test_member_whose_leader_is_gone_stands_without_waiting(tmp_path: Path) -> None:
    """Once no connection to the leader is left, two ticks are enough; one to another is nothing."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            gone = lab.leader.engine.replica.node.member
            first, second = (member.engine for member in lab.followers)
            lab.cut(gone)

            first.peering.parted(second.replica.node.member)
            second.peering.parted(gone)
            for node in (first.replica.node, second.replica.node):
                node.tick()
                node.tick()

            assert first.replica.node.role is Role.FOLLOWER
            assert second.replica.node.role is Role.PRE_CANDIDATE

    asyncio.run(act())


def test_command_that_nobody_was_asked_for_is_finished_when_its_time_is_up(tmp_path: Path) -> None:
    """What waits for a leader in vain is refused, and no longer counted as under way."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            member = lab.followers[0]
            lab.cut(*lab.members)
            await eventually(lambda: not member.engine.has_leader)
            settled = asyncio.Event()
            told = member.submit_put(b"k", b"v")
            member.engine.end_turn()
            member.engine.when_settled(settled.set)
            assert not settled.is_set()

            member.forward_ns += 8_000_000_000
            await asyncio.wait_for(settled.wait(), 20)

            outcome = await asyncio.wait_for(told, 20)
            assert isinstance(outcome, Refused)
            assert outcome.failure is Failure.TIMEOUT

    asyncio.run(act())


def test_leader_hands_over_when_it_is_told_to(tmp_path: Path) -> None:
    """Handing over ends when the other leads, and only a voter can be handed over to."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            old, heir = lab.leader, lab.followers[0]
            to = heir.engine.replica.node.member

            await old.engine.leading.move(to)

            assert old.engine.replica.node.leader == to
            await eventually(lambda: heir.engine.leading.is_own)
            await old.put(b"k", b"v")
            with pytest.raises(Refused) as refused:
                await old.engine.leading.move(MemberId(99))
            assert refused.value.failure is Failure.NOT_LEADER
            with pytest.raises(Refused) as refused:
                await heir.engine.leading.move(MemberId(99))
            assert refused.value.failure is Failure.BAD_LEADER_TRANSFEREE

    asyncio.run(act())


def test_any_bytes_from_a_member_leave_the_others_as_they_are(tmp_path: Path) -> None:
    """What is not a message is counted and passed over, and so is one in another one's name."""

    async def act() -> None:
        async with cluster(tmp_path, 3) as lab:
            await lab.leader.put(b"k", b"v")
            leader = lab.leader
            sample = [(sender, text) for sender, _, text in lab.said]
            for sender, text in sample[-50:]:
                for bad in (text[:-1], text + b"x", b"", b"\x80", bytes(len(text))):
                    leader.engine.peering.take(sender, bad)
                leader.engine.peering.take(MemberId(77), text)

            await leader.put(b"k", b"w")
            assert leader.engine.peering.damaged > 50
            assert await _read(leader, b"k") == b"w"

    asyncio.run(act())

"""Certificates, authorities and revocation lists of members are exchanged while they talk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from server.peers.lab import Lab, Member, play, until

from kvsecure.pki.authority import create_authority


@asynccontextmanager
async def _talk(*members: Member) -> AsyncIterator[None]:
    """Let members send numbered messages to each other all the time."""

    async def say() -> None:
        number = 0
        while True:
            for member in members:
                for other in members:
                    if other is not member:
                        member.links.send(other.id, b"%d" % number)
            number += 1
            await asyncio.sleep(0.001)

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying


async def _more(*members: Member) -> None:
    """Wait until every member has heard fifty more messages of each other one."""
    marks = {
        (member.id, other.id): len(member.heard(other.id)) + 50
        for member in members
        for other in members
        if other is not member
    }
    await until(
        lambda: all(
            len(member.heard(other.id)) >= marks[member.id, other.id]
            for member in members
            for other in members
            if other is not member
        ),
        "messages to flow",
    )


def _in_order(member: Member, sender: int) -> bool:
    numbers = [int(message) for message in member.heard(sender)]
    return numbers == sorted(set(numbers))


def test_everything_is_exchanged_under_traffic_and_no_link_is_cut(tmp_path: Path) -> None:
    """Leafs, authority and lists of all members, one after another: nobody loses a message."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            members = await lab.three()
            since = [member.links.up_since_s(other.id) for member in members for other in members]
            second = create_authority(tmp_path / "second", "c1")
            async with _talk(*members):
                lab.publish(lab.authority, second)
                lab.trust(lab.authority, second)
                for member in members:
                    lab.show(member.own.name, second)
                await until(
                    lambda: all(
                        each.credentials is not None and each.credentials.counts.reloads >= 1
                        for each in members
                    ),
                    "the files to be taken up",
                )
                await _more(*members)

                assert since == [
                    member.links.up_since_s(other.id) for member in members for other in members
                ]
                for member in members:
                    assert (member.cuts, member.refused) == ([], [])
                    assert member.links.counts.of(1).sent_failures == 0
                    assert all(_in_order(member, other.id) for other in members)

                # The old authority goes: so do the links that it opened, and new ones replace them.
                lab.trust(second)
                await until(lambda: sum(len(each.cuts) for each in members) >= 6, "the cuts")
                for member in members:
                    await member.reaches(*(other for other in members if other is not member))
                await _more(*members)

                reasons = {reason for member in members for _, reason in member.cuts}
                assert reasons == {"authority not trusted"}

    play(scene())


def test_revoked_member_is_cut_when_the_list_is_taken_up(tmp_path: Path) -> None:
    """In the same turn, in both directions; it is counted, recorded, and not let in again."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second = await lab.member(1), await lab.member(2)
            serial = lab.show("m3")
            third = await lab.member(3)
            members = (first, second, third)
            for member in members:
                member.knows(*members)
            for member in members:
                await member.reaches(*(other for other in members if other is not member))
            assert first.credentials is not None
            lab.revoke(serial)
            await until(lambda: first.cuts, "the cuts")
            # Both were cut in one turn: the one in which the list came into force.
            assert len(first.cuts) == 2
            await until(lambda: (3, False) in first.changes, "the link to be down")
            await until(lambda: (3, False) in second.changes, "the other's link to be down")
            before = len(first.messages)
            await until(lambda: first.links.counts.refused, "the third to knock")

            assert {who for who, _ in first.cuts} == {3}
            assert {reason for _, reason in first.cuts} == {"certificate revoked"}
            assert first.credentials.counts.cut == {"certificate revoked": 2}
            assert first.links.active == {2}
            assert second.links.active == {1}
            assert len(first.messages) == before
            assert any("revoked" in reason for reason in first.refused)

    play(scene())


def test_link_ends_with_the_certificate_that_opened_it(tmp_path: Path) -> None:
    """At the first look after its last second, by the clock; with a new one it comes back."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            second = await lab.member(2, ttl=timedelta(hours=1))
            first.knows(second)
            second.knows(first)
            await first.reaches(second)
            await second.reaches(first)
            assert second.credentials is not None
            ends_s = second.credentials.expires_s

            first.clock.ahead_s = ends_s - first.clock.now().timestamp() + first.clock.ahead_s - 5
            first.links.tick()
            assert first.cuts == []
            first.clock.ahead_s += 6
            first.links.tick()

            assert first.cuts == [(2, "certificate expired")] * 2
            await until(lambda: (2, False) in first.changes, "the end")

    play(scene())

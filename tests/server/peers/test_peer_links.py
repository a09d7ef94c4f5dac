"""Links between members: who is reached, in which order, and what is dropped."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from server.peers.deaf import Deaf
from server.peers.lab import Lab, Member, play, until

from kvsecure.model.limits import (
    PEER_MESSAGE_BYTES_MAX,
    PEER_QUEUE_BYTES_MAX,
    PEER_QUEUE_MESSAGES_MAX,
)
from kvsecure.server.peers import BulkFailed, PeerAddress
from kvsecure.server.peers.framing import Kind
from kvsecure.server.peers.hello import Refusal


@pytest.mark.parametrize("is_plain", [False, True], ids=["tls", "plaintext"])
def test_messages_between_three_members_arrive_in_order(tmp_path: Path, *, is_plain: bool) -> None:
    """Each member hears each other one, every message once, in the order in which it was sent."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            members = await lab.three(is_plain=is_plain)
            sent = [b"%d" % number * (1 + number % 700) for number in range(1_000)]

            for message in sent:
                for member in members:
                    for other in members:
                        if other is not member:
                            assert member.links.send(other.id, message)

            for member in members:
                for other in members:
                    if other is not member:
                        await until(lambda m=member, o=other: len(m.heard(o.id)) == 1_000, "all")
                        assert member.heard(other.id) == sent

    play(scene())


def test_largest_message_arrives_whole_and_a_larger_one_is_not_taken(tmp_path: Path) -> None:
    """A message has one byte at least, and as many as the bound at most."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three(is_plain=True)
            largest = bytes(range(256)) * (PEER_MESSAGE_BYTES_MAX // 256)

            assert first.links.send(second.id, largest)
            await until(lambda: second.messages, "the message")

            assert second.messages == [(first.id, largest)]
            for wrong in (b"", largest + b"x"):
                with pytest.raises(ValueError, match="a message has 1 to"):
                    first.links.send(second.id, wrong)

    play(scene())


def test_member_is_gone_when_no_connection_is_left_either_way(tmp_path: Path) -> None:
    """One that broke says little; with the last one, it is told once who is gone."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()

            (to_first,) = [
                channel
                for channel in second.links._setting.channels
                if channel.member == first.id and channel.source is None
            ]
            to_first.abort("broken by the test")
            await until(lambda: (first.id, False) in second.changes, "the second to notice")
            after_one = list(second.parted)
            first.links.close()
            await until(lambda: first.id in second.parted, "the last connection to break")
            await until(lambda: first.id in third.parted, "the third to notice")

            assert after_one == []
            assert (second.parted, third.parted) == ([first.id], [first.id])

    play(scene())


def test_member_that_is_removed_is_cut_at_once_in_both_directions(tmp_path: Path) -> None:
    """Nothing it says is heard any more, nothing is sent to it, and the others are not touched."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()
            second.knows(first)
            before = len(second.messages)

            assert not second.links.send(third.id, b"late")
            third.links.send(second.id, b"late")
            await until(lambda: (second.id, False) in third.changes, "the third to notice")
            first.links.send(second.id, b"still here")
            await until(lambda: len(second.messages) > before, "the first")

            assert second.messages[before:] == [(first.id, b"still here")]
            assert (first.id, False) not in second.changes

    play(scene())


def test_member_that_was_removed_is_told_so(tmp_path: Path) -> None:
    """It keeps knocking, and hears that it is no member, and that it was one."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()

            first.links.set_peers({second.id: second.address}, frozenset({third.id}))
            await until(lambda: (first.id, Refusal.REMOVED) in third.refused_by, "the word")
            second.links.set_peers({first.id: first.address})
            await until(lambda: (second.id, Refusal.STRANGER) in third.refused_by, "the other")

            assert first.links.counts.refused["removed from the cluster"] >= 1

    play(scene())


def test_member_that_comes_back_elsewhere_is_reached_by_its_new_address(tmp_path: Path) -> None:
    """A link that works is kept when addresses change; the new ones count when it breaks."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            moved = await lab.member(9, second.own.name)
            since = first.links.up_since_s(second.id)
            first.links.set_peers(
                {second.id: PeerAddress(second.own.name, ("https://127.0.0.1:1", second.url))}
            )
            assert first.links.up_since_s(second.id) == since

            second.links.close()
            moved.links.close()
            again = await lab.member(second.id, second.own.name)
            again.knows(first)
            first.links.set_peers({second.id: again.address})
            await until(lambda: first.links.up_since_s(second.id) not in (None, since), "it")

            assert first.changes.count((second.id, False)) == 1
            assert first.links.counts.of(second.id).disconnections == 1

    play(scene())


def test_addresses_are_tried_one_after_another(tmp_path: Path) -> None:
    """One address that leads nowhere does not keep a member from being reached by the next."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second = await lab.member(1), await lab.member(2)
            second.knows(first)
            urls = ("https://127.0.0.1:1", "http://127.0.0.1:1", "nonsense", second.url)

            first.links.set_peers({2: PeerAddress("m2", urls)})

            await first.reaches(second)

    play(scene())


def test_nothing_waits_for_a_member_that_is_not_there(tmp_path: Path) -> None:
    """What cannot be sent is dropped and counted, and the caller is told; so is a stranger's."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            first.links.set_peers({2: PeerAddress("m2", ("https://127.0.0.1:1",))})

            assert not first.links.send(2, b"x")
            assert not first.links.send(7, b"x")

            assert first.links.counts.of(2).sent_failures == 1
            assert first.links.known == {2}
            assert first.links.active == frozenset()

    play(scene())


async def _deaf(lab: Lab, first: Member) -> None:
    """Make a member's peer one that reads nothing after its welcome."""
    deaf = await Deaf.start(lab, 2, first)
    first.links.set_peers({2: deaf.address})
    await until(lambda: 2 in first.links.active, "the deaf one")


@pytest.mark.parametrize(
    ("size_bytes", "waiting_max"),
    [(1, PEER_QUEUE_MESSAGES_MAX), (1 << 20, PEER_QUEUE_BYTES_MAX >> 20)],
    ids=["many", "large"],
)
def test_queue_of_a_peer_that_does_not_read_is_bounded(
    tmp_path: Path, size_bytes: int, waiting_max: int
) -> None:
    """By count and by bytes; what does not fit is dropped and counted, and sending never waits."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            await _deaf(lab, first)
            link = first.links._links[2]
            message = bytes(size_bytes)

            # Until the kernel takes no more, and then until the queue does not.
            filling = bytes(1 << 20)
            while link._channel is not None and link._channel.is_writable:
                first.links.send(2, filling)
                await asyncio.sleep(0)
            dropped = first.links.counts.of(2).sent_failures
            while first.links.send(2, message):
                pass
            dropped += 1

            assert len(link._queue) == waiting_max
            assert not first.links.send(2, message)
            assert first.links.counts.of(2).sent_failures == dropped + 1
            assert link._channel is not None
            assert link._channel.unsent_bytes < 4 << 20

    play(scene())


def test_peer_that_answers_no_ping_is_gone_whatever_its_socket_says(tmp_path: Path) -> None:
    """A half-open connection is noticed in the time that the settings of consensus give."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            await _deaf(lab, first)
            first.pass_time(0.2)
            assert first.changes == [(2, True)]

            first.pass_time(3.3)
            await until(lambda: (2, False) in first.changes, "the end of the link")

    play(scene())


def test_member_that_was_away_itself_holds_nobody_for_gone(tmp_path: Path) -> None:
    """Whoever was stopped for a minute reads what came meanwhile before it judges."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            changes = list(first.changes)
            channels = list(first.links._setting.channels)

            # With pings under way.
            first.links.tick()
            first.clock.ahead_s += 60
            first.links.tick()
            assert len(channels) == 4
            assert not any(channel.is_over for channel in channels)
            first.links.send(second.id, b"on")
            await until(lambda: second.messages, "the message")

            assert first.changes == changes

    play(scene())


def test_round_trips_and_bytes_are_counted_on_both_sides(tmp_path: Path) -> None:
    """What one has sent the other has received; pings are answered and timed."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            to, since = first.links.counts.of(2), first.links.up_since_s(2)
            for _ in range(100):
                first.links.send(2, bytes(1_000))
            await until(lambda: len(second.messages) == 100, "the messages")
            await until(lambda: sum(to.round_trip.view().counts) > 3, "round trips")

            came = second.links.counts.of(1)
            assert came.received_messages == to.sent_messages == 100
            assert came.received_bytes > 100_000
            assert to.sent_bytes > 100_000
            assert to.sent_failures == to.disconnections == 0
            assert first.links.up_since_s(2) == since
            assert first.links.active == {2, 3}

    play(scene())


def test_newest_connection_of_a_member_stays(tmp_path: Path) -> None:
    """A member that has lost its old connection, and knows it, is not kept out by it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            first.links.set_peers({2: PeerAddress("m2", ())})
            old = await lab.guest(first, 2, "m2")
            (channel,) = first.links._setting.channels
            new = await lab.guest(first, 2, "m2")

            assert channel.is_over
            assert await old.end() is None
            new.say(Kind.MESSAGE, b"new")
            await until(lambda: first.messages, "the message")

            assert first.messages == [(2, b"new")]

    play(scene())


@pytest.mark.parametrize("url", ["http://0.0.0.0:0", "http://10.1.2.3:0", "https://127.0.0.1:0"])
def test_plaintext_is_for_loopback_alone(tmp_path: Path, url: str) -> None:
    """Without certificates a member listens on loopback, in plaintext, and nowhere else."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            plain = await lab.member(1, is_plain=True)

            with pytest.raises(ValueError, match=r"certificates|loopback"):
                await plain.links.listen([url])

    play(scene())


def test_member_with_certificates_speaks_no_plaintext(tmp_path: Path) -> None:
    """Neither where it listens nor where it dials, whatever a URL says."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            plain = await lab.member(2, is_plain=True)
            plain.knows(first)
            with pytest.raises(ValueError, match="do not speak plaintext"):
                await first.links.listen(["http://127.0.0.1:0"])

            first.knows(plain)
            link = first.links._links[2]
            await until(lambda: link._failures > 2, "some attempts")

            assert link._trouble == "plaintext was not asked for"
            assert first.links.active == plain.links.active == frozenset()

    play(scene())


def test_attempts_are_further_and_further_apart(tmp_path: Path) -> None:
    """Up to an election, with chance in it; a member that shows up is dialled soon."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            timing = first.links._setting.timing
            dice = first.links._setting.dice

            pauses = [timing.pause_s(failures, dice) for failures in range(1, 40)]
            first.links.set_peers({2: PeerAddress("m2", ("https://127.0.0.1:1",))})
            link = first.links._links[2]
            await until(lambda: link._failures > 6, "failures")
            assert link._retry_s - first.clock() > 0.1
            await lab.guest(first, 2, "m2")

            assert link._retry_s - first.clock() < 0.05
            assert all(0.5 * 0.02 <= pause <= 1.0 for pause in pauses)
            assert len(set(pauses[10:])) == len(pauses[10:])
            assert min(pauses[10:]) >= 0.5

    play(scene())


def test_member_that_stops_leaves_nothing_open(tmp_path: Path) -> None:
    """What was being opened meanwhile ends too, and nothing is dialled any more."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()

            async def nothing() -> AsyncIterator[bytes]:
                await asyncio.Event().wait()
                yield b""

            sending = asyncio.create_task(first.links.send_bulk(2, b"s", nothing()))
            await asyncio.sleep(0)
            first.links.close()
            with pytest.raises(BulkFailed, match="the member stops"):
                await sending
            await until(lambda: (1, False) in second.changes, "the others to notice")

            first.pass_time(5)
            assert first.links._setting.channels == set()
            assert first.links.active == frozenset()
            assert first.links._reception._places._count == 0

    play(scene())

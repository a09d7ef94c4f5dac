"""Whatever comes to a member's peer port costs one connection at most."""

import asyncio
import contextlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server.peers.lab import Lab, Member, Stranger, play, until

from kvsecure.model.limits import PEER_MESSAGE_BYTES_MAX
from kvsecure.pki.profiles import ProfileName
from kvsecure.server.peers import PeerAddress
from kvsecure.server.peers.framing import FRAME_HEAD, Kind, frame
from kvsecure.server.peers.hello import Purpose, Refusal
from kvsecure.server.places import PlaceBounds

_HELLO_S = 5.0
_KINDS = st.sampled_from(Kind)


async def _alone(lab: Lab, *, is_plain: bool = False) -> Member:
    """Start a member that knows of two others."""
    first = await lab.member(1, is_plain=is_plain)
    first.links.set_peers({2: PeerAddress("m2", ()), 3: PeerAddress("m3", ())})
    return first


def test_whoever_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """A hello has a deadline, however slowly its bytes come; it is counted and recorded."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            pair = lab.issue(ProfileName.PEER, "m2")
            silent, slow = await lab.stranger(first, pair), await lab.stranger(first, pair)
            hello = frame(Kind.HELLO, Stranger.hello(first, 2, "m2").encode())
            await until(lambda: len(first.links._setting.channels) == 2, "both")

            for at in range(len(hello) - 1):
                slow.send(hello[at : at + 1])
                await asyncio.sleep(0)
                first.pass_time(_HELLO_S / len(hello))
            first.pass_time(1)

            assert await silent.end() is Refusal.LATE
            assert await slow.end() is Refusal.LATE
            assert first.refused == ["no hello in time"] * 2

    play(scene())


def test_hello_may_come_byte_by_byte(tmp_path: Path) -> None:
    """Slow is not wrong."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, "m2"))

            for byte in frame(Kind.HELLO, Stranger.hello(first, 2, "m2").encode()):
                stranger.send(bytes((byte,)))
                await stranger.drain()
                await asyncio.sleep(0)

            assert (await stranger.hear())[0] == Kind.WELCOME

    play(scene())


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        FRAME_HEAD.pack(1_025, Kind.HELLO),
        frame(Kind.MESSAGE, b"hello"),
        frame(Kind.HELLO),
        frame(Kind.HELLO, b"kvsp" + bytes(60)),
        frame(Kind.WELCOME, bytes(40)),
        FRAME_HEAD.pack(0, 99),
    ],
)
def test_first_bytes_that_are_no_hello_end_the_connection(tmp_path: Path, content: bytes) -> None:
    """They are told so, counted and recorded; nobody else notices."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            other = await lab.guest(first, 3, "m3")
            stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, "m2"))

            stranger.send(content)

            assert await stranger.end() is Refusal.MALFORMED
            (reason,) = first.refused
            assert reason.startswith("malformed frames: ")
            other.say(Kind.MESSAGE, b"x")
            await until(lambda: first.messages == [(3, b"x")], "the other's message")

    play(scene())


@pytest.mark.parametrize(
    "content",
    [
        FRAME_HEAD.pack(PEER_MESSAGE_BYTES_MAX + 1, Kind.MESSAGE),
        FRAME_HEAD.pack(2**32 - 1, Kind.MESSAGE),
        frame(Kind.MESSAGE),
        frame(Kind.PING, b"short"),
        frame(Kind.PONG, bytes(8)),
        frame(Kind.PIECE, b"x"),
        frame(Kind.HELLO, b"again"),
    ],
)
def test_member_that_breaks_the_protocol_loses_its_connection(
    tmp_path: Path, content: bytes
) -> None:
    """What it said before counts; what is wrong is counted as received from it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            guest = await lab.guest(first, 2, "m2")
            guest.say(Kind.MESSAGE, b"good")
            await until(lambda: first.messages, "the good one")

            guest.send(content)

            assert await guest.end() is Refusal.MALFORMED
            assert first.messages == [(2, b"good")]
            assert first.links.counts.of(2).received_failures == 1

    play(scene())


@settings(max_examples=40)
@given(
    is_greeted=st.booleans(),
    purpose=st.sampled_from(Purpose),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.tuples(_KINDS, st.binary(max_size=60)).map(lambda each: frame(*each)),
            st.just(frame(Kind.PING, bytes(8))),
            st.just(frame(Kind.SUBJECT, b"s") + frame(Kind.PIECE, b"p")),
        ),
        max_size=6,
    ),
)
def test_any_bytes_leave_the_member_as_it_is(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    is_greeted: bool,
    purpose: Purpose,
    parts: list[bytes],
) -> None:
    """With a hello before them or without: others are heard, and nothing has failed here."""

    async def scene() -> None:
        async with Lab(tmp_path_factory.mktemp("fuzz")) as lab:
            first = await _alone(lab, is_plain=True)
            other = await lab.stranger(first, None)
            other.say(Kind.HELLO, Stranger.hello(first, 3, "m3").encode())
            stranger = await lab.stranger(first, None)
            if is_greeted:
                stranger.say(Kind.HELLO, Stranger.hello(first, 2, "m2", purpose).encode())

            for part in parts:
                stranger.send(part)
                await asyncio.sleep(0)
            other.say(Kind.MESSAGE, b"x")
            await until(lambda: first.heard(3) == [b"x"], "the other's message")
            stranger.abort()
            await until(lambda: len(first.links._setting.channels) == 1, "it to be gone")

            assert lab.ended == []
            assert all(reason.startswith("malformed frames: ") for reason in first.refused)

    play(scene())


def test_mistake_of_ours_over_a_message_costs_one_connection(tmp_path: Path) -> None:
    """Whatever consensus raises, the member and its other links go on."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            bad, good = await lab.guest(first, 2, "m2"), await lab.guest(first, 3, "m3")
            keep = first.links._guests.on_message

            def stumble(sender: int, message: bytes) -> None:
                if message == b"bad":
                    raise KeyError(message)
                keep(sender, message)

            first.links._guests.on_message = stumble
            bad.say(Kind.MESSAGE, b"bad")
            bad.say(Kind.MESSAGE, b"never")
            assert await bad.end() is None
            good.say(Kind.MESSAGE, b"good")
            await until(lambda: first.messages, "the other's")

            assert first.messages == [(3, b"good")]
            assert lab.ended == []

    play(scene())


def test_flood_of_one_member_leaves_the_others_their_turns(tmp_path: Path) -> None:
    """While one sends as much as it can, another's message waits for no more than a few shares."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            loud, quiet = await lab.guest(first, 2, "m2"), await lab.guest(first, 3, "m3")
            heard_bytes: list[int] = []
            flood = frame(Kind.MESSAGE, bytes(995)) * 4_000

            async def shout() -> None:
                while True:
                    loud.send(flood)
                    await loud.drain()

            shouting = asyncio.create_task(shout())
            for number in range(20):
                await until(lambda: len(first.heard(2)) > 1_000, "the flood")
                first.messages.clear()
                quiet.say(Kind.MESSAGE, b"%d" % number)
                await until(lambda: first.heard(3), "the quiet one")
                heard_bytes.append(sum(len(message) for who, message in first.messages if who == 2))
            shouting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shouting

            # All that the flood has sent before the quiet one is 4 MB and more.
            assert sorted(heard_bytes)[10] < 2 << 20

    play(scene())


def test_connection_takes_in_a_share_a_turn(tmp_path: Path) -> None:
    """However much has come of one, it waits behind the others' once it had its share."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab, is_plain=True)
            guest = await lab.stranger(first, None)
            guest.say(Kind.HELLO, Stranger.hello(first, 2, "m2").encode())
            await guest.hear()
            (channel,) = first.links._setting.channels
            turns: list[int] = []
            content = frame(Kind.MESSAGE, bytes(1_019)) * 64

            for _ in range(8):
                channel.data_received(content)
            turns.append(len(first.messages))
            while len(first.messages) < 512:
                await asyncio.sleep(0)
                turns.append(len(first.messages))

            # Two reads of 64 messages, which are a share, and the one that goes beyond it.
            assert turns[0] == 192
            assert max(b - a for a, b in pairwise(turns)) <= 320
            await until(lambda: not channel._is_waiting, "its next turn")

    play(scene())


def test_peer_that_asks_and_does_not_read_is_ended(tmp_path: Path) -> None:
    """Answers to pings do not pile up for it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            guest = await lab.guest(first, 2, "m2")
            guest.pause()
            pings = frame(Kind.PING, bytes(8)) * 5_000
            (channel,) = first.links._setting.channels
            most = 0

            while not channel.is_over:
                guest.send(pings)
                await asyncio.sleep(0)
                if not channel.is_over:
                    most = max(most, channel.unsent_bytes)

            assert most < 4 << 20

    play(scene())


def test_places_of_the_peer_port_are_bounded(tmp_path: Path) -> None:
    """Connections and handshakes are refused before anything is spent on them, and counted."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            places = PlaceBounds(
                connections_max=6, per_local_source_max=5, handshakes_per_local_source_max=3
            )
            first = await lab.member(1, places=places)
            first.links.set_peers({2: PeerAddress("m2", ())})
            member = await lab.guest(first, 2, "m2")
            idle = [await asyncio.open_connection("127.0.0.1", first.port) for _ in range(10)]
            lab.closers.extend(writer.close for _, writer in idle)

            await until(lambda: sum(first.links.refusals.counts.values()) == 7, "the refusals")
            member.say(Kind.MESSAGE, b"still here")
            await until(lambda: first.messages, "the member's message")

    play(scene())


def test_handshake_has_a_deadline(tmp_path: Path) -> None:
    """Whoever connects and shakes no hands is not waited for, and gives its place back."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _alone(lab)
            first.links._reception._handshake_s_max = 0.05
            _, writer = await asyncio.open_connection("127.0.0.1", first.port)
            lab.closers.append(writer.close)

            await until(lambda: first.refused, "the end of the handshake")

            assert first.refused == ["handshake timeout"]
            assert first.links._reception._places._count == 0

    play(scene())

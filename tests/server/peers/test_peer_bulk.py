"""Bulk streams: whole or failed, at the pace of their consumer, and out of the way of messages."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from server.peers.deaf import Deaf
from server.peers.lab import Lab, Member, Stranger, play, until

from kvsecure.model.limits import PEER_BULK_HELD_BYTES_MAX, PEER_PIECE_BYTES_MAX
from kvsecure.pki.profiles import ProfileName
from kvsecure.server.peers import BulkFailed, PeerAddress
from kvsecure.server.peers.framing import Kind, frame
from kvsecure.server.peers.hello import Purpose, Refusal

_PIECE = bytes(range(256)) * 1_024


class _Source:
    """Pieces, and how many of them were asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.asked = 0

    def __aiter__(self) -> "_Source":
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def _send(first: Member, second: Member, source: AsyncIterator[bytes]) -> "asyncio.Task[None]":
    progress: list[int] = []
    return asyncio.create_task(first.links.send_bulk(second.id, b"s", source, progress.append))


def test_stream_arrives_whole_and_its_end_is_known_on_both_sides(tmp_path: Path) -> None:
    """Whatever the sizes of its pieces; progress only grows, to the whole."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            pieces = [b"a", b"", _PIECE * 9, b"z" * PEER_PIECE_BYTES_MAX, b"end"]
            progress: list[int] = []

            await first.links.send_bulk(second.id, b"snapshot 7", _Source(pieces), progress.append)

            assert second.streams == [(b"snapshot 7", bytearray(b"".join(pieces)))]
            assert second.stream_ends == [""]
            assert progress == sorted(progress)
            assert progress[-1] == sum(map(len, pieces))
            sent, came = first.links.counts.of(2), second.links.counts.of(1)
            assert (sent.bulk_sent, sent.bulk_send_failures, sent.bulk_sending) == (1, 0, 0)
            assert (came.bulk_received, came.bulk_receive_failures) == (1, 0)
            assert sum(sent.bulk_send.view().counts) == sum(came.bulk_receive.view().counts) == 1

    play(scene())


def test_empty_stream_is_a_stream(tmp_path: Path) -> None:
    """Its end is all there is to it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three(is_plain=True)

            await first.links.send_bulk(2, b"", _Source([]))

            assert second.streams == [(b"", bytearray())]

    play(scene())


def test_heartbeats_do_not_wait_behind_a_stream(tmp_path: Path) -> None:
    """While a consumer takes nothing, messages both ways arrive in order, and no more is held."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            second.gate = asyncio.Semaphore(0)
            source = _Source([_PIECE] * 200)
            sending = _send(first, second, source)
            await until(lambda: second.streams, "the stream to begin")
            # Until nothing moves any more: the consumer is what is waited for.
            asked = -1
            while asked != source.asked:
                asked = source.asked
                for _ in range(50):
                    await asyncio.sleep(0.002)
            assert asked < 200

            for number in range(500):
                assert first.links.send(2, b"%d" % number)
                assert second.links.send(1, b"%d" % number)
            await until(lambda: len(second.messages) == len(first.messages) == 500, "heartbeats")
            assert second.heard(1) == first.heard(2) == [b"%d" % number for number in range(500)]
            assert second.streams[0][1] == b""
            (arrival,) = [
                guest._arrival for guest in second.links._guests._guests if guest._arrival
            ]
            assert arrival._held_bytes <= PEER_BULK_HELD_BYTES_MAX + PEER_PIECE_BYTES_MAX

            # With the consumer moving, messages between its pieces are heard between its pieces.
            heard: list[int] = []
            for number in range(50):
                second.gate.release()
                await until(
                    lambda n=number: len(second.streams[0][1]) == (n + 1) * len(_PIECE), "it"
                )
                first.links.send(2, b"x")
                await until(lambda n=number: len(second.messages) == 501 + n, "the heartbeat")
                heard.append(len(second.streams[0][1]))
            for _ in range(200):
                second.gate.release()
            await sending

            assert heard == [number * len(_PIECE) for number in range(1, 51)]
            assert second.streams[0][1] == _PIECE * 200
            assert (2, False) not in first.changes

    play(scene())


def test_consumer_that_fails_ends_the_stream_for_its_sender(tmp_path: Path) -> None:
    """The sender is told, the member goes on, and the next stream arrives."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()

            async def refuse(sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
                async for _ in pieces:
                    raise OSError("no space left")

            consume, second.links._guests.on_bulk = second.links._guests.on_bulk, refuse
            with pytest.raises(BulkFailed, match="failed at the receiver"):
                await first.links.send_bulk(2, b"s", _Source([_PIECE] * 100))
            second.links._guests.on_bulk = consume
            await first.links.send_bulk(2, b"s", _Source([b"x"]))

            assert first.links.counts.of(2).bulk_send_failures == 1
            assert second.links.counts.of(1).bulk_receive_failures == 1
            assert lab.ended == []
            assert first.links.active == {2, 3}

    play(scene())


def test_consumer_that_stops_early_has_not_taken_the_stream(tmp_path: Path) -> None:
    """Ending before the end is a failure, whatever the consumer thinks of it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()

            async def skim(sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
                await anext(pieces)

            second.links._guests.on_bulk = skim
            with pytest.raises(BulkFailed):
                await first.links.send_bulk(2, b"s", _Source([b"x"] * 3))

    play(scene())


def test_source_that_fails_leaves_no_whole_stream(tmp_path: Path) -> None:
    """The receiver is never told that a part is all; the sender gets its own error back."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()

            async def broken() -> AsyncIterator[bytes]:
                yield b"part"
                raise KeyError("the disk")

            with pytest.raises(KeyError):
                await first.links.send_bulk(2, b"s", broken())
            await until(lambda: second.stream_ends, "its end")

            assert second.stream_ends != [""]

    play(scene())


def test_stream_to_a_member_that_is_removed_ends_at_once(tmp_path: Path) -> None:
    """On both sides, while it is under way: the receiver never takes a part for all."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()
            second.gate = asyncio.Semaphore(1)
            sending = _send(first, second, _Source([_PIECE] * 100))
            await until(lambda: second.streams, "the stream to begin")

            first.knows(third)
            with pytest.raises(BulkFailed, match="no member"):
                await sending
            # What it holds by now is fewer pieces than that.
            for _ in range(50):
                second.gate.release()
            await until(lambda: second.stream_ends, "its end")

            assert second.stream_ends != [""]
            with pytest.raises(BulkFailed, match="no member"):
                await first.links.send_bulk(2, b"s", _Source([]))

    play(scene())


def test_break_is_heard_while_the_source_has_nothing(tmp_path: Path) -> None:
    """A sender that waits for its disk does not find out only when the disk answers."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()
            has_ended = False

            async def stuck() -> AsyncIterator[bytes]:
                nonlocal has_ended
                try:
                    yield b"x"
                    await asyncio.Event().wait()
                finally:
                    has_ended = True

            sending = _send(first, second, stuck())
            await until(lambda: second.streams and second.streams[0][1], "the first piece")
            first.knows(third)
            with pytest.raises(BulkFailed, match="no member"):
                await sending

            assert has_ended
            await until(lambda: second.stream_ends, "its end")
            assert second.stream_ends != [""]

    play(scene())


def test_one_stream_to_a_member_at_a_time(tmp_path: Path) -> None:
    """A second one is refused here; from a member that has forgotten its first, it replaces it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            second.gate = asyncio.Semaphore(0)
            sending = _send(first, second, _Source([_PIECE] * 100))
            await until(lambda: second.streams, "the stream to begin")

            with pytest.raises(BulkFailed, match="under way"):
                await first.links.send_bulk(2, b"s", _Source([]))
            again = await lab.stranger(second, lab.issue(ProfileName.PEER, "m1"))
            again.say(Kind.HELLO, Stranger.hello(second, 1, "m1", Purpose.BULK).encode())
            assert (await again.hear())[0] == Kind.WELCOME
            with pytest.raises(BulkFailed):
                await sending

            assert first.links.active == {2, 3}

    play(scene())


def test_member_that_is_nowhere_takes_no_stream(tmp_path: Path) -> None:
    """All its addresses are tried, and the reason is that of the last one."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second = await lab.member(1), await lab.member(2)
            second.knows(first)
            nowhere = "https://127.0.0.1:1"
            first.links.set_peers(
                {2: PeerAddress("m2", (nowhere, second.url)), 3: PeerAddress("m3", (nowhere,))}
            )

            await first.links.send_bulk(2, b"s", _Source([b"x"]))
            with pytest.raises(BulkFailed, match="ConnectionRefusedError"):
                await first.links.send_bulk(3, b"s", _Source([b"x"]))
            with pytest.raises(ValueError, match="a subject has"):
                await first.links.send_bulk(3, bytes(PEER_PIECE_BYTES_MAX + 1), _Source([]))

    play(scene())


@pytest.mark.parametrize(
    "content",
    [
        frame(Kind.PIECE, b"x"),
        frame(Kind.END, bytes(8)),
        frame(Kind.SUBJECT) * 2,
        frame(Kind.SUBJECT) + frame(Kind.PIECE),
        frame(Kind.SUBJECT) + frame(Kind.PIECE, b"x") + frame(Kind.END, bytes(8)),
        frame(Kind.SUBJECT) + frame(Kind.END, b"short"),
        frame(Kind.MESSAGE, b"x"),
        frame(Kind.SUBJECT) + frame(Kind.PIECE, bytes(PEER_PIECE_BYTES_MAX + 1)),
    ],
)
def test_stream_that_breaks_the_protocol_is_not_whole(tmp_path: Path, content: bytes) -> None:
    """Pieces before the subject, a wrong count, anything behind the end: it is refused."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            first.links.set_peers({2: PeerAddress("m2", ())})
            guest = await lab.stranger(first, lab.issue(ProfileName.PEER, "m2"))
            guest.say(Kind.HELLO, Stranger.hello(first, 2, "m2", Purpose.BULK).encode())
            assert (await guest.hear())[0] == Kind.WELCOME

            guest.send(content)

            assert await guest.end() is Refusal.MALFORMED
            assert "" not in first.stream_ends
            assert first.messages == []

    play(scene())


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (frame(Kind.DONE), "malformed"),
        (frame(Kind.TAKEN, b"\xff" * 8), "malformed"),
        (frame(Kind.TAKEN, b""), "malformed"),
        (frame(Kind.MESSAGE, b"x"), "malformed"),
        (frame(Kind.REFUSAL, b"\x0c"), "failed at the receiver"),
    ],
)
def test_receiver_that_breaks_the_protocol_has_taken_nothing(
    tmp_path: Path, after: bytes, reason: str
) -> None:
    """Being done before the end, or having taken more than was sent, is a failure."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            deaf = await Deaf.start(lab, 2, first, after=after)
            first.links.set_peers({2: deaf.address})

            async def slow() -> AsyncIterator[bytes]:
                yield b"x"
                await asyncio.Event().wait()

            with pytest.raises(BulkFailed, match=reason):
                await first.links.send_bulk(2, b"s", slow())

    play(scene())

"""Bulk: one long stream of pieces to a member, on a connection of its own.

    sender     SUBJECT, PIECE ..., END with the number of bytes
    receiver   TAKEN with the number of bytes so far ..., DONE

Owns: both ends of such a stream, and its pace: the receiver's consumer sets it.
Never: knows what is in a stream, or puts a byte of it on the connection for messages.
Keeps: a stream is whole or `BulkFailed`, on both ends; no more than a bounded part of it is in
    memory; whichever side waits for too long gives up.
"""

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self, final

from kvsecure.model.errors import Broken
from kvsecure.model.limits import (
    PEER_BULK_HELD_BYTES_MAX,
    PEER_BULK_STALL_S_MAX,
    PEER_PIECE_BYTES_MAX,
)
from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.framing import Kind, Malformed, frame
from kvsecure.server.peers.greeting import accept_welcome, hear_refusal
from kvsecure.server.peers.hello import Purpose, Refusal
from kvsecure.server.peers.setting import Setting
from kvsecure.telemetry.log import log

__all__ = ["BulkArrival", "BulkFailed", "BulkSending", "OnBulk"]

_COUNT: Final = struct.Struct(">Q")
_STALLED: Final = "nothing has moved for too long"

_log = log("peers")

# Consumes a stream: who sends it, what it is, and its pieces.
OnBulk = Callable[[int, bytes, AsyncIterator[bytes]], Awaitable[None]]


@final
class BulkFailed(Exception):
    """A bulk stream is not whole; the text says why."""


@final
class BulkSending:
    """A stream to a member."""

    def __init__(self, setting: Setting, member: int, on_progress: Callable[[int], None]) -> None:
        """Prepare it.

        Args:
            setting: What all links share.
            member: Whom to.
            on_progress: Told how many bytes the receiver has taken so far.
        """
        self._setting = setting
        self._member = member
        self._on_progress = on_progress
        self._channel: Channel | None = None
        self._is_welcome = False
        self._is_done = False
        self._failure = ""
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._has_ended = False
        self._moved = asyncio.Event()

    async def connect(self, url: str) -> None:
        """Open the connection.

        Raises:
            BulkFailed: The member is not there, or does not take it.
        """
        await self._setting.dial(url, self)
        await self._until(lambda: self._is_welcome)

    async def send(self, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Send everything, and wait until the receiver is done with it.

        Raises:
            BulkFailed: It did not get there, or the receiver failed.
        """
        channel = self._open_channel()
        channel.write(frame(Kind.SUBJECT, subject))
        while (piece := await self._next(pieces)) is not None:
            for at in range(0, len(piece), PEER_PIECE_BYTES_MAX):
                await self._until(lambda: channel.is_writable)
                part = piece[at : at + PEER_PIECE_BYTES_MAX]
                self._sent_bytes += len(part)
                channel.write(frame(Kind.PIECE, part))
        self._has_ended = True
        channel.write(frame(Kind.END, _COUNT.pack(self._sent_bytes)))
        await self._until(lambda: self._is_done)

    def close(self) -> None:
        """End it, whatever its state."""
        if self._channel is not None:
            self._channel.abort("the stream is over")

    # --- the channel ----------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Say hello."""
        self._channel = channel
        hello = self._setting.hello(self._member, Purpose.BULK)
        channel.write(frame(Kind.HELLO, hello.encode()))

    def heard(self, channel: Channel, kind: int, payload: bytes) -> None:
        """Take in the answer to the hello, and then how far the receiver is.

        Raises:
            Malformed: Something else came.
        """
        if not self._is_welcome:
            welcome = accept_welcome(self._setting, channel, self._member, kind, payload)
            if welcome is not None:
                counts = self._setting.counts.of(self._member)
                channel.settle(self._member, welcome.name, counts, PEER_PIECE_BYTES_MAX)
                self._is_welcome = True
        elif kind == Kind.TAKEN:
            taken_bytes = _number(payload)
            if not self._taken_bytes <= taken_bytes <= self._sent_bytes:
                raise Malformed("more was taken than was sent")
            self._taken_bytes = taken_bytes
            self._on_progress(taken_bytes)
        elif kind == Kind.DONE:
            if not self._has_ended:
                raise Malformed("the receiver was done before the end")
            self._is_done = True
        elif kind == Kind.REFUSAL:
            hear_refusal(self._setting, channel, self._member, payload)
        else:
            raise Malformed("a frame that does not belong here")
        self._moved.set()

    def writable(self, _: Channel) -> None:
        """Go on."""
        self._moved.set()

    def lost(self, _: Channel, reason: str) -> None:
        """Give up."""
        self._failure = self._failure or reason
        self._moved.set()

    def _open_channel(self) -> Channel:
        if self._channel is None:
            raise BulkFailed(self._failure)
        return self._channel

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece, or None behind the last one; a break is heard meanwhile."""
        asking = asyncio.ensure_future(anext(pieces))
        asking.add_done_callback(lambda _: self._moved.set())
        try:
            await self._until(asking.done)
            return asking.result()
        except StopAsyncIteration:
            return None
        finally:
            asking.cancel()
            # A source is done with before the stream is: it may be cleaning up.
            await asyncio.gather(asking, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        await _until(lambda: bool(self._failure) or condition(), self._moved)
        if self._failure and not self._is_done:
            raise BulkFailed(self._failure)


@final
class BulkArrival:
    """A stream from a member, as its consumer reads it."""

    def __init__(self, setting: Setting, channel: Channel, sender: int, on_bulk: OnBulk) -> None:
        """Wait for its subject.

        Args:
            setting: What all links share.
            channel: On which it comes.
            sender: From whom.
            on_bulk: Consumes it.
        """
        self._setting = setting
        self._channel = channel
        self._sender = sender
        self._on_bulk = on_bulk
        self._counts = setting.counts.of(sender)
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._received_bytes = 0
        self._taken_bytes = 0
        self._has_begun = False
        self._has_ended = False
        self._failure = ""
        self._moved = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            BulkFailed: The rest will not come.
        """
        await _until(lambda: bool(self._pieces or self._has_ended or self._failure), self._moved)
        if self._failure:
            raise BulkFailed(self._failure)
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        self._held_bytes -= len(piece)
        self._taken_bytes += len(piece)
        if self._held_bytes <= PEER_BULK_HELD_BYTES_MAX // 2:
            self._channel.hold_back(held_back=False)
        self._channel.write(frame(Kind.TAKEN, _COUNT.pack(self._taken_bytes)))
        return piece

    @property
    def is_waiting(self) -> bool:
        """Whether it is the sender's turn to say something."""
        return self._held_bytes <= PEER_BULK_HELD_BYTES_MAX // 2 and not self._has_ended

    def heard(self, kind: int, payload: bytes) -> None:
        """Take in a frame of the stream.

        Raises:
            Malformed: It cannot come now.
        """
        if kind == Kind.SUBJECT and not self._has_begun:
            self._has_begun = True
            self._setting.spawn(self._consume(payload))
        elif kind == Kind.PIECE and self._has_begun and not self._has_ended and payload:
            self._pieces.append(payload)
            self._held_bytes += len(payload)
            self._received_bytes += len(payload)
            if self._held_bytes > PEER_BULK_HELD_BYTES_MAX:
                self._channel.hold_back(held_back=True)
        elif kind == Kind.END and self._has_begun and not self._has_ended:
            if _number(payload) != self._received_bytes:
                raise Malformed("a stream ends with another number of bytes than came")
            self._has_ended = True
        else:
            raise Malformed("a frame that does not belong into a stream")
        self._moved.set()

    def lost(self, reason: str) -> None:
        """Take note that nothing more comes."""
        self._failure = reason
        self._moved.set()

    async def _consume(self, subject: bytes) -> None:
        counts, began_s = self._counts, self._setting.clock()
        counts.bulk_receiving += 1
        is_whole = False
        try:
            await self._on_bulk(self._sender, subject, self)
            is_whole = self._has_ended and not self._pieces and not self._failure
        except BulkFailed as error:
            _log.warning("a bulk stream failed", peer=f"{self._sender:x}", error=str(error))
        except Broken:
            raise
        except Exception:  # noqa: BLE001 - the consumer's failure ends this stream; it is logged
            _log.exception("a bulk stream could not be consumed", peer=f"{self._sender:x}")
        finally:
            counts.bulk_receiving -= 1
            if is_whole:
                counts.bulk_received += 1
                counts.bulk_receive.observe(max(0.0, self._setting.clock() - began_s))
                self._channel.write(frame(Kind.DONE))
            else:
                counts.bulk_receive_failures += 1
                self._failure = self._failure or "it was not consumed"
                self._channel.dismiss(Refusal.FAILED)


async def _until(condition: Callable[[], bool], moved: asyncio.Event) -> None:
    """Wait for a condition that may have changed whenever something moved.

    Raises:
        BulkFailed: Nothing moved for too long.
    """
    while not condition():
        moved.clear()
        try:
            async with asyncio.timeout(PEER_BULK_STALL_S_MAX):
                await moved.wait()
        except TimeoutError:
            raise BulkFailed(_STALLED) from None


def _number(payload: bytes) -> int:
    if len(payload) != _COUNT.size:
        raise Malformed("a number of bytes is not one")
    return int.from_bytes(payload, "big")

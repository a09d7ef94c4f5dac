"""Links: from us to one other member.

Owns: the connection that was dialled to it, what waits for it, and trying again.
Never: hears messages; what a member says comes on the connection that it dials.
Keeps: sending never waits: what does not fit is dropped and counted; a peer that does not answer a
    ping in time is gone, whatever its socket says; failed attempts are further and further apart.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, final

from kvsecure.model.limits import (
    PEER_BATCH_BYTES,
    PEER_HELLO_BYTES_MAX,
    PEER_HELLO_S_MAX,
    PEER_MESSAGE_BYTES_MAX,
    PEER_QUEUE_BYTES_MAX,
    PEER_QUEUE_MESSAGES_MAX,
    PEER_UNSENT_BYTES_MAX,
)
from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.framing import FRAME_HEAD, Kind, Malformed, frame
from kvsecure.server.peers.greeting import accept_welcome, hear_refusal
from kvsecure.server.peers.hello import Purpose, Welcome
from kvsecure.server.peers.roster import PeerAddress
from kvsecure.server.peers.setting import Setting
from kvsecure.telemetry.log import log

__all__ = ["Link"]

_PING: Final = 8
_SILENT: Final = "no answer to a ping in time"
_LATE: Final = "no welcome in time"

_log = log("peers")


@final
class Link:
    """Everything we say to one member."""

    def __init__(
        self,
        setting: Setting,
        member: int,
        address: PeerAddress,
        on_up: Callable[[int], None],
        on_down: Callable[[int], None],
    ) -> None:
        """Begin with the next tick.

        Args:
            setting: What all links share.
            member: Whom to.
            address: Its name, and where it is.
            on_up: Told when it can be reached.
            on_down: Told when it cannot be any more.
        """
        self._setting = setting
        self.member = member
        self.address = address
        self.counts = setting.counts.of(member)
        # Since when it can be reached, by the clock; None when it cannot.
        self.up_since_s: float | None = None
        self._on_up = on_up
        self._on_down = on_down
        self._channel: Channel | None = None
        self._is_dialing = False
        self._is_closed = False
        self._dialed_s = 0.0
        self._retry_s = 0.0
        self._failures = 0
        self._attempts = 0
        self._trouble = ""
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._is_flushing = False
        # The ping under way, and when it left.
        self._ping = 0
        self._pinged_s: float | None = None

    # --- sending --------------------------------------------------------------------------------

    def send(self, message: bytes) -> bool:
        """Queue a message; return False if it was dropped.

        Raises:
            ValueError: It is empty, or longer than any message may be.
        """
        size_bytes = len(message)
        if not 0 < size_bytes <= PEER_MESSAGE_BYTES_MAX:
            raise ValueError(f"a message has 1 to {PEER_MESSAGE_BYTES_MAX} bytes")
        queue = self._queue
        if (
            self.up_since_s is None
            or len(queue) >= PEER_QUEUE_MESSAGES_MAX
            or (queue and self._queued_bytes + size_bytes > PEER_QUEUE_BYTES_MAX)
        ):
            self.counts.sent_failures += 1
            return False
        queue.append(message)
        self._queued_bytes += size_bytes
        self.counts.sent_messages += 1
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    def _flush(self) -> None:
        """Write what waits, in few writes, as far as the socket takes it."""
        self._is_flushing = False
        channel, queue = self._channel, self._queue
        while (
            queue
            and channel is not None
            and channel.is_writable
            and channel.unsent_bytes <= PEER_UNSENT_BYTES_MAX
        ):
            parts: list[bytes] = []
            batch_bytes = 0
            while queue and batch_bytes < PEER_BATCH_BYTES:
                message = queue.popleft()
                parts += (FRAME_HEAD.pack(len(message), Kind.MESSAGE), message)
                batch_bytes += len(message)
            self._queued_bytes -= batch_bytes
            channel.write(b"".join(parts))

    # --- as time passes -------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Dial, ping, or find out that nobody answers."""
        channel = self._channel
        if self.up_since_s is not None and channel is not None:
            self._look_after(channel, now_s)
        elif channel is not None or self._is_dialing:
            if channel is not None and now_s - self._dialed_s > PEER_HELLO_S_MAX:
                channel.abort(_LATE)
        elif now_s >= self._retry_s:
            self._is_dialing = True
            self._dialed_s = now_s
            urls = self.address.urls
            url = urls[self._attempts % len(urls)] if urls else ""
            self._attempts += 1
            self._setting.spawn(self._setting.dial(url, self))

    def forgive(self, now_s: float) -> None:
        """Hold no silence against it: it was us who did not listen."""
        if self._pinged_s is not None:
            self._pinged_s = now_s

    def hurry(self) -> None:
        """Try again soon: the member has just shown that it is there."""
        if self.up_since_s is None:
            soon_s = self._setting.clock() + self._setting.timing.pause_s(1, self._setting.dice)
            self._retry_s = min(self._retry_s, soon_s)

    def close(self, reason: str) -> None:
        """End for good."""
        self._is_closed = True
        if self._channel is not None:
            self._channel.abort(reason)

    def _look_after(self, channel: Channel, now_s: float) -> None:
        if self._pinged_s is None:
            self._ping += 1
            self._pinged_s = now_s
            channel.write(frame(Kind.PING, self._ping.to_bytes(_PING, "big")))
        elif now_s - self._pinged_s > self._setting.timing.silence_s:
            channel.abort(_SILENT)

    # --- the channel ----------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Say hello."""
        self._is_dialing = False
        if self._is_closed:
            channel.abort("not needed any more")
            return
        self._channel = channel
        self._dialed_s = self._setting.clock()
        channel.write(
            frame(Kind.HELLO, self._setting.hello(self.member, Purpose.MESSAGES).encode())
        )

    def heard(self, channel: Channel, kind: int, payload: bytes) -> None:
        """Take in the answer to the hello, and then to pings.

        Raises:
            Malformed: Something else came.
        """
        if self.up_since_s is None:
            welcome = accept_welcome(self._setting, channel, self.member, kind, payload)
            if welcome is not None:
                self._rise(channel, welcome)
        elif kind == Kind.PONG and self._pinged_s is not None:
            if payload != self._ping.to_bytes(_PING, "big"):
                raise Malformed("an answer to a ping that was not sent")
            self.counts.round_trip.observe(max(0.0, self._setting.clock() - self._pinged_s))
            self._pinged_s = None
        elif kind == Kind.REFUSAL:
            hear_refusal(self._setting, channel, self.member, payload)
        else:
            raise Malformed("a frame that does not belong here")

    def writable(self, channel: Channel) -> None:
        """Write what waits."""
        if channel is self._channel:
            self._flush()

    def lost(self, _: Channel, reason: str) -> None:
        """Try again later; what waited is lost. There is one channel at a time, and it is over."""
        now_s, up_since_s = self._setting.clock(), self.up_since_s
        if up_since_s is not None and now_s - up_since_s > self._setting.timing.election_s:
            # Who welcomes us only to hang up is not asked more often for it.
            self._failures = 0
        self._failures += 1
        self._retry_s = now_s + self._setting.timing.pause_s(self._failures, self._setting.dice)
        self._is_dialing = False
        self._channel = None
        self.up_since_s = None
        self.counts.sent_failures += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        if reason != self._trouble and not self._is_closed:
            self._trouble = reason
            _log.warning("a peer cannot be reached", peer=f"{self.member:x}", error=reason)
        if up_since_s is not None:
            self.counts.disconnections += 1
            self._on_down(self.member)

    def _rise(self, channel: Channel, welcome: Welcome) -> None:
        channel.settle(self.member, welcome.name, self.counts, PEER_HELLO_BYTES_MAX)
        self.up_since_s = self._setting.clock()
        self._pinged_s = None
        self._trouble = ""
        _log.info("a peer can be reached", peer=f"{self.member:x}", remote=channel.address[0])
        self._on_up(self.member)

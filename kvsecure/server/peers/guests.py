"""Guests: connections that other members have opened to us.

Owns: their hellos, what they say, which of two connections of one member stays, and telling who the
    members are to one that does not know it yet.
Never: says anything to a member but answers.
Keeps: a member has at most one connection for messages and one for a bulk stream here; the newest
    stays, because only the member itself knows which of its connections it still uses.
"""

from collections.abc import Callable
from typing import Final, final

from kvsecure.model.limits import (
    PEER_BULK_STALL_S_MAX,
    PEER_HELLO_S_MAX,
    PEER_MEMBERS_BYTES_MAX,
    PEER_MESSAGE_BYTES_MAX,
    PEER_PIECE_BYTES_MAX,
    PEER_UNSENT_BYTES_MAX,
)
from kvsecure.server.peers.bulk import BulkArrival, OnBulk
from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.framing import Kind, Malformed, frame
from kvsecure.server.peers.greeting import accept_hello, answer
from kvsecure.server.peers.hello import Hello, Purpose, Refusal
from kvsecure.server.peers.setting import Setting
from kvsecure.server.places import Source
from kvsecure.telemetry.log import log

__all__ = ["Guests"]

_PING_BYTES: Final = 8

_log = log("peers")


@final
class Guests:
    """All connections that were opened to us."""

    def __init__(
        self,
        setting: Setting,
        on_message: Callable[[int, bytes], None],
        on_bulk: OnBulk,
        on_arrival: Callable[[int], None],
        on_departure: Callable[[int], None],
        members: Callable[[], bytes | None],
        note: Callable[[str, dict[str, object]], None],
    ) -> None:
        """Start with none.

        Args:
            setting: What all links share.
            on_message: Told the sender and the bytes of each message.
            on_bulk: Consumes bulk streams.
            on_arrival: Told of a member that has just shown that it is there.
            on_departure: Told of a member whose connection for messages is gone, and has no other.
            members: Returns who the members are, for a newcomer, or None while that is not known.
            note: Records that a newcomer was told.
        """
        self.setting = setting
        self.on_message = on_message
        self.on_bulk = on_bulk
        self._on_arrival = on_arrival
        self._on_departure = on_departure
        self.members = members
        self.note = note
        self._guests: set[_Guest] = set()
        self._seats: dict[tuple[int, Purpose], Channel] = {}

    def arrive(self, source: Source) -> Channel:
        """Return the connection of a socket that was accepted."""
        return Channel(self.setting, _Guest(self), source)

    def tick(self, now_s: float) -> None:
        """End what says nothing."""
        for guest in list(self._guests):
            guest.tick(now_s)

    def hears(self, member: int) -> bool:
        """Tell whether a member has a connection for messages here."""
        return (member, Purpose.MESSAGES) in self._seats

    def came(self, guest: "_Guest") -> None:
        """Take note that a connection is there."""
        self._guests.add(guest)

    def sit(self, channel: Channel, hello: Hello) -> None:
        """Give a member's new connection the place of its old one."""
        seat = (hello.sender, hello.purpose)
        old = self._seats.get(seat)
        self._seats[seat] = channel
        if old is not None:
            old.abort("replaced by a newer connection")
        self._on_arrival(hello.sender)

    def went(self, guest: "_Guest", channel: Channel, hello: Hello | None) -> None:
        """Take note that a connection is gone."""
        self._guests.discard(guest)
        if hello is not None and self._seats.get((hello.sender, hello.purpose)) is channel:
            del self._seats[hello.sender, hello.purpose]
            if hello.purpose is Purpose.MESSAGES:
                self._on_departure(hello.sender)


@final
class _Guest:
    """One connection that was opened to us."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._channel: Channel
        self._opened_s = 0.0
        self._hello: Hello | None = None
        self._arrival: BulkArrival | None = None

    def opened(self, channel: Channel) -> None:
        """Wait for the hello."""
        self._channel = channel
        self._opened_s = self._guests.setting.clock()
        self._guests.came(self)

    def heard(self, channel: Channel, kind: int, payload: bytes) -> None:
        """Take in a frame.

        Raises:
            Malformed: It cannot come now.
        """
        if self._hello is None:
            self._greet(channel, kind, payload)
        elif self._hello.purpose is Purpose.MEMBERS:
            raise Malformed("there was one question, and it was answered")
        elif self._arrival is not None:
            self._arrival.heard(kind, payload)
        elif kind == Kind.MESSAGE and payload:
            if channel.counts is not None:
                channel.counts.received_messages += 1
            self._guests.on_message(self._hello.sender, payload)
        elif kind == Kind.PING and len(payload) == _PING_BYTES:
            channel.write(frame(Kind.PONG, payload))
            if channel.unsent_bytes > PEER_UNSENT_BYTES_MAX:
                channel.abort("does not read")
        elif kind == Kind.REFUSAL:
            channel.abort("refused by the peer")
        else:
            raise Malformed("a frame that does not belong here")

    def writable(self, _: Channel) -> None:
        """Do nothing: answers do not wait."""

    def lost(self, channel: Channel, reason: str) -> None:
        """Let go."""
        self._guests.went(self, channel, self._hello)
        if self._arrival is not None:
            self._arrival.lost(reason)

    def tick(self, now_s: float) -> None:
        """End what says nothing."""
        channel = self._channel
        if self._hello is None:
            if now_s - self._opened_s > PEER_HELLO_S_MAX:
                channel.refuse(Refusal.LATE)
        elif self._hello.purpose is Purpose.MEMBERS:
            if now_s - self._opened_s > PEER_HELLO_S_MAX:
                channel.abort("has its answer and stays")
        elif self._arrival is None:
            if now_s - channel.heard_s > self._guests.setting.timing.silence_s:
                channel.abort("silent for too long")
        elif self._arrival.is_waiting and now_s - channel.heard_s > PEER_BULK_STALL_S_MAX:
            channel.abort("silent for too long")

    def _greet(self, channel: Channel, kind: int, payload: bytes) -> None:
        setting = self._guests.setting
        hello = accept_hello(setting, channel, kind, payload)
        if hello is None:
            return
        self._hello = hello
        if hello.purpose is Purpose.MEMBERS:
            self._tell(channel, hello)
            return
        is_bulk = hello.purpose is Purpose.BULK
        counts = setting.counts.of(hello.sender)
        payload_bytes_max = PEER_PIECE_BYTES_MAX if is_bulk else PEER_MESSAGE_BYTES_MAX
        channel.settle(hello.sender, hello.name, counts, payload_bytes_max)
        if is_bulk:
            self._arrival = BulkArrival(setting, channel, hello.sender, self._guests.on_bulk)
        self._guests.sit(channel, hello)
        answer(setting, channel, hello)

    def _tell(self, channel: Channel, hello: Hello) -> None:
        """Say who the members are; whoever has asked hangs up."""
        content = self._guests.members()
        if content is None:
            channel.refuse(Refusal.UNREADY, f"{hello.name} asks who the members are")
            return
        if len(content) > PEER_MEMBERS_BYTES_MAX:
            _log.error("there are too many members to tell a newcomer", size_bytes=len(content))
            channel.refuse(Refusal.FAILED)
            return
        ip, port = channel.address
        self._guests.note("members-told", {"peer": hello.name, "ip": ip, "port": port})
        answer(self._guests.setting, channel, hello)
        channel.write(frame(Kind.MEMBERS, content))

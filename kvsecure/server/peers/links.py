"""The links of a member: everything between it and the other members of its cluster.

Owns: which links there are, the listeners for other members, and what comes in force while they
    are open: members, certificates, authorities, revocation lists.
Never: knows what a message says.
Follows: docs/adr/0021-peer-links.md; docs/pki.md, rotation.
Keeps: a member that is gone, or whose certificate is good no more, is cut at once, in both
    directions; what goes wrong at one link leaves the others theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from random import Random
from typing import Any, Final, TypeVar, final

from kvsecure.model.errors import Broken
from kvsecure.model.limits import (
    PEER_CONNECTIONS_MAX,
    PEER_CONNECTIONS_PER_LOCAL_SOURCE_MAX,
    PEER_CONNECTIONS_PER_SOURCE_MAX,
    PEER_HANDSHAKES_MAX,
    PEER_HANDSHAKES_PER_LOCAL_SOURCE_MAX,
    PEER_HANDSHAKES_PER_SOURCE_MAX,
    PEER_PIECE_BYTES_MAX,
    TLS_HANDSHAKE_S_MAX,
)
from kvsecure.server.config.urls import Endpoint, endpoints, parse_urls
from kvsecure.server.credentials import Credentials
from kvsecure.server.listener import Listener, Spoken
from kvsecure.server.peers.bulk import BulkFailed, BulkSending, OnBulk
from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.counts import LinkCounts
from kvsecure.server.peers.guests import Guests
from kvsecure.server.peers.hello import VERSIONS, Refusal, Versions
from kvsecure.server.peers.link import Link
from kvsecure.server.peers.roster import PeerAddress, PeerIdentity, Roster
from kvsecure.server.peers.setting import Setting
from kvsecure.server.peers.timing import LinkTiming
from kvsecure.server.places import PlaceBounds, Places, Refusals, Source
from kvsecure.server.reception import Reception
from kvsecure.telemetry.log import log

__all__ = ["PEER_PLACES", "PeerLinks"]

PEER_PLACES: Final = PlaceBounds(
    connections_max=PEER_CONNECTIONS_MAX,
    per_source_max=PEER_CONNECTIONS_PER_SOURCE_MAX,
    per_local_source_max=PEER_CONNECTIONS_PER_LOCAL_SOURCE_MAX,
    handshakes_max=PEER_HANDSHAKES_MAX,
    handshakes_per_source_max=PEER_HANDSHAKES_PER_SOURCE_MAX,
    handshakes_per_local_source_max=PEER_HANDSHAKES_PER_LOCAL_SOURCE_MAX,
)

_Thing = TypeVar("_Thing")

_log = log("peers")


def _ignore(*_: object) -> None:
    """Do nothing."""


def _unknown() -> bytes | None:
    """Tell nobody who the members are."""
    return None


@final
class PeerLinks:
    """The links of one member."""

    def __init__(
        self,
        own: PeerIdentity,
        credentials: Credentials | None,
        *,
        on_message: Callable[[int, bytes], None],
        on_up: Callable[[int], None],
        on_down: Callable[[int], None],
        on_parted: Callable[[int], None] = _ignore,
        on_bulk: OnBulk,
        members: Callable[[], bytes | None] = _unknown,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        spawn_vital: Callable[[str, Coroutine[Any, Any, None]], None],
        on_refused: Callable[[str, int, str], None] = _ignore,
        on_refused_by: Callable[[int, Refusal], None] = _ignore,
        on_cut: Callable[[int | None, str, int, str], None] = _ignore,
        note: Callable[[str, dict[str, object]], None] = _ignore,
        timing: LinkTiming | None = None,
        versions: Versions = VERSIONS,
        places: PlaceBounds = PEER_PLACES,
        handshake_s_max: float = TLS_HANDSHAKE_S_MAX,
        clock: Callable[[], float] | None = None,
        dice: Random | None = None,
    ) -> None:
        """Put the links together; make it within the event loop.

        Args:
            own: Who we are.
            credentials: Made from a `ServerTls` whose `member` is `own.certified`; None for
                plaintext, which is spoken over loopback only.
            on_message: Told the sender's id and the bytes of each message, in order.
            on_up: Told of a member that messages can be sent to it now.
            on_down: Told of a member that none can be any more.
            on_parted: Told of a member that there was a connection with and is none any more,
                neither to it nor from it.
            on_bulk: Consumes a bulk stream: sender, subject, pieces. It ends normally when it has
                read to the end, which is what tells the sender that all is well; a stream that
                breaks off raises `BulkFailed` from the pieces. It must not take longer than
                `PEER_BULK_STALL_S_MAX` for a piece, or behind the last one.
            members: Returns who the members are, as a newcomer is told: up to
                `PEER_MEMBERS_BYTES_MAX` bytes, or None while it is not known here.
            spawn: Runs something within the member's task group.
            spawn_vital: Runs what the member must not be without.
            on_refused: Told address, port and reason of each connection that was refused, for the
                audit trail.
            on_refused_by: Told which member has refused us, and why; one that says that we were
                removed has proved who it is, and nothing more.
            on_cut: Told member (if it got so far), address, port and reason of each connection
                that was ended for its certificate.
            note: Records what the credentials took up, and what they could not; and which
                newcomer was told who the members are.
            timing: The settings of consensus.
            versions: The versions of the protocol that are spoken.
            places: How many connections others may open.
            handshake_s_max: Seconds that a handshake of theirs may take.
            clock: Seconds that only grow; None means the event loop's.
            dice: For the pauses between attempts.

        Raises:
            Broken: The credentials are not those of a member.
            IdentityError: Nobody can have a certificate with this name.
        """
        if credentials is not None:
            # Whether they are a member's; who it is was checked when they were read.
            _ = credentials.dialing, own.certified
        self._credentials = credentials
        self._on_up = on_up
        self._on_down = on_down
        self._on_parted = on_parted
        self._note = note
        self._spawn_vital = spawn_vital
        self._roster = Roster(own)
        self._setting = Setting(
            roster=self._roster,
            credentials=credentials,
            timing=timing or LinkTiming(),
            versions=versions,
            clock=clock or asyncio.get_running_loop().time,
            dice=dice or Random(),
            spawn=spawn,
            on_refused=on_refused,
            on_refused_by=on_refused_by,
            on_cut=on_cut,
            release=self._release,
        )
        self._guests = Guests(
            self._setting, on_message, on_bulk, self._hurry, self._look, members, note
        )
        self.refusals = Refusals()
        self._reception = Reception(
            arrive=self._guests.arrive,
            places=Places(places, self.refusals),
            on_failure=self._on_failure,
            spawn=spawn,
            handshake_s_max=handshake_s_max,
        )
        self._links: dict[int, Link] = {}
        self._bulk: set[int] = set()
        self._listeners: list[Listener] = []
        self._ticked_s = self._setting.clock()
        self._second_s = self._ticked_s

    # --- the outside ----------------------------------------------------------------------------

    async def listen(self, urls: Iterable[str]) -> tuple[int, ...]:
        """Listen for other members, and begin to dial them; call it once.

        Args:
            urls: Where, as `--listen-peer-urls` has them; port 0 lets the system choose.

        Returns:
            The ports, in the order of the URLs.

        Raises:
            ValueError: A URL is none, or plaintext where that cannot be.
            ConfigError: A URL cannot be listened on.
            OSError: An address cannot be had.
        """
        found = [_listened(url, self._credentials) for url in urls]
        tls = self._credentials.context if self._credentials is not None else None
        spoken = Spoken.PLAINTEXT if tls is None else Spoken.TLS
        for endpoint in found:
            address = (endpoint.host, endpoint.port)
            listener = await Listener.tcp(self._reception, address, spoken, tls)
            self._listeners.append(listener)
            self._spawn_vital("a listener for members", listener.accept())
            _log.info("serving peer traffic", address=endpoint.url)
        self._spawn_vital("the care of links", self._care())
        if self._credentials is not None:
            self._spawn_vital("the watch over certificates of members", self._watch())
        return tuple(listener.port for listener in self._listeners)

    def set_peers(
        self,
        peers: Mapping[int, PeerAddress],
        removed: frozenset[int] = frozenset(),
    ) -> None:
        """Replace who the other members are; may be called at any time.

        Whoever is no member any more, or has another name now, is cut at once. New addresses count
        from the next time that the member is dialled.

        Args:
            peers: By member id; our own is left out by itself.
            removed: Who was a member once, and is told so when it comes.
        """
        self._roster.set(peers, removed)
        for member in self._links.keys() - self._roster.peers.keys():
            self._links.pop(member).close("no member any more")
        for channel in list(self._setting.channels):
            if channel.member is None:
                continue
            doubt = self._roster.doubt(channel.member, channel.name, channel.certified)
            if doubt is not None:
                channel.abort(doubt.words)
        for member, address in self._roster.peers.items():
            link = self._links.get(member)
            if link is None:
                self._links[member] = Link(self._setting, member, address, self._on_up, self._fell)
            else:
                link.address = address

    def send(self, member: int, message: bytes) -> bool:
        """Send a message, without ever waiting; return False if it was dropped.

        Messages to one member arrive in order, each at most once; those that were queued when the
        link broke may have arrived or not.

        Raises:
            ValueError: It is empty, or longer than `PEER_MESSAGE_BYTES_MAX`.
        """
        link = self._links.get(member)
        return link is not None and link.send(message)

    async def send_bulk(
        self,
        member: int,
        subject: bytes,
        pieces: AsyncIterator[bytes],
        on_progress: Callable[[int], None] = _ignore,
    ) -> None:
        """Send a long stream on a connection of its own; return when the receiver is done with it.

        Args:
            member: Whom to; one stream at a time.
            subject: What it is, for the receiver: up to `PEER_PIECE_BYTES_MAX` bytes.
            pieces: Asked for as fast as the receiver takes them.
            on_progress: Told how many bytes the receiver has taken so far.

        Raises:
            BulkFailed: It did not get there whole.
            ValueError: The subject is too long.
        """
        if len(subject) > PEER_PIECE_BYTES_MAX:
            raise ValueError(f"a subject has at most {PEER_PIECE_BYTES_MAX} bytes")
        address = self._roster.peers.get(member)
        if address is None:
            raise BulkFailed("no member of the cluster")
        if member in self._bulk:
            raise BulkFailed("another stream to this member is under way")
        counts, began_s = self._setting.counts.of(member), self._setting.clock()
        self._bulk.add(member)
        counts.bulk_sending += 1
        is_whole = False
        try:
            sending = await self._connect(member, address, on_progress)
            try:
                await sending.send(subject, pieces)
                is_whole = True
            finally:
                sending.close()
        finally:
            self._bulk.discard(member)
            counts.bulk_sending -= 1
            if is_whole:
                counts.bulk_sent += 1
                counts.bulk_send.observe(max(0.0, self._setting.clock() - began_s))
            else:
                counts.bulk_send_failures += 1

    def up_since_s(self, member: int) -> float | None:
        """Return since when a member can be reached, by the clock; None if it cannot."""
        link = self._links.get(member)
        return link.up_since_s if link is not None else None

    @property
    def counts(self) -> LinkCounts:
        """What has passed over the links."""
        return self._setting.counts

    @property
    def known(self) -> frozenset[int]:
        """The other members: `etcd_network_known_peers`."""
        return frozenset(self._links)

    @property
    def active(self) -> frozenset[int]:
        """Those that can be reached: `etcd_network_active_peers`."""
        return frozenset(
            member for member, link in self._links.items() if link.up_since_s is not None
        )

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._setting.is_closed = True
        for listener in self._listeners:
            listener.close()
        for link in self._links.values():
            link.close("the member stops")
        for channel in list(self._setting.channels):
            channel.abort("the member stops")

    # --- as time passes -------------------------------------------------------------------------

    def tick(self) -> None:
        """Look after every link: dial, ping, and end what is silent or has expired."""
        if self._setting.is_closed:
            return
        now_s = self._setting.clock()
        if now_s - self._ticked_s > self._setting.timing.silence_s / 2:
            # We were away ourselves; what others said meanwhile is still to be read.
            self._forgive(now_s)
        self._ticked_s = now_s
        if now_s - self._second_s >= 1.0:
            self._second_s = now_s
            self.refusals.second()
        if self._credentials is not None:
            utc_s = self._credentials.now_s()
            expired = [each for each in self._setting.channels if each.vetting.expires_s < utc_s]
            _each(expired, Channel.judge_again)
        _each(list(self._links.values()), lambda link: link.tick(now_s))
        self._guests.tick(now_s)

    def judge_again(self) -> None:
        """Cut every connection whose certificate is not good any more: something has changed."""
        if self._credentials is not None:
            for listener in self._listeners:
                listener.use(self._credentials.context)
        _each(list(self._setting.channels), Channel.judge_again)

    def _forgive(self, now_s: float) -> None:
        for channel in self._setting.channels:
            channel.heard_s = now_s
        for link in self._links.values():
            link.forgive(now_s)

    async def _care(self) -> None:
        while True:
            await asyncio.sleep(self._setting.timing.tick_s)
            self.tick()

    async def _watch(self) -> None:
        if self._credentials is not None:
            await self._credentials.watch(on_change=self.judge_again, note=self._note)

    # --- within ---------------------------------------------------------------------------------

    async def _connect(
        self, member: int, address: PeerAddress, on_progress: Callable[[int], None]
    ) -> BulkSending:
        """Open a connection for a stream, at the first address where the member is.

        Raises:
            BulkFailed: It is at none of them.
        """
        failed = BulkFailed("it has no address")
        for url in address.urls:
            sending = BulkSending(self._setting, member, on_progress)
            try:
                await sending.connect(url)
            except BulkFailed as error:
                sending.close()
                failed = error
            else:
                return sending
        raise failed

    def _fell(self, member: int) -> None:
        self._on_down(member)
        self._look(member)

    def _look(self, member: int) -> None:
        """Tell that a member is gone, if its last connection is."""
        if self.up_since_s(member) is None and not self._guests.hears(member):
            self._on_parted(member)

    def _hurry(self, member: int) -> None:
        link = self._links.get(member)
        if link is not None:
            link.hurry()

    def _on_failure(self, source: Source, reason: str) -> None:
        self._setting.refuse((source.ip, source.port), reason)

    def _release(self, channel: Channel) -> None:
        if channel.source is not None:
            self._reception.leave(channel.source)


def _listened(url: str, credentials: Credentials | None) -> Endpoint:
    """Return what to listen on."""
    (endpoint,) = endpoints(parse_urls(url))
    if endpoint.path is not None:
        raise ValueError(f"members listen on http or https: {url}")
    if endpoint.scheme.is_secure and credentials is None:
        raise ValueError(f"there are no certificates to speak TLS with: {url}")
    if not endpoint.scheme.is_secure and credentials is not None:
        raise ValueError(f"members that have certificates do not speak plaintext: {url}")
    if not endpoint.scheme.is_secure and not endpoint.loopback:
        raise ValueError(f"members speak plaintext over loopback only: {url}")
    return endpoint


def _each(things: Iterable[_Thing], act: Callable[[_Thing], None]) -> None:
    """Do something to each; what goes wrong at one leaves the others theirs."""
    for thing in things:
        try:
            act(thing)
        except Broken:
            raise
        except Exception:  # noqa: BLE001 - the others are looked after all the same; it is logged
            _log.exception("a link could not be looked after")

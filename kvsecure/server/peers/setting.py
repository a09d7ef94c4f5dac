"""The setting: what all links of a member share.

Owns: the set of open channels, what is counted and recorded of all of them, and dialling.
Never: decides which links there are.
Keeps: each refusal is counted by its reason, and recorded; an open channel is found by whoever has
    to end it.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple, final
from urllib.parse import urlsplit

from kvsecure.model.limits import PEER_DIAL_S_MAX
from kvsecure.pki.standing import Standing
from kvsecure.server.config.urls import Scheme, parse_urls
from kvsecure.server.credentials import Credentials
from kvsecure.server.farewell import reason_of
from kvsecure.server.peers.channel import Channel, Session
from kvsecure.server.peers.counts import LinkCounts
from kvsecure.server.peers.hello import Hello, Purpose, Refusal, Versions
from kvsecure.server.peers.roster import Roster
from kvsecure.server.peers.timing import LinkTiming
from kvsecure.telemetry.log import log

__all__ = ["Place", "Setting", "place_of"]

_GOODBYE_S_MAX: Final = 0.5
# Places that were dialled and refused, and why.
_SAID_MAX: Final = 256

_log = log("peers")


class Place(NamedTuple):
    """Where a member listens, as a URL says it."""

    is_secure: bool
    host: str
    port: int


def place_of(url: str) -> Place:
    """Return where a URL leads.

    Raises:
        ValueError: It is not http or https with a host and a port.
    """
    checked = parse_urls(url)
    parts = urlsplit(checked[0] if len(checked) == 1 else "")
    if parts.scheme not in {Scheme.HTTP.value, Scheme.HTTPS.value}:
        raise ValueError(f"members are reached by http or https: {url}")
    return Place(parts.scheme == Scheme.HTTPS.value, parts.hostname or "", parts.port or 0)


@final
@dataclass(slots=True, kw_only=True)
class Setting:
    """What all links of a member share.

    Attributes:
        credentials: What is shown to other members, and whom we trust; None for plaintext.
        clock: Seconds that only grow.
        spawn: Runs something within the server's task group.
        on_refused: Told of address, port and reason of a connection that was refused.
        on_refused_by: Told which member has refused us, and why.
        release: Told of each connection that is over.
        on_cut: Told of member, address, port and reason of one that was ended for its certificate.
    """

    roster: Roster
    credentials: Credentials | None
    timing: LinkTiming
    versions: Versions
    clock: Callable[[], float]
    dice: Random
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    on_refused: Callable[[str, int, str], None]
    on_cut: Callable[[int | None, str, int, str], None]
    on_refused_by: Callable[[int, Refusal], None]
    release: Callable[[Channel], None]
    counts: LinkCounts = field(default_factory=LinkCounts)
    channels: set[Channel] = field(default_factory=set)
    is_closed: bool = False
    _said: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def trust_domain(self) -> str:
        """The label of the cluster in certificates."""
        return self.roster.own.trust_domain

    # --- channels -------------------------------------------------------------------------------

    def joined(self, channel: Channel) -> None:
        """Take note that a connection is there."""
        self.channels.add(channel)
        if self.is_closed:
            channel.abort("the member stops")

    def left(self, channel: Channel) -> None:
        """Take note that it is gone."""
        self.channels.discard(channel)
        self.release(channel)

    def refused(self, channel: Channel, reason: str, detail: str) -> None:
        """Count and record that a connection was refused."""
        is_dialed = channel.source is None
        self.refuse(channel.address, reason, detail, is_dialed=is_dialed)

    def refuse(
        self, address: tuple[str, int], reason: str, detail: str = "", *, is_dialed: bool = False
    ) -> None:
        """Count and record a refusal, of a connection or of what did not become one."""
        self.counts.refuse(reason)
        said = f"{reason}: {detail}" if detail else reason
        if is_dialed:
            # We shall dial again and again; what has not changed is recorded once.
            if self._said.get(address) == said:
                return
            if len(self._said) >= _SAID_MAX:
                self._said.clear()
            self._said[address] = said
        self.on_refused(*address, said)
        _log.warning("rejected connection on peer endpoint", remote=address[0], error=said)

    def cut(self, channel: Channel, standing: Standing) -> None:
        """Record that a connection was ended for its certificate."""
        self.on_cut(channel.member, *channel.address, standing.value)
        _log.warning("connection cut", remote=channel.address[0], error=standing.value)

    # --- dialling -------------------------------------------------------------------------------

    def hello(self, member: int, purpose: Purpose) -> Hello:
        """Return what we say to a member first."""
        own = self.roster.own
        return Hello(self.versions, purpose, own.cluster_id, own.member_id, member, own.name)

    async def dial(self, url: str, session: Session) -> None:
        """Open a connection; whatever becomes of it, its session is told."""
        channel = Channel(self, session)
        trouble = "failed here"
        try:
            place = place_of(url)
            try:
                async with asyncio.timeout(PEER_DIAL_S_MAX):
                    await self._connect(place, channel)
            except ssl.SSLError as error:
                trouble = reason_of(error)
                self.refuse((place.host, place.port), trouble, is_dialed=True)
            except OSError as error:
                trouble = reason_of(error)
            else:
                trouble = ""
        except ValueError as error:
            trouble = str(error)
        finally:
            if trouble and channel.was_made:
                channel.abort(trouble)
            elif trouble:
                session.lost(channel, trouble)

    async def _connect(self, place: Place, channel: Channel) -> None:
        loop = asyncio.get_running_loop()
        if self.credentials is None:
            if place.is_secure:
                raise ValueError("there are no certificates to speak TLS with")
            await loop.create_connection(lambda: channel, place.host, place.port)
            return
        if not place.is_secure:
            raise ValueError("plaintext was not asked for")
        await loop.create_connection(
            lambda: channel,
            place.host,
            place.port,
            ssl=self.credentials.dialing,
            # Who answers is known by its certificate, not by a name that was looked up.
            server_hostname="",
            ssl_handshake_timeout=PEER_DIAL_S_MAX,
            ssl_shutdown_timeout=_GOODBYE_S_MAX,
        )

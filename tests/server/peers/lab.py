"""Members with nothing but their links: real sockets, real certificates, one event loop.

Owns: the authority of a cluster, the files of each member, what each has heard, and strangers that
    speak to a member in raw frames.
Never: replaces a part of the links; only the clock is the test's, and it only goes forward.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, final

import uvloop
from support.certificates import KeyPair

from kvsecure.model.limits import PEER_MESSAGE_BYTES_MAX
from kvsecure.pki.authority import Authority, Issued, create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.handshake import LivingContext
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.revoking import revocation_list, revoke
from kvsecure.pki.trust import MEMBER_ALPN, ServerTls
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers import LinkTiming, PeerAddress, PeerIdentity, PeerLinks
from kvsecure.server.peers.bulk import OnBulk
from kvsecure.server.peers.framing import FrameReader, Kind, frame
from kvsecure.server.peers.hello import VERSIONS, Hello, Purpose, Refusal, Versions
from kvsecure.server.peers.links import PEER_PLACES
from kvsecure.server.places import PlaceBounds
from kvsecure.server.tasks import Tasks

__all__ = ["CLUSTER", "CLUSTER_ID", "Clock", "Lab", "Member", "Stranger", "play", "until"]

CLUSTER: Final = "c1"
CLUSTER_ID: Final = 0xC1
_DEADLINE_S: Final = 20.0
_LOOK_S: Final = 0.002
_DAY: Final = timedelta(days=1)

_T = TypeVar("_T")


def play(scene: Coroutine[Any, Any, _T]) -> _T:
    """Run a test's scene in an event loop of the kind that members have."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scene)


async def until(condition: Callable[[], object], what: str) -> None:
    """Let the loop run until the condition is truthy.

    Raises:
        TimeoutError: It still was not at the deadline.
    """
    end = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_DEADLINE_S} s for {what}")
        await asyncio.sleep(_LOOK_S)


@final
class Clock:
    """The time, and as much more as the test says."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic() + self.ahead_s

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


@final
class Member:
    """One member, and what has come of its links."""

    def __init__(self, lab: "Lab", number: int, name: str) -> None:
        self._lab = lab
        self.id = number
        self.own = PeerIdentity(
            trust_domain=CLUSTER, cluster_id=CLUSTER_ID, member_id=number, name=name
        )
        self.clock = Clock()
        self.messages: list[tuple[int, bytes]] = []
        self.changes: list[tuple[int, bool]] = []
        self.parted: list[int] = []
        self.refused: list[str] = []
        self.refused_by: list[tuple[int, Refusal]] = []
        self.cuts: list[tuple[int | None, str]] = []
        self.notes: list[str] = []
        # Streams that have begun: subject, and what has come of each.
        self.streams: list[tuple[bytes, bytearray]] = []
        self.stream_ends: list[str] = []
        # Who the members are, as newcomers are told.
        self.told: bytes | None = None
        # Consumers wait before each piece until there is one of these.
        self.gate: asyncio.Semaphore | None = None
        # Consumes streams, where a test has somebody for that.
        self.consumer: OnBulk | None = None
        self.credentials: Credentials | None = None
        self.links: PeerLinks
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self.credentials is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def address(self) -> PeerAddress:
        """What others know of it."""
        return PeerAddress(self.own.name, (self.url,))

    def heard(self, sender: int) -> list[bytes]:
        """Return what a member has said."""
        return [message for who, message in self.messages if who == sender]

    def knows(self, *others: "Member") -> None:
        """Make others its peers, and no one else."""
        self.links.set_peers({other.id: other.address for other in others})

    async def reaches(self, *others: "Member") -> None:
        """Wait until it reaches others."""
        ids = {other.id for other in others}
        await until(lambda: ids <= self.links.active, f"{self.id} to reach {ids}: {self.refused}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and look after the links as often as in that time they would be."""
        steps = round(seconds / 0.1)
        for _ in range(steps):
            self.clock.ahead_s += 0.1
            self.links.tick()

    async def consume(self, sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Keep a bulk stream."""
        if self.consumer is not None:
            await self.consumer(sender, subject, pieces)
            return
        content = bytearray()
        self.streams.append((subject, content))
        try:
            if self.gate is not None:
                await self.gate.acquire()
            async for piece in pieces:
                content += piece
                if self.gate is not None:
                    await self.gate.acquire()
        except Exception as error:
            self.stream_ends.append(str(error))
            raise
        self.stream_ends.append("")


@final
class Lab:
    """A cluster's authority, its members, and whoever else comes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = create_authority(directory / "authority", CLUSTER)
        self.trusted = directory / "trusted.crt"
        self.lists = directory / "peers.crl"
        self._count = 0
        self.ended: list[str] = []
        self.members: list[Member] = []
        self.closers: list[Callable[[], None]] = []
        self._tasks: Tasks
        self._open = contextlib.AsyncExitStack()
        self.trust(self.authority)
        self.publish(self.authority)

    async def __aenter__(self) -> "Lab":
        group = await self._open.enter_async_context(asyncio.TaskGroup())
        self._tasks = Tasks(group, self.ended.append)
        self._open.callback(self._tasks.cancel)
        return self

    async def __aexit__(self, *failure: object) -> None:
        for close in self.closers:
            close()
        for member in self.members:
            member.links.close()
        # What was aborted is gone with the next rounds of the loop.
        await asyncio.sleep(0.01)
        self._tasks.cancel()
        await self._open.aclose()

    # --- files ----------------------------------------------------------------------------------

    def trust(self, *authorities: Authority) -> None:
        """Replace the trusted authorities."""
        write_public(self.trusted, b"".join(each.trust_pem for each in authorities))

    def publish(self, *authorities: Authority) -> None:
        """Replace the revocation lists."""
        write_public(self.lists, b"".join(revocation_list(each, _DAY) for each in authorities))

    def revoke(self, serial: int) -> None:
        """Take a certificate back, and tell every member."""
        assert revoke(self.authority, f"{serial:040x}")
        self.publish(self.authority)

    def pair(self, issued: Issued, stem: str = "") -> KeyPair:
        """Write a certificate and its key."""
        self._count += 1
        path = self.directory / (stem or f"pair-{self._count}")
        pair = KeyPair(certificate=path.with_suffix(".crt"), key=path.with_suffix(".key"))
        write_public(pair.certificate, issued.certificate_pem + issued.chain_pem)
        write_private(pair.key, issued.private_key)
        return pair

    def show(self, name: str, authority: Authority | None = None, ttl: timedelta = _DAY) -> int:
        """Give a member another certificate; return its serial."""
        issued = (authority or self.authority).issue(ProfileName.PEER, name, ttl=ttl)
        self.pair(issued, name)
        return issued.serial

    # --- members --------------------------------------------------------------------------------

    async def member(
        self,
        number: int,
        name: str = "",
        *,
        is_plain: bool = False,
        timing: LinkTiming | None = None,
        versions: Versions = VERSIONS,
        places: PlaceBounds = PEER_PLACES,
        ttl: timedelta = _DAY,
        port: int = 0,
    ) -> Member:
        """Start a member that knows nobody yet."""
        made = Member(self, number, name or f"m{number}")
        if not is_plain:
            stem = self.directory / made.own.name
            if not stem.with_suffix(".crt").exists():
                self.show(made.own.name, ttl=ttl)
            tls = ServerTls(
                cert_file=stem.with_suffix(".crt"),
                key_file=stem.with_suffix(".key"),
                trusted_ca_file=self.trusted,
                crl_file=self.lists,
                member=made.own.certified,
            )
            made.credentials = Credentials(tls, made.clock.now)
        made.links = PeerLinks(
            made.own,
            made.credentials,
            on_message=lambda sender, message: made.messages.append((sender, message)),
            on_up=lambda member: made.changes.append((member, True)),
            on_down=lambda member: made.changes.append((member, False)),
            on_parted=made.parted.append,
            on_bulk=made.consume,
            members=lambda: made.told,
            spawn=self._tasks.spawn,
            spawn_vital=self._tasks.spawn_vital,
            on_refused=lambda ip, port, reason: made.refused.append(reason),
            on_refused_by=lambda member, refusal: made.refused_by.append((member, refusal)),
            on_cut=lambda member, ip, port, reason: made.cuts.append((member, reason)),
            note=lambda stage, facts: made.notes.append(stage),
            timing=timing or LinkTiming(heartbeat_s=0.02, election_s=1.0),
            versions=versions,
            places=places,
            clock=made.clock,
        )
        scheme = "http" if is_plain else "https"
        (made.port,) = await made.links.listen([f"{scheme}://127.0.0.1:{port}"])
        self.members.append(made)
        return made

    async def three(self, *, is_plain: bool = False) -> tuple[Member, Member, Member]:
        """Start three members that reach each other."""
        members = [await self.member(number, is_plain=is_plain) for number in (1, 2, 3)]
        for member in members:
            member.knows(*members)
        for member in members:
            await member.reaches(*(other for other in members if other is not member))
        first, second, third = members
        return first, second, third

    # --- whoever else comes ---------------------------------------------------------------------

    def issue(self, profile: ProfileName, name: str, authority: Authority | None = None) -> KeyPair:
        """Return a certificate of any kind."""
        hosts = ("localhost",) if profile is ProfileName.SERVER else ()
        return self.pair((authority or self.authority).issue(profile, name, hosts=hosts))

    def context(
        self, pair: KeyPair | None, alpn: Sequence[str] = MEMBER_ALPN, *, is_server: bool = False
    ) -> ssl.SSLContext:
        """Return TLS of somebody who checks nothing."""
        side = ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT
        context = LivingContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if is_server:
            # It has to ask, or the other side would show nothing.
            context.load_verify_locations(self.trusted)
            context.verify_mode = ssl.CERT_OPTIONAL
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    async def stranger(
        self, member: Member, pair: KeyPair | None, alpn: Sequence[str] = MEMBER_ALPN
    ) -> "Stranger":
        """Connect to a member's port with some certificate; without one of its cluster, in vain."""
        tls = None if member.credentials is None else self.context(pair, alpn)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", member.port, ssl=tls, server_hostname="" if tls else None
        )
        # A writer that nobody holds closes its connection.
        self.closers.append(lambda: writer.transport.abort())  # noqa: PLW0108 - it holds the writer
        return Stranger(reader, writer)

    async def guest(self, member: Member, number: int, name: str) -> "Stranger":
        """Connect as a member by hand, and get its welcome."""
        stranger = await self.stranger(member, self.issue(ProfileName.PEER, name))
        stranger.say(Kind.HELLO, stranger.hello(member, number, name).encode())
        kind, _ = await stranger.hear()
        assert kind == Kind.WELCOME
        return stranger


@final
class Stranger:
    """The other end of a connection, moved by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(PEER_MESSAGE_BYTES_MAX)
        self._heard: list[tuple[int, bytes]] = []

    @staticmethod
    def question(name: str) -> Hello:
        """Return the hello of somebody who asks who the members are."""
        return Hello(VERSIONS, Purpose.MEMBERS, 0, 0, 0, name)

    @staticmethod
    def hello(to: Member, number: int, name: str, purpose: Purpose = Purpose.MESSAGES) -> Hello:
        """Return a hello to a member that is right."""
        return Hello(VERSIONS, purpose, CLUSTER_ID, number, to.id, name)

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame."""
        self.send(frame(kind, payload))

    def send(self, content: bytes) -> None:
        """Send any bytes; nobody hears them where the connection is over."""
        if not self._writer.transport.is_closing():
            self._writer.write(content)

    async def drain(self) -> None:
        """Wait until most of it has left."""
        await self._writer.drain()

    async def hear(self) -> tuple[int, bytes]:
        """Return the next frame.

        Raises:
            ConnectionError: There is none: the connection is over.
        """
        while not self._heard:
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    content = await self._reader.read(1 << 16)
            except (ssl.SSLError, ConnectionError) as error:
                raise ConnectionError(str(error)) from None
            if not content:
                raise ConnectionError("closed")
            self._heard += self._frames.take(content)
        return self._heard.pop(0)

    async def end(self) -> Refusal | None:
        """Wait for the end of the connection; return the refusal that came before it, if any."""
        refusal = None
        with contextlib.suppress(ConnectionError):
            while True:
                kind, payload = await self.hear()
                if kind == Kind.REFUSAL:
                    refusal = next(each for each in Refusal if each.code == payload[0])
        self._writer.transport.abort()
        return refusal

    def abort(self) -> None:
        """Hang up without a word."""
        self._writer.transport.abort()

    def pause(self) -> None:
        """Read nothing any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a transport of a socket

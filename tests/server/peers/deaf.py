"""A member made by hand: it listens, welcomes whoever dials, and then does what the test wants.

Owns: its listener, and what it says to a hello.
Never: reads anything after its welcome, unless it is told to.
"""

import asyncio
import contextlib
from typing import Self, final

from server.peers.lab import CLUSTER_ID, Lab, Member

from kvsecure.pki.profiles import ProfileName
from kvsecure.server.peers import PeerAddress
from kvsecure.server.peers.framing import Kind, frame
from kvsecure.server.peers.hello import Welcome

__all__ = ["Deaf"]


@final
class Deaf:
    """The other end of a link."""

    def __init__(self, welcome: Welcome, after: bytes) -> None:
        self._said = frame(Kind.WELCOME, welcome.encode()) + after
        self._server: asyncio.Server
        self._held: list[asyncio.StreamWriter] = []
        self.address: PeerAddress

    @classmethod
    async def start(
        cls,
        lab: Lab,
        number: int,
        first: Member,
        *,
        name: str = "m2",
        profile: ProfileName = ProfileName.PEER,
        welcome: Welcome | None = None,
        after: bytes = b"",
    ) -> Self:
        """Start one.

        Args:
            lab: Whose authority issues its certificate.
            number: Its member id.
            first: Whoever will dial it.
            name: The name in its certificate.
            profile: The kind of its certificate.
            welcome: What it says, if it is not what a member would.
            after: What it says right behind that.
        """
        said = welcome or Welcome(1, CLUSTER_ID, number, name)
        made = cls(said, after)
        tls = None
        if first.credentials is not None:
            tls = lab.context(lab.issue(profile, name), is_server=True)
        # What the kernel keeps for it is little.
        made._server = await asyncio.start_server(made._greet, "127.0.0.1", 0, ssl=tls, limit=1_024)
        lab.closers.append(made._close)
        port = made._server.sockets[0].getsockname()[1]
        scheme = "http" if tls is None else "https"
        made.address = PeerAddress(name, (f"{scheme}://127.0.0.1:{port}",))
        return made

    def _close(self) -> None:
        self._server.close()
        for writer in self._held:
            writer.transport.abort()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._held.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readexactly(5)
            await reader.readexactly(int.from_bytes(head[:4], "big"))
            writer.write(self._said)

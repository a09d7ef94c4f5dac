"""A process with nothing but the links of one member: it counts what it hears, and answers.

Owns: one member's links in a process of its own, told by its arguments, one line a fact.
Never: is imported by a test; it is started by one.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from kvsecure.pki.trust import ServerTls
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers import LinkTiming, PeerAddress, PeerIdentity, PeerLinks
from kvsecure.server.tasks import Tasks

__all__: list[str] = []

_COUNT = 2_000
_BULK_BYTES = 32 << 20


async def _consume(sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
    size_bytes = 0
    async for piece in pieces:
        size_bytes += len(piece)
    print(f"stream {sender} {subject.decode()} {size_bytes}", flush=True)


async def _bulk() -> AsyncIterator[bytes]:
    for _ in range(_BULK_BYTES >> 20):
        yield bytes(1 << 20)


async def _live(directory: Path, number: int, ports: list[int]) -> None:
    """Link to the others, say so many things to each, stream once, and go on until killed."""
    own = PeerIdentity(trust_domain="c1", cluster_id=1, member_id=number, name=f"m{number}")
    tls = ServerTls(
        cert_file=directory / f"m{number}.crt",
        key_file=directory / f"m{number}.key",
        trusted_ca_file=directory / "trusted.crt",
        crl_file=directory / "peers.crl",
        member=own.certified,
    )
    heard: Counter[int] = Counter()

    def hear(sender: int, message: bytes) -> None:
        if int(message) != heard[sender]:
            print(f"gap {sender} {message!r}", flush=True)
        heard[sender] += 1
        if heard[sender] == _COUNT:
            print(f"heard {sender}", flush=True)

    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group, sys.exit)
        links = PeerLinks(
            own,
            Credentials(tls, lambda: datetime.now(UTC)),
            on_message=hear,
            on_up=lambda member: print(f"up {member}", flush=True),
            on_down=lambda member: print(f"down {member}", flush=True),
            on_bulk=_consume,
            spawn=tasks.spawn,
            spawn_vital=tasks.spawn_vital,
            timing=LinkTiming(heartbeat_s=0.05, election_s=0.5),
        )
        await links.listen([f"https://127.0.0.1:{ports[number - 1]}"])
        others = {
            each: PeerAddress(f"m{each}", (f"https://127.0.0.1:{port}",))
            for each, port in enumerate(ports, 1)
            if each != number
        }
        links.set_peers(others)
        while links.active != others.keys():  # noqa: ASYNC110 - it is a poll, of a process by itself
            await asyncio.sleep(0.01)
        group.create_task(links.send_bulk(min(others), f"from {number}".encode(), _bulk()))
        for count in range(_COUNT):
            for other in others:
                while not links.send(other, b"%d" % count):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            if count % 100 == 99:
                await asyncio.sleep(0)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_live(Path(sys.argv[1]), int(sys.argv[2]), list(map(int, sys.argv[3:]))))

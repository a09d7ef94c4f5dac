"""A front end of its own: real listeners above a real gate, with the test's own bounds and clock.

Owns: an event loop in a thread, the listeners, and time that passes when the test says so.
Never: replaces a part of the front end.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, final

import uvloop
from api.watching import Timers
from security.lab import CLUSTER, MEMBER, NO_ADMISSION, NO_KEYS, World

from kvsecure.api.header import HeaderEncoder
from kvsecure.api.methods import METHODS
from kvsecure.api.services import Services
from kvsecure.security.long_ranges import LongRanges
from kvsecure.security.membership import Membership
from kvsecure.security.queues import Queues
from kvsecure.server.accepting import Accepting
from kvsecure.server.calls import CallCounts
from kvsecure.server.health import Health
from kvsecure.server.http2 import Shared
from kvsecure.server.identity import IdentityOf, fingerprint_of
from kvsecure.server.listener import Listener, Spoken
from kvsecure.server.observatory import Observatory
from kvsecure.server.peer_connection import ListenerStatistics
from kvsecure.server.places import PlaceBounds, Refusals
from kvsecure.server.turn import Turn
from kvsecure.wire.h2.pings import ANY_PINGS, PingLimits

__all__ = ["Bounds", "Front", "Rejected"]

_S: Final = 1_000_000_000


class Rejected(NamedTuple):
    """A connection that was not taken, as the audit trail is told."""

    ip: str
    port: int
    reason: str


class Bounds(NamedTuple):
    """What a front end is given instead of the defaults."""

    pings: PingLimits = ANY_PINGS
    places: PlaceBounds = PlaceBounds(connections_max=100)
    handshake_s_max: float = 10.0
    unread_bytes_max: int = 1 << 28
    # What is spoken where there is TLS.
    spoken: Spoken = Spoken.TLS


@final
class Front:
    """One front end that listens on loopback."""

    def __init__(
        self, directory: Path, tls: ssl.SSLContext | None = None, bounds: Bounds | None = None
    ) -> None:
        """Prepare it; `directory` is where its audit trail lies."""
        self._directory = directory
        self._tls = tls
        self._bounds = bounds or Bounds()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()
        self.statistics = ListenerStatistics()
        self.refusals = Refusals()
        self.rejected: list[Rejected] = []
        self._world: World
        self._accepting: Accepting
        self._listener: Listener

    def __enter__(self) -> Self:
        self._thread.start()
        self._world = World(self._directory)
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._world.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    @property
    def connection_count(self) -> int:
        """How many connections have shaken hands and are there."""
        return len(self._accepting.connections)

    @property
    def unread_bytes(self) -> int:
        """How much it keeps for peers that do not read."""
        return self._accepting.unread_bytes

    def pass_seconds(self, count: int) -> None:
        """Let seconds pass, one after another."""
        for _ in range(count):
            self._world.clock.forward(1)
            self._do(self._accepting.second)
            self._do(lambda: self._accepting.tick(self._world.clock()))

    async def _open(self) -> None:
        world, loop = self._world, asyncio.get_running_loop()
        turn = Turn(world.gate, loop)
        world.gate.open_to(world.engine, turn.schedule)  # type: ignore[arg-type]  # a small engine
        encoder = HeaderEncoder(CLUSTER, MEMBER)
        services = Services(
            gate=world.gate,
            feeds=world.feeds,
            queues=Queues(world.gate, at_turn_end=turn.at_end, in_turn=turn.at_end),
            upkeep=world.upkeep,
            membership=Membership(world.gate, wall_ns=world.clock, later=Timers().later),
            keys=NO_KEYS,
            admission=NO_ADMISSION,
            ranges=LongRanges(world.gate, turn.at_end),
            header=lambda revision: encoder.field(revision, 1),
            at_turn_end=turn.at_end,
            in_turn=turn.at_end,
            later=Timers().later,
            spawn=self._spawn,
            txn_ops_max=128,
            request_bytes_max=1_000_000,
            progress_interval_s=600.0,
            random_bytes=bytes,
        )
        shared = Shared(
            services=services,
            turn=turn,
            counts={path: CallCounts() for path in METHODS},
            observatory=Observatory(Health(world.engine, MEMBER), self._no_numbers),  # type: ignore[arg-type]  # a small engine
            now_ns=world.clock,
            streams_max=100,
            request_bytes_max=1_000_000,
            serves_calls=True,
            serves_pages=True,
            pings=self._bounds.pings,
        )
        self._accepting = Accepting(
            shared=shared,
            statistics=self.statistics,
            read_identity=IdentityOf("kvsecure", by_common_name=False),
            fingerprint=fingerprint_of,
            on_handshake_failure=self._reject,
            on_cut=world.gate.events.note_cut,
            spawn=self._spawn,
            places=self._bounds.places,
            refusals=self.refusals,
            handshake_s_max=self._bounds.handshake_s_max,
            unread_bytes_max=self._bounds.unread_bytes_max,
        )
        self._listener = await self._accepting.listen(
            "127.0.0.1", 0, self._tls, self._bounds.spoken
        )

    async def _close(self) -> None:
        self._listener.close()
        for connection in list(self._accepting.connections):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What was aborted is gone with the next round of the loop.
        await asyncio.sleep(0.01)

    def _reject(self, ip: str, port: int, reason: str) -> None:
        self.rejected.append(Rejected(ip, port, reason))
        self._world.gate.events.note_handshake_failure(ip, port, reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _do(self, act: Callable[[], None]) -> None:
        """Do something within the loop, and wait for it."""

        async def whole() -> None:
            act()

        asyncio.run_coroutine_threadsafe(whole(), self._loop).result()

    @staticmethod
    def _no_numbers() -> Any:
        raise AssertionError("no test asks for them here")

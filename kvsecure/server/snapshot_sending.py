"""Sending a snapshot: the whole state, to a member whose log is too far behind.

Owns: one stream for each member at a time, from the tables to the link, and its deadlines.
Never: decides who needs one: consensus orders it; holds more than a few pieces of it.
Follows: docs/adr/0024-snapshots-between-members.md.
Keeps: what is sent holds everything through the index that was ordered; every order is answered.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, final

from kvsecure.core.raft.configuration import Configuration, DamagedConfiguration
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.scan import Damage
from kvsecure.core.scans import Scans
from kvsecure.core.snapshot_stream import SnapshotHead
from kvsecure.model.errors import Refused
from kvsecure.model.ids import Index, MemberId
from kvsecure.server.peers.bulk import BulkFailed
from kvsecure.telemetry.log import log

__all__ = ["SendBulk", "SnapshotSending"]

# Pages of the tables are not used again meanwhile. That nothing moves at all, the link notices.
_SENDING_S_MAX: Final = 3 * 3_600.0
# A member that cannot take it is not asked again at once: each attempt reads the tables.
_PAUSE_S: Final = 1.0

_log = log("server")


class SendBulk(Protocol):
    """What is asked of the links; `PeerLinks.send_bulk` is one."""

    async def __call__(self, member: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Send a stream, and wait until the receiver is done with it.

        Raises:
            BulkFailed: It did not get there whole.
        """
        ...


@final
class SnapshotSending:
    """Sends snapshots."""

    def __init__(
        self,
        scans: Scans,
        send_bulk: SendBulk,
        configuration_at: Callable[[Index], Configuration],
        *,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """Send none yet.

        Args:
            scans: Reads the tables.
            send_bulk: Takes a stream to a member.
            configuration_at: As of an index; for tables that do not say it themselves.
            pause_s: How long a failure is kept back.
        """
        self._scans = scans
        self._send_bulk = send_bulk
        self._configuration_at = configuration_at
        self._pause_s = pause_s
        self._under_way: set[MemberId] = set()

    async def send(self, order: SnapshotOrder) -> bool:
        """Send what was ordered, or a later state; return whether the member has installed it."""
        if order.to in self._under_way:
            # Ordered again by a leader that had lost and won: the member will say how far it is.
            await asyncio.sleep(self._pause_s)
            return False
        facts = {"peer": f"{order.to:x}", "index": order.index}
        began_s = time.monotonic()
        self._under_way.add(order.to)
        try:
            async with asyncio.timeout(_SENDING_S_MAX):
                index = await self._stream(order)
        except (BulkFailed, Refused, Damage, DamagedConfiguration, OSError) as error:
            _log.warning("a snapshot could not be sent", **facts, error=str(error) or repr(error))
            await asyncio.sleep(self._pause_s)
            return False
        finally:
            self._under_way.discard(order.to)
        took_s = round(time.monotonic() - began_s, 3)
        _log.info("a snapshot was sent", **{**facts, "index": index}, took_s=took_s)
        return True

    async def _stream(self, order: SnapshotOrder) -> Index:
        """Send it; return through which index it goes.

        Raises:
            BulkFailed: It did not get there.
        """
        async with self._scans.stream() as (state, pieces):
            if state.index < order.index:
                raise BulkFailed(f"the tables are at {state.index}, before what was ordered")
            if state.configuration:
                configuration = Configuration.decode(state.configuration)
            else:
                configuration = self._configuration_at(state.index)
            head = SnapshotHead(state.index, state.term, configuration)
            await self._send_bulk(order.to, head.encode(), pieces)
        return state.index

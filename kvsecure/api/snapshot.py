"""etcdserverpb.Maintenance/Snapshot: a backup as a stream.

Owns: the stream's messages, and when its reader is given up.
Never: decides, or holds more of a backup than a few pieces.
Follows: etcd's stream: pieces of 32 KiB, what remains counted down, and at the end the SHA-256 of
    all of it in a message of its own.
"""

import contextlib
from typing import Final, final

from kvsecure.api.pace import Pace
from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.maintenance_pb2 import SnapshotRequest, SnapshotResponse
from kvsecure.security.session import Session

__all__ = ["snapshot"]

# Whoever takes nothing for so long has gone, or holds a process and a file for nothing.
_IDLE_S_MAX: Final = 60.0


def snapshot(services: Services, call: StreamCall) -> Receiver:
    """Send a backup of this moment."""
    return _Snapshot(services, call)


@final
class _Snapshot:
    """One backup on its way."""

    __slots__ = ("_call", "_pace", "_request", "_services", "_session")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._request = SnapshotRequest()
        self._session: Session | None = None
        self._pace = Pace(call)

    def received(self, message: SnapshotRequest) -> None:
        """Begin; that it is asked for becomes a record first."""
        gate = self._services.gate
        if not gate.engine.can_read():
            gate.when_readable(self._call, message, lambda: self.received(message))
            return
        self._session = gate.admit_stream(self._call, message)
        if self._session is not None:
            self._request = message
            self._services.spawn(self._run())

    def half_closed(self) -> None:
        """The one message has come."""

    def drained(self) -> None:
        """Go on."""
        self._pace.drained()

    def closed(self) -> None:
        """Stop."""
        self._pace.closed()

    async def _run(self) -> None:
        upkeep = self._services.upkeep
        try:
            async with contextlib.aclosing(upkeep.back_up()) as pieces:
                async for piece, remaining in pieces:
                    if not await self._may_send():
                        return
                    answer = SnapshotResponse(
                        remaining_bytes=remaining,
                        blob=piece,
                        version=self._services.gate.facts.version,
                    )
                    self._call.send(answer.SerializeToString())
        except Refused as refused:
            self._call.finish(refused)
        else:
            self._call.finish()

    async def _may_send(self) -> bool:
        """Wait until the reader has room; tell whether it is still there and may read this."""
        try:
            has_room = await self._pace.has_room(_IDLE_S_MAX)
        except TimeoutError:
            self._call.finish(Refused(Failure.TIMEOUT))
            return False
        if not has_room or self._session is None:
            return False
        self._session = self._services.gate.still_allowed(
            self._call.peer, self._session, self._request
        )
        if self._session is None:
            self._call.finish(Refused(Failure.PERMISSION_DENIED))
        return self._session is not None

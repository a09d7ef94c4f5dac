"""etcdserverpb.KV/RangeStream: a range as a stream of parts.

Owns: the stream's messages.
Never: decides, or makes a part before there is room for it.
Follows: etcd-surface section 1.3: the header, `more` and the count are in the last message.
"""

import asyncio
from typing import Final, final

from kvsecure.api.pace import Pace
from kvsecure.api.services import Receiver, Services, StreamCall
from kvsecure.api.shape import check_range_stream
from kvsecure.model.errors import Code, Refused
from kvsecure.proto.encode import bytes_field
from kvsecure.proto.kv_pb2 import RangeRequest
from kvsecure.security.range_feed import RangeFeed, open_range

__all__ = ["range_stream"]

# Field key of etcdserverpb.RangeStreamResponse.
_RANGE_RESPONSE: Final = b"\x0a"


def range_stream(services: Services, call: StreamCall) -> Receiver:
    """Answer with the versions of a range of keys, in parts."""
    return _RangeStream(services, call)


@final
class _RangeStream:
    """One range on its way."""

    __slots__ = ("_call", "_feed", "_pace", "_services")

    def __init__(self, services: Services, call: StreamCall) -> None:
        self._services = services
        self._call = call
        self._feed: RangeFeed | None = None
        self._pace = Pace(call)

    def received(self, message: RangeRequest) -> None:
        """Begin."""
        gate = self._services.gate
        try:
            check_range_stream(message)
        except Refused as refused:
            gate.reject(self._call, message, refused)
            return
        if not message.serializable and not gate.engine.can_read_keys():
            gate.when_readable(self._call, message, lambda: self.received(message))
            return
        if self._pace.is_closed:
            return
        self._feed = open_range(gate, self._call, message, self._services.request_bytes_max)
        if self._feed is not None:
            self._services.spawn(self._run(self._feed))

    def half_closed(self) -> None:
        """The one message has come."""

    def drained(self) -> None:
        """Go on."""
        self._pace.drained()

    def closed(self) -> None:
        """Stop."""
        self._pace.closed()
        if self._feed is not None:
            self._feed.end(Code.CANCELLED)

    async def _run(self, feed: RangeFeed) -> None:
        try:
            while await self._pace.has_room():
                chunk = feed.step()
                if chunk is not None:
                    body = chunk.body
                    if chunk.is_last:
                        body = self._services.header(feed.revision) + body
                    self._call.send(bytes_field(_RANGE_RESPONSE, body))
                    if chunk.is_last:
                        self._call.finish()
                        return
                # Others have their turn after every step.
                await asyncio.sleep(0)
        except Refused as refused:
            self._call.finish(refused)

"""RangeStream between a slow client and a real gate: pace, rights, compaction, the trail."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

from api.client_end import ClientEnd
from api.watching import Bench

from kvsecure.api.range_stream import range_stream
from kvsecure.model.errors import Code
from kvsecure.proto import auth_pb2, kv_pb2
from kvsecure.security.session import Peer

_ALL: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}


@final
class _Call(ClientEnd):
    """A client's end of one call."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        # How many messages it has room for; None for any number.
        self.room: int | None = None
        self.responses: list[kv_pb2.RangeResponse] = []

    @property
    def is_full(self) -> bool:
        """Whether there is no room."""
        return self.room is not None and len(self.responses) >= self.room

    def send(self, message: bytes) -> None:
        """Take a message."""
        assert not self.is_over
        self.responses.append(kv_pb2.RangeStreamResponse.FromString(message).range_response)

    def make_room(self, count: int | None) -> None:
        """Read on, until so many messages have come in all."""
        self.room = count
        self.receiver.drained()

    @property
    def keys(self) -> list[bytes]:
        """The keys that have come."""
        return [kv.key for one in self.responses for kv in one.kvs]


def _in_loop(bench: Bench, play: Callable[[Callable[..., _Call]], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            services = dataclasses.replace(bench.services, spawn=tasks.create_task)

            def begin(user: str = "root", **fields: Any) -> _Call:
                call = _Call(bench.world.peer(user))
                call.receiver = range_stream(services, call)
                call.receiver.received(kv_pb2.RangeRequest(**{**_ALL, **fields}))
                bench.end_turn()
                return call

            await play(begin)
            bench.end_turn()

    asyncio.run(whole())


async def _settle() -> None:
    """Let everything happen that can happen now."""
    for _ in range(200):
        await asyncio.sleep(0)


def _fill(bench: Bench, count: int) -> None:
    bench.write(*(kv_pb2.PutRequest(key=b"%06d" % number, value=b"v") for number in range(count)))


def test_stream_has_the_header_of_the_start_in_its_last_message(bench: Bench) -> None:
    """What is written meanwhile is not in the stream, and the header tells when it began."""
    _fill(bench, 100)
    began = bench.revision

    async def play(begin: Callable[..., _Call]) -> None:
        call = begin()
        call.room = 1
        await _settle()
        bench.put(b"000050x")
        call.make_room(None)
        await _settle()

        assert call.keys == [b"%06d" % number for number in range(100)]
        assert [one.header.revision for one in call.responses[:-1]] == [0] * (
            len(call.responses) - 1
        )
        assert call.responses[-1].header.revision == began
        assert call.responses[-1].count == 100
        assert call.is_over
        assert call.ended is None

    _in_loop(bench, play)


def test_nothing_is_made_for_a_client_that_does_not_read(bench: Bench) -> None:
    """The next part is made when the one before was taken, and not a key earlier."""
    _fill(bench, 1_000)

    async def play(begin: Callable[..., _Call]) -> None:
        call = begin()
        for room, keys in ((0, 0), (1, 10), (2, 30), (3, 70)):
            call.make_room(room)
            await _settle()
            assert len(call.keys) == keys
        call.receiver.closed()
        await _settle()

    _in_loop(bench, play)


def test_compaction_ends_an_open_stream(bench: Bench) -> None:
    """What was compacted under way is refused as compacted, and what came before stays."""
    _fill(bench, 100)

    async def play(begin: Callable[..., _Call]) -> None:
        call = begin()
        call.room = 1
        await _settle()
        bench.put(b"z")
        bench.write(kv_pb2.CompactionRequest(revision=bench.revision))
        call.make_room(None)
        await _settle()

        assert len(call.keys) == 10
        assert call.ended is not None
        assert call.ended.failure.name == "COMPACTED"

    _in_loop(bench, play)


def test_compaction_to_its_own_revision_leaves_a_stream_alone(bench: Bench) -> None:
    """A stream of the revision that is compacted to can still be read (etcd)."""
    _fill(bench, 100)

    async def play(begin: Callable[..., _Call]) -> None:
        call = begin()
        call.room = 1
        await _settle()
        bench.write(kv_pb2.CompactionRequest(revision=bench.revision))
        call.make_room(None)
        await _settle()

        assert len(call.keys) == 100
        assert call.ended is None

    _in_loop(bench, play)


def test_changed_accounts_end_an_open_stream(bench: Bench) -> None:
    """Once accounts have moved nothing more is sent: the stream ends as etcd's does."""
    _fill(bench, 100)

    async def play(begin: Callable[..., _Call]) -> None:
        call = begin()
        call.room = 1
        await _settle()
        bench.write(auth_pb2.AuthRoleAddRequest(name="new"))
        call.make_room(None)
        await _settle()

        assert len(call.keys) == 10
        assert call.ended is not None
        assert call.ended.text == "etcdserver: revision of auth store is old"

    _in_loop(bench, play)


def test_stream_needs_the_right_to_read_the_whole_range(bench: Bench) -> None:
    """A role that covers a part of the range opens no stream of it."""
    _fill(bench, 20)
    bench.world.role("part", b"000000", b"000010", 0)
    bench.world.user("reader", "part")

    async def play(begin: Callable[..., _Call]) -> None:
        part = begin("reader", key=b"000000", range_end=b"000010")
        whole = begin("reader")
        await _settle()

        assert len(part.keys) == 10
        assert part.ended is None
        assert whole.keys == []
        assert whole.ended is not None
        assert whole.ended.failure.name == "PERMISSION_DENIED"

    _in_loop(bench, play)


def test_stream_refuses_what_it_cannot_order_or_filter(bench: Bench) -> None:
    """Sort orders and filters by revision are refused with etcd's texts, and recorded."""

    async def play(begin: Callable[..., _Call]) -> None:
        sort = "RangeStream does not support custom sort orders"
        filters = "RangeStream does not support revision filters"
        for fields, text in (
            ({"sort_order": kv_pb2.RangeRequest.ASCEND}, sort),
            ({"sort_order": kv_pb2.RangeRequest.DESCEND}, sort),
            ({"sort_target": kv_pb2.RangeRequest.VERSION}, sort),
            ({"min_mod_revision": 1}, filters),
            ({"max_mod_revision": 1}, filters),
            ({"min_create_revision": 1}, filters),
            ({"max_create_revision": 1}, filters),
        ):
            call = begin(**fields)
            assert call.ended is not None
            assert (call.ended.code, call.ended.text) == (Code.UNIMPLEMENTED, text)
            assert next(bench.world.last())["stage"] == "rejected"

    _in_loop(bench, play)


def test_trail_has_the_beginning_and_the_end_of_a_stream(bench: Bench) -> None:
    """That it was allowed is recorded before anything is sent, and how it ended when it has."""
    _fill(bench, 20)

    async def play(begin: Callable[..., _Call]) -> None:
        begin()
        assert next(bench.world.last())["result"] == {"code": "OK", "part": "begin"}
        await _settle()
        bench.end_turn()
        ended = next(bench.world.last())
        assert ended["result"]["code"] == "OK"
        assert ended["result"]["bytes"] > 0
        lost = begin()
        lost.room = 0
        await _settle()
        lost.receiver.closed()
        bench.end_turn()
        assert next(bench.world.last())["result"] == {
            "bytes": 0,
            "code": "CANCELLED",
            "part": "end",
        }
        begin(revision=bench.revision + 1)
        bench.end_turn()
        assert next(bench.world.last())["result"] == {"code": "OUT_OF_RANGE", "part": "end"}

    _in_loop(bench, play)

"""Many peers that do not read: what is kept for all of them together is bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.processes import wait_until
from wire.listening import Bounds, Front
from wire.rawframes import DATA, END_STREAM, message, window_update
from wire.socket_peer import ANSWER_S, SocketPeer, call_fields

from kvsecure.proto import reflection_pb2

_PATH: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_QUESTION: Final = reflection_pb2.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV")
_INITIAL_WINDOW: Final = 4
_STREAMS: Final = 40
# More than what one peer may leave in a crowd.
_CROWD_BYTES: Final = 100 * 1024


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A front end that is crowded soon."""
    with Front(tmp_path, bounds=Bounds(unread_bytes_max=_CROWD_BYTES)) as running:
        yield running


def _ask(peer: SocketPeer, first: int, count: int = _STREAMS) -> bytes:
    """Return questions with large answers, one on each of some streams."""
    fields, question = call_fields(_PATH), message(_QUESTION.SerializeToString())
    return b"".join(
        peer.request(2 * number + 1, fields, question) for number in range(first, first + count)
    )


def _hear_one(peer: SocketPeer, number: int) -> int:
    """Ask one question and return how long its answer is."""
    peer.send(_ask(peer, number, 1))
    frames = peer.frames_until(
        lambda found: any(frame.stream and frame.flags & END_STREAM for frame in found)
    )
    return sum(len(frame.payload) for frame in frames if frame.type == DATA)


def test_peers_that_do_not_read_are_held_when_there_are_many(front: Front) -> None:
    """Once all together leave too much, a peer gets no more made until it reads; others do."""
    with (
        SocketPeer(front.port).begin() as other,
        SocketPeer(front.port).begin([(_INITIAL_WINDOW, 0)]) as peer,
    ):
        kept = _STREAMS * _hear_one(other, 0)
        assert kept > _CROWD_BYTES
        peer.send(_ask(peer, 0))
        wait_until(lambda: front.unread_bytes >= kept, deadline_s=ANSWER_S, what="the answers")
        front.pass_seconds(1)

        before, more = front.statistics.received_bytes, _ask(peer, _STREAMS)
        peer.send(more)
        wait_until(
            lambda: front.statistics.received_bytes >= before + len(more),
            deadline_s=ANSWER_S,
            what="the questions to come",
        )
        assert _hear_one(other, 1) > 0
        assert front.unread_bytes == kept

        for number in range(_STREAMS):
            peer.send(window_update(2 * number + 1, 1 << 20))
        peer.send(window_update(0, 1 << 24))
        # What was kept is read, and then what was held is made, for windows that are still closed.
        peer.frames_until(
            lambda found: sum(len(frame.payload) for frame in found if frame.type == DATA) >= kept
        )
        front.pass_seconds(2)
        wait_until(lambda: front.unread_bytes == kept, deadline_s=ANSWER_S, what="the rest")

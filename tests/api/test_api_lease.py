"""The keep-alive stream: an answer for each message, and no end before the last of them."""

from typing import Final, final

from api.watching import Bench

from kvsecure.api.lease import keep_alive
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.proto import lease_pb2
from kvsecure.security.session import Peer

_LEASE: Final = 5


@final
class _Call:
    """A client's end of one call."""

    is_full = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.token = b""
        self.answers: list[lease_pb2.LeaseKeepAliveResponse] = []
        self.is_over = False
        self.ended: Refused | None = None

    def send(self, message: bytes) -> None:
        """Fail: answers have a header."""
        raise AssertionError(message)

    def succeed(self, answer: Answer) -> None:
        """Take an answer."""
        assert not self.is_over
        self.answers.append(lease_pb2.LeaseKeepAliveResponse.FromString(answer.body))

    def finish(self, refused: Refused | None = None) -> None:
        """Take the end."""
        self.is_over, self.ended = True, refused

    def fail(self, refused: Refused) -> None:
        """Take a refusal as the end."""
        self.finish(refused)


def _checkpointed(bench: Bench) -> None:
    bench.write(lease_pb2.LeaseGrantRequest(ID=_LEASE, TTL=1_000))
    bench.world.clock.forward(300)
    bench.world.gate.leases.scan()
    bench.end_turn()


def test_stream_ends_after_its_last_answer(bench: Bench) -> None:
    """A client that sends no more gets the answers that still wait for the log, then the end."""
    _checkpointed(bench)
    call = _Call(bench.world.peer("root"))
    stream = keep_alive(bench.services, call)

    stream.received(lease_pb2.LeaseKeepAliveRequest(ID=_LEASE))
    stream.received(lease_pb2.LeaseKeepAliveRequest(ID=99))
    stream.half_closed()
    waiting = (call.is_over, len(call.answers))
    bench.end_turn()

    # The one that is not there waits for nothing.
    assert waiting == (False, 1)
    assert [(each.ID, each.TTL) for each in call.answers] == [(99, 0), (_LEASE, 1_000)]
    assert call.is_over
    assert call.ended is None


def test_stream_without_messages_ends_at_once(bench: Bench) -> None:
    """A client that sends nothing at all has its end."""
    call = _Call(bench.world.peer("root"))

    keep_alive(bench.services, call).half_closed()

    assert call.is_over

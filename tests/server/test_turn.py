"""Turns: one connection's failure is no other one's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from security.lab import World

from kvsecure.model.errors import Refused


class _Peer:
    """A connection and a call of it; either may fail, once."""

    def __init__(self, failures: int = 0) -> None:
        self.came: list[bytes | None] = []
        self.flushes = 0
        self._failures = failures

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        self._fail()
        assert refused is None
        self.came.append(message)

    def flush(self) -> None:
        self._fail()
        self.flushes += 1

    def produce(self) -> None:
        self._fail()
        self.came.append(b"produced")

    def _fail(self) -> None:
        if self._failures:
            self._failures -= 1
            raise RuntimeError("the handler is closed")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world with a turn."""
    built = World(tmp_path)
    yield built
    built.close()


def test_failed_answer_leaves_the_others(world: World) -> None:
    """Who stands behind a call that cannot be answered is answered in the next turn, once."""
    first, broken, last = _Peer(), _Peer(1), _Peer()
    for peer in (first, broken, last):
        world.turn.answer(peer, b"m", None)

    with pytest.raises(RuntimeError):
        world.turn.end()
    world.turn.end()

    assert [first.came, broken.came, last.came] == [[b"m"], [], [b"m"]]


def test_failed_write_leaves_the_others(world: World) -> None:
    """Every connection but the broken one is written to, in this turn or the next."""
    # They are written to in no order: among so many the broken one is hardly the last.
    peers = [_Peer(), _Peer(1), *(_Peer() for _ in range(200))]
    for peer in peers:
        world.turn.mark(peer)

    with pytest.raises(RuntimeError):
        world.turn.end()
    world.turn.end()

    assert [peer.flushes for peer in peers] == [1, 0] + [1] * 200


def test_failed_producer_leaves_the_others(world: World) -> None:
    """A stream that cannot go on keeps nobody else's from going on."""
    broken, last = _Peer(1), _Peer()
    world.turn.at_end(broken.produce)
    world.turn.at_end(last.produce)

    with pytest.raises(RuntimeError):
        world.turn.end()
    world.turn.end()

    assert (broken.came, last.came) == ([], [b"produced"])

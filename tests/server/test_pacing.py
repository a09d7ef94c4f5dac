"""Large writes in shares, to a transport that keeps what it is given, turn by turn."""

import asyncio
from collections.abc import Callable
from typing import Final, cast, final

import pytest

from kvsecure.server.pacing import SHARE_BYTES, Pacing

_LARGE: Final = b"".join(bytes((number,)) * (SHARE_BYTES // 4) for number in range(14))


@final
class _Connection:
    """A transport, and a loop whose turns are taken by hand."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.soon: list[Callable[[], None]] = []
        self.writable: list[bool] = []
        self.closed = False
        self.pacing = Pacing(
            cast("asyncio.Transport", self),
            cast("asyncio.AbstractEventLoop", self),
            lambda *, writable: self.writable.append(writable),
        )

    def write(self, data: bytes) -> None:
        """Take bytes, which no connection does that is closed."""
        assert not self.closed
        self.written.append(bytes(data))

    def close(self) -> None:
        """Close."""
        self.closed = True

    def is_closing(self) -> bool:
        """Tell whether it is closed."""
        return self.closed

    def call_soon(self, act: Callable[[], None]) -> None:
        """Take what is to be run in the next turn."""
        self.soon.append(act)

    def turn(self) -> int:
        """Take one turn; return how many bytes were written in it."""
        before = sum(map(len, self.written))
        acts, self.soon = self.soon, []
        for act in acts:
            act()
        return sum(map(len, self.written)) - before


@pytest.fixture
def connection() -> _Connection:
    """An open connection."""
    return _Connection()


def test_what_is_small_is_written_at_once(connection: _Connection) -> None:
    """A write of no more than a share does not wait for a turn."""
    connection.pacing.write(_LARGE[:SHARE_BYTES])
    connection.pacing.write(b"small")

    assert connection.written == [_LARGE[:SHARE_BYTES], b"small"]
    assert connection.writable == []


def test_what_is_large_is_written_a_share_a_turn(connection: _Connection) -> None:
    """No turn takes more than a share; all of it comes, in order, with what was written behind."""
    connection.pacing.write(b"first")
    connection.pacing.write(_LARGE)
    connection.pacing.write(b"behind")

    turns = [connection.turn() for _ in range(6)]

    assert turns == [SHARE_BYTES] * 3 + [SHARE_BYTES // 2 + 6, 0, 0]
    assert b"".join(connection.written) == b"first" + _LARGE + b"behind"
    assert connection.pacing.rest_bytes == 0


def test_who_writes_hears_when_more_is_wanted(connection: _Connection) -> None:
    """While a rest waits, or the transport has enough, nothing more is wanted: told once each."""
    connection.pacing.write(_LARGE)
    connection.pacing.pause()
    paused = [connection.turn() for _ in range(3)]
    connection.pacing.resume()
    while connection.soon:
        assert connection.writable == [False]
        connection.turn()

    assert paused == [0, 0, 0]
    assert connection.writable == [False, True]
    assert b"".join(connection.written) == _LARGE


def test_the_end_comes_behind_the_rest(connection: _Connection) -> None:
    """A connection that is to be closed is closed when everything was written."""
    connection.pacing.write(_LARGE)
    connection.pacing.end()
    while not connection.closed:
        connection.turn()

    assert b"".join(connection.written) == _LARGE
    assert connection.writable == [False]


def test_a_connection_that_is_gone_is_not_written_to(connection: _Connection) -> None:
    """What is left when a connection ends is forgotten."""
    connection.pacing.write(_LARGE)
    connection.turn()
    connection.close()

    assert connection.turn() == 0
    assert connection.pacing.rest_bytes == 0

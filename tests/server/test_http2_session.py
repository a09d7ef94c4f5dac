"""One HTTP/2 connection of the server, without a socket: what it writes, and when no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api.watching import Bench
from wire.rawframes import begin

from kvsecure.api.methods import METHODS
from kvsecure.server.calls import CallCounts
from kvsecure.server.http2 import Http2Session, Shared


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Services on a real gate."""
    built = Bench(tmp_path)
    yield built
    built.close()


def _session(bench: Bench, written: list[bytes]) -> Http2Session:
    nothing: Any = None
    shared = Shared(
        services=bench.services,
        turn=bench.world.turn,
        counts={path: CallCounts() for path in METHODS},
        observatory=nothing,
        now_ns=bench.world.clock,
        streams_max=100,
        request_bytes_max=1_000_000,
        serves_calls=True,
        serves_pages=False,
    )
    return Http2Session(shared, bench.world.peer("root"), written.append)


def test_turn_writes_what_there_is(bench: Bench) -> None:
    """Settings and their acknowledgement leave with the turn."""
    written: list[bytes] = []
    session = _session(bench, written)

    session.receive(begin())
    bench.end_turn()

    assert len(b"".join(written)) > 9


def test_lost_connection_is_not_written_to(bench: Bench) -> None:
    """What was made for a peer that is gone by the end of the turn is dropped with it."""
    written: list[bytes] = []
    session = _session(bench, written)

    session.receive(begin())
    session.lost()
    bench.end_turn()

    assert written == []

"""Connections that are over: nothing of them is left for the collector of circles to find."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import wait_until
from wire.listening import Front
from wire.rawframes import PING, ping
from wire.socket_peer import ANSWER_S, SocketPeer

from kvsecure.server.http2 import Http2Session
from kvsecure.server.peer_connection import PeerConnection


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A front end."""
    with Front(tmp_path) as running:
        yield running


def _left() -> int:
    return sum(isinstance(each, PeerConnection | Http2Session) for each in gc.get_objects())


def test_connection_that_is_gone_leaves_nothing(front: Front) -> None:
    """Its memory is free at once: the collector runs rarely, connections come quickly."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with SocketPeer(front.port).begin() as peer:
                peer.send(ping())
                peer.frames_until(lambda found: any(one.type == PING for one in found))
        wait_until(
            lambda: not front.connection_count and not _left(),
            deadline_s=ANSWER_S,
            what="the connections to be gone",
        )
    finally:
        gc.enable()

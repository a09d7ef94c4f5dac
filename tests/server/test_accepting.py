"""What concerns all connections: one that goes wrong does not stop what keeps the others safe."""

from pathlib import Path

from support.processes import wait_until
from wire.listening import Front
from wire.socket_peer import SocketPeer


def test_connection_that_goes_wrong_leaves_the_others_their_deadlines(tmp_path: Path) -> None:
    """It is ended, and the seconds of everybody else go on."""
    with Front(tmp_path) as front, SocketPeer(front.port) as first, SocketPeer(front.port) as other:
        wait_until(lambda: front.connection_count == 2, deadline_s=20, what="both to be there")
        broken = next(iter(front._accepting.connections))
        broken.vetting.expires_s = None  # type: ignore[assignment]  # a mistake of ours

        front.pass_seconds(1)
        wait_until(lambda: front.connection_count == 1, deadline_s=20, what="the broken one to end")
        front.pass_seconds(9)

        assert first.read_all() == b""
        assert other.read_all() == b""

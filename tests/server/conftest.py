"""A member over real sockets, and who talks to it.

Owns: one member for all tests of a file, a client of root, and a connection for each test.
Never: starts a member that no test asked for.
"""

from collections.abc import Iterator

import pytest
from support.rpc import Client
from support.servers import KvsecureServer
from wire.socket_peer import SocketPeer, client_tls

__all__: list[str] = []


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvsecureServer]:
    """A member that asks for no client certificates."""
    with KvsecureServer(tmp_path_factory.mktemp("member")) as serving:
        yield serving


@pytest.fixture(scope="module")
def root(member: KvsecureServer) -> Iterator[Client]:
    """A stock client of root."""
    with member.client() as client:
        yield client


@pytest.fixture
def peer(member: KvsecureServer) -> Iterator[SocketPeer]:
    """A connection that may say anything, with the preface sent."""
    with SocketPeer(member.port, client_tls(member.authority.certificate)) as connected:
        yield connected.begin()

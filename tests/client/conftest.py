"""What the tests of the client share: clients of members, and servers that follow a script.

Owns: the fixtures of this directory.
Never: starts a server that no test asked for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.etcd import ScriptedServer, open_client
from support.servers import Member

from kvsecure.client import Client

__all__: list[str] = []


@pytest.fixture
def root(member: Member) -> Iterator[Client]:
    """A client of the member that logs in as root."""
    with open_client(member) as client:
        yield client


@pytest.fixture
def as_user(member: Member) -> Iterator[Callable[[str, str], Client]]:
    """A maker of clients of the member for other users, closed at the end."""
    opened: list[Client] = []

    def make(user: str, password: str) -> Client:
        opened.append(open_client(member, user, password))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers by a script."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def make_scripted() -> Iterator[Callable[[], ScriptedServer]]:
    """A maker of such servers."""
    made: list[ScriptedServer] = []

    def make() -> ScriptedServer:
        made.append(ScriptedServer())
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An empty directory for certificates."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    return directory

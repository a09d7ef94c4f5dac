"""What the tests of the client share: members to talk to, and servers that follow a script.

Owns: the fixtures of this directory.
Never: starts a server that no test asked for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.etcd import ScriptedServer, member_names, open_client
from support.servers import EtcdMember, Member

from kvsecure.client import Client

__all__: list[str] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a member against etcd and, if it is another one, the server under test."""
    if "member_name" in metafunc.fixturenames:
        names = member_names(str(metafunc.config.getoption("--subject")))
        metafunc.parametrize("member_name", names, scope="module")


@pytest.fixture(scope="module")
def member(
    member_name: str,
    subject_type: type[Member],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Member]:
    """A serving member with TLS and auth, for all tests of a module."""
    kind = EtcdMember if member_name == "etcd" else subject_type
    with kind(tmp_path_factory.mktemp(member_name)) as serving:
        yield serving


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

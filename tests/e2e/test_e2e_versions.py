"""Versions of a server: who may see them, and what is recorded of it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.world import DENIED, NOBODY, READ, WRITE, Fortress, refused
from support.rpc import Client

from kvsecure.proto import version_pb2


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server."""
    with Fortress(tmp_path_factory.mktemp("member")) as fortress:
        yield fortress


def _history(client: Client, key: bytes, **fields: Any) -> list[version_pb2.Version]:
    return list(client.versions.History(version_pb2.HistoryRequest(key=key, **fields)).versions)


def test_reader_sees_the_history_and_nobody_else_does(fortress: Fortress) -> None:
    """READ on the key is what it takes: not WRITE, not READ of another key, not no name at all."""
    root = fortress.root()
    for value in (b"one", b"two"):
        fortress.put(root, b"/seen/key", value)
    fortress.role("seer", (READ, b"/seen/", b"/seen0"))
    fortress.role("writer", (WRITE, b"/seen/", b"/seen0"))
    fortress.role("other", (READ, b"/other/", b"/other0"))
    for name in ("seer", "writer", "other"):
        fortress.user(name, name)

    assert [v.value for v in _history(fortress.bearer("seer"), b"/seen/key")] == [b"two", b"one"]
    for name in ("writer", "other"):
        client = fortress.certified(name)
        assert refused(lambda client=client: _history(client, b"/seen/key")) == DENIED
        request = version_pb2.HistoryRequest(key=b"/seen/key", keys_only=True)
        assert refused(lambda client=client, r=request: client.versions.History(r)) == DENIED
    stranger = fortress.stranger()
    assert refused(lambda: _history(stranger, b"/seen/key")) == NOBODY
    at = version_pb2.RevisionAtRequest(time_s=1)
    assert refused(lambda: stranger.versions.RevisionAt(at)) == NOBODY


def test_tenants_have_their_own_history(fortress: Fortress) -> None:
    """A key of the same name in another tenant has nothing to do with it."""
    fortress.put(fortress.root(), b"/apart", b"ours")
    acme = fortress.tenant("acme")

    assert _history(acme, b"/apart") == []
    fortress.put(acme, b"/apart", b"theirs")
    assert [v.value for v in _history(acme, b"/apart")] == [b"theirs"]
    assert [v.value for v in _history(fortress.root(), b"/apart")] == [b"ours"]


def test_reading_history_is_recorded_as_a_read(fortress: Fortress) -> None:
    """The trail says whose history was read, by whom, and no value."""
    fortress.put(fortress.root(), b"/recorded", b"a-value-to-look-for")
    _history(fortress.root(), b"/recorded", limit=3)

    (record,) = (
        each for each in fortress.requests("History") if each["op"].get("key") == "/recorded"
    )
    assert record["stage"] == "read"
    assert record["op"] == {"rpc": "History", "key": "/recorded", "limit": 3}
    assert record["result"]["code"] == "OK"
    assert "a-value-to-look-for" not in str(fortress.records())


def test_time_of_a_version_is_that_of_its_writing(fortress: Fortress) -> None:
    """Versions carry the second in which they were written, and a second leads to its revision."""
    root = fortress.root()
    begun_s = int(time.time())
    revision = fortress.put(root, b"/timed", b"v")
    ended_s = int(time.time())

    (version,) = _history(root, b"/timed")

    assert begun_s <= version.time_s <= ended_s
    found = root.versions.RevisionAt(version_pb2.RevisionAtRequest(time_s=version.time_s))
    assert found.revision >= revision
    early = version_pb2.RevisionAtRequest(time_s=1)
    refusal = refused(lambda: root.versions.RevisionAt(early))
    assert refusal is not None
    assert refusal.code == "OUT_OF_RANGE"

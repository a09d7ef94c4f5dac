"""Versions of a server: who may see them, and what is recorded of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.world import DENIED, NOBODY, READ, WRITE, Fortress, refused
from google.protobuf.message import Message
from support.rpc import Client

from kvsecure.proto import kv_pb2, maintenance_pb2, version_pb2


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


# --- retention ----------------------------------------------------------------------------------


def _retained(fortress: Fortress) -> dict[bytes, list[bytes]]:
    """Return the values that are kept of each key, newest first; a deletion has none."""
    root = fortress.root()
    return {
        key: [version.value for version in _history(root, key)]
        for key in (b"/kept/a", b"/kept/gone", b"/let/a")
    }


def _compact(client: Client, revision: int) -> None:
    client.kv.Compact(kv_pb2.CompactionRequest(revision=revision, physical=True))


def _hash(client: Client) -> int:
    return int(client.maintenance.HashKV(maintenance_pb2.HashKVRequest()).hash)


def test_retained_versions_live_through_restarts_and_a_restore(tmp_path: Path) -> None:
    """What a policy keeps survives a compaction, a kill, a stop, and is in a restored cluster."""
    with Fortress(tmp_path / "member") as fortress:
        root = fortress.root()
        root.versions.RetentionSet(
            version_pb2.RetentionSetRequest(prefix=b"/kept/", keep_versions=2)
        )
        for value in (b"one", b"two", b"three"):
            for key in (b"/kept/a", b"/kept/gone", b"/let/a"):
                fortress.put(root, key, value)
        root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/kept/gone"))
        revision = fortress.put(root, b"/other", b"x")
        expected = {
            b"/kept/a": [b"three", b"two"],
            b"/kept/gone": [b"", b"three", b"two"],
            b"/let/a": [b"three"],
        }

        _compact(root, revision)

        assert _retained(fortress) == expected
        times = [version.time_s for version in _history(root, b"/kept/a")]
        assert all(times)
        old = kv_pb2.RangeRequest(key=b"/kept/a", revision=revision - 1)
        refusal = refused(lambda: root.kv.Range(old))
        assert refusal is not None
        assert refusal.text == "etcdserver: mvcc: required revision has been compacted"
        hashed = _hash(root)
        for end in (fortress.server.process.kill9_all, fortress.server.stop):
            end()
            fortress.server.restart()
            assert _retained(fortress) == expected
            assert _hash(fortress.root()) == hashed
        fortress.restore_backup()
        assert _retained(fortress) == expected
        assert [v.time_s for v in _history(fortress.root(), b"/kept/a")] == times
        assert fortress.cli("undelete", "/kept/gone").returncode == 0
        assert fortress.value(fortress.root(), b"/kept/gone") == b"three"
        delete = version_pb2.RetentionDeleteRequest(prefix=b"/kept/")
        fortress.root().versions.RetentionDelete(delete)
        _compact(fortress.root(), fortress.put(fortress.root(), b"/other", b"y"))
        assert _retained(fortress)[b"/kept/a"] == [b"three"]


def test_policies_are_of_a_tenant_and_its_root(fortress: Fortress) -> None:
    """A tenant's root keeps what is its own; who is not root may not even look."""
    fortress.role("plain", (READ, b"/", b"0"))
    fortress.user("plain", "plain")
    plain, bolt = fortress.bearer("plain"), fortress.tenant("bolt")
    requests: dict[str, Message] = {
        "RetentionSet": version_pb2.RetentionSetRequest(prefix=b"/b/", keep_versions=9),
        "RetentionList": version_pb2.RetentionListRequest(),
        "RetentionDelete": version_pb2.RetentionDeleteRequest(prefix=b"/b/"),
    }
    for name, request in requests.items():
        assert refused(lambda n=name, r=request: getattr(plain.versions, n)(r)) == DENIED

    bolt.versions.RetentionSet(requests["RetentionSet"])
    for number in range(12):
        for client in (bolt, fortress.root()):
            revision = fortress.put(client, b"/b/key", b"%d" % number)
    _compact(fortress.root(), revision)

    assert len(_history(bolt, b"/b/key")) == 9
    assert len(_history(fortress.root(), b"/b/key")) == 1
    assert not fortress.root().versions.RetentionList(requests["RetentionList"]).policies
    (policy,) = bolt.versions.RetentionList(requests["RetentionList"]).policies
    assert policy == version_pb2.RetentionPolicy(prefix=b"/b/", keep_versions=9)
    bolt.versions.RetentionDelete(requests["RetentionDelete"])
    gone = refused(lambda: bolt.versions.RetentionDelete(requests["RetentionDelete"]))
    assert gone is not None
    assert gone.text == "kvsecure: retention policy not found"


@pytest.mark.parametrize(
    "wrong",
    [
        version_pb2.RetentionSetRequest(prefix=b"/"),
        version_pb2.RetentionSetRequest(prefix=b"x" * 1_025, keep_versions=1),
        version_pb2.RetentionSetRequest(keep_versions=1_000_001),
        version_pb2.RetentionSetRequest(keep_for_s=1 << 40),
    ],
)
def test_policy_out_of_bounds_is_refused(
    fortress: Fortress, wrong: version_pb2.RetentionSetRequest
) -> None:
    """A policy keeps something, and its numbers are bounded."""
    refusal = refused(lambda: fortress.root().versions.RetentionSet(wrong))

    assert refusal is not None
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.text.startswith("kvsecure: retention policy rejected: ")

"""Destroyed keys: nobody reads them, and nothing of them is in a file of the member."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from e2e.tables import open_tables
from e2e.world import DENIED, READWRITE, Fortress, refused
from support.processes import wait_until
from support.rpc import Client

from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.proto import kv_pb2, version_pb2, watch_pb2
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.segment import HEADER_BYTES

_KEY: Final = b"/secret/key"
_DEADLINE_S: Final = 20.0
# Any so many bytes of a sealed row or frame are as good as unique.
_WINDOW_BYTES: Final = 24


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """A server."""
    with Fortress(tmp_path / "member") as fortress:
        yield fortress


def _destroy(client: Client, key: bytes = _KEY) -> Any:
    return client.versions.Destroy(version_pb2.DestroyRequest(key=key))


def _pending(client: Client) -> int:
    return int(client.versions.DestroyStatus(version_pb2.DestroyStatusRequest()).pending)


def _wait_gone(fortress: Fortress) -> None:
    root = fortress.root()
    wait_until(lambda: not _pending(root), deadline_s=_DEADLINE_S, what="the bytes to be gone")


def _wait_flushed(fortress: Fortress, revision: int) -> None:
    def is_flushed() -> bool:
        tables = open_tables(fortress)
        try:
            rows = [
                int.from_bytes(head[:8], "big")
                for _, block in tables.scan(Table.INDEX, NO_SCOPE)
                for _, head, _, _ in decode_index_block(block)
            ]
            return max(rows, default=0) >= revision
        finally:
            tables.close()

    wait_until(is_flushed, deadline_s=_DEADLINE_S, what="the flush")


def _sealed_rows(fortress: Fortress, key: bytes) -> list[bytes]:
    """Return the sealed rows of all versions of a key, as they are in the tables' file."""
    tables = open_tables(fortress)
    try:
        places = {
            head[:12]
            for _, block in tables.scan(Table.INDEX, NO_SCOPE)
            for _, head, name, _ in decode_index_block(block)
            if name == key
        }
        return [row for place, row in tables.scan_sealed(Table.RECORDS) if place in places]
    finally:
        tables.close()


def _log_bytes(fortress: Fortress) -> bytes:
    """Return what is sealed in the log."""
    segments = sorted((fortress.data / "wal").glob("*.wal"))
    return b"".join(path.read_bytes()[HEADER_BYTES:].rstrip(b"\0") for path in segments)


def _windows(sealed: bytes) -> set[bytes]:
    """Return pieces of sealed bytes, side by side."""
    ends = range(_WINDOW_BYTES, len(sealed) + 1, _WINDOW_BYTES)
    return {sealed[end - _WINDOW_BYTES : end] for end in ends}


def _found(fortress: Fortress, windows: set[bytes]) -> dict[str, int]:
    """Return how many pieces are in each file of the data directory, raw."""
    found = {}
    for path in sorted(fortress.data.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if count := sum(window in content for window in windows):
                found[str(path.relative_to(fortress.data))] = count
    return found


@pytest.mark.parametrize("size_bytes", [40, 900, 9_000])
def test_no_file_has_a_byte_of_a_destroyed_key(fortress: Fortress, size_bytes: int) -> None:
    """Sealed rows and frames of all its versions were there, and are in no file afterwards."""
    root = fortress.root()
    for number in range(30):
        fortress.put(root, b"/before/%d" % number, secrets.token_bytes(60))
    for _ in range(3):
        fortress.put(root, _KEY, secrets.token_bytes(size_bytes))
    logged = _log_bytes(fortress)
    revision = fortress.put(root, b"/after", b"x")
    _wait_flushed(fortress, revision)
    rows = _sealed_rows(fortress, _KEY)
    in_rows = set[bytes]().union(*map(_windows, rows))
    in_log = _windows(logged[-3 * size_bytes :])
    # Rows that move within a page leave themselves behind.
    for number in range(0, 30, 2):
        root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/before/%d" % number))
    root.kv.Compact(kv_pb2.CompactionRequest(revision=revision, physical=True))
    before = _found(fortress, in_rows), _found(fortress, in_log)

    answer = _destroy(root)
    _wait_gone(fortress)

    assert len(rows) == 3
    assert list(before[0]) == ["tables/data.mdb"]
    assert before[1]
    assert answer.deleted
    assert _found(fortress, in_rows) == {}
    assert _found(fortress, in_log) == {}
    assert fortress.value(root, b"/before/1") is not None
    assert fortress.value(root, _KEY) is None


def test_nobody_reads_a_destroyed_key_from_the_answer_on(fortress: Fortress) -> None:
    """No range at an old revision, no history and no watch from the past has it any more."""
    root = fortress.root()
    first = fortress.put(root, _KEY, b"first-of-the-secret")
    second = fortress.put(root, _KEY, b"second-of-the-secret")
    other = fortress.put(root, b"/secret/other", b"o")

    revision = _destroy(root).header.revision

    for old in (first, second, other):
        request = kv_pb2.RangeRequest(key=b"/secret/", range_end=b"/secret0", revision=old)
        kvs = root.kv.Range(request).kvs
        assert [kv.key for kv in kvs] == ([b"/secret/other"] if old == other else [])
    (left,) = root.versions.History(version_pb2.HistoryRequest(key=_KEY)).versions
    assert left.deleted
    assert left.mod_revision == revision
    create = watch_pb2.WatchCreateRequest(
        key=b"/secret/", range_end=b"/secret0", start_revision=first, prev_kv=True
    )
    events = []
    answers = root.watch.Watch(iter([watch_pb2.WatchRequest(create_request=create)]))
    for answer in answers:
        events += answer.events
        if events and events[-1].kv.mod_revision == revision:
            break
    answers.cancel()
    assert [(event.type, event.kv.key) for event in events] == [
        (0, b"/secret/other"),
        (1, _KEY),
    ]
    assert not events[-1].HasField("prev_kv")


def test_destruction_goes_on_after_a_kill(fortress: Fortress) -> None:
    """Whatever moment a member is killed at, its next run gets rid of what is left."""
    root = fortress.root()
    for number in range(4):
        key = b"/killed/%d" % number
        revision = fortress.put(root, key, secrets.token_bytes(300))
        if number % 2:
            _wait_flushed(fortress, revision)
        windows = _windows(_log_bytes(fortress)[-300:])
        for row in _sealed_rows(fortress, key):
            windows |= _windows(row)
        _destroy(root, key)
        fortress.server.process.kill9_all()
        fortress.server.restart()
        root = fortress.root()
        assert fortress.value(root, key) is None
        assert all(
            v.deleted for v in root.versions.History(version_pb2.HistoryRequest(key=key)).versions
        )
        _wait_gone(fortress)
        assert _found(fortress, windows) == {}


def test_only_a_root_of_the_tenant_destroys(fortress: Fortress) -> None:
    """All rights on the key are not enough, and another tenant's root has its own keys."""
    root = fortress.root()
    fortress.put(root, _KEY, b"ours")
    fortress.role("all", (READWRITE, b"\0", b"\0"))
    fortress.user("web", "all")
    web, acme = fortress.bearer("web"), fortress.tenant("acme")

    assert refused(lambda: _destroy(web)) == DENIED
    assert refused(lambda: _pending(web)) == DENIED
    assert not _destroy(acme).deleted

    assert fortress.value(root, _KEY) == b"ours"
    _destroy(root)
    assert _pending(acme) <= 1
    _wait_gone(fortress)
    stages = [
        (each["stage"], each["tenant"], each["op"])
        for each in fortress.requests("Destroy")
        if each["stage"] in {"intent", "denied"}
    ]
    op = {"rpc": "Destroy", "key": _KEY.decode()}
    assert stages == [
        ("denied", "default", op),
        ("intent", "acme", op),
        ("intent", "default", op),
    ]
    assert any(each["stage"] == "destroyed" for each in fortress.records())


def test_a_stranger_in_the_log_is_waited_out(fortress: Fortress) -> None:
    """What does not belong into the log's directory puts it off; it goes on when that is gone."""
    root = fortress.root()
    fortress.put(root, _KEY, b"secret")
    stranger = fortress.data / "wal" / "copy.wal"
    stranger.touch()
    _destroy(root)

    def is_stalled() -> bool:
        status = root.versions.DestroyStatus(version_pb2.DestroyStatusRequest())
        return bool(status.pending and status.stalled)

    wait_until(is_stalled, deadline_s=_DEADLINE_S, what="it to be put off")
    assert fortress.server.log.read_bytes().count(b"are still on the disk") == 1
    stranger.unlink()
    _wait_gone(fortress)

"""A trail that cannot be written, on a running server: nothing passes, nothing hangs, all recovers.

The same is shown in every detail in tests/security; here it is a real disk under a real process.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.world import Fortress, refused
from support.disk import SmallDisk, small_disk_at
from support.processes import wait_until
from support.rpc import Client, Refusal

from kvsecure.model.errors import Failure
from kvsecure.proto import auth_pb2, kv_pb2

_UNRECORDED: Final = Refusal("UNAVAILABLE", Failure.AUDIT_UNAVAILABLE.text)
_CANNOT: Final = b"the audit trail cannot be written: every request is refused until it can"
_CAN: Final = b"the audit trail can be written again"
# A member whose log cannot be written either says so, or lets a call run into its time.
_NO_ROOM: Final = (
    _UNRECORDED,
    Refusal("RESOURCE_EXHAUSTED", Failure.NO_SPACE.text),
    Refusal("UNAVAILABLE", Failure.TIMEOUT.text),
    Refusal("DEADLINE_EXCEEDED", "Deadline Exceeded"),
)


@contextmanager
def _audit_on_a_small_disk(fortress: Fortress) -> Iterator[SmallDisk]:
    """Move the trail of a running server to a disk of its own, and start it again there."""
    fortress.server.stop()
    audit, aside = fortress.data / "audit", fortress.directory / "aside"
    audit.rename(aside)
    with small_disk_at(audit, 256 * 1024) as disk:
        for path in aside.iterdir():
            shutil.copy2(path, audit / path.name)
        fortress.server.restart()
        yield disk
        fortress.server.close()


def _put(client: Client, value: bytes) -> Refusal | None:
    return refused(lambda: client.kv.Put(kv_pb2.PutRequest(key=b"k", value=value)))


def _everything_is_refused(fortress: Fortress, client: Client) -> None:
    """Check that every kind of request is refused at once with the text of the trail."""
    stranger = fortress.stranger()
    begun = time.monotonic()
    for caller, name, request in (
        (client, "kv.Put", kv_pb2.PutRequest(key=b"k", value=b"unrecorded")),
        (client, "kv.Range", kv_pb2.RangeRequest(key=b"k")),
        (client, "kv.Range", kv_pb2.RangeRequest(key=b"k", serializable=True)),
        (client, "auth.UserAdd", auth_pb2.AuthUserAddRequest(name="x", password="x" * 3)),
        (client, "auth.UserList", auth_pb2.AuthUserListRequest()),
        (stranger, "kv.Range", kv_pb2.RangeRequest(key=b"k")),
        (stranger, "auth.Authenticate", auth_pb2.AuthenticateRequest(name="x", password="y")),
    ):
        answer = refused(lambda each=(caller, name, request): each[0].call(*each[1:]))
        assert answer == _UNRECORDED, name
    assert time.monotonic() - begun < 5


def test_a_full_audit_disk_refuses_everything_until_there_is_room(tmp_path: Path) -> None:
    """Without room for a record nothing is done or told, and with it all goes on by itself."""
    fortress = Fortress(tmp_path / "full")
    with fortress, _audit_on_a_small_disk(fortress) as disk:
        root = fortress.root()
        assert _put(root, b"before") is None
        disk.fill()
        # What is left of the last page is used up first.
        wait_until(
            lambda: _put(root, b"last" + b"." * 500) is not None,
            deadline_s=20,
            what="the disk to be full",
        )
        _everything_is_refused(fortress, root)
        wait_until(
            lambda: _CANNOT in fortress.server.log.read_bytes(), deadline_s=20, what="a line of it"
        )

        disk.make_room()
        wait_until(lambda: _put(root, b"after") is None, deadline_s=20, what="room to be found")
        wait_until(
            lambda: _CAN in fortress.server.log.read_bytes(), deadline_s=20, what="a line of it"
        )

        assert fortress.value(root, b"k") == b"after"
        assert fortress.verify().returncode == 0
        [recovered] = [each for each in fortress.records() if each["stage"] == "audit-recovered"]
        assert recovered["note"]["failures"] >= 8
        assert fortress.server.log.read_bytes().count(_CANNOT) == 1


def test_an_audit_file_that_is_taken_away_is_missed(fortress: Fortress) -> None:
    """When its file is gone the trail fails, and with it every request, until it is back."""
    root = fortress.root()
    assert _put(root, b"before") is None
    newest = max((fortress.data / "audit").glob("*.audit"))
    aside = fortress.directory / newest.name

    newest.rename(aside)
    try:
        wait_until(
            lambda: _put(root, b"last") == _UNRECORDED, deadline_s=20, what="it to be missed"
        )
        _everything_is_refused(fortress, root)
    finally:
        aside.rename(newest)
    wait_until(lambda: _put(root, b"after") is None, deadline_s=20, what="it to be found")

    assert fortress.value(root, b"k") == b"after"
    assert fortress.verify().returncode == 0


def test_a_server_on_a_full_disk_is_right_afterwards(tmp_path: Path) -> None:
    """With log and trail on one full disk nothing that was acknowledged is lost or made up."""
    fortress = Fortress(tmp_path / "full")
    with small_disk_at(fortress.data, 2 * 1024 * 1024) as disk, fortress:
        root = fortress.root()
        # A directory that holds anything else is no data directory; an old one may.
        disk.fill(64 * 1024)
        acknowledged = b""
        answer = None
        for number in range(10_000):
            value = b"%d" % number * 200
            answer = _put(root, value)
            if answer is not None:
                break
            acknowledged = value
        assert answer in _NO_ROOM

        disk.make_room()
        wait_until(lambda: _put(root, b"after") is None, deadline_s=15, what="room")

        assert fortress.value(root, b"k") == b"after"
        history = root.kv.Range(kv_pb2.RangeRequest(key=b"k")).kvs[0]
        past = kv_pb2.RangeRequest(key=b"k", revision=history.mod_revision - 1)
        assert root.kv.Range(past).kvs[0].value in {acknowledged, value, b"after"}
        fortress.server.kill9()
        fortress.server.restart()
        assert fortress.value(root, b"k") == b"after"
        assert fortress.verify().returncode == 0

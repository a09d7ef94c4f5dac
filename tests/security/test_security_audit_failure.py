"""A trail that cannot be written fails requests: none hangs, none passes unrecorded."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
from security.lab import World
from support.disk import small_disk_at

from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.proto import auth_pb2, kv_pb2
from kvsecure.security.audit_check import check_trail
from kvsecure.security.audit_watch import AuditWatch

_PUT = kv_pb2.PutRequest(key=b"k", value=b"v")
_GET = kv_pb2.RangeRequest(key=b"k")


def _value(world: World) -> list[bytes]:
    body = world.ask(_GET).body
    assert body is not None
    return [kv.value for kv in kv_pb2.RangeResponse.FromString(body).kvs]


def _fails_closed(world: World) -> None:
    """Check that every kind of request is refused with our text, and nothing is applied."""
    before = len(world.engine.applied), world.state.store.revision
    for request in (_PUT, _GET, auth_pb2.AuthUserAddRequest(name="new", hashedPassword="x")):
        asked = world.ask(request)
        assert asked.body is None
        assert asked.refused is not None
        assert asked.refused.code is Code.UNAVAILABLE
        assert asked.refused.text == Failure.AUDIT_UNAVAILABLE.text
    denied = world.ask(_GET, world.peer("nobody"))
    assert denied.why == "AUDIT_UNAVAILABLE"
    assert (len(world.engine.applied), world.state.store.revision) == before


def _is_whole(world: World) -> None:
    """Check that the trail has no gap, and no record of what was refused for want of one."""
    report = check_trail(world.place, world.keyring)
    assert report.head == world.trail.written_head


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """On a full disk every request fails at once, and all is well when there is room again."""
    with small_disk_at(tmp_path / "disk", 256 * 1024) as disk:
        world = World(disk.path)
        assert world.ask(_PUT).body is not None
        for leave_bytes in (0, 4_096, 0):
            disk.fill(leave_bytes)
            # What is left of the last page is used up first.
            for _ in range(64):
                if world.ask(_PUT).body is None:
                    break
            _fails_closed(world)
            _fails_closed(world)
            disk.make_room()
            assert world.ask(_PUT).body is not None
            assert _value(world) == [b"v"]
        _is_whole(world)
        assert world.trail.failures > 6
        assert world.trail.last_failure == os.strerror(28)
        world.close()


def test_a_full_disk_says_so_in_the_next_segment(tmp_path: Path) -> None:
    """After a failure the trail goes on in a new segment, whose first record says why."""
    with small_disk_at(tmp_path / "disk", 64 * 1024) as disk:
        world = World(disk.path)
        disk.fill()
        while world.ask(_PUT).body is not None:
            pass
        disk.make_room()
        world.ask(_PUT)

        reasons = [each["segment"]["reason"] for each in world.records() if "segment" in each]
        assert reasons == ["start", "failure"]
        _is_whole(world)
        world.close()


def test_a_trail_that_failed_can_be_opened_again(tmp_path: Path) -> None:
    """A member that is started after a full disk finds a trail in order."""
    with small_disk_at(tmp_path / "disk", 64 * 1024) as disk:
        world = World(disk.path)
        disk.fill()
        while world.ask(_PUT).body is not None:
            pass
        world.ask(_PUT)
        head = world.trail.written_head
        disk.make_room()
        world.authn.close()

        again = world._trail(head)
        again.end_turn()

        assert check_trail(world.place, world.keyring).head.seq == head.seq + 1
        again.close()


def test_a_removed_file_is_noticed(world: World) -> None:
    """A trail whose file was removed fails every request from the next look on."""
    watch = AuditWatch(world.gate, world.turn.schedule)
    watch.look()
    assert world.ask(_PUT).body is not None

    path = next(world.place.directory.iterdir())
    aside = path.with_suffix(".aside")
    path.rename(aside)
    watch.look()
    _fails_closed(world)
    watch.look()
    _fails_closed(world)
    aside.rename(path)
    # The first look finds the file, the second one that nothing has failed since.
    watch.look()
    assert world.ask(_PUT).body is not None
    watch.look()
    world.turn.end()

    assert "audit-recovered" in {each["stage"] for each in world.records()}
    _is_whole(world)


def test_another_file_in_its_place_is_noticed(world: World) -> None:
    """A trail is its file, not the name of it: a copy in its place is not written into."""
    watch = AuditWatch(world.gate, world.turn.schedule)
    path = next(world.place.directory.iterdir())
    content = path.read_bytes()

    path.unlink()
    path.write_bytes(content)
    watch.look()

    _fails_closed(world)
    assert path.read_bytes() == content


def test_a_removed_directory_is_noticed(world: World) -> None:
    """A trail without its directory fails every request."""
    watch = AuditWatch(world.gate, world.turn.schedule)
    aside = world.place.directory.with_name("aside")

    world.place.directory.rename(aside)
    watch.look()
    _fails_closed(world)
    aside.rename(world.place.directory)
    watch.look()

    assert world.ask(_PUT).body is not None


@contextmanager
def _nobody() -> Iterator[None]:
    """Act as a user who may do no more than the modes of files allow."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_may_not_be_entered_fails_requests(world: World) -> None:
    """A trail in a directory whose mode was changed fails requests, and goes on when it is back."""
    directory = world.place.directory
    for path in (directory, *directory.iterdir()):
        if not os.geteuid():
            os.chown(path, 65_534, 65_534)
    watch = AuditWatch(world.gate, world.turn.schedule)
    parents = [each for each in directory.parents if not each.stat().st_mode & 0o001]
    for each in parents:
        each.chmod(each.stat().st_mode | 0o011)
    try:
        with _nobody():
            watch.look()
            assert world.ask(_PUT).body is not None
            directory.chmod(0o000)
            watch.look()
            _fails_closed(world)
            directory.chmod(0o700)
            watch.look()
            assert world.ask(_PUT).body is not None
    finally:
        for each in parents:
            each.chmod(each.stat().st_mode & ~0o011)
    _is_whole(world)


def test_what_a_failed_turn_would_have_written_is_forgotten(world: World) -> None:
    """Numbers that a failed turn used are used again: there is no gap."""
    before = world.trail.written_head
    aside = world.place.directory.with_name("aside")
    world.place.directory.rename(aside)
    world.trail.check_in_place()
    world.ask(_PUT)
    world.ask(_GET)

    aside.rename(world.place.directory)
    world.trail.check_in_place()
    world.ask(_GET)

    assert world.trail.written_head.seq == before.seq + 1
    assert next(world.last())["seq"] == before.seq + 1


def test_what_was_done_before_the_trail_failed_is_said_to_be_unrecorded(world: World) -> None:
    """A command whose outcome cannot be recorded was done, and the text does not deny it."""
    asked = world.begin(_PUT)
    world.trail.end_turn()
    world.place.directory.rename(world.place.directory.with_name("aside"))
    world.trail.check_in_place()

    world.turn.end()

    assert asked.why == "AUDIT_UNAVAILABLE"
    assert "done without a record" in Failure.AUDIT_UNAVAILABLE.text
    assert len(world.engine.applied) == 1
    intent = next(world.last())
    assert (intent["stage"], intent["op"]["key"]) == ("intent", "k")


def test_a_full_disk_of_the_log_does_not_keep_anybody_from_logging_in(world: World) -> None:
    """A verifier that cannot be made stronger now is made stronger at the next log-in."""
    world.user("old")
    world.engine.refusal = Refused(Failure.NO_SPACE)
    verifier = bcrypt.hashpw(b"a password of etcd's", bcrypt.gensalt(4)).decode()
    world.system(auth_pb2.AuthUserChangePasswordRequest(name="old", hashedPassword=verifier))

    full = world.log_in("old", "a password of etcd's")
    world.engine.refusal = None
    later = world.log_in("old", "a password of etcd's")

    assert full.body is not None, full.why
    assert later.body is not None, later.why
    stored = world.state.accounts.tenant_named("default").users["old"].password_hash
    assert stored.startswith("$argon2id$")
    upgrades = [each for each in world.records() if "Upgrade" in json.dumps(each)]
    assert upgrades
    assert verifier not in json.dumps(world.records())

"""Backups of a running server: what was there comes back, what was secret stays so.

How the file is sealed and what is in it is in tests/storage and tests/core.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from e2e.world import DENIED, READWRITE, Fortress, refused
from support.disk import small_disk_at
from support.etcdctl import Etcdctl
from support.processes import wait_until
from support.rpc import Client, Refusal
from support.servers import KvsecureServer

from kvsecure.model.errors import Failure
from kvsecure.proto import cluster_pb2, kv_pb2, lease_pb2, maintenance_pb2, watch_pb2

_BUMP: Final = 1_000_000_000
_CANARY: Final = b"canary-4f1b9c"
_REQUEST: Final = maintenance_pb2.SnapshotRequest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fortress, Path]]:
    """A server with some of everything, and a backup of it."""
    with Fortress(tmp_path_factory.mktemp("backup")) as fortress:
        root = fortress.root()
        for number in range(300):
            fortress.put(root, b"/app/%d" % (number % 200), b"value %d" % number)
        root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/app/7"))
        root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=77, TTL=3_600))
        fortress.put(root, b"/leased", b"x", lease=77)
        fortress.put(root, _CANARY, _CANARY)
        fortress.role("app", (READWRITE, b"/app/", b"/app0"))
        fortress.user("web", "app")
        fortress.put(fortress.tenant("acme"), b"/app/1", b"of acme")
        path = fortress.directory / "saved"
        done = fortress.cli("snapshot", "save", str(path))
        assert done.returncode == 0, done.stderr
        yield fortress, path


def _restore(fortress: Fortress, path: Path, to: Path, *words: str) -> Any:
    return fortress.cli(
        "snapshot", "restore", str(path), f"--kek-file={fortress.kek}", f"--data-dir={to}", *words
    )


def _everything(client: Client) -> dict[bytes, tuple[bytes, int, int, int, int]]:
    request = kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    return {
        kv.key: (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        for kv in client.kv.Range(request).kvs
    }


def _is_refused(done: Any, words: bytes, to: Path) -> None:
    """Check that a restore says why not, and has written nothing."""
    assert done.returncode == 1
    assert words in done.stderr, done.stderr
    assert not to.exists()
    assert not list(to.parent.glob(".*.restoring"))


def test_restored_cluster_has_everything_and_is_another_one(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """Keys, leases, users, roles and tenants are there; ids, tokens, revisions are not the old."""
    fortress, path = world
    before = _everything(fortress.root())
    old = fortress.root().maintenance.Status(maintenance_pb2.StatusRequest()).header
    token = fortress.bearer("web")
    with Fortress(tmp_path / "second") as second:
        second.server.stop()
        second.kek.write_bytes(fortress.kek.read_bytes())
        second.data.rename(tmp_path / "aside")
        done = _restore(fortress, path, second.data)
        assert done.returncode == 0, done.stderr
        second.server.restart()

        root = second.root()
        assert _everything(root) == before
        header = root.maintenance.Status(maintenance_pb2.StatusRequest()).header
        assert header.cluster_id != old.cluster_id
        assert header.member_id != old.member_id
        members = root.cluster.MemberList(cluster_pb2.MemberListRequest(linearizable=True)).members
        assert [(each.ID, each.name) for each in members] == [(header.member_id, "m1")]
        assert header.revision == old.revision + _BUMP
        assert second.value(second.bearer("web"), b"/app/1") == b"value 201"
        assert refused(lambda: second.value(second.bearer("web"), b"/leased")) == DENIED
        assert second.value(second.certified("root", "acme"), b"/app/1") == b"of acme"
        lease = lease_pb2.LeaseTimeToLiveRequest(ID=77, keys=True)
        assert list(root.lease.LeaseTimeToLive(lease).keys) == [b"/leased"]
        stale = second.stranger()
        stale.use_token(token.token)
        answer = refused(lambda: second.value(stale, b"/app/1"))
        assert answer is not None
        assert answer.code == "UNAUTHENTICATED"
        assert second.put(root, b"new", b"1") == old.revision + _BUMP + 1
        stages = [record["stage"] for record in second.records()]
        assert "restored" in stages
        assert second.verify().returncode == 0
        second.server.kill9()
        second.server.restart()
        assert second.value(second.root(), b"new") == b"1"


def test_watcher_of_the_old_cluster_is_told_to_look_again(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """A watch that goes on from a revision of the old cluster ends as compacted."""
    fortress, path = world
    with Fortress(tmp_path / "second") as second:
        second.server.stop()
        second.kek.write_bytes(fortress.kek.read_bytes())
        second.data.rename(tmp_path / "aside")
        assert _restore(fortress, path, second.data).returncode == 0
        second.server.restart()
        root = second.root()
        newest = fortress.root().maintenance.Status(maintenance_pb2.StatusRequest())

        for revision in (2, newest.header.revision + 1):
            create = watch_pb2.WatchCreateRequest(key=b"/app/1", start_revision=revision)
            answers = root.watch.Watch(iter([watch_pb2.WatchRequest(create_request=create)]))
            seen = [next(answers), next(answers)]
            answers.cancel()
            assert seen[0].created
            assert seen[1].canceled
            assert seen[1].compact_revision == newest.header.revision + _BUMP


def test_backup_says_what_it_is_and_tells_no_secret(world: tuple[Fortress, Path]) -> None:
    """The key opens it and gives the server's own hash; no name and no value is in the file."""
    fortress, path = world
    status = fortress.cli("snapshot", "status", str(path), f"--kek-file={fortress.kek}")
    closed = fortress.cli("snapshot", "status", str(path))
    revision = fortress.root().maintenance.Status(maintenance_pb2.StatusRequest()).header.revision
    hashed = fortress.root().maintenance.HashKV(maintenance_pb2.HashKVRequest())

    assert f"revision     {revision}," in status.stdout.decode()
    assert f"hash         {hashed.hash:08x}" in status.stdout.decode()
    # 200 numbers but for the one that was deleted, two more, and one of the tenant.
    assert "keys         202, with 304 versions" in status.stdout.decode()
    assert closed.returncode == 0
    assert b"not opened" in closed.stdout
    content = path.read_bytes()
    for secret in (_CANARY, b"/app/", b"value 2", b"web", b"acme"):
        assert secret not in content
    assert path.stat().st_mode & 0o777 == 0o600
    assert any(record["stage"] == "backup-made" for record in fortress.records())
    assert fortress.requests("Snapshot")


def test_damaged_backup_is_refused_before_anything_is_written(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """A bit in the header, in the content, in signature or digest, and a cut: all are found."""
    fortress, path = world
    content = path.read_bytes()
    damaged, to = tmp_path / "damaged", tmp_path / "new"
    rng = random.Random(7)
    places = [3, 30, 600, len(content) - 80, len(content) - 5]
    places += [rng.randrange(len(content)) for _ in range(5)]
    for place in places:
        changed = content[:place] + bytes((content[place] ^ 4,)) + content[place + 1 :]
        damaged.write_bytes(changed)
        _is_refused(_restore(fortress, damaged, to), b"damaged", to)
        if place >= len(content) - 32:
            # With a new digest it is the old file.
            continue
        damaged.write_bytes(changed[:-32] + hashlib.sha256(changed[:-32]).digest())
        _is_refused(_restore(fortress, damaged, to), b"damaged", to)
    for end in (0, 40, 544, len(content) // 2, len(content) - 512, len(content) - 1):
        damaged.write_bytes(content[:end])
        _is_refused(_restore(fortress, damaged, to), b"damaged", to)


def test_backup_of_another_cluster_is_refused(world: tuple[Fortress, Path], tmp_path: Path) -> None:
    """Another key does not open it, and another signer is not trusted."""
    fortress, path = world
    to = tmp_path / "new"
    other = tmp_path / "kek"
    other.write_bytes(b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n")
    other.chmod(0o600)
    done = fortress.cli("snapshot", "restore", str(path), f"--kek-file={other}", f"--data-dir={to}")
    _is_refused(done, b"give the right key", to)
    done = _restore(fortress, path, to, "--signing-key=" + "ab" * 32)
    _is_refused(done, b"was not signed by", to)


def test_restore_takes_no_directory_that_is_in_use(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """What is there already is left as it is; an empty directory will do."""
    fortress, path = world
    to = tmp_path / "new"
    to.mkdir(mode=0o700)
    (to / "mine").write_text("mine")
    done = _restore(fortress, path, to)
    assert done.returncode == 1
    assert b"is not empty" in done.stderr
    assert [entry.name for entry in to.iterdir()] == ["mine"]
    (to / "mine").unlink()
    assert _restore(fortress, path, to).returncode == 0
    done = fortress.cli("snapshot", "save", str(path))
    assert done.returncode == 1
    assert b"never overwritten" in done.stderr


def test_restore_on_a_full_disk_leaves_nothing(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """Without room the reason is told, and there is no half a directory."""
    fortress, path = world
    with small_disk_at(tmp_path / "disk", 64 * 1024):
        to = tmp_path / "disk" / "new"
        _is_refused(_restore(fortress, path, to), b"cannot be made", to)


def test_restore_that_is_killed_leaves_the_directory_whole_or_absent(
    world: tuple[Fortress, Path], tmp_path: Path
) -> None:
    """Killed at any moment, and run again, it comes to the same."""
    fortress, path = world
    to = tmp_path / "new"
    words = [sys.executable, "-m", "kvsecure", "snapshot", "restore", str(path)]
    words += [f"--kek-file={fortress.kek}", f"--data-dir={to}"]
    begun = time.monotonic()
    subprocess.run([*words[:-1], f"--data-dir={tmp_path / 'timed'}"], check=True)
    took_s = time.monotonic() - begun
    absent = 0
    rounds = 12
    for number in range(rounds):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            time.sleep(took_s * (0.5 + 0.5 * number / rounds))
            process.send_signal(signal.SIGKILL)
        if not to.exists():
            absent += 1
            continue
        names = {entry.name for entry in to.iterdir()}
        assert names == {"LOCK", "member.json", "keyring", "wal", "tables", "audit"}
        to.rename(tmp_path / f"whole-{number}")
    assert absent
    assert subprocess.run(words, check=True).returncode == 0
    assert not list(tmp_path.glob(".*"))


def test_slow_reader_holds_up_nobody(tmp_path: Path) -> None:
    """A reader that takes one piece and waits costs the others nothing, and gets all of it."""
    with Fortress(tmp_path / "slow") as fortress:
        root = fortress.root()
        for number in range(1_500):
            fortress.put(root, b"key-%d" % number, os.urandom(8_000))
        call = root.maintenance.Snapshot(_REQUEST)
        pieces = [next(call)]
        total = pieces[0].remaining_bytes + len(pieces[0].blob)
        assert total > 10_000_000
        memory = _memory_bytes(fortress.server.process.pid)
        other = fortress.root()
        for number in range(50):
            fortress.put(other, b"meanwhile-%d" % number, b"x")
        other.maintenance.HashKV(maintenance_pb2.HashKVRequest())
        other.maintenance.Defragment(maintenance_pb2.DefragmentRequest())
        second = list(other.maintenance.Snapshot(_REQUEST))
        assert _memory_bytes(fortress.server.process.pid) - memory < 8_000_000
        pieces += call

    content = b"".join(piece.blob for piece in pieces)
    assert len(content) == total
    assert pieces[-1].remaining_bytes == 0
    assert hashlib.sha256(content[:-32]).digest() == content[-32:] == pieces[-1].blob
    assert second[-1].blob != pieces[-1].blob
    assert [piece.remaining_bytes for piece in pieces] == sorted(
        (piece.remaining_bytes for piece in pieces), reverse=True
    )


def _memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


def test_backups_leave_nothing_behind_when_readers_go(tmp_path: Path) -> None:
    """A reader that goes away takes process and file along; more than four at once are refused."""
    with Fortress(tmp_path / "gone") as fortress:
        root = fortress.root()
        for number in range(2_000):
            # Far more than what a client takes in before it is read.
            fortress.put(root, b"key-%d" % number, os.urandom(30_000))
        calls = []
        for _ in range(4):
            calls.append(fortress.root().maintenance.Snapshot(_REQUEST))
            next(calls[-1])
        answer = refused(lambda: next(fortress.root().maintenance.Snapshot(_REQUEST)))
        assert answer == Refusal("RESOURCE_EXHAUSTED", Failure.TOO_MANY_REQUESTS.text)
        for call in calls:
            call.cancel()
        deadline_s = time.monotonic() + 10
        while _scanners(fortress.server.process.pid):
            assert time.monotonic() < deadline_s, "a process was left behind"
            time.sleep(0.05)
        assert list(fortress.root().maintenance.Snapshot(_REQUEST))[-1].remaining_bytes == 0
        names = {entry.name for entry in fortress.data.iterdir()}
        assert names == {"LOCK", "member.json", "keyring", "wal", "tables", "audit"}
        call = fortress.root().maintenance.Snapshot(_REQUEST)
        next(call)
        (scanner,) = _scanners(fortress.server.process.pid)
        fortress.server.kill9()
        wait_until(
            lambda: not Path(f"/proc/{scanner}").exists(), deadline_s=10, what="it to be gone"
        )


def _scanners(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for child in tasks:
        line = Path(f"/proc/{child}/cmdline")
        if line.exists() and b"scanner" in line.read_bytes():
            found.append(child)
    return found


def test_stock_etcdctl_saves_a_backup_that_is_restored(tmp_path: Path) -> None:
    """`etcdctl snapshot save` takes the file for whole, and kvsecure makes a cluster of it."""
    with KvsecureServer(tmp_path / "server", flags=KvsecureServer.old_tls_flags) as server:
        with server.client() as client:
            client.kv.Put(kv_pb2.PutRequest(key=b"k", value=b"of etcdctl"))
        path = tmp_path / "saved"
        outcome = Etcdctl(server).run(["snapshot", "save", str(path)])
        assert outcome.status == 0, outcome.stderr
        server.stop()
        server.data_directory.rename(tmp_path / "aside")
        words = ["--kek-file", str(tmp_path / "server" / "kek")]
        words += ["--data-dir", str(server.data_directory)]
        subprocess.run(
            [sys.executable, "-m", "kvsecure", "snapshot", "restore", str(path), *words],
            check=True,
        )
        server.restart()

        with server.client() as client:
            found = client.kv.Range(kv_pb2.RangeRequest(key=b"k"))
        assert found.kvs[0].value == b"of etcdctl"


def test_only_a_root_of_the_cluster_takes_backups(world: tuple[Fortress, Path]) -> None:
    """Users and roots of tenants are refused, and so is whoever is nobody."""
    fortress, _ = world
    for client in (fortress.certified("web"), fortress.certified("root", "acme")):
        answer = refused(lambda each=client: list(each.maintenance.Snapshot(_REQUEST)))
        assert answer == DENIED
    answer = refused(lambda: list(fortress.stranger().maintenance.Snapshot(_REQUEST)))
    assert answer is not None
    assert answer.code in {"INVALID_ARGUMENT", "UNAUTHENTICATED"}

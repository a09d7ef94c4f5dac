"""Starts of real servers on damaged, foreign, full and half-made data directories.

Each refusal stands on stderr with what to do, ends the process with a status, and changes nothing;
each start that is not refused gives a member that is right.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from storage.segments_lab import contents_of
from support.disk import small_disk_at
from support.processes import ProcessFailedError, wait_until
from support.rpc import refusal_of
from support.servers import KvsecureServer

from kvsecure.model.errors import Code, Failure
from kvsecure.proto import kv_pb2
from kvsecure.storage.segment import HEADER_BYTES

_DEADLINE_S: Final = 20.0
# What opening LMDB changes, and the lock: neither holds anything.
_LOCKS: Final = {"LOCK", "tables/lock.mdb"}
_WRITES: Final = 40


def _put_all(member: KvsecureServer, prefix: str) -> dict[bytes, bytes]:
    """Write some keys and return what was acknowledged."""
    done = {}
    with member.client() as client:
        for number in range(_WRITES):
            key = f"{prefix}{number}".encode()
            client.kv.Put(kv_pb2.PutRequest(key=key, value=key * 20))
            done[key] = key * 20
    return done


def _put_and_flush(member: KvsecureServer, prefix: str) -> dict[bytes, bytes]:
    """Write some keys until the tables were written as well; return what was acknowledged.

    After the second time the tables hold all that was acknowledged the first time.
    """
    path = member.data_directory / "tables" / "data.mdb"
    before = path.read_bytes()
    done = _put_all(member, prefix)
    wait_until(lambda: path.read_bytes() != before, deadline_s=_DEADLINE_S, what="a flush")
    return done


def _all_of(member: KvsecureServer) -> dict[bytes, bytes]:
    with member.client() as client:
        found = client.kv.Range(kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")).kvs
        return {kv.key: kv.value for kv in found}


def _segments(member: KvsecureServer, room: str = "wal") -> list[Path]:
    return sorted(path for path in (member.data_directory / room).iterdir() if path.stem)


def _contents(member: KvsecureServer) -> dict[str, bytes]:
    found = contents_of(member.data_directory)
    return {name: text for name, text in found.items() if name not in _LOCKS}


def _refused(member: KvsecureServer, *texts: str, flags: tuple[str, ...] = ()) -> str:
    """Check that a start is refused in these words on stderr, with a status, unchanged."""
    before = _contents(member)

    done = subprocess.run(
        [*member.process._command, *flags],
        env=member.process._environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )

    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert all(text in last for text in texts), done.stderr
    assert "Traceback" not in done.stderr
    assert _contents(member) == before
    return last


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KvsecureServer, set[bytes]]]:
    """A member that ran three times, the last of them until it was killed."""
    member = KvsecureServer(tmp_path_factory.mktemp("member"))
    try:
        acknowledged: dict[bytes, bytes] = {}
        for run in ("a", "b", "c"):
            member.start()
            for part in ("one", "two"):
                acknowledged |= _put_and_flush(member, f"{run}-{part}-")
            acknowledged |= _put_all(member, f"{run}-three-")
            member.process.kill9_all()
        saved = member.data_directory.with_name("saved")
        shutil.copytree(member.data_directory, saved)
        yield member, set(acknowledged)
    finally:
        member.close()


@pytest.fixture
def member(_made: tuple[KvsecureServer, set[bytes]]) -> Iterator[KvsecureServer]:
    """That member, not running, with its data directory as it was when it was killed."""
    member, _ = _made
    shutil.rmtree(member.data_directory, ignore_errors=True)
    shutil.copytree(member.data_directory.with_name("saved"), member.data_directory)
    yield member
    member.process.close()


@pytest.fixture
def acknowledged(_made: tuple[KvsecureServer, set[bytes]]) -> dict[bytes, bytes]:
    """What it had acknowledged."""
    return {key: key * 20 for key in _made[1]}


# --- killed -------------------------------------------------------------------------------------


def test_start_after_a_kill_has_everything(
    member: KvsecureServer, acknowledged: dict[bytes, bytes]
) -> None:
    """Killed without warning, time after time, a member has all that it acknowledged."""
    for number in range(3):
        member.start()
        assert _all_of(member) == acknowledged
        acknowledged |= _put_all(member, f"again{number}-")
        member.process.kill9_all()

    member.start()
    assert _all_of(member) == acknowledged


@pytest.mark.parametrize("room", ["wal", "audit"])
def test_start_cuts_the_end_of_an_unfinished_write(
    member: KvsecureServer, acknowledged: dict[bytes, bytes], room: str
) -> None:
    """A torn tail of log or audit trail is cut off, recorded, and nothing else is missing."""
    torn = os.urandom(19)
    with _segments(member, room)[-1].open("ab") as newest:
        newest.write(torn)

    member.start()

    assert _all_of(member) == acknowledged
    assert torn not in b"".join(_contents(member).values())
    member.process.kill9_all()
    member.start()
    assert _all_of(member) == acknowledged


# --- damaged ------------------------------------------------------------------------------------


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("part", ["header", "first frame", "middle", "last byte"])
def test_start_on_a_log_with_a_flipped_bit_is_refused(member: KvsecureServer, part: str) -> None:
    """One flipped bit anywhere in the log is told with file and byte, and what to do."""
    newest = _segments(member)[-1]
    size = newest.stat().st_size
    at = {
        "header": 50,
        "first frame": HEADER_BYTES + 30,
        "middle": size // 2,
        "last byte": size - 1,
    }

    _flip(newest, at[part])

    _refused(member, str(newest), " at byte ", "Restore the data directory from a backup")


def test_start_with_a_log_segment_missing_is_refused(member: KvsecureServer) -> None:
    """A gap between two segments of the log is told by its number."""
    newest = _segments(member)[-1]
    number = int(newest.stem.partition("-")[0], 16)
    beyond = newest.with_name(f"{number + 2:016x}-{1 << 20:016x}.wal")
    shutil.copy(newest, beyond)

    _refused(member, f"segment {number + 1:016x} is missing", "restore the data directory from a")


def test_start_with_an_audit_segment_missing_is_refused(member: KvsecureServer) -> None:
    """A gap in the audit trail is told by its number as well."""
    one, two, three = _segments(member, "audit")[-3:]
    assert one.stem < three.stem

    two.unlink()

    _refused(member, "is missing", "restore the data directory from a backup")


def test_start_without_the_log_is_refused(member: KvsecureServer) -> None:
    """Tables without their log are refused: what was acknowledged last may be gone."""
    for segment in _segments(member):
        segment.unlink()

    _refused(member, "the write-ahead log is missing", "Restore the data directory from a backup")


def test_start_on_a_log_that_ends_too_early_is_refused(member: KvsecureServer) -> None:
    """A log that was cut behind what the tables hold is refused, and not cut any further."""
    os.truncate(_segments(member)[-1], HEADER_BYTES + 7)

    _refused(member, "its end was cut off", "Restore the data directory from a backup")


def test_start_on_damaged_tables_is_refused(member: KvsecureServer) -> None:
    """Tables whose rows do not open are refused with what to do."""
    path = member.data_directory / "tables" / "data.mdb"
    content = path.read_bytes()
    path.write_bytes(_bent_rows(content))

    _refused(member, "the tables are damaged", "Restore the data directory from a backup")


def _bent_rows(content: bytes) -> bytes:
    """Change what looks like the ciphertext of every sealed row: behind version and epoch."""
    bent = bytearray(content)
    for epoch in range(1, 10):
        mark = b"\x01" + epoch.to_bytes(4, "big") + bytes(4)
        at = content.find(mark)
        while at != -1:
            bent[at + 20] ^= 1
            at = content.find(mark, at + 1)
    return bytes(bent)


@pytest.mark.parametrize("name", ["keyring", "member.json"])
def test_start_on_a_damaged_file_of_the_directory_is_refused(
    member: KvsecureServer, name: str
) -> None:
    """Keyring and identity that were cut are told by name, with what to do."""
    path = member.data_directory / name
    path.write_bytes(path.read_bytes()[:40])

    _refused(member, "is damaged; restore it from a backup")


# --- somebody else's ----------------------------------------------------------------------------


def test_start_on_the_directory_of_another_cluster_is_refused(member: KvsecureServer) -> None:
    """Another cluster token, cluster name or key is refused, and says which flag to change."""
    other_key = member.directory / "other-kek"
    other_key.touch(mode=0o600)
    other_key.write_bytes(b"A" * 43 + b"=\n")

    _refused(
        member,
        "belongs to another cluster",
        "Give the right --data-dir",
        flags=("--initial-cluster-token=other",),
    )
    _refused(member, "Give the right --data-dir or --cluster-name", flags=("--cluster-name=other",))
    _refused(member, "give the right key", flags=(f"--kek-file={other_key}",))


def test_start_on_a_directory_that_is_open_to_others_is_refused(member: KvsecureServer) -> None:
    """Rights of others are refused with the command that takes them away."""
    member.data_directory.chmod(0o755)

    _refused(member, f"run chmod 700 {member.data_directory}")


def test_start_on_a_directory_of_other_things_is_refused(member: KvsecureServer) -> None:
    """A directory with something else in it is left alone."""
    shutil.rmtree(member.data_directory)
    member.data_directory.mkdir(mode=0o700)
    (member.data_directory / "photos").write_bytes(b"holiday")

    _refused(member, "is neither empty nor a data directory: it holds photos")


def test_start_beside_a_running_member_is_refused(
    member: KvsecureServer, acknowledged: dict[bytes, bytes]
) -> None:
    """A second process on the same directory is told so, and the first one goes on."""
    member.start()

    done = subprocess.run(
        member.process._command,
        env=member.process._environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )

    assert done.returncode == 1
    assert "is in use by another member process" in done.stderr
    assert _all_of(member) == acknowledged


# --- full disks ---------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[KvsecureServer]:
    """A member that was never started."""
    member = KvsecureServer(tmp_path / "small")
    yield member
    member.close()


def _failure_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return refusal_of(error).text
    return ""


def test_member_on_a_disk_that_fills_up_refuses_and_recovers(small: KvsecureServer) -> None:
    """Full, it refuses in words that say so; with room it goes on; nothing acknowledged is lost."""
    with small_disk_at(small.data_directory, 4 << 20) as disk:
        small.start()
        done = _put_all(small, "before")
        with small.client() as client:
            disk.fill()
            refusals = set()
            for number in range(30):
                key = b"full%d" % number
                request = kv_pb2.PutRequest(key=key, value=b"x" * 5_000)
                text = _failure_of(lambda request=request: client.kv.Put(request, timeout=1))
                refusals.add(text)
                if not text:
                    done[key] = b"x" * 5_000
            refusals -= {"", "Deadline Exceeded"}
            assert refusals
            assert refusals <= {Failure.AUDIT_UNAVAILABLE.text, Failure.NO_SPACE.text}

            disk.make_room()
            wait_until(
                lambda: (
                    not _failure_of(
                        lambda: client.kv.Put(kv_pb2.PutRequest(key=b"room", value=b"y"), timeout=2)
                    )
                ),
                deadline_s=_DEADLINE_S,
                what="the member to write again",
            )
        done[b"room"] = b"y"
        small.process.kill9_all()
        small.start()
        found = _all_of(small)
        assert done.items() <= found.items()
        # Whose answer was never seen may have been done, whole, and nothing else may be there.
        assert all(found[key] == b"x" * 5_000 for key in found.keys() - done.keys())


def test_start_on_a_full_disk_waits_for_room_and_can_be_stopped(small: KvsecureServer) -> None:
    """A start that has no room to write serves nobody, ends when told, and goes on with room."""
    with small_disk_at(small.data_directory, 4 << 20) as disk:
        small.start()
        done = _put_all(small, "before")
        small.process.kill9_all()

        disk.fill()
        small.process.spawn()
        wait_until(
            lambda: b'"starting"' in small.process.log(), deadline_s=_DEADLINE_S, what="a start"
        )
        with pytest.raises(ProcessFailedError):
            _wait_ready_shortly(small)
        assert b"the disk is full" in small.process.log()
        assert small.stop() == -signal.SIGTERM

        small.process.spawn()
        with pytest.raises(ProcessFailedError):
            _wait_ready_shortly(small)
        disk.make_room()
        small.process.wait_ready()
        assert _all_of(small) == done


def _wait_ready_shortly(member: KvsecureServer) -> None:
    """Give a start the time that it needs on a disk with room."""
    member.process._deadline_s, before = 2.0, member.process._deadline_s
    try:
        member.process.wait_ready()
    finally:
        member.process._deadline_s = before


def _padded_flags(count: int) -> str:
    """Return a flag that is so long that the record of the start nearly fills a page."""
    urls = ",".join(f"https://{'h' * 40}{number:02}.example:2379" for number in range(count))
    return f"--advertise-client-urls={urls}"


@pytest.mark.parametrize(("pages", "urls"), [(4, 1), (9, 38), (10, 38), (11, 38), (12, 38)])
def test_founding_on_a_disk_that_is_too_small_lets_nobody_in(
    tmp_path: Path, pages: int, urls: int
) -> None:
    """A new cluster whose accounts cannot be made never serves; it is founded with more room."""
    member = KvsecureServer(tmp_path / "m", flags=(_padded_flags(urls),))
    try:
        with small_disk_at(member.data_directory, pages * 4_096):
            member.process.spawn()
            with contextlib.suppress(ProcessFailedError):
                _wait_ready_shortly(member)
            _assert_closed(member)
            member.process.close()
            subprocess.run(
                ["mount", "-o", "remount,size=4m", str(member.data_directory)], check=True
            )
            member.start()
            _assert_closed(member)
            _put_all(member, "k")
            member.process.kill9_all()
    finally:
        member.close()


def _is_ready(member: KvsecureServer) -> bool:
    return b"ready to serve client requests" in member.process.log()


def _assert_closed(member: KvsecureServer) -> None:
    """Check that whoever has no account can do nothing, if there is anybody to ask."""
    if not _is_ready(member):
        return
    with member.anonymous() as client:
        request = kv_pb2.PutRequest(key=b"k", value=b"v")
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                client.kv.Put(request, timeout=5)
            assert caught.value.code().value[0] == Code.INVALID_ARGUMENT, caught.value


_STAGES: Final[dict[str, Callable[[Path], bool]]] = {
    "nothing": lambda _: True,
    "keyring": lambda path: (path / "keyring").exists(),
    "tables": lambda path: (path / "tables" / "data.mdb").exists(),
    "audit": lambda path: any((path / "audit").glob("*")),
    "log": lambda path: any((path / "wal").glob("*")),
    "accounts": lambda path: any(
        segment.stat().st_size > HEADER_BYTES + 200 for segment in (path / "wal").glob("*")
    ),
}


@pytest.mark.parametrize("stage", _STAGES)
def test_founding_that_is_killed_is_whole_or_done_again(small: KvsecureServer, stage: str) -> None:
    """Killed at any stage of the first start, the next start gives a closed, working member."""
    small.process.spawn()
    wait_until(
        lambda: _STAGES[stage](small.data_directory), deadline_s=_DEADLINE_S, what=f"stage {stage}"
    )
    small.process.kill9_all()

    small.start()

    _assert_closed(small)
    done = _put_all(small, "k")
    assert _all_of(small) == done

"""Keys of a server that serves: rotated, sealed anew under, retired; by whom, and when killed."""

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from e2e.world import DENIED, Fortress, refused
from support.kms import KmsPluginServer
from support.processes import wait_until
from support.sealed import rows_by_term, segments_by_term

from kvsecure.pki.files import write_private
from kvsecure.proto import crypto_pb2, kv_pb2, lease_pb2, maintenance_pb2

_DEADLINE_S: Final = 30.0
_KEYS: Final = 1_500
_AT_ONCE: Final = 100


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """A server."""
    with Fortress(tmp_path / "member") as fortress:
        yield fortress


def _fill(fortress: Fortress, count: int) -> dict[bytes, bytes]:
    """Write keys of two tenants, a lease and some history; return the default tenant's keys."""
    root = fortress.root()
    values = {b"/k/%05d" % number: b"value of %d " % number * 8 for number in range(count)}
    put = root.prepared("/etcdserverpb.KV/Put")
    requests = [
        kv_pb2.PutRequest(key=key, value=value).SerializeToString() for key, value in values.items()
    ]
    for at in range(0, len(requests), _AT_ONCE):
        for call in [put(request) for request in requests[at : at + _AT_ONCE]]:
            call.result()
    lease = root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=600)).ID
    fortress.put(root, b"/leased", b"leased", lease=lease)
    fortress.put(root, b"/twice", b"once")
    fortress.put(root, b"/twice", b"twice")
    root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/k/00000"))
    del values[b"/k/00000"]
    acme = fortress.tenant("acme")
    fortress.put(acme, b"/k/00001", b"of acme")
    return values | {b"/leased": b"leased", b"/twice": b"twice"}


def _values(fortress: Fortress) -> dict[bytes, bytes]:
    found = fortress.root().kv.Range(kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")).kvs
    return {kv.key: kv.value for kv in found}


def _keys(fortress: Fortress) -> dict[str, Any]:
    """Return what `kvsecure crypto status` says."""
    done = fortress.cli("crypto", "status", "--format=json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _state(fortress: Fortress) -> int:
    return int(fortress.root().crypto.Status(crypto_pb2.CryptoStatusRequest()).progress.state)


def _run(fortress: Fortress, *words: str) -> str:
    done = fortress.cli("crypto", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_everything_goes_under_a_new_key_and_the_old_one_is_destroyed(fortress: Fortress) -> None:
    """Rotate, seal anew, retire, restart: each is what it says, and nothing is lost."""
    values = _fill(fortress, _KEYS)
    assert "term 2: everything new is sealed under it" in _run(fortress, "rotate")
    fortress.put(fortress.root(), b"/new", b"new")

    early = fortress.cli("crypto", "retire", "1", "--yes")

    assert early.returncode == 1
    assert b"term 1 still seals" in early.stderr
    assert b"run `kvsecure crypto reencrypt` first" in early.stderr
    said = _run(fortress, "reencrypt", "--rows-per-second=1000000")
    assert "nothing of tables and log is under a term before 2" in said
    wait_until(lambda: set(rows_by_term(fortress.data)) == {2}, deadline_s=20, what="the rows")
    assert set(segments_by_term(fortress.data, "wal")) == {2}
    assert set(segments_by_term(fortress.data, "audit")) == {1, 2}

    _run(fortress, "retire", "1", "--yes")

    stored = json.loads((fortress.data / "keyring").read_text())
    assert [term["term"] for term in stored["terms"]] == [2]
    assert [term["term"] for term in stored["retired"]] == [1]
    assert [term["state"] for term in _keys(fortress)["terms"]] == ["retired", "current"]
    assert fortress.verify().returncode == 0
    for end in (fortress.server.process.kill9_all, fortress.server.stop):
        end()
        fortress.server.restart()
        assert _values(fortress) == values | {b"/new": b"new"}
        past = fortress.root().kv.Range(kv_pb2.RangeRequest(key=b"/twice", revision=_KEYS + 3))
        assert past.kvs[0].value == b"once"
        assert fortress.value(fortress.certified("root", "acme"), b"/k/00001") == b"of acme"
        assert fortress.verify().returncode == 0


def test_killed_in_the_middle_it_goes_on_where_it_was(fortress: Fortress) -> None:
    """After kill -9 it is finished without being asked again, from what the tables say of it."""
    values = _fill(fortress, _KEYS)
    _run(fortress, "rotate")
    _run(fortress, "reencrypt", "--no-wait", "--rows-per-second=500")
    wait_until(
        lambda: rows_by_term(fortress.data)[2] > _KEYS // 4, deadline_s=_DEADLINE_S, what="a part"
    )
    fortress.server.process.kill9_all()
    halfway = rows_by_term(fortress.data)
    assert halfway[1] > _KEYS // 10

    fortress.server.restart()

    again = fortress.root().crypto.Status(crypto_pb2.CryptoStatusRequest()).progress
    assert again.state == crypto_pb2.CryptoProgress.RUNNING
    assert again.rows > _KEYS // 5
    wait_until(
        lambda: _state(fortress) == crypto_pb2.CryptoProgress.DONE,
        deadline_s=_DEADLINE_S,
        what="the end",
    )
    assert set(rows_by_term(fortress.data)) == {2}
    assert _values(fortress) == values
    _run(fortress, "retire", "1", "--yes")
    (proof,) = (each for each in fortress.records() if each["stage"] == "reencrypted")
    assert proof["note"]["term"] == 2
    assert proof["note"]["why"] == "done"


def test_what_is_written_and_compacted_meanwhile_is_right(fortress: Fortress) -> None:
    """Puts, deletions, compactions and another rotation in the midst change nothing of the end."""
    values = _fill(fortress, _KEYS)
    root = fortress.root()
    _run(fortress, "rotate")
    _run(fortress, "reencrypt", "--no-wait", "--rows-per-second=1500")
    for number in range(300):
        key = b"/k/%05d" % (number * 3 + 1)
        values[key] = b"written meanwhile %d" % number
        revision = fortress.put(root, key, values[key])
        gone = b"/k/%05d" % (number * 3 + 2)
        root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=gone))
        values.pop(gone)
        if number % 100 == 50:
            root.kv.Compact(kv_pb2.CompactionRequest(revision=revision))
        if number == 120:
            _run(fortress, "rotate")
    wait_until(
        lambda: _state(fortress) == crypto_pb2.CryptoProgress.DONE,
        deadline_s=_DEADLINE_S,
        what="the end",
    )
    # On a slow machine it may have come to its end before the second rotation.
    _run(fortress, "reencrypt")

    assert set(rows_by_term(fortress.data)) == {3}
    for term in ("1", "2"):
        _run(fortress, "retire", term, "--yes")
    fortress.server.process.kill9_all()
    fortress.server.restart()
    assert _values(fortress) == values


def test_tables_may_be_defragmented_while_they_are_sealed_anew(fortress: Fortress) -> None:
    """A compact copy that takes the tables' place has nothing under the old key, and everything."""
    values = _fill(fortress, _KEYS)
    root = fortress.root()
    _run(fortress, "rotate")
    _run(fortress, "reencrypt", "--no-wait", "--rows-per-second=2000")
    while _state(fortress) != crypto_pb2.CryptoProgress.DONE:
        root.maintenance.Defragment(maintenance_pb2.DefragmentRequest())
        fortress.put(root, b"/written/meanwhile", b"1")

    assert set(rows_by_term(fortress.data)) == {2}
    _run(fortress, "retire", "1", "--yes")
    assert _values(fortress) == values | {b"/written/meanwhile": b"1"}
    fortress.server.process.kill9_all()
    fortress.server.restart()
    assert _values(fortress) == values | {b"/written/meanwhile": b"1"}


def test_backup_of_rotated_keys_is_restored(fortress: Fortress) -> None:
    """A backup that was made after a rotation opens with the key-encryption key, like any other."""
    values = _fill(fortress, 50)
    _run(fortress, "rotate")
    fortress.put(fortress.root(), b"/later", b"1")

    fortress.restore_backup()

    assert _values(fortress) == values | {b"/later": b"1"}


def test_rotation_by_several_at_once_gives_each_a_term(fortress: Fortress) -> None:
    """Changes of the keyring come one after the other."""
    root, terms = fortress.root(), []

    def rotate() -> None:
        terms.append(root.crypto.Rotate(crypto_pb2.CryptoRotateRequest()).term)

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(terms) == [2, 3, 4, 5]
    fortress.put(root, b"k", b"v")
    fortress.server.process.kill9_all()
    fortress.server.restart()
    assert fortress.value(fortress.root(), b"k") == b"v"


def test_key_is_never_retired_under_what_is_on_its_way(fortress: Fortress) -> None:
    """Retired in the moment in which it is replaced, a key is refused or nothing needs it."""
    root, stop, done = fortress.root(), threading.Event(), dict[bytes, bytes]()
    put = root.prepared("/etcdserverpb.KV/Put")

    def write() -> None:
        number = 0
        while not stop.is_set():
            pairs = [(b"/w/%d" % (number + n), b"value %d" % (number + n)) for n in range(20)]
            calls = [
                put(kv_pb2.PutRequest(key=key, value=value).SerializeToString())
                for key, value in pairs
            ]
            for call in calls:
                call.result()
            done.update(pairs)
            number += 20

    writing = threading.Thread(target=write)
    writing.start()
    outcomes = []
    for _ in range(8):
        term = root.crypto.Rotate(crypto_pb2.CryptoRotateRequest()).term
        root.crypto.Rotate(crypto_pb2.CryptoRotateRequest())
        request = crypto_pb2.CryptoRetireRequest(term=term)
        outcomes.append(refused(lambda r=request: root.crypto.Retire(r)))
    stop.set()
    writing.join()

    fortress.server.process.kill9_all()
    fortress.server.restart()

    assert all(each is None or each.code == "FAILED_PRECONDITION" for each in outcomes)
    assert _values(fortress) == done
    assert fortress.verify().returncode == 0


# --- who may ------------------------------------------------------------------------------------


def test_keys_are_for_administrators_of_the_cluster(fortress: Fortress) -> None:
    """Users, and the root of a tenant, may not even look; what they tried is recorded."""
    fortress.user("web")
    acme = fortress.tenant("acme")
    calls = {
        "Status": crypto_pb2.CryptoStatusRequest(count=True),
        "Rotate": crypto_pb2.CryptoRotateRequest(),
        "Reencrypt": crypto_pb2.CryptoReencryptRequest(),
        "Retire": crypto_pb2.CryptoRetireRequest(term=1),
    }
    for name, request in calls.items():
        for client in (fortress.certified("web"), acme):
            assert refused(lambda n=name, r=request, c=client: getattr(c.crypto, n)(r)) == DENIED
        assert refused(lambda n=name, r=request: getattr(fortress.stranger().crypto, n)(r))

    assert [term["state"] for term in _keys(fortress)["terms"]] == ["current"]
    assert len(fortress.requests("CryptoRotate")) == 3


def test_changes_of_keys_are_recorded_before_and_after(fortress: Fortress) -> None:
    """There is an intent with what was asked, and an outcome with what came of it."""
    _run(fortress, "rotate")
    fortress.cli("crypto", "retire", "2", "--yes")

    rotate, retire = fortress.requests("CryptoRotate"), fortress.requests("CryptoRetire")

    assert [each["stage"] for each in (*rotate, *retire)] == ["intent", "intent"]
    assert retire[0]["op"] == {"rpc": "CryptoRetire", "term": 2}
    outcomes = [each for each in fortress.records() if each["stage"] == "outcome"]
    assert any(
        rotate[0]["seq"] in [done["intent"] for done in each.get("done", [])] for each in outcomes
    )
    (failed,) = (each for each in outcomes if each.get("intent") == retire[0]["seq"])
    assert failed["result"]["code"] == "FAILED_PRECONDITION"


# --- the key-encryption key ---------------------------------------------------------------------


def _key(path: Path) -> None:
    write_private(path, base64.b64encode(secrets.token_bytes(32)))


def test_key_file_is_replaced_while_the_server_serves(fortress: Fortress) -> None:
    """The new content of the file wraps the keyring; the old one opens nothing any more."""
    before = fortress.kek.read_bytes()
    same = fortress.cli("crypto", "rotate", "--kek")
    assert same.returncode == 1
    assert b"the key-encryption key is the same as before" in same.stderr
    _key(fortress.kek)
    other = fortress.cli("crypto", "rotate")
    assert other.returncode == 1
    assert b"another one than that which wraps" in other.stderr

    assert "wrapped by key-encryption key" in _run(fortress, "rotate", "--kek")

    _run(fortress, "rotate")
    fortress.server.process.kill9_all()
    fortress.server.restart()
    fortress.put(fortress.root(), b"k", b"v")
    fortress.server.stop()
    write_private(fortress.kek, before)
    fortress.server.process.spawn()
    assert fortress.server.process.wait_exit() == 1
    assert b"give the right key" in fortress.server.process.log()


def _restart(fortress: Fortress, *flags: str) -> None:
    """Start the server again with its key from elsewhere."""
    process = fortress.server.process
    if process.is_running:
        process.stop()
    kept = [word for word in process._command if not word.startswith("--kek-")]
    process._command = [*kept, *flags]
    process.start()


def test_provider_is_changed_by_way_of_the_one_before(fortress: Fortress, tmp_path: Path) -> None:
    """From a file to a passphrase to a KMS: the key before is good until it is rewrapped."""
    fortress.put(fortress.root(), b"k", b"v")
    passphrase = tmp_path / "passphrase"
    write_private(passphrase, b"harbour maple violet")
    to_passphrase = ("--kek-provider=passphrase", f"--kek-passphrase-file={passphrase}")
    from_file = ("--kek-previous-provider=file", f"--kek-previous-file={fortress.kek}")
    with KmsPluginServer(tmp_path / "kms.sock") as plugin:
        to_kms = ("--kek-provider=kms", f"--kek-kms-socket={plugin.socket}")
        from_passphrase = (
            "--kek-previous-provider=passphrase",
            f"--kek-previous-passphrase-file={passphrase}",
        )
        for flags, provider in (
            ((*to_passphrase, *from_file), "passphrase"),
            ((*to_kms, *from_passphrase), "kms"),
        ):
            _restart(fortress, *flags)
            assert _keys(fortress)["provider"] != provider
            assert b"run `kvsecure crypto rotate --kek`" in fortress.server.process.log()
            assert f"({provider})" in _run(fortress, "rotate", "--kek")
            # Another rotation finds the key that it needs, which is the new one by now.
            _run(fortress, "rotate")
        plugin.rotate("key-2")
        _restart(fortress, *to_kms)
        assert _keys(fortress)["kms_key_id"] == "key-1"
        _run(fortress, "rotate", "--kek")
        assert _keys(fortress)["kms_key_id"] == "key-2"
        plugin.forget()
        lost = fortress.cli("crypto", "rotate")
        assert lost.returncode == 1
        assert b"Decrypt fails" in lost.stderr
    assert fortress.value(fortress.root(), b"k") == b"v"

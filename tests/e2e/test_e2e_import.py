"""Import of a running etcd: all that its API shows is there afterwards, once, and compared."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from e2e.world import Fortress
from support.servers import ROOT_PASSWORD, EtcdMember

from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2

_COUNT: Final = 1_500


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """An etcd with keys, large ones too, leases, users and roles."""
    with EtcdMember(tmp_path_factory.mktemp("etcd")) as member, member.client() as client:
        write_private(member.directory / "password", ROOT_PASSWORD.encode())
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=5, TTL=3_600))
        for number in range(_COUNT):
            key = b"/app/%06d" % number
            lease = 5 if number % 100 == 0 else 0
            client.kv.Put(kv_pb2.PutRequest(key=key, value=b"%d" % number, lease=lease))
        for number in range(12):
            client.kv.Put(kv_pb2.PutRequest(key=b"/large/%d" % number, value=bytes(1_000_000)))
        client.kv.Put(kv_pb2.PutRequest(key=b"\xff\x00odd", value=b"\x00"))
        client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name="app"))
        permission = authstore_pb2.Permission(
            permType="READWRITE", key=b"/app/", range_end=b"/app0"
        )
        client.auth.RoleGrantPermission(
            auth_pb2.AuthRoleGrantPermissionRequest(name="app", perm=permission)
        )
        client.auth.UserAdd(auth_pb2.AuthUserAddRequest(name="web", password="short"))
        client.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="web", role="app"))
        yield member


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    """An empty kvsecure."""
    with Fortress(tmp_path / "target") as built:
        yield built


def _words(etcd: EtcdMember, *more: str) -> list[str]:
    return [
        "import", "etcd", f"--endpoints={etcd.endpoint}",
        f"--cacert={etcd.authority.certificate}", "--user=root",
        f"--password-file={etcd.directory / 'password'}", *more,
    ]  # fmt: skip


def _json(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _keys(client: Any) -> list[tuple[bytes, bytes, int]]:
    found = []
    for prefix, end in ((b"\0", b"/large/"), (b"/large0", b"\0")):
        answer = client.kv.Range(kv_pb2.RangeRequest(key=prefix, range_end=end))
        found += [(kv.key, kv.value, kv.lease) for kv in answer.kvs]
    return found


def test_import_brings_everything_that_etcd_shows(etcd: EtcdMember, fortress: Fortress) -> None:
    """Keys with values and leases, roles with permissions, users with roles and no password."""
    found = _json(fortress.cli(*_words(etcd, "--format=json")))

    assert (found["equal"], found["missing"], found["different"]) == (_COUNT + 13, 0, 0)
    assert (found["roles"], found["users"]) == (1, 1)
    assert found["users_without_password"] == ["web"]
    root = fortress.root()
    with etcd.client() as client:
        assert _keys(root) == _keys(client)
    lease = lease_pb2.LeaseTimeToLiveRequest(ID=5, keys=True)
    answer = root.lease.LeaseTimeToLive(lease)
    assert answer.grantedTTL == 3_600
    assert len(answer.keys) == _COUNT // 100
    assert fortress.value(fortress.certified("web"), b"/app/000007") == b"7"
    assert not list(fortress.directory.rglob("kvsecure-import.json"))


def test_import_that_is_killed_goes_on(
    etcd: EtcdMember, fortress: Fortress, tmp_path: Path
) -> None:
    """What was copied is not copied again, and at the end all is there."""
    state = tmp_path / "state.json"
    words = _words(etcd, f"--state={state}", "--format=json")
    pair = fortress.server.authority.client("root")
    target = [
        f"--endpoint={fortress.server.endpoint}",
        f"--cacert={fortress.server.authority.certificate}",
        f"--cert={pair.certificate}", f"--key={pair.key}",
    ]  # fmt: skip
    line = [sys.executable, "-m", "kvsecure", *target, *words]
    environment = {**os.environ, "KVSECURE_HOME": str(tmp_path / "home")}
    with subprocess.Popen(line, env=environment) as process:
        deadline_s = time.monotonic() + 20
        while not state.exists() or json.loads(state.read_text())["copied"] == 0:
            assert time.monotonic() < deadline_s
            assert process.poll() is None
        process.kill()
    copied = json.loads(state.read_text())["copied"]
    assert 0 < copied < _COUNT
    assert state.stat().st_mode & 0o777 == 0o600

    done = fortress.cli(*words)

    assert f"going on behind key {copied} of".encode() in done.stderr
    assert _json(done)["equal"] == _COUNT + 13
    assert not state.exists()
    versions = {
        kv.version
        for kv in fortress.root()
        .kv.Range(kv_pb2.RangeRequest(key=b"/app/000000", range_end=b"/app/%06d" % (copied // 2)))
        .kvs
    }
    assert versions == {1}


def test_import_does_not_write_over_what_is_there(etcd: EtcdMember, fortress: Fortress) -> None:
    """Unless it is told to; keys of other names stay, and are counted."""
    root = fortress.root()
    fortress.put(root, b"/app/000001", b"mine")
    fortress.put(root, b"/zzz", b"mine")
    refused = fortress.cli(*_words(etcd))
    assert refused.returncode == 1
    assert b"the target has 2 keys" in refused.stderr
    assert fortress.value(root, b"/app/000001") == b"mine"

    found = _json(fortress.cli(*_words(etcd, "--merge", "--format=json", "--without-accounts")))

    assert (found["equal"], found["extra"], found["users"]) == (_COUNT + 13, 1, None)
    assert fortress.value(root, b"/app/000001") == b"1"
    assert fortress.value(root, b"/zzz") == b"mine"


def test_import_finds_what_somebody_else_has_changed(
    etcd: EtcdMember, fortress: Fortress, tmp_path: Path
) -> None:
    """A key that is not what the source had is counted, and the command fails."""
    state = tmp_path / "state.json"
    _json(fortress.cli(*_words(etcd, "--format=json", "--without-accounts")))
    root = fortress.root()
    with etcd.client() as client:
        now = client.kv.Range(kv_pb2.RangeRequest(key=b"x", count_only=True)).header
    status = fortress.root().kv.Range(kv_pb2.RangeRequest(key=b"x", count_only=True)).header
    place = {
        "format": 1, "source": f"{now.cluster_id:x}", "target": f"{status.cluster_id:x}",
        "revision": now.revision, "total": _COUNT + 13, "copied": _COUNT + 13,
        "key": "/////w==",
    }  # fmt: skip
    state.write_text(json.dumps(place))
    fortress.put(root, b"/app/000002", b"changed")
    root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/app/000003"))

    done = fortress.cli(*_words(etcd, f"--state={state}", "--without-accounts"))

    assert done.returncode == 1
    assert b"1 keys are missing and 1 are different" in done.stderr


def test_import_goes_on_only_between_the_same_clusters(
    etcd: EtcdMember, fortress: Fortress, tmp_path: Path
) -> None:
    """A state of others, or one that is none, is refused, and so is a revision that is gone."""
    state = tmp_path / "state.json"
    state.write_text("{}")
    done = fortress.cli(*_words(etcd, f"--state={state}"))
    assert b"does not say how far an import has come" in done.stderr
    place = {
        "format": 1, "source": "1", "target": "2", "revision": 3, "total": 4, "copied": 1, "key": ""
    }  # fmt: skip
    state.write_text(json.dumps(place))
    done = fortress.cli(*_words(etcd, f"--state={state}"))
    assert b"was between other clusters" in done.stderr
    with etcd.client() as client:
        source = client.kv.Range(kv_pb2.RangeRequest(key=b"x", count_only=True)).header
        client.kv.Compact(kv_pb2.CompactionRequest(revision=source.revision - 5))
    target = fortress.root().kv.Range(kv_pb2.RangeRequest(key=b"x", count_only=True)).header
    place |= {"source": f"{source.cluster_id:x}", "target": f"{target.cluster_id:x}"}
    state.write_text(json.dumps(place))
    done = fortress.cli(*_words(etcd, f"--state={state}"))
    assert done.returncode == 1
    assert b"the source has compacted revision 3" in done.stderr

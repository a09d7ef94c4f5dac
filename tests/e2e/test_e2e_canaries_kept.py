"""Canaries through everything that rewrites or copies what is stored: they never turn up.

One server is told canaries, by its clients and by an import from etcd; then its keys are rotated,
everything is sealed anew, the old key is retired, the tables are defragmented and a backup is
saved and restored. After each step whatever lies on the disk is searched.
"""

import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from e2e.world import READWRITE, Fortress
from support.canaries import forms, found
from support.processes import wait_until
from support.servers import ROOT_PASSWORD, EtcdMember

from kvsecure.pki.files import write_private
from kvsecure.proto import auth_pb2, kv_pb2

# Names and values alike; each begins so that nothing else does.
_SECRETS: Final = {
    "value": b"kanarie-value-71c2",
    "value of a transaction": b"kanarie-txn-0b1e",
    "value of a lost version": b"kanarie-lost-55d0",
    "imported value": b"kanarie-imported-a8f3",
    "key": b"/kanarie-key/9e",
    "imported key": b"/kanarie-imported-key/4c",
    "tenant": b"kanarie-tenant-2d",
    "role": b"kanarie-role-83",
    "user": b"kanarie-user-f0",
    "imported role": b"kanarie-imported-role-11",
    "imported user": b"kanarie-imported-user-6b",
    "password": b"kanarie-password-3a-lantern",
}
_LARGE: Final = 40


class _Nest(NamedTuple):
    """A server that was told everything."""

    fortress: Fortress
    directory: Path


@pytest.fixture(scope="module")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Nest]:
    """A server with canaries that came over the wire and by import, and much to be sealed."""
    directory = tmp_path_factory.mktemp("kept")
    flags = ("--log-level=debug", "--metrics=extensive")
    with Fortress(directory / "server", flags=flags) as fortress:
        root = fortress.root()
        key = _SECRETS["key"]
        fortress.role(_text("role"), (READWRITE, key, b""))
        fortress.user(_text("user"), _text("role"), password=_text("password"))
        acme = fortress.tenant(_text("tenant"), _text("password"))
        for client in (root, acme):
            fortress.put(client, key, _SECRETS["value of a lost version"])
            fortress.put(client, key, _SECRETS["value"])
        inner = kv_pb2.PutRequest(key=key + b"/t", value=_SECRETS["value of a transaction"])
        root.kv.Txn(kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=inner)]))
        # Enough that the tables get free pages.
        for number in range(_LARGE):
            fortress.put(root, key + b"/large/%d" % number, _SECRETS["value"] * 5_000)
        root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=key + b"/large/", range_end=key + b"/m"))
        _import(directory, fortress)
        yield _Nest(fortress, directory)


def _text(name: str) -> str:
    return _SECRETS[name].decode()


def _import(directory: Path, fortress: Fortress) -> None:
    with EtcdMember(directory / "etcd") as etcd, etcd.client() as client:
        password = directory / "password"
        write_private(password, ROOT_PASSWORD.encode())
        put = kv_pb2.PutRequest(key=_SECRETS["imported key"], value=_SECRETS["imported value"])
        client.kv.Put(put)
        client.auth.RoleAdd(auth_pb2.AuthRoleAddRequest(name=_text("imported role")))
        client.auth.UserAdd(
            auth_pb2.AuthUserAddRequest(name=_text("imported user"), password=_text("password"))
        )
        done = fortress.cli(
            *("import", "etcd", "--merge", f"--endpoints={etcd.endpoint}", "--user=root"),
            *(f"--cacert={etcd.authority.certificate}", f"--password-file={password}"),
        )
        assert done.returncode == 0, done.stderr


def _assert_clean(nest: _Nest) -> None:
    """Search what the server has left, and whatever else lies beside it."""
    for name, content in nest.fortress.leftovers():
        # What a file ends with is mostly zeros: room for more.
        assert found(_SECRETS, [content.rstrip(b"\0")]) == [], name


def _cli(nest: _Nest, *words: str) -> bytes:
    done = nest.fortress.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_canaries_would_be_found() -> None:
    """The search finds a secret in each form, wherever it stands."""
    for form in forms(_SECRETS["value"]):
        assert found(_SECRETS, [b"around " + form + b" it"]) == ["value"]


def test_names_and_values_are_not_on_the_disk(nest: _Nest) -> None:
    """Names of keys, tenants, roles and users, values and passwords are sealed in every file."""
    spare = nest.fortress.data / "wal" / "spare"
    root = nest.fortress.root()

    def has_spare() -> bool:
        # One is made beside the writing, once there is much of it.
        nest.fortress.put(root, _SECRETS["key"], _SECRETS["value"] * 5_000)
        return spare.exists()

    wait_until(has_spare, deadline_s=15, what="a spare segment")
    nest.fortress.put(root, _SECRETS["key"], _SECRETS["value"])

    _assert_clean(nest)


def test_names_are_not_in_the_metrics_and_status(nest: _Nest) -> None:
    """What a member tells of itself names nobody and nothing."""
    trust = ssl.create_default_context(cafile=str(nest.fortress.server.authority.certificate))
    url = f"{nest.fortress.server.url}/metrics"
    with urllib.request.urlopen(url, context=trust, timeout=10) as answer:
        metrics = answer.read()

    told = [_cli(nest, "endpoint", "status", "--format=json"), _cli(nest, "crypto", "status")]

    assert b"kvsecure_audit_records_total" in metrics
    assert found(_SECRETS, [metrics, *told]) == []


def test_nothing_turns_up_while_keys_change(nest: _Nest) -> None:
    """Rotation, sealing anew, compaction, defragmentation and retirement leave nothing readable."""
    root = nest.fortress.root()
    _cli(nest, "crypto", "rotate")
    _assert_clean(nest)
    answer = root.kv.Put(kv_pb2.PutRequest(key=_SECRETS["key"], value=_SECRETS["value"]))
    root.kv.Compact(kv_pb2.CompactionRequest(revision=answer.header.revision, physical=True))
    _assert_clean(nest)
    _cli(nest, "crypto", "reencrypt")
    _assert_clean(nest)
    _cli(nest, "defrag")
    _assert_clean(nest)
    _cli(nest, "crypto", "retire", "1", "--yes")
    nest.fortress.server.stop()
    _assert_clean(nest)
    nest.fortress.server.restart()
    _assert_clean(nest)

    assert nest.fortress.value(nest.fortress.root(), _SECRETS["key"]) == _SECRETS["value"]


def test_a_backup_shows_nothing_before_and_after_it_is_restored(nest: _Nest) -> None:
    """A backup's file, what is told of it, and the directory that it is restored to are closed."""
    path = nest.directory / "backup"
    restored = nest.directory / "restored"
    kek = f"--kek-file={nest.fortress.kek}"

    told = [
        _cli(nest, "snapshot", "save", str(path)),
        _cli(nest, "snapshot", "status", str(path), kek),
        _cli(nest, "snapshot", "restore", str(path), kek, f"--data-dir={restored}"),
    ]

    files = [each for each in (path, *restored.rglob("*")) if each.is_file()]
    assert len(files) > 3
    for each in files:
        assert found(_SECRETS, [each.read_bytes()]) == [], each
    assert found(_SECRETS, told) == []


def test_the_persons_home_holds_no_secret(nest: _Nest) -> None:
    """What the command line has left in the home of whoever ran it names nothing."""
    home = nest.directory / "server" / "home"
    files = [each for each in home.rglob("*") if each.is_file()]

    for each in files:
        assert found(_SECRETS, [each.read_bytes()]) == [], each

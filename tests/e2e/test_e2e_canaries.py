"""Secrets that are told apart at a glance, and every place where they must not turn up.

A server is run at debug level and given canaries in all the ways in which secrets are given; then
its arguments, environment, log, metrics, audit trail, errors and data directory are searched.
"""

import base64
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import bcrypt
import pytest
from e2e.world import READWRITE, Fortress, cli, refused
from support.canaries import forms, found
from support.processes import wait_until
from support.rpc import Client
from support.streams import WatchScript

from kvsecure.proto import auth_pb2, kv_pb2, lease_pb2, tenant_pb2

_ROOT_PASSWORD: Final = "lantern-Orbit-zebra-4271"
# Each canary is said once, in the way that its name says.
_VALUES: Final = {
    "put": b"canary-put-8d1f02",
    "binary": b"\xff\x00canary-binary-77aa\xfe",
    "transaction": b"canary-txn-19c3",
    "nested": b"canary-nested-5b5b",
    "compared": b"canary-compare-e0e1",
    "overwritten": b"canary-overwritten-42",
    "refused": b"canary-refused-c4c4",
    "malformed": b"canary-malformed-9d9d",
    "too large": b"canary-too-large-3131",
    "other tenant": b"canary-tenant-0a0b",
}
_PASSWORDS: Final = {
    "user": "canary-user-password-1f",
    "changed": "canary-changed-password-2e",
    "tenant": "canary-tenant-password-3d",
    "weak": "canary-weak-4c",
    "wrong": "canary-wrong-password-5b",
    "as a token": "canary-sent-as-a-token-6a",
}
_KEYS: Final = (b"/canary-name/app", b"/canary-name/refused")


class _Nest(NamedTuple):
    """A server that has been told everything, and what it answered with."""

    fortress: Fortress
    secrets: dict[str, bytes]
    errors: list[str]


@pytest.fixture(scope="module")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Nest]:
    """A server at debug level that was given every canary."""
    directory = tmp_path_factory.mktemp("canaries")
    with Fortress(directory, flags=("--log-level=debug", "--metrics=extensive")) as fortress:
        secrets = dict(_VALUES) | {name: each.encode() for name, each in _PASSWORDS.items()}
        errors: list[str] = []
        secrets |= _tell(fortress, errors)
        secrets["root's password"] = _ROOT_PASSWORD.encode()
        secrets["key-encryption key"] = base64.b64decode(fortress.kek.read_bytes())
        yield _Nest(fortress, secrets, errors)


def _tell(fortress: Fortress, errors: list[str]) -> dict[str, bytes]:
    """Give the server its secrets; return those that come of it."""
    root = fortress.root()
    fortress.role("app", (READWRITE, b"/canary-name/app", b""))
    hashed = bcrypt.hashpw(b"canary-hashed-password", bcrypt.gensalt(4))
    fortress.user("web", "app", password=_PASSWORDS["user"])
    root.auth.UserAdd(
        auth_pb2.AuthUserAddRequest(name="old", hashedPassword=base64.b64encode(hashed).decode())
    )
    acme = fortress.tenant("acme", _PASSWORDS["tenant"])
    web = fortress.bearer("web", _PASSWORDS["user"])
    script = WatchScript(web)
    script.create(_KEYS[0], prev_kv=True)
    script.wait(controls=1)
    _write(fortress, root, acme)
    script.wait(controls=1, events=3)
    script.close()
    _fail(fortress, web, errors)
    renewed = auth_pb2.AuthUserChangePasswordRequest(name="web", password=_PASSWORDS["changed"])
    root.auth.UserChangePassword(renewed)
    token = fortress.bearer("web", _PASSWORDS["changed"]).token
    return {
        "verifier": hashed,
        "first token": web.token.encode(),
        "second token": token.encode(),
        "signature of a token": token.rpartition(".")[2].encode(),
    }


def _write(fortress: Fortress, root: Client, acme: Client) -> None:
    key = _KEYS[0]
    fortress.put(root, key, _VALUES["overwritten"])
    fortress.put(root, key, _VALUES["put"], prev_kv=True)
    fortress.put(root, b"/canary-name/binary", _VALUES["binary"])
    fortress.put(acme, key, _VALUES["other tenant"])
    inner = kv_pb2.TxnRequest(success=[_op(key, _VALUES["nested"])])
    root.kv.Txn(
        kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=key, target="VALUE", value=_VALUES["compared"])],
            failure=[
                _op(b"/canary-name/t", _VALUES["transaction"]),
                kv_pb2.RequestOp(request_txn=inner),
            ],
        )
    )


def _op(key: bytes, value: bytes) -> kv_pb2.RequestOp:
    return kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=value))


def _fail(fortress: Fortress, web: Client, errors: list[str]) -> None:
    """Make requests with secrets in them that are refused, and keep the texts."""
    stranger = fortress.stranger()
    stranger.use_token(_PASSWORDS["as a token"])
    large = _VALUES["too large"] * 200_000
    put = kv_pb2.PutRequest(key=_KEYS[1], value=_VALUES["refused"])
    malformed = put.SerializeToString() + b"\x12\x7f" + _VALUES["malformed"]
    weak = auth_pb2.AuthUserAddRequest(name="weak", password=_PASSWORDS["weak"])
    both = auth_pb2.AuthUserAddRequest(
        name="odd", hashedPassword=base64.b64encode(_PASSWORDS["weak"].encode()).decode()
    )
    tenant = tenant_pb2.TenantAddRequest(name="BAD", root_password=_PASSWORDS["tenant"])
    ignored = kv_pb2.PutRequest(key=_KEYS[0], value=_VALUES["refused"], ignore_value=True)
    leased = kv_pb2.PutRequest(key=_KEYS[0], value=_VALUES["refused"], lease=12_345)
    calls: list[tuple[Client, str, Any]] = [
        (web, "kv.Put", put),
        (web, "kv.Put", ignored),
        (web, "kv.Put", leased),
        (web, "kv.Put", kv_pb2.PutRequest(key=_KEYS[0], value=large)),
        (web, "kv.Txn", kv_pb2.TxnRequest(success=[_op(_KEYS[1], _VALUES["refused"])])),
        (web, "auth.UserAdd", weak),
        (stranger, "kv.Put", put),
        (stranger, "lease.LeaseGrant", lease_pb2.LeaseGrantRequest(TTL=60)),
        (fortress.root(), "auth.UserAdd", weak),
        (fortress.root(), "auth.UserAdd", both),
        (fortress.root(), "tenants.TenantAdd", tenant),
        (fortress.root(), "kv.Put", ignored),
    ]
    refusals = [refused(lambda each=each: each[0].call(*each[1:])) for each in calls]
    raw = web.raw("/etcdserverpb.KV/Put")
    refusals.append(refused(lambda: raw(malformed)))
    refusals.append(refused(lambda: fortress.bearer("web", _PASSWORDS["wrong"])))
    assert None not in refusals
    errors += [str(each) for each in refusals]


def _found(nest: _Nest, content: bytes) -> list[str]:
    return found(nest.secrets, [content])


def test_canaries_would_be_found(nest: _Nest) -> None:
    """The search finds what is there, in each of its forms."""
    secret = nest.secrets["put"]

    for content in (*forms(secret), base64.b64encode(b"xx" + secret + b"yy")):
        assert _found(nest, b"around " + content + b" it") == ["put"]


def test_no_secret_is_in_an_error(nest: _Nest) -> None:
    """Whatever is refused, the text does not repeat what was sent."""
    assert len(nest.errors) > 10
    assert not _found(nest, "\n".join(nest.errors).encode())


def test_no_secret_is_in_arguments_or_environment(nest: _Nest) -> None:
    """Neither the member nor its disk processes show one to who lists processes."""
    for pid in _processes(nest.fortress.server.process.pid):
        for name in ("cmdline", "environ"):
            assert not _found(nest, Path(f"/proc/{pid}/{name}").read_bytes())


def test_no_secret_is_in_the_log(nest: _Nest) -> None:
    """At debug level the log has no secret, and no name of a key."""
    log = nest.fortress.server.log.read_bytes()

    assert b"debug" in log
    assert not _found(nest, log)
    assert b"canary-name" not in log


def test_no_secret_is_in_the_metrics(nest: _Nest) -> None:
    """What anybody can read has neither secrets nor names of keys, users or tenants."""
    trust = ssl.create_default_context(cafile=str(nest.fortress.server.authority.certificate))
    pages = b""
    for page in ("metrics", "health", "version"):
        url = f"{nest.fortress.server.url}/{page}"
        with urllib.request.urlopen(url, context=trust, timeout=10) as answer:
            pages += answer.read()

    assert b"kvsecure_audit_records_total" in pages
    assert not _found(nest, pages)
    for name in (b"canary", b"acme", b"web"):
        assert name not in pages


def test_no_secret_is_in_the_trail(nest: _Nest) -> None:
    """The records tell of every request that had a secret, and not the secret."""
    records = nest.fortress.records()
    told = {each["op"]["rpc"] for each in records if "op" in each}

    assert {"Put", "Txn", "UserAdd", "UserChangePassword", "TenantAdd", "Authenticate"} <= told
    assert not _found(nest, repr(records).encode())
    assert not _found(nest, str(records).encode("utf-8", "surrogateescape"))


def test_no_secret_is_on_the_disk(nest: _Nest) -> None:
    """Neither while the server runs nor after it has stopped is one in the data directory."""
    for running in (True, False):
        if not running:
            nest.fortress.server.stop()
        for name, content in nest.fortress.leftovers():
            assert not _found(nest, content), name
            assert b"canary" not in content, name
    nest.fortress.server.restart()


def test_the_command_line_takes_no_password(tmp_path: Path) -> None:
    """A password as an argument is refused, and not repeated."""
    for words in (
        ("login", "--user", "web", "--password", "canary-argument"),
        ("user", "add", "web", "--password", "canary-argument"),
        ("user", "passwd", "web", "--password=canary-argument"),
        ("tenant", "add", "acme", "--root-password", "canary-argument"),
        ("--user", "web", "--password", "canary-argument", "get", "k"),
    ):
        done = cli(tmp_path, *words)
        assert done.returncode != 0
        assert b"canary-argument" not in done.stdout + done.stderr, words


# --- memory -------------------------------------------------------------------------------------


def _processes(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *children]


def test_no_process_leaves_a_core(nest: _Nest) -> None:
    """The member and both disk processes have a core limit of nothing, that none can raise."""
    processes = _processes(nest.fortress.server.process.pid)

    assert len(processes) == 3
    for pid in processes:
        [line] = [
            line
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
            if line.startswith("Max core file size")
        ]
        assert line.split()[4:6] == ["0", "0"]


def _owner(pid: int) -> tuple[int, int]:
    status = Path(f"/proc/{pid}/mem").stat()
    return status.st_uid, status.st_gid


def test_the_servers_memory_is_closed_to_its_own_user(tmp_path: Path) -> None:
    """The kernel gives a process that is not dumpable to root: no debugger of its user gets in."""
    # As root, only the group tells the two apart.
    group: dict[str, Any] = {"group": 65_534, "extra_groups": []} if os.geteuid() == 0 else {}
    fortress = Fortress(tmp_path / "closed")
    process = fortress.server.process
    sleeper = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with (
        fortress.server.log.open("wb") as sink,
        subprocess.Popen(sleeper, stdin=subprocess.PIPE, **group) as other,
        subprocess.Popen(
            process._command, stdout=sink, stderr=sink, env=process._environment, **group
        ) as member,
    ):
        try:
            wait_until(
                lambda: b"ready to serve" in fortress.server.log.read_bytes(),
                deadline_s=20,
                what="the server",
            )
            assert _owner(other.pid) != (0, 0)
            processes = _processes(member.pid)
            assert len(processes) == 3
            assert {_owner(pid) for pid in processes} == {(0, 0)}
        finally:
            member.terminate()
            assert other.stdin is not None
            other.stdin.close()

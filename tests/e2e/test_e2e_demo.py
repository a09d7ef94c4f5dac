"""The demo scenario: as `kvsecure demo` tells it, and once more over stock grpcio."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from e2e.world import DENIED, PASSWORD, READ, Fortress, environment, refused
from support.processes import wait_until
from support.rpc import Client
from support.streams import WatchScript

from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2

_KEY: Final = b"/app/db/password"
_SECRET: Final = b"tide-Copper-lantern-90125"
_OTHER_SECRET: Final = b"quiet-Walnut-signal-33471"
_ROOT_PASSWORD: Final = "lantern-Orbit-zebra-4271"


def test_demo_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    """`kvsecure demo` does all it promises, whatever the environment says, and cleans up."""
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o700)
    misleading = {
        "TMPDIR": str(temporary),
        "KVSECURE_ENDPOINT": "127.0.0.1:1",
        "KVSECURE_USER": "nobody",
        "ETCD_NAME": "elsewhere",
        "ETCD_DATA_DIR": str(tmp_path / "elsewhere"),
    }

    done = subprocess.run(
        [sys.executable, "-m", "kvsecure", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=100,
        env=environment(tmp_path, **misleading),
        cwd=tmp_path,
    )

    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert done.stdout.splitlines()[-1] == b"demo: all steps went as promised"
    assert [*tmp_path.iterdir()] == [temporary]
    assert not [*temporary.iterdir()]
    wait_until(lambda: not _processes_below(temporary), deadline_s=20, what="the demo's processes")


def _processes_below(directory: Path) -> list[bytes]:
    """Return the command lines of processes that name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(directory) in line:
            found.append(line)
    return found


# --- the same by other means --------------------------------------------------------------------


class _Tale:
    """A server on which the story was told up to the crash."""

    def __init__(self, fortress: Fortress) -> None:
        self.fortress = fortress
        self.root = fortress.root()
        self._give_rights()
        self.web = fortress.certified("web")
        self.root.kv.Put(kv_pb2.PutRequest(key=_KEY, value=_SECRET))
        self.acme = fortress.tenant("acme")

    def _give_rights(self) -> None:
        auth = self.root.auth
        app = authstore_pb2.Permission(permType=READ, key=b"/app/", range_end=b"/app0")  # type: ignore[arg-type]  # an enum is an int here
        auth.RoleGrantPermission(auth_pb2.AuthRoleGrantPermissionRequest(name="reader", perm=app))
        auth.UserAdd(
            auth_pb2.AuthUserAddRequest(
                name="web", options=authstore_pb2.UserAddOptions(no_password=True)
            )
        )
        auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="web", role="reader"))


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Tale]:
    """The story so far."""
    directory = tmp_path_factory.mktemp("demo")
    with Fortress(directory, flags=("--initial-policy=default",)) as fortress:
        yield _Tale(fortress)


def _everything(client: Client) -> dict[bytes, bytes]:
    answer = client.kv.Range(kv_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    return {each.key: each.value for each in answer.kvs}


def test_a_reader_reads_what_it_was_granted(tale: _Tale) -> None:
    """The user with role reader gets the secret over mutual TLS, by its certificate alone."""
    assert tale.fortress.value(tale.web, _KEY) == _SECRET


def test_a_reader_reads_nothing_else_and_writes_nothing(tale: _Tale) -> None:
    """Other keys and every write are refused with etcd's code and text."""
    tale.root.kv.Put(kv_pb2.PutRequest(key=b"/ops/root-token", value=b"x"))
    for name, request in (
        ("kv.Range", kv_pb2.RangeRequest(key=b"/ops/root-token")),
        ("kv.Range", kv_pb2.RangeRequest(key=b"/ops/none")),
        ("kv.Range", kv_pb2.RangeRequest(key=b"/app/", range_end=b"\0")),
        ("kv.Put", kv_pb2.PutRequest(key=_KEY, value=b"mine")),
        ("kv.Put", kv_pb2.PutRequest(key=b"/app/new", value=b"mine")),
        ("kv.DeleteRange", kv_pb2.DeleteRangeRequest(key=_KEY)),
    ):
        assert refused(lambda name=name, request=request: tale.web.call(name, request)) == DENIED
    assert tale.fortress.value(tale.root, _KEY) == _SECRET


def test_a_second_tenant_sees_nothing_of_the_first(tale: _Tale) -> None:
    """The other tenant's root finds no key, and its key of the same name is another secret."""
    tale.acme.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    assert _everything(tale.acme) == {}

    tale.acme.kv.Put(kv_pb2.PutRequest(key=_KEY, value=_OTHER_SECRET))

    assert _everything(tale.acme) == {_KEY: _OTHER_SECRET}
    assert tale.fortress.value(tale.web, _KEY) == _SECRET
    by_password = tale.fortress.bearer("acme/root")
    assert tale.fortress.value(by_password, _KEY) == _OTHER_SECRET


def test_a_watcher_sees_a_change(tale: _Tale) -> None:
    """A watch of the reader is told of a change by root, and not of the other tenant's."""
    script = WatchScript(tale.web)
    try:
        script.create(b"/app/", range_end=b"/app0")
        script.wait(controls=1)
        tale.acme.kv.Put(kv_pb2.PutRequest(key=b"/app/colour", value=b"green"))
        tale.root.kv.Put(kv_pb2.PutRequest(key=b"/app/colour", value=b"blue"))
        script.wait(controls=1, events=1)
        seen = script.observed()
    finally:
        script.close()

    events = [event for events in seen.events.values() for event in events]
    assert [(event.kv.key, event.kv.value) for event in events] == [(b"/app/colour", b"blue")]


def test_a_killed_server_comes_back_with_everything(tale: _Tale) -> None:
    """After kill -9 and a restart keys, rights, tenants and sessions are what they were."""
    root, acme = tale.root, tale.acme
    acme.kv.Put(kv_pb2.PutRequest(key=_KEY, value=_OTHER_SECRET))
    bearer = tale.fortress.bearer("acme/root")
    before = _everything(root), _everything(acme)

    tale.fortress.server.kill9()
    tale.fortress.server.restart()

    assert (_everything(root), _everything(acme)) == before
    assert tale.fortress.value(tale.web, _KEY) == _SECRET
    assert tale.fortress.value(bearer, _KEY) == _OTHER_SECRET
    denied = kv_pb2.PutRequest(key=_KEY, value=b"mine")
    assert refused(lambda: tale.web.kv.Put(denied)) == DENIED


def test_the_trail_tells_the_story_and_verifies(tale: _Tale) -> None:
    """All that was allowed and refused is recorded, and `audit verify` counts every record."""
    tale.fortress.value(tale.web, _KEY)
    refused(lambda: tale.web.kv.Put(kv_pb2.PutRequest(key=_KEY, value=b"mine")))
    records = tale.fortress.records()

    done = tale.fortress.verify("--format=json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["first_record"] == 1
    assert report["records"] == report["head"]["record"] >= records[-1]["seq"]
    of_web = [each for each in records if each.get("actor", {}).get("user") == "web"]
    stages = {(each["stage"], each["op"]["rpc"], each["result"]["code"]) for each in of_web}
    assert stages >= {("read", "Range", "OK"), ("denied", "Put", "PERMISSION_DENIED")}
    assert all(each["source"]["cert"] for each in of_web)
    assert {each["op"].get("key") for each in of_web} >= {_KEY.decode()}


def test_a_changed_byte_of_the_trail_is_named(tale: _Tale) -> None:
    """With one byte changed `audit verify` fails and names a record."""
    path = min((tale.fortress.data / "audit").glob("*.audit"))
    content = path.read_bytes()
    place = len(content) // 2
    with path.open("r+b") as sink:
        sink.seek(place)
        sink.write(bytes((content[place] ^ 1,)))

    broken = tale.fortress.verify()
    with path.open("r+b") as sink:
        sink.seek(place)
        sink.write(content[place : place + 1])

    assert broken.returncode == 1
    assert re.search(rb"audit trail broken at record [1-9][0-9]*: ", broken.stderr)
    assert tale.fortress.verify().returncode == 0


def test_a_thief_of_the_disk_finds_nothing(tale: _Tale) -> None:
    """Neither values nor names of keys and users nor passwords lie in the data directory."""
    tale.acme.kv.Put(kv_pb2.PutRequest(key=_KEY, value=_OTHER_SECRET))
    tale.fortress.server.stop()
    looked_for = (
        *(_SECRET, _OTHER_SECRET, _KEY, b"/ops/root-token", b"/app/"),
        *(PASSWORD.encode(), _ROOT_PASSWORD.encode(), b"$argon2id$", b"acme"),
    )
    sizes = 0

    for name, content in tale.fortress.leftovers():
        sizes += len(content)
        for canary in looked_for:
            for form in (canary, canary.hex().encode(), base64.b64encode(canary)[:-4]):
                assert len(form) < 4 or form not in content, (name, canary)

    assert sizes > 10_000
    tale.fortress.server.restart()
    assert tale.fortress.value(tale.web, _KEY) == _SECRET

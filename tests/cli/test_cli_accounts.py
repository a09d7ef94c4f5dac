"""`user`, `role` and `auth` against a real server, and `tenant` against a script."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from support.etcd import ScriptedServer
from support.servers import EtcdMember, Member

from kvsecure.model.errors import Failure
from kvsecure.proto import tenant_pb2

__all__: list[str] = []

Run = Callable[..., Result]

_PASSWORD = "pond-Lantern-zebra-9931"


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_reader_reads_and_may_do_no_more(root: Run, password_file: Callable[[str], Path]) -> None:
    """The road of the demo: a role, a user, a read that works, and two refusals that explain."""
    path = str(password_file(_PASSWORD))
    _done(root("role", "add", "reader"))
    granted = _done(root("role", "grant", "reader", "/app/"))
    _done(root("user", "add", "web", "--password-file", path))
    _done(root("user", "grant", "web", "reader"))
    _done(root("put", "/app/db/password", stdin=b"s3cret"))
    as_web = ("--user", "web", "--password-file", path)

    found = _done(root(*as_web, "get", "/app/db/password"))
    elsewhere = root(*as_web, "get", "/ops/root-token")
    writing = root(*as_web, "put", "/app/db/password", "x")
    managing = root(*as_web, "user", "list")

    assert granted.stdout == "role reader may read /app/ (prefix)\n"
    assert found.stdout == "s3cret"
    assert (elsewhere.exit_code, elsewhere.stderr) == (
        1,
        "Error: user web may not read /ops/root-token (etcdserver: permission denied)\n",
    )
    assert writing.stderr == (
        "Error: user web may not write /app/db/password (etcdserver: permission denied)\n"
    )
    assert managing.stderr == "Error: user web may not list users (etcdserver: permission denied)\n"


def test_user_has_a_life(root: Run) -> None:
    """A user is added, given and denied a role, listed and deleted."""
    _done(root("role", "add", "passing"))

    added = _done(root("user", "add", "passing", "--password-stdin", stdin=_PASSWORD.encode()))
    _done(root("user", "grant-role", "passing", "passing"))
    shown = json.loads(_done(root("user", "get", "passing", "--format", "json")).stdout)
    table = _done(root("user", "get", "passing"))
    listed = json.loads(_done(root("user", "list", "--format", "json")).stdout)
    _done(root("user", "revoke-role", "passing", "passing"))
    _done(
        root("user", "passwd", "passing", "--password-stdin", stdin=b"heron-Basket-violet-5520\n")
    )
    deleted = _done(root("user", "delete", "passing"))

    assert added.stdout == "user passing added\n"
    assert shown == {"user": "passing", "roles": ["passing"]}
    assert table.stdout.splitlines()[1].split() == ["passing", "passing"]
    assert "passing" in listed["users"]
    assert deleted.stdout == "user passing deleted\n"
    assert "passing" not in _done(root("user", "list")).stdout.splitlines()


def test_password_of_a_file_loses_one_newline(
    root: Run, password_file: Callable[[str], Path]
) -> None:
    """The newline that ends the file is not part of the password; everything else is."""
    _done(root("user", "add", "lines", "--password-file", str(password_file(f"{_PASSWORD}\n"))))

    exact = root(
        "--user",
        "lines",
        "--password-file",
        str(password_file(f"{_PASSWORD}\n")),
        "user",
        "get",
        "lines",
    )
    shorter = root(
        "--user", "lines", "--password-file", str(password_file(_PASSWORD)), "user", "get", "lines"
    )

    assert exact.exit_code == 0
    assert shorter.exit_code == 1
    assert Failure.AUTH_FAILED.text in shorter.stderr


def test_exposed_password_file_is_refused(root: Run, password_file: Callable[[str], Path]) -> None:
    """A password that others can read is refused with the command that mends it."""
    path = password_file(_PASSWORD)
    path.chmod(0o644)

    done = root("user", "add", "exposed", "--password-file", str(path))

    assert done.exit_code == 1
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "status"),
    [
        (["user", "add", "x", "--password-stdin"], b"", 1),
        (["user", "add", "x", "--password-stdin"], b"\n", 1),
        (["user", "add", "x", "--password-stdin"], b"\xff\xff", 1),
        (["user", "add", "x", "--password-stdin", "--no-password"], b"p", 2),
        (["user", "add", "x", "--password-stdin", "--password-file", "f"], b"p", 2),
        (["user", "add", "x", "--password-file", "/nowhere"], b"", 1),
        (["user", "add", "x"], b"not a terminal\n", 1),
        (["user", "passwd", "x"], b"not a terminal\n", 1),
        (["tenant", "add", "x"], b"not a terminal\n", 1),
        (["tenant", "add", "x", "--no-password", "--root-password-stdin"], b"p", 2),
        (["login", "--user", "x", "--password-stdin", "--password-file", "f"], b"p", 2),
    ],
)
def test_password_without_a_good_source_is_refused(
    *, root: Run, arguments: list[str], stdin: bytes, status: int
) -> None:
    """No password, two of them, or one that is no text: nothing is sent."""
    done = root(*arguments, stdin=stdin)

    assert (done.exit_code, done.stdout) == (status, "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "read      /g/ (prefix)"),
        (["--read"], "read      /g/ (prefix)"),
        (["--write"], "write     /g/ (prefix)"),
        (["--readwrite"], "readwrite /g/ (prefix)"),
        (["--key"], "read      /g/"),
        (["--range-end", "/h"], "read      [/g/, /h)"),
        (["--from-key", "--write"], "write     /g/ and every key after it"),
    ],
)
def test_grant_says_which_keys_and_what(*, root: Run, arguments: list[str], text: str) -> None:
    """Each way to grant reads back as what it is, and is revoked by the same words."""
    _done(root("role", "add", "granted"))
    keys = [word for word in arguments if word not in {"--read", "--write", "--readwrite"}]

    _done(root("role", "grant", "granted", "/g/", *arguments))
    shown = _done(root("role", "get", "granted"))
    _done(root("role", "revoke", "granted", "/g/", *keys))
    empty = _done(root("role", "get", "granted"))
    _done(root("role", "delete", "granted"))

    assert [line.split() for line in shown.stdout.splitlines()[1:]] == [text.split()]
    assert empty.stdout.splitlines() == ["RIGHT  KEYS"]


def test_grant_of_everything_is_named_so(root: Run) -> None:
    """The empty prefix is every key."""
    _done(root("role", "add", "everything"))

    done = _done(root("role", "grant", "everything", ""))

    assert done.stdout == "role everything may read every key\n"


def test_role_in_json_has_exact_keys(root: Run) -> None:
    """A permission in JSON carries the bytes of its range."""
    _done(root("role", "add", "exact"))
    _done(root("role", "grant", "exact", "/e/", "--readwrite"))

    form = json.loads(_done(root("role", "get", "exact", "--format", "json")).stdout)

    (permission,) = form["permissions"]
    assert form["role"] == "exact"
    assert permission["right"] == "readwrite"
    assert (permission["key_utf8"], permission["range_end_utf8"]) == ("/e/", "/e0")
    assert "exact" in json.loads(_done(root("role", "list", "--format", "json")).stdout)["roles"]
    assert "exact" in _done(root("role", "list")).stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["role", "grant", "unknown", "/a/"], "kvsecure role add unknown"),
        (["role", "revoke", "unknown", "/a/"], "kvsecure role add unknown"),
        (["user", "grant", "root", "unknown"], "kvsecure role add unknown"),
        (["user", "grant", "nobody", "root"], "kvsecure user add nobody"),
    ],
)
def test_unknown_name_is_answered_with_how_to_add_it(
    *, root: Run, arguments: list[str], hint: str
) -> None:
    """An error about a missing role or user says how to make it."""
    done = root(*arguments)

    assert done.exit_code == 1
    assert hint in done.stderr


def test_permission_that_is_not_there_is_explained(root: Run) -> None:
    """Revoking with other words than those of the grant says how to see the grant."""
    _done(root("role", "add", "strict"))
    _done(root("role", "grant", "strict", "/s/"))

    done = root("role", "revoke", "strict", "/s/", "--key")

    assert done.exit_code == 1
    assert "kvsecure role get strict" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", "--from-key"],
        ["--key", "--range-end", "z"],
        ["--range-end", "a"],
        ["--range-end", ""],
    ],
)
def test_contradictory_grants_are_usage_errors(root: Run, arguments: list[str]) -> None:
    """Two choices of keys, or an empty one, are refused before anything is sent."""
    assert root("role", "grant", "reader", "b", *arguments).exit_code == 2


def test_authentication_is_turned_on_and_off(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On a fresh store: root is added, gets its role on the way, and is needed from then on."""
    with EtcdMember(tmp_path_factory.mktemp("fresh"), auth=False) as member:
        there = ("--endpoint", member.endpoint, "--cacert", str(member.authority.certificate))

        too_early = run(*there, "auth", "enable")
        off = _done(run(*there, "auth", "status"))
        _done(run(*there, "user", "add", "root", "--password-stdin", stdin=_PASSWORD.encode()))
        _done(run(*there, "auth", "enable"))
        refused = run(*there, "get", "a")
        login = _done(
            run(*there, "login", "--user", "root", "--password-stdin", stdin=_PASSWORD.encode())
        )
        on = json.loads(_done(run("auth", "status", "--format", "json")).stdout)
        _done(run("auth", "disable"))
        needless = run("login", "--password-stdin", stdin=_PASSWORD.encode())
        _done(run("logout"))
        after = _done(run(*there, "get", "--prefix", "a"))

    assert too_early.exit_code == 1
    assert "kvsecure user add root" in too_early.stderr
    assert off.stdout.splitlines()[0] == "authentication is off"
    assert refused.exit_code == 1
    assert "kvsecure login" in refused.stderr
    assert login.stdout.startswith("logged in as user root in context default")
    assert on["enabled"] is True
    assert needless.exit_code == 1
    assert "kvsecure logout" in needless.stderr
    assert after.stdout == ""


_PATH = "/kvsecurepb.Tenants/Tenant"
_TENANT = tenant_pb2.Tenant(id=16, name="acme", key_count=3, user_count=1, auth_revision=2)


def test_tenant_commands_send_what_they_say(
    run: Run, scripted: ScriptedServer, password_file: Callable[[str], Path]
) -> None:
    """Each command on tenants sends one request, with the password from where it was said."""
    there = ("--endpoint", scripted.endpoint, "tenant")
    added = tenant_pb2.TenantAddResponse(tenant=_TENANT)
    scripted.script(f"{_PATH}Add", added, added, added)
    scripted.script(f"{_PATH}List", *[tenant_pb2.TenantListResponse(tenants=[_TENANT])] * 2)
    scripted.script(f"{_PATH}Get", *[tenant_pb2.TenantGetResponse(tenant=_TENANT)] * 2)
    scripted.script(f"{_PATH}Delete", tenant_pb2.TenantDeleteResponse())
    form = {"id": 16, "name": "acme", "key_count": 3, "user_count": 1, "auth_revision": 2}

    _done(run(*there, "add", "acme", "--root-password-stdin", stdin=b"one password\n"))
    path = str(password_file("another password"))
    _done(run(*there, "add", "acme", "--root-password-file", path))
    as_json = _done(run(*there, "add", "acme", "--no-password", "--format", "json"))
    listed = _done(run(*there, "list"))
    listed_json = _done(run(*there, "list", "--format", "json"))
    found = _done(run(*there, "get", "acme"))
    found_json = _done(run(*there, "get", "acme", "--format", "json"))
    deleted = _done(run(*there, "delete", "acme", "--yes"))

    assert [seen.request for seen in scripted.calls_of(f"{_PATH}Add")] == [
        tenant_pb2.TenantAddRequest(name="acme", root_password="one password"),
        tenant_pb2.TenantAddRequest(name="acme", root_password="another password"),
        tenant_pb2.TenantAddRequest(name="acme", root_no_password=True),
    ]
    assert json.loads(as_json.stdout) == form
    assert json.loads(listed_json.stdout) == {"tenants": [form]}
    assert json.loads(found_json.stdout) == form
    assert listed.stdout == found.stdout
    assert found.stdout.splitlines()[1].split() == ["16", "acme", "3", "1"]
    assert deleted.stdout == "tenant acme deleted\n"


def test_tenant_is_not_deleted_without_being_told_twice(run: Run, scripted: ScriptedServer) -> None:
    """Without a terminal to ask on, deleting needs `--yes`; nothing is sent."""
    done = run("--endpoint", scripted.endpoint, "tenant", "delete", "acme")

    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert scripted.seen == []


def test_server_without_tenants_is_explained(root: Run, member: Member) -> None:
    """Against etcd, and only there, the commands on tenants say that it has none."""
    done = root("tenant", "list")

    is_etcd = member.product == "etcd"
    assert (done.exit_code, "is it kvsecure, or etcd?" in done.stderr) == (int(is_etcd), is_etcd)


def test_tenant_that_is_refused_is_told(run: Run, scripted: ScriptedServer) -> None:
    """A refusal of the server comes out with its text."""
    refusal = (grpc.StatusCode.FAILED_PRECONDITION, Failure.TENANT_EXISTS.text)
    scripted.script(f"{_PATH}Add", refusal)

    done = run("--endpoint", scripted.endpoint, "tenant", "add", "acme", "--no-password")

    assert (done.exit_code, done.stderr) == (1, f"Error: {Failure.TENANT_EXISTS.text}\n")

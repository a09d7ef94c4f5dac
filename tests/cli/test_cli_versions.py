"""`history`, `diff`, `undelete`, `rollback` and `get` of the past, against a real server."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result
from support.etcd import ScriptedServer
from support.processes import wait_until
from support.servers import ROOT_PASSWORD, KvsecureServer, Member

from kvsecure.cli.points import Point, read_duration, read_point, read_time
from kvsecure.client import Client, Keys, Secret
from kvsecure.client.restoring import Change, Step, carry_out, differences
from kvsecure.proto import kv_pb2, version_pb2

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A server of ours: etcd has no versions to ask for."""
    with KvsecureServer(tmp_path_factory.mktemp("member")) as serving:
        yield serving


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A part of the key space for each test of its own."""
    return f"/{request.node.name}/"


@pytest.fixture
def client(member: Member) -> Iterator[Client]:
    """A client of the SDK."""
    authority = str(member.authority.certificate)
    password = Secret.of_text(ROOT_PASSWORD)
    with Client.open(member.endpoint, ca_file=authority, user="root", password=password) as found:
        yield found


def _done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def _put(root: Run, key: str, *values: str) -> list[int]:
    """Put values one after the other; return the revisions."""
    for value in values:
        _done(root("put", key, stdin=value.encode()))
    said = json.loads(_done(root("history", key, "--format=json")))
    return [each["mod_revision"] for each in said["versions"]][len(values) - 1 :: -1]


# --- points -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7_200), ("1d12h", 129_600), ("2w", 1_209_600)],
)
def test_duration_is_read(text: str, seconds: int) -> None:
    """Durations are sums of seconds, minutes, hours, days and weeks."""
    assert read_duration(text) == seconds
    assert read_time(f"{text} ago", 2e6) == read_time(f"-{text}", 2e6) == 2_000_000 - seconds


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("7", Point(revision=7)),
        ("v3", Point(version=3)),
        ("1970-01-01T00:01:00Z", Point(time_s=60)),
        ("1970-01-01T01:01:00.9+01:00", Point(time_s=60)),
        ("1h ago", Point(time_s=1_400)),
    ],
)
def test_point_is_read(text: str, point: Point) -> None:
    """A point is a revision, the number of a version, or a time."""
    assert read_point(text, 5_000.5) == point


@pytest.mark.parametrize(
    "text",
    ["", "0", "v0", "yesterday", "2h", "ago", "-", "5x ago", "1970-01-01T00:00:01", "9" * 30],
)
def test_what_is_no_point_is_wrong_usage(root: Run, text: str) -> None:
    """What cannot be read is refused before anything is asked; times have a zone."""
    done = root("diff", "k", "--from", text)

    assert done.exit_code == 2, done.output


def test_time_in_the_future_is_wrong_usage(root: Run) -> None:
    """There is nothing to be read of what has not happened."""
    done = root("get", "k", "--at", "2999-01-01T00:00:00Z")

    assert done.exit_code == 2
    assert "lies in the future" in done.stderr


# --- history and the past -----------------------------------------------------------------------


def test_history_is_a_table_without_values(root: Run, prefix: str) -> None:
    """Versions come newest first, with their times and sizes; a value only if it is asked for."""
    _put(root, prefix, "one", "three")
    _done(root("del", prefix))

    table = _done(root("history", prefix)).splitlines()
    shown = _done(root("history", prefix, "--values", "--limit=2")).splitlines()

    assert table[0].split() == ["REVISION", "VERSION", "TIME", "BYTES", "LEASE"]
    assert [line.split()[1] for line in table[1:]] == ["deleted", "2", "1"]
    assert [line.split()[3:] for line in table[2:]] == [["5"], ["3"]]
    assert not any("three" in line for line in table)
    assert [line.split()[-1] for line in shown[2:]] == ["three"]


def test_history_in_json_has_everything(root: Run, prefix: str) -> None:
    """Programs get numbers, times in RFC 3339, and the value as base64 and text."""
    begun_s = int(time.time())
    (revision,) = _put(root, prefix, "one")

    (version,) = json.loads(_done(root("history", prefix, "--values", "--format=json")))["versions"]

    assert begun_s <= read_time(version.pop("time"), time.time() + 1)
    assert version == {
        "mod_revision": revision,
        "create_revision": revision,
        "version": 1,
        "deleted": False,
        "lease": None,
        "value": "b25l",
        "value_utf8": "one",
        "value_bytes": 3,
    }


def test_history_of_nothing_is_status_1(root: Run, prefix: str) -> None:
    """A key that never was has no history."""
    done = root("history", prefix)

    assert done.exit_code == 1
    assert "no version" in done.stderr


def test_long_history_comes_in_pages(run: Run, scripted: ScriptedServer) -> None:
    """Each page is asked for behind the last version of the one before, and no more than wanted."""
    pages = [
        version_pb2.HistoryResponse(
            versions=[version_pb2.Version(mod_revision=r, version=r) for r in revisions], more=True
        )
        for revisions in ((9, 8), (7, 6))
    ]
    scripted.script("/kvsecurepb.Versions/History", *pages)

    done = run("--endpoint", scripted.endpoint, "history", "k", "--limit=4")

    assert len(_done(done).splitlines()) == 5
    asked = [seen.request for seen in scripted.seen]
    assert asked == [
        version_pb2.HistoryRequest(key=b"k", limit=4, keys_only=True),
        version_pb2.HistoryRequest(key=b"k", limit=2, before_revision=8, keys_only=True),
    ]


def test_get_reads_a_version_and_a_time(root: Run, prefix: str) -> None:
    """A version's number and a time lead to what the key was, byte by byte."""
    _put(root, prefix, "one", "two")
    moment_s = int(time.time())
    wait_until(lambda: time.time() >= moment_s + 1, deadline_s=5, what="the next second")
    _put(root, prefix, "three")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment_s))

    assert _done(root("get", prefix, "--version", "1")) == "one"
    assert _done(root("get", prefix, "--at", moment)) == "two"
    assert _done(root("get", "--prefix", prefix, "--at", moment)) == f"{prefix}\ttwo\n"
    assert _done(root("get", prefix)) == "three"
    missing = root("get", prefix, "--version", "7")
    assert missing.exit_code == 1
    assert "no version 7" in missing.stderr
    early = root("get", prefix, "--at", "520w ago")
    assert early.exit_code == 1
    assert "nothing is known of" in early.stderr


def test_get_takes_one_point(root: Run) -> None:
    """Two points contradict each other, and a number is of one key."""
    assert root("get", "k", "--rev", "3", "--version", "1").exit_code == 2
    assert root("get", "k", "--prefix", "--version", "1").exit_code == 2


def test_compacted_version_is_read_while_it_is_kept(root: Run, prefix: str) -> None:
    """What a key was at a compacted revision is read if the version of then is still there."""
    first, second = _put(root, prefix, "one", "two")
    (later,) = _put(root, f"{prefix}other", "x")
    _done(root("compact", str(later)))

    assert _done(root("get", prefix, "--rev", str(second))) == "two"
    gone = root("get", prefix, "--rev", str(first))
    assert gone.exit_code == 1
    assert "has been compacted" in gone.stderr
    said = json.loads(_done(root("get", prefix, "--rev", str(second), "--format=json")))
    assert said["kvs"][0]["value_utf8"] == "two"
    assert said["header"]["revision"] >= later


# --- diff ---------------------------------------------------------------------------------------


def test_diff_compares_lines_with_the_version_before(root: Run, prefix: str) -> None:
    """Without points it is what the last write did."""
    first, second = _put(root, prefix, "a\nb\n", "a\nc\n")

    lines = _done(root("diff", prefix)).splitlines()

    assert lines[0].startswith(f"--- {prefix}@{first} ")
    assert lines[1].startswith(f"+++ {prefix}@{second} ")
    assert lines[3:] == [" a", "-b", "+c"]
    again = _done(root("diff", prefix, "--from", "v1", "--to", str(second))).splitlines()
    assert again == lines
    assert _done(root("diff", prefix, "--from", "v2")) == ""


def test_diff_tells_deletion_and_missing_newline(root: Run, prefix: str) -> None:
    """A deletion is the end of every line; a newline alone is a difference too."""
    _put(root, prefix, "a", "a\n")
    assert "no newline at the end of" in _done(root("diff", prefix))
    _done(root("del", prefix))

    lines = _done(root("diff", prefix)).splitlines()

    assert lines[1].endswith("(deleted)")
    assert lines[-2] == "-a"


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\0b"])
def test_diff_of_binary_tells_sizes(root: Run, prefix: str, value: bytes) -> None:
    """What is no text is not printed."""
    _put(root, prefix, "text")
    _done(root("put", prefix, stdin=value))

    said = _done(root("diff", prefix))

    assert said.startswith("binary differs: 4 bytes in ")
    assert f"{len(value)} bytes in " in said


def test_diff_shows_no_control_characters(root: Run, prefix: str) -> None:
    """A value cannot move the cursor of whoever looks at it."""
    _put(root, prefix, "a", "\x1b[2J")

    assert "\x1b" not in _done(root("diff", prefix))


def test_diff_of_a_prefix_lists_keys(root: Run, prefix: str) -> None:
    """Added, changed and removed keys, and values only if they are asked for."""
    for key in "abc":
        _put(root, prefix + key, "old")
    (start,) = _put(root, f"{prefix}d", "same")
    _put(root, f"{prefix}b", "new")
    _done(root("del", f"{prefix}c"))
    _put(root, f"{prefix}e", "more")

    said = _done(root("diff", "--prefix", prefix, "--from", str(start)))
    valued = _done(root("diff", "--prefix", prefix, "--from", str(start), "--values"))

    assert said.splitlines() == [f"M\t{prefix}b", f"D\t{prefix}c", f"A\t{prefix}e"]
    assert "-old" in valued
    assert "+new" in valued
    assert root("diff", "--prefix", prefix).exit_code == 2


def test_differences_go_over_many_pages(client: Client, prefix: str) -> None:
    """Keys are compared side by side however many there are."""
    names = [f"{prefix}{number:04}".encode() for number in range(600)]
    for name in names:
        client.kv.put(name, b"1")
    before = client.kv.put(f"{prefix}0300".encode(), b"2").header.revision
    for number in (0, 127, 128, 599):
        client.kv.put(names[number], b"3")
    client.kv.delete(Keys.one(names[130]))
    after = client.kv.put(f"{prefix}zzz".encode(), b"4").header.revision

    found = list(differences(client, Keys.prefix(prefix.encode()), before, after))

    assert [(each.key[-4:], each.change) for each in found] == [
        (b"0000", Change.CHANGED),
        (b"0127", Change.CHANGED),
        (b"0128", Change.CHANGED),
        (b"0130", Change.REMOVED),
        (b"0599", Change.CHANGED),
        (b"/zzz", Change.ADDED),
    ]


# --- retention ----------------------------------------------------------------------------------


def test_retention_is_set_listed_and_deleted(root: Run, prefix: str) -> None:
    """Policies are told as they were given, and a compaction acts on them."""
    said = _done(root("retention", "set", prefix, "--keep-versions=2", "--keep-for=1d12h"))
    assert said == (
        "compactions keep the newest 2 versions and versions superseded or deleted less than "
        "1d12h ago\n"
    )
    _done(root("retention", "set", "", "--keep-for", "90m"))

    rows = [line.split() for line in _done(root("retention", "list")).splitlines()]
    policies = json.loads(_done(root("retention", "list", "--format=json")))["policies"]

    assert rows == [
        ["PREFIX", "VERSIONS", "FOR"],
        ["(every", "key)", "1h30m"],
        [prefix, "2", "1d12h"],
    ]
    assert [policy["keep_for_s"] for policy in policies] == [5_400, 129_600]
    first, second = _put(root, f"{prefix}k", "one", "two")
    _done(root("compact", str(second), "--wait"))
    assert _done(root("get", f"{prefix}k", "--rev", str(first))) == "one"
    assert _done(root("rollback", f"{prefix}k", "--version", "1")).endswith("1 key changed\n")
    for each in (prefix, ""):
        assert _done(root("retention", "delete", each)) == "policy deleted\n"
    assert root("retention", "delete", prefix).exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("/p",),
        ("/p", "--keep-for", "0s"),
        ("/p", "--keep-for", "x"),
        ("/p", "--keep-versions", "0"),
    ],
)
def test_policy_that_keeps_nothing_is_wrong_usage(root: Run, words: tuple[str, ...]) -> None:
    """A policy says how many or for how long."""
    assert root("retention", "set", *words).exit_code == 2


# --- destruction --------------------------------------------------------------------------------


def test_destroy_asks_and_waits_and_tells_what_is_left(
    run: Run, root: Run, member: Member, prefix: str
) -> None:
    """It is not done without a word, and says what it reaches and what it does not."""
    _put(root, prefix, "one", "two")
    assert root("destroy", prefix).exit_code == 2
    assert _done(root("get", prefix)) == "two"

    done = root("destroy", prefix, "--yes")

    assert _done(done).splitlines() == [
        f"{prefix} is deleted, and none of its versions can be read any more",
        "its bytes are gone from the tables and the log",
    ]
    assert "Backups from before still have it" in done.stderr
    (left,) = json.loads(_done(root("history", prefix, "--format=json")))["versions"]
    assert left["deleted"]
    assert root("undelete", prefix).exit_code == 1
    assert "did not exist" in _done(root("destroy", f"{prefix}never", "--yes"))


def test_destroy_does_not_say_gone_before_it_is(run: Run, scripted: ScriptedServer) -> None:
    """What is still there when the time is over is told, with status 1."""
    scripted.script("/kvsecurepb.Versions/Destroy", version_pb2.DestroyResponse(deleted=True))
    left = version_pb2.DestroyStatusResponse(pending=1, stalled=True)
    scripted.script("/kvsecurepb.Versions/DestroyStatus", left, left)

    done = run("--endpoint", scripted.endpoint, "destroy", "k", "--yes", "--wait=0")

    assert done.exit_code == 1
    assert "may still be on the disk" in done.stderr
    assert "are gone" not in done.stdout


# --- bringing back ------------------------------------------------------------------------------


def test_undelete_brings_the_last_version_back(root: Run, prefix: str) -> None:
    """The value of before the deletion is there again, without its lease; what exists is left."""
    lease = json.loads(_done(root("lease", "grant", "600", "--format=json")))["lease"]
    _put(root, prefix, "one")
    _done(root("put", prefix, "--lease", lease, stdin=b"two"))
    exists = root("undelete", prefix)
    _done(root("del", prefix))

    said = _done(root("undelete", prefix))

    assert exists.exit_code == 1
    assert "exists" in exists.stderr
    assert "is as it was at revision" in said
    (kv,) = json.loads(_done(root("get", prefix, "--format=json")))["kvs"]
    assert (kv["value_utf8"], kv["lease"], kv["version"]) == ("two", None, 1)
    assert root("undelete", f"{prefix}never").exit_code == 1


def test_rollback_of_a_key(root: Run, prefix: str) -> None:
    """A key is what it was at a version or a revision; where it did not exist it is deleted."""
    first, _ = _put(root, prefix, "one", "two")

    dry = _done(root("rollback", prefix, "--version", "1", "--dry-run"))
    assert _done(root("get", prefix)) == "two"
    wet = _done(root("rollback", prefix, "--version", "1"))

    assert dry.splitlines() == [
        f"would write {prefix} as it was at revision {first}",
        "1 key would be changed",
    ]
    assert wet.splitlines()[-1] == "1 key changed"
    assert _done(root("get", prefix)) == "one"
    assert _done(root("rollback", prefix, "--rev", str(first))) == "0 keys changed\n"
    _done(root("rollback", prefix, "--rev", str(first - 1)))
    assert root("get", prefix).exit_code == 1


def test_rollback_of_a_prefix(root: Run, client: Client, prefix: str) -> None:
    """More keys than one transaction takes are what they were, and others are left alone."""
    names = [f"{prefix}{number:03}".encode() for number in range(300)]
    for name in names:
        client.kv.put(name, b"old " + name)
    outside = prefix.rstrip("/").encode() + b"0"
    client.kv.put(outside, b"old")
    start = client.kv.get(outside)
    assert start is not None
    for name in names[:200]:
        client.kv.put(name, b"new")
    client.kv.delete(Keys.one(names[250]))
    client.kv.put(f"{prefix}more".encode(), b"new")
    client.kv.put(outside, b"new")

    said = _done(root("rollback", "--prefix", prefix, "--rev", str(start.mod_revision)))

    assert said.splitlines()[-1] == "202 keys changed"
    found = client.kv.range(Keys.prefix(prefix.encode()))
    assert {kv.key: kv.value for kv in found.kvs} == {name: b"old " + name for name in names}
    kept = client.kv.get(outside)
    assert kept is not None
    assert kept.value == b"new"


def test_rollback_loses_nobodys_write(client: Client, prefix: str) -> None:
    """What was written after it was looked at is left as it is, and all else is done."""
    names = [f"{prefix}{number}".encode() for number in range(6)]
    for name in names:
        client.kv.put(name, b"now")
    seen = [client.kv.get(name) for name in names]
    client.kv.put(names[2], b"meanwhile")
    client.kv.delete(Keys.one(names[4]))
    steps = [Step(key=name, now=kv, then=None) for name, kv in zip(names, seen, strict=True)]
    fresh = Step(key=b"%b/new" % names[0], now=None, then=None)

    done = {step.key: is_done for step, is_done in carry_out(client, [*steps, fresh])}

    assert [name for name, is_done in done.items() if not is_done] == [names[2], names[4]]
    left = client.kv.range(Keys.prefix(prefix.encode()))
    assert [(kv.key, kv.value) for kv in left.kvs] == [(names[2], b"meanwhile")]


def test_rollback_of_a_compacted_prefix_is_refused(root: Run, prefix: str) -> None:
    """Which keys there were at a compacted revision is not known any more, and not guessed."""
    first, second = _put(root, prefix, "one", "two")
    _done(root("compact", str(second)))

    done = root("rollback", "--prefix", prefix, "--rev", str(first))

    assert done.exit_code == 1
    assert "is compacted" in done.stderr
    assert _done(root("get", prefix)) == "two"


@pytest.mark.parametrize(
    "words",
    [
        ("rollback", "k"),
        ("rollback", "k", "--rev", "2", "--version", "1"),
        ("rollback", "k", "--prefix", "--version", "1"),
        ("rollback", "", "--rev", "2"),
        ("undelete", ""),
        ("history", ""),
        ("diff", ""),
    ],
)
def test_contradictions_are_wrong_usage(root: Run, words: tuple[str, ...]) -> None:
    """A command that says two things, or nothing, is not carried out."""
    assert root(*words).exit_code == 2


def test_etcd_has_no_versions_and_says_so(run: Run, scripted: ScriptedServer) -> None:
    """Against a server without the service the commands end with a clear word."""
    import grpc

    scripted.script("/kvsecurepb.Versions/History", (grpc.StatusCode.UNIMPLEMENTED, "unknown"))

    done = run("--endpoint", scripted.endpoint, "history", "k")

    assert done.exit_code == 1
    assert "is it kvsecure, or etcd?" in done.stderr
    assert kv_pb2.RangeRequest not in {type(seen.request) for seen in scripted.seen}

"""`get`, `put`, `del` and `compact` against a real server."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

__all__: list[str] = []

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A part of the key space for each test of its own."""
    return f"/{request.node.name}/"


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_value_comes_back_byte_by_byte(root: Run, prefix: str) -> None:
    """What went in by stdin comes out alone, without a byte more."""
    value = bytes(range(256)) + b"\n"

    stored = _done(root("put", prefix, stdin=value))
    found = _done(root("get", prefix))

    assert stored.stdout == "OK\n"
    assert found.stdout_bytes == value


@pytest.mark.parametrize(
    ("arguments", "stdin", "value"),
    [
        (["plain"], b"", b"plain"),
        ([""], b"", b""),
        (["-"], b"from stdin", b"from stdin"),
        (["-"], b"", b""),
        (["--stdin"], b"", b""),
        (["--stdin"], b"secret\n", b"secret\n"),
        ([], b"piped", b"piped"),
        (["--", "-x"], b"", b"-x"),
    ],
)
def test_value_has_many_sources(
    *, root: Run, prefix: str, arguments: list[str], stdin: bytes, value: bytes
) -> None:
    """A value comes from the argument or from stdin, as the command line says."""
    _done(root("put", prefix, *arguments, stdin=stdin))

    assert _done(root("get", prefix)).stdout_bytes == value


def test_value_may_come_from_a_file(root: Run, prefix: str, tmp_path: Path) -> None:
    """A file is stored as it is."""
    path = tmp_path / "value"
    path.write_bytes(b"\x00file\n")

    _done(root("put", prefix, "--file", str(path)))

    assert _done(root("get", prefix)).stdout_bytes == b"\x00file\n"


def test_empty_stdin_is_no_value(root: Run, prefix: str) -> None:
    """A pipe that delivered nothing does not overwrite a secret with nothing."""
    done = root("put", prefix, stdin=b"")

    assert done.exit_code == 1
    assert "--stdin" in done.stderr
    assert root("get", prefix).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "--stdin"],
        ["a", "--file", "f"],
        ["--stdin", "--file", "f"],
        ["a", "--ignore-value"],
        ["a", "--lease", "1", "--ignore-lease"],
        ["a", "--lease", "xyz"],
    ],
)
def test_contradictory_puts_are_usage_errors(root: Run, arguments: list[str]) -> None:
    """Two sources for one thing are refused before anything is sent."""
    assert root("put", "k", *arguments).exit_code == 2


def test_keys_are_bytes(root: Run, prefix: str) -> None:
    """A key that is no text is typed, stored and found as it is."""
    key = prefix + os.fsdecode(b"\xff\x01")

    _done(root("put", key, "v"))

    assert _done(root("get", key)).stdout == "v"
    assert _done(root("get", "--prefix", prefix)).stdout == f"{prefix}\\xff\\x01\tv\n"


def test_missing_file_is_named(root: Run) -> None:
    """A value file that is not there is an error with its name."""
    done = root("put", "k", "--file", "/nowhere/value")

    assert (done.exit_code, done.stderr) == (
        1,
        "Error: /nowhere/value: No such file or directory\n",
    )


def test_put_shows_the_previous_value(root: Run, prefix: str) -> None:
    """The previous value is printed when it is asked for."""
    _done(root("put", prefix, "old"))

    text = _done(root("put", prefix, "new", "--prev-kv"))
    form = json.loads(_done(root("put", prefix, "newer", "--prev-kv", "--format", "json")).stdout)

    assert text.stdout == f"OK\n{prefix}\told\n"
    assert form["prev_kv"]["value_utf8"] == "new"


def test_put_keeps_value_and_lease(root: Run, prefix: str) -> None:
    """A put may change the lease alone, or the value alone."""
    granted = json.loads(_done(root("lease", "grant", "60", "--format", "json")).stdout)
    _done(root("put", prefix, "v"))

    _done(root("put", prefix, "--ignore-value", "--lease", granted["lease"]))
    _done(root("put", prefix, "w", "--ignore-lease"))

    (kv,) = json.loads(_done(root("get", prefix, "--format", "json")).stdout)["kvs"]
    assert (kv["value_utf8"], kv["lease"]) == ("w", granted["lease"])


def test_missing_key_is_status_1(root: Run, prefix: str) -> None:
    """A key that is not there is said on stderr, and stdout stays empty."""
    done = root("get", prefix)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: key not found: {prefix}\n"


def test_missing_key_is_an_empty_list_in_json(root: Run, prefix: str) -> None:
    """A program that reads JSON gets its object also when there is no key."""
    done = root("get", prefix, "--format", "json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["kvs"] == []


def test_empty_range_is_no_error(root: Run, prefix: str) -> None:
    """Of many keys there may be none."""
    done = _done(root("get", "--prefix", prefix))

    assert done.stdout == ""


@pytest.fixture
def three(root: Run, prefix: str) -> str:
    """Three keys under the prefix; the last is not text."""
    _done(root("put", f"{prefix}a", "2"))
    _done(root("put", f"{prefix}b", "tab\there\\"))
    _done(root("put", f"{prefix}c", stdin=b"\xff\n"))
    return prefix


def test_several_keys_are_lines(root: Run, three: str) -> None:
    """Away from a terminal several keys are lines of key, tab and value, with escapes."""
    done = _done(root("get", "--prefix", three))

    assert done.stdout.splitlines() == [
        f"{three}a\t2",
        f"{three}b\ttab\\there\\\\",
        f"{three}c\t\\xff\\n",
    ]


def test_values_alone_are_exact(root: Run, three: str) -> None:
    """With the value format each value is written as it is, with a newline after it."""
    done = _done(root("get", "--prefix", three, "--format", "value"))

    assert done.stdout_bytes == b"2\ntab\there\\\n\xff\n\n"


def test_table_has_headings(root: Run, three: str) -> None:
    """A table names its columns."""
    heading, first, *_ = _done(
        root("get", "--prefix", three, "--format", "table")
    ).stdout.splitlines()

    assert heading.split() == ["KEY", "VALUE", "REVISION", "VERSION", "LEASE"]
    assert first.split()[:2] == [f"{three}a", "2"]


def test_json_is_exact(root: Run, three: str) -> None:
    """JSON carries the bytes in base64, and the text where it is text."""
    form = json.loads(_done(root("get", "--prefix", three, "--format", "json")).stdout)

    first, _, last = form["kvs"]
    assert (form["count"], form["more"]) == (3, False)
    assert base64.b64decode(last["value"]) == b"\xff\n"
    assert "value_utf8" not in last
    assert (first["key_utf8"], first["value_utf8"], first["lease"]) == (f"{three}a", "2", None)
    assert set(form["header"]) == {"cluster_id", "member_id", "revision", "raft_term"}
    assert form["header"]["revision"] >= first["mod_revision"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--prefix", "{p}"], "abc"),
        (["{p}a", "{p}c"], "ab"),
        (["--prefix", "{p}", "--limit", "2"], "ab"),
        (["--prefix", "{p}", "--order", "desc"], "cba"),
        (["--prefix", "{p}", "--sort-by", "value"], "abc"),
        (["--prefix", "{p}", "--sort-by", "modify", "--order", "desc"], "cba"),
        (["--prefix", "{p}", "--serializable"], "abc"),
        (["--from-key", "{p}b", "--limit", "2"], "bc"),
    ],
)
def test_ranges_are_chosen_and_sorted(
    *, root: Run, three: str, options: list[str], names: str
) -> None:
    """Range, limit and order are as they were asked for."""
    arguments = [option.replace("{p}", three) for option in options]

    done = _done(root("get", "--keys-only", *arguments))

    assert done.stdout.splitlines() == [f"{three}{name}" for name in names]


def test_count_is_a_number(root: Run, three: str) -> None:
    """The count alone is printed alone, also when it is nothing."""
    assert _done(root("get", "--prefix", three, "--count-only")).stdout == "3\n"
    assert _done(root("get", f"{three}none", "--count-only")).stdout == "0\n"


def test_past_is_read_by_revision(root: Run, prefix: str) -> None:
    """A revision gives the value of that time."""
    form = json.loads(_done(root("put", prefix, "old", "--format", "json")).stdout)
    _done(root("put", prefix, "new"))

    past = _done(root("get", prefix, "--rev", str(form["header"]["revision"])))

    assert past.stdout == "old"


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b", "--prefix"],
        ["a", "--prefix", "--from-key"],
        ["a", "b", "--from-key"],
        ["a", ""],
        [""],
        ["a", "--keys-only", "--count-only"],
        ["a", "--limit", "-1"],
    ],
)
def test_contradictory_gets_are_usage_errors(root: Run, arguments: list[str]) -> None:
    """Two ways to choose keys, or none, are refused before anything is sent."""
    assert root("get", *arguments).exit_code == 2


def test_del_counts_and_shows(root: Run, three: str) -> None:
    """A delete prints how many keys went, and which when asked."""
    shown = _done(root("del", f"{three}a", "--prev-kv"))
    form = json.loads(_done(root("del", "--prefix", three, "--prev-kv", "--format", "json")).stdout)
    nothing = _done(root("del", "--prefix", three))

    assert shown.stdout == f"1\n{three}a\t2\n"
    assert (form["deleted"], len(form["prev_kvs"])) == (2, 2)
    assert nothing.stdout == "0\n"


def test_compaction_is_confirmed_and_ends_history(root: Run, prefix: str) -> None:
    """After a compaction the past is an error with the server's text."""
    old = json.loads(_done(root("put", prefix, "1", "--format", "json")).stdout)
    new = json.loads(_done(root("put", prefix, "2", "--format", "json")).stdout)
    revision = str(new["header"]["revision"])

    done = _done(root("compact", revision, "--wait"))
    past = root("get", prefix, "--rev", str(old["header"]["revision"]))

    assert done.stdout == f"compacted revision {revision}\n"
    assert past.exit_code == 1
    assert past.stderr == "Error: etcdserver: mvcc: required revision has been compacted\n"


def test_watch_prints_changes(root: Run, prefix: str, start: Start) -> None:
    """Lines of a watch name the change, the key, the value, and the one before when asked."""
    first = json.loads(_done(root("put", f"{prefix}a", "1", "--format", "json")).stdout)
    _done(root("put", f"{prefix}a", "2"))
    _done(root("del", f"{prefix}a"))
    revision = str(first["header"]["revision"])
    results = []

    for count, form in ((3, ["--prev-kv"]), (1, ["--format", "json"]), (2, ["--format", "value"])):
        process = start("watch", "--prefix", prefix, "--rev", revision, *form)
        assert process.stdout is not None
        results.append([process.stdout.readline().decode() for _ in range(count)])
        process.kill()

    lines, forms, values = results
    assert lines == [f"PUT\t{prefix}a\t1\t\n", f"PUT\t{prefix}a\t2\t1\n", f"DELETE\t{prefix}a\t2\n"]
    first_event = json.loads(forms[0])["events"][0]
    assert (first_event["type"], first_event["kv"]["value_utf8"]) == ("PUT", "1")
    assert first_event["prev_kv"] is None
    assert values == ["1\n", "2\n"]


def test_watch_of_compacted_history_says_where_to_begin(root: Run, prefix: str) -> None:
    """A watch from a compacted revision names the oldest one there is."""
    first = json.loads(_done(root("put", prefix, "1", "--format", "json")).stdout)
    second = json.loads(_done(root("put", prefix, "2", "--format", "json")).stdout)
    _done(root("compact", str(second["header"]["revision"])))

    done = root("watch", prefix, "--rev", str(first["header"]["revision"]))

    assert done.exit_code == 1
    assert f"--rev {second['header']['revision']}" in done.stderr

"""The frame of the program: help, exit statuses, what is imported, and how it ends."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from support.etcd import ScriptedServer
from support.processes import free_ports

import kvsecure
from kvsecure.cli.lazy import LazyCommand, LazyGroup
from kvsecure.cli.main import COMMANDS, kvsecure_command

__all__: list[str] = []

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]


def test_help_lists_every_command(run: Run) -> None:
    """The help names each command of the table, in its section."""
    done = run("--help")

    assert done.exit_code == 0
    for name, entry in COMMANDS.items():
        assert re.search(rf"(?m)^  {name} +{re.escape(entry.summary)}$", done.stdout)


def _present() -> list[str]:
    # A command whose module is not written yet has no help to compare.
    names = []
    ctx = click.Context(kvsecure_command)
    for name in COMMANDS:
        try:
            command = kvsecure_command.get_command(ctx, name)
        except click.ClickException:
            continue
        if command is not None:
            names.append(name)
    return names


@pytest.mark.parametrize("name", _present())
def test_command_says_the_same_of_itself(name: str) -> None:
    """What the table says of a command is about the command of that name."""
    command = kvsecure_command.get_command(click.Context(kvsecure_command), name)

    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200)


def _leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    ctx = click.Context(command)
    return [
        leaf
        for name in command.list_commands(ctx)
        for leaf in _leaves(command.get_command(ctx, name) or click.Command("none"), (*path, name))
    ]


# Written elsewhere, and tested there.
_ELSEWHERE = {"pki", "server", "dev", "demo", "audit"}
_LEAVES = [
    leaf
    for name in _present()
    if name not in _ELSEWHERE
    for leaf in _leaves(
        kvsecure_command.get_command(click.Context(kvsecure_command), name)
        or click.Command("none"),
        (name,),
    )
]


@pytest.mark.parametrize("leaf", _LEAVES, ids=" ".join)
def test_every_command_has_help_with_an_example(run: Run, leaf: tuple[str, ...]) -> None:
    """The help of each command says what it does and shows how."""
    done = run(*leaf, "--help")

    assert done.exit_code == 0
    assert "Example:" in done.stdout
    assert f"kvsecure {leaf[0]}" in done.stdout.partition("Example:")[2]


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["bogus"], ["get"], ["get", "a", "--limit", "x"]]
)
def test_wrong_usage_is_status_2(run: Run, arguments: list[str]) -> None:
    """A wrong command line is told apart from a failure."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Error:" in done.stderr


def test_version_is_printed(run: Run) -> None:
    """The version comes as an option and as a command, in text and in JSON."""
    assert run("--version").stdout == f"kvsecure {kvsecure.__version__}\n"
    assert run("version").stdout == f"kvsecure {kvsecure.__version__}\n"
    assert json.loads(run("version", "--format", "json").stdout)["kvsecure"] == kvsecure.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["user", "add", "--no-password", "{}"],
        ["role", "grant", "{}", "/a"],
        ["tenant", "get", "{}"],
        ["login", "--user", "{}", "--password-stdin"],
    ],
)
def test_name_that_is_no_text_is_wrong_usage(
    run: Run, scripted: ScriptedServer, arguments: list[str]
) -> None:
    """Names are text; other bytes are refused before anything is sent."""
    words = [word.format(os.fsdecode(b"\xff")) for word in arguments]

    done = run("--endpoint", scripted.endpoint, *words, stdin=b"a password\n")

    assert (done.exit_code, done.stderr) == (2, "Error: a name is not text in UTF-8\n")
    assert scripted.seen == []


def test_missing_module_is_a_clean_error() -> None:
    """A command whose module is not in this installation says so."""
    table = {
        "gone": LazyCommand(module="kvsecure.cli.gone", name="gone", section="", summary="Gone.")
    }
    group = LazyGroup("group", table=table)

    with pytest.raises(click.ClickException, match="has no command 'gone'"):
        group.get_command(click.Context(group), "gone")


def test_broken_module_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command whose own imports fail is a bug, not an absence."""
    (tmp_path / "broken_command_module.py").write_text("import a_module_that_nobody_wrote\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = {
        "x": LazyCommand(module="broken_command_module", name="x", section="", summary="Broken.")
    }
    group = LazyGroup("group", table=table)

    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_wrote"):
        group.get_command(click.Context(group), "x")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--password", "hunter2hunter2", "get", "a"],
        ["--password=hunter2hunter2", "get", "a"],
        ["login", "--user", "a", "--password", "hunter2hunter2"],
        ["user", "add", "a", "--password", "hunter2hunter2"],
        ["user", "add", "a", "--password=hunter2hunter2"],
        ["user", "add", "a:hunter2hunter2"],
        ["user", "passwd", "a", "--password", "hunter2hunter2"],
        ["tenant", "add", "a", "--root-password", "hunter2hunter2"],
        ["--user", "a:hunter2hunter2", "get", "a"],
        ["login", "--user", "a:hunter2hunter2"],
    ],
)
def test_password_in_an_argument_is_refused_and_not_repeated(
    run: Run, arguments: list[str]
) -> None:
    """A password on the command line is refused before anything is sent, and not echoed."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert "password" in done.stderr
    assert "hunter2" not in done.output


def test_reading_loads_nothing_it_does_not_need(start: Start) -> None:
    """A plain read pays neither for tables and YAML nor for cryptography and the server."""
    (nobody,) = free_ports(1)
    program = (
        "import sys\n"
        "from kvsecure.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print(*sys.modules, sep='\\n')\n"
    )

    process = start(
        "--endpoint",
        f"http://127.0.0.1:{nobody}",
        "--timeout",
        "0.1",
        "get",
        "a",
        program=(sys.executable, "-c", program),
    )
    output, _ = process.communicate(timeout=30)

    loaded = output.decode().split()
    assert "kvsecure.client.kv" in loaded
    unwanted = ("rich", "yaml", "cryptography", "argon2", "jwt", "structlog", "kvsecure.server")
    for name in unwanted:
        assert name not in loaded
    assert "kvsecure.cli.pki" not in loaded

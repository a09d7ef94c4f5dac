"""Every check of the house catches an offence that is planted for it, and passes what is right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house.charter import charter_is_complete, exports_are_true
from house.documents import commands_in, flags_exist, links_lead_somewhere
from house.form import names_mean, sizes_are_bounded
from house.imports import LAW, libraries_in_their_rooms, rooms_know_their_place
from house.life import leftovers_are_gone, modules_are_alive
from house.proofs import proofs_are_sentences, proofs_use_the_real_thing
from house.purity import pure_rooms_are_pure
from house.remarks import exceptions_have_reasons, nothing_is_left_for_later, tree_is_portable
from house.source import Offence, Source, python_files, text_files

Check = Callable[[Source], Iterator[Offence]]

_CHARTER = '"""What it is.\n\nOwns: something.\nNever: anything else.\n"""\n'
_LONG = "def long():\n" + "    pass\n" * 71
_EXPLAINED = 'def long():\n    """' + "Explain.\n" * 90 + '    """\n' + "    pass\n" * 68
# Written in halves, so that the house test passes over this file too.
_LATER = "TO" + "DO"
_NOQA = "# no" + "qa"
_IGNORE = "# type: " + "ignore"
_HOME = "/ro" + "ot/x"
_REGISTRY = "py" + "pi.org"

_PLANTED: tuple[tuple[str, Check, str, str], ...] = (
    ("up", rooms_know_their_place, "kvsecure/model/a.py", "import kvsecure.core.state"),
    ("across", rooms_know_their_place, "kvsecure/wire/a.py", "from kvsecure.model import ids"),
    ("hidden", rooms_know_their_place, "kvsecure/api/a.py", "def f():\n import kvsecure.core"),
    ("relative", rooms_know_their_place, "kvsecure/api/a.py", "from . import kv"),
    ("new-room", rooms_know_their_place, "kvsecure/attic/a.py", ""),
    ("prefix", rooms_know_their_place, "kvsecure/crypto/a.py", "import kvsecure.modelling"),
    ("inside", rooms_know_their_place, "kvsecure/cli/a.py", "import kvsecure.server.listener"),
    ("cryptography", libraries_in_their_rooms, "kvsecure/core/a.py", "import cryptography.x509"),
    ("jwt", libraries_in_their_rooms, "kvsecure/security/gate.py", "from jwt import decode"),
    ("clock", pure_rooms_are_pure, "kvsecure/model/a.py", "import time"),
    ("random", pure_rooms_are_pure, "kvsecure/core/raft/a.py", "from random import choice"),
    ("own-random", pure_rooms_are_pure, "kvsecure/core/raft/a.py", "r = Random(7)"),
    ("file", pure_rooms_are_pure, "kvsecure/core/mvcc/a.py", "open('x')"),
    ("now", pure_rooms_are_pure, "kvsecure/access/a.py", "x = datetime.now()"),
    ("no-charter", charter_is_complete, "kvsecure/model/a.py", "x = 1\n"),
    ("no-owns", charter_is_complete, "kvsecure/model/a.py", '"""A.\n\nNever: b.\n"""'),
    ("no-never", charter_is_complete, "kvsecure/model/a.py", '"""A.\n\nOwns: b.\n"""'),
    ("endless", charter_is_complete, "kvsecure/model/a.py", '"""A\n\nOwns: b\nNever: c\n"""'),
    ("no-all", exports_are_true, "kvsecure/model/a.py", "def f(): ..."),
    ("untrue", exports_are_true, "kvsecure/model/a.py", "__all__ = ['f', 'g']\ndef f(): ..."),
    ("unlisted", exports_are_true, "kvsecure/model/a.py", "__all__ = []\nX = 1"),
    ("unsorted", exports_are_true, "kvsecure/model/a.py", "__all__ = ['b', 'a']\na = b = 1"),
    ("long-file", sizes_are_bounded, "kvsecure/model/a.py", "x = 1\n" * 601),
    ("long-function", sizes_are_bounded, "kvsecure/model/a.py", _LONG),
    ("module-name", names_mean, "kvsecure/model/key_utils.py", ""),
    ("class-name", names_mean, "kvsecure/model/a.py", "class HTTPHandler: ..."),
    ("no-sentence", proofs_are_sentences, "tests/a/test_a.py", "def test_a(): ..."),
    ("no-end", proofs_are_sentences, "tests/a/test_a.py", 'def test_a():\n "It works"'),
    ("two", proofs_are_sentences, "tests/a/test_a.py", 'def test_a():\n """A.\n\n B.\n """'),
    ("mock", proofs_use_the_real_thing, "tests/a/test_a.py", "from unittest.mock import Mock"),
    ("patch", proofs_use_the_real_thing, "tests/a/test_a.py", "monkeypatch.setattr(a, 'b', 1)"),
    ("later", nothing_is_left_for_later, "docs/a.md", f"{_LATER}: later"),
    ("noqa-bare", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_NOQA}"),
    ("noqa-code", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_NOQA}: E501"),
    ("ignore-bare", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_IGNORE}"),
    ("ignore-code", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_IGNORE}[misc]"),
    ("home", tree_is_portable, "docs/a.md", f"see {_HOME}"),
    ("registry", tree_is_portable, "docs/a.md", f"https://{_REGISTRY}/simple"),
)
_INNOCENT: tuple[tuple[str, Check, str, str], ...] = (
    ("down", rooms_know_their_place, "kvsecure/core/a.py", "from kvsecure.model import ids"),
    ("own", rooms_know_their_place, "kvsecure/wire/a.py", "from kvsecure.wire import h2"),
    ("version", rooms_know_their_place, "kvsecure/wire/a.py", "from kvsecure import __version__"),
    ("secret", rooms_know_their_place, "kvsecure/telemetry/a.py", "import kvsecure.model.secret"),
    (
        "entry",
        rooms_know_their_place,
        "kvsecure/cli/a.py",
        "from kvsecure.server.lifecycle import run",
    ),
    ("jwt", libraries_in_their_rooms, "kvsecure/security/tokens.py", "import jwt"),
    ("handed", pure_rooms_are_pure, "kvsecure/core/raft/a.py", "from random import Random"),
    ("impure", pure_rooms_are_pure, "kvsecure/server/a.py", "import time\nopen('x')"),
    ("charter", charter_is_complete, "kvsecure/model/a.py", _CHARTER),
    ("door", charter_is_complete, "kvsecure/model/__init__.py", '"""A."""'),
    ("sorted", exports_are_true, "kvsecure/a.py", "__all__ = ['A', 'B', 'a']\nA = B = a = 1"),
    ("explained", sizes_are_bounded, "kvsecure/model/a.py", _EXPLAINED),
    ("words", names_mean, "kvsecure/model/database.py", "class Baseline: ..."),
    ("sentence", proofs_are_sentences, "tests/a/test_a.py", 'def test_a():\n "It works."'),
    ("setenv", proofs_use_the_real_thing, "tests/a/test_a.py", "monkeypatch.setenv('A', 'b')"),
    ("noqa", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_NOQA}: E501 - a long address"),
    ("ignore", exceptions_have_reasons, "kvsecure/a.py", f"x = 1  {_IGNORE}[misc] # untyped"),
    ("path", tree_is_portable, "docs/a.md", "/etc/kvsecure, /var/lib/kvsecure, /v3/kv/range"),
)


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [pytest.param(*row[1:], id=f"{row[1].__name__}-{row[0]}") for row in _PLANTED],
)
def test_check_catches_offence(check: Check, path: str, text: str) -> None:
    """A planted offence is reported once, where it is."""
    offences = list(check(Source(path, text)))

    assert [path] == [offence.path for offence in offences]


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [pytest.param(*row[1:], id=f"{row[1].__name__}-{row[0]}") for row in _INNOCENT],
)
def test_check_passes_what_is_right(check: Check, path: str, text: str) -> None:
    """What looks like an offence and is none is let pass."""
    assert list(check(Source(path, text))) == []


def test_dead_module_is_found() -> None:
    """A module that no other one imports or names is reported; its neighbours are not."""
    program = [
        Source("kvsecure/__main__.py", "from kvsecure.cli.main import main"),
        Source("kvsecure/cli/__init__.py", ""),
        Source("kvsecure/cli/main.py", "spawn('-m', 'kvsecure.worker')\nmain = 1"),
        Source("kvsecure/cli/get.py", "from kvsecure import used"),
        Source("kvsecure/worker.py", ""),
        Source("kvsecure/used.py", ""),
        Source("kvsecure/dead.py", "import kvsecure.dead"),
    ]

    offences = list(modules_are_alive(program, {"kvsecure.__main__", "kvsecure.cli.get"}))

    assert [offence.path for offence in offences] == ["kvsecure/dead.py"]


def test_leftover_is_found() -> None:
    """What a patch or an editor leaves beside a file is reported."""
    names = ["kvsecure/a.py", "kvsecure/a.py.orig", "docs/b.md~", "docs/b.md", "tests/c.rej"]

    offences = list(leftovers_are_gone(names))

    assert [offence.path for offence in offences] == [names[1], names[2], names[4]]


def test_broken_link_is_found(tmp_path: Path) -> None:
    """Links to files and headings that are not there are reported; others are not."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text("# Where & How\n```\n# not a heading\n```\n")
    good = "[b](b.md) [h](b.md#where--how) [s](https://example.org/x) [up](../docs/b.md)\n"
    bad = "[c](c.md)\n\n[n](b.md#not-a-heading)\n"
    fenced = "```\n[d](d.md)\n```\n"

    offences = list(links_lead_somewhere(Source("docs/a.md", good + bad + fenced), tmp_path))

    assert [offence.line for offence in offences] == [2, 4]


def test_unknown_flag_is_found() -> None:
    """Commands and flags that a document shows and the program lacks are reported."""
    known = {
        (): frozenset({"--context", "--help"}),
        ("get",): frozenset({"--prefix"}),
        ("role",): frozenset[str](),
        ("role", "grant"): frozenset({"--read"}),
    }
    text = (
        "Run `kvsecure get /a --prefix` or `kvsecure --context dev get x`.\n"
        "```\n"
        "$ kvsecure role grant reader \\\n"
        "    /app/ --write\n"
        "kvsecure get /a --prefix | grep --count x\n"
        "echo x | kvsecure get --nothing\n"
        "```\n"
        "And `kvsecure fly`, `kvsecure get /a --prefixed`.\n"
    )

    offences = list(flags_exist(Source("README.md", text), known))

    assert [(offence.line, offence.what.split()[-1]) for offence in offences] == [
        (3, "--write"),
        (6, "--nothing"),
        (8, "'fly'"),
        (8, "--prefixed"),
    ]
    assert [line for line, _ in commands_in(Source("README.md", text))] == [1, 1, 3, 5, 6, 8, 8]


def test_law_has_no_circle() -> None:
    """No room may know a room that may know it, over any number of steps."""
    rooms = {name: {known.partition(".")[0] for known in allowed} for name, allowed in LAW.items()}

    while rooms:
        ground = {name for name, known in rooms.items() if not known & rooms.keys()}
        assert ground, f"a circle among {sorted(rooms)}"
        rooms = {name: known for name, known in rooms.items() if name not in ground}


def test_files_are_found() -> None:
    """The checks see the program, the tests, and files that are not Python."""
    paths = {source.path for source in text_files()}

    assert "kvsecure/model/errors.py" in paths
    assert "pyproject.toml" in paths
    assert not any(path.endswith("_pb2.py") for path in paths)
    assert "tests/house/source.py" in {source.path for source in python_files("tests")}

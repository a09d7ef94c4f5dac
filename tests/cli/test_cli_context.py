"""Contexts on disk: private, whole, and safe with several writers."""

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.cli.context import (
    Context,
    ContextError,
    Contexts,
    ContextStore,
    _parse,
    home_directory,
)
from kvsecure.model.secret import Secret

__all__: list[str] = []

_DEV = Context(
    endpoints=("127.0.0.1:2379", "127.0.0.1:22379"),
    cacert="/pki/ca.crt",
    cert="/pki/root.crt",
    key="/pki/root.key",
    user="root",
    tenant="acme",
    token=Secret.of_text("abc.def.ghi"),
    token_expiry_s=1_900_000_000,
    data_dir="/data",
    kek_file="/data/kek",
)


@pytest.fixture
def store(home: Path) -> ContextStore:
    """A store in a home that does not exist yet."""
    return ContextStore(home)


def test_contexts_come_back_as_they_were_saved(store: ContextStore) -> None:
    """Everything in a context survives the file."""
    contexts = Contexts().with_context("dev", _DEV).with_context("other", Context())

    store.save(contexts)

    assert store.load() == contexts
    assert store.load().current == "dev"


def test_file_has_the_documented_form(store: ContextStore) -> None:
    """The names in the file are those that other programs may rely on."""
    store.save(Contexts().with_context("dev", _DEV))

    form = json.loads(store.path.read_text())

    assert form["current"] == "dev"
    assert form["contexts"]["dev"] == {
        "endpoints": ["127.0.0.1:2379", "127.0.0.1:22379"],
        "cacert": "/pki/ca.crt",
        "cert": "/pki/root.crt",
        "key": "/pki/root.key",
        "user": "root",
        "tenant": "acme",
        "token": "abc.def.ghi",
        "token_expiry": 1_900_000_000,
        "data_dir": "/data",
        "kek_file": "/data/kek",
    }


def test_file_and_directory_are_private(store: ContextStore, home: Path) -> None:
    """Nobody else can read the token, whatever the umask."""
    before = os.umask(0)
    try:
        store.save(Contexts().with_context("dev", _DEV))
    finally:
        os.umask(before)

    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}


def test_missing_file_is_no_contexts(store: ContextStore) -> None:
    """Before the first log-in there is nothing, and that is no error."""
    assert store.load() == Contexts()


def test_exposed_file_is_refused(store: ContextStore) -> None:
    """A file that others can read is refused with the command that mends it."""
    store.save(Contexts().with_context("dev", _DEV))
    store.path.chmod(0o644)

    with pytest.raises(ContextError, match="chmod 600"):
        store.load()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "nonsense",
        '{"contexts": []}',
        '{"contexts": {"a": 1}}',
        '{"contexts": {"a": {"endpoints": "x"}}}',
        '{"contexts": {"a": {"endpoints": [1]}}}',
        '{"contexts": {"a": {"token": 1}}}',
        '{"contexts": {"a": {"token_expiry": true}}}',
        '{"current": 1}',
        "[" * 100_000,
    ],
)
def test_damaged_file_is_named(store: ContextStore, home: Path, content: str) -> None:
    """A file that is not ours is an error with its path, and stays as it is."""
    home.mkdir(mode=0o700)
    store.path.touch(mode=0o600)
    store.path.write_text(content)

    with pytest.raises(ContextError, match=str(store.path)):
        store.change(lambda contexts: contexts)
    assert store.path.read_text() == content


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.characters()) | st.just("\ud800")
_NAMES = st.sampled_from(["current", "contexts", "a", "token", "token_expiry", "endpoints", "user"])
_FORMS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.binary() | _FORMS.map(lambda form: json.dumps(form).encode()))
@example(json.dumps({"contexts": {"a": {"token": "\ud800"}}}).encode())
def test_reading_is_total(content: bytes) -> None:
    """Any bytes give contexts or a `ContextError`."""
    with contextlib.suppress(ContextError):
        assert isinstance(_parse(content), Contexts)


def test_unknown_fields_do_no_harm(store: ContextStore, home: Path) -> None:
    """A field of a later version is passed over."""
    home.mkdir(mode=0o700)
    store.path.touch(mode=0o600)
    store.path.write_text('{"current": "a", "new": 1, "contexts": {"a": {"new": 2, "user": "u"}}}')

    assert store.load().named("a").user == "u"


def test_writers_at_once_lose_nothing(store: ContextStore, home: Path) -> None:
    """Of many programs that add a context at the same time each one's is there at the end."""
    program = (
        "import sys, pathlib\n"
        "from kvsecure.cli.context import Context, ContextStore\n"
        "store = ContextStore(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10):\n"
        "    name = f'{sys.argv[2]}-{number}'\n"
        "    store.change(lambda contexts: contexts.with_context(name, Context()))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(home), str(number)])
        for number in range(4)
    ]

    assert [writer.wait(30) for writer in writers] == [0] * 4
    assert len(store.load().contexts) == 40


def test_unknown_context_is_named_with_the_known_ones() -> None:
    """A name that does not exist is answered with those that do."""
    with pytest.raises(ContextError, match=r"'prod' \(there is: dev\)"):
        Contexts().with_context("dev", _DEV).using("prod")


def test_token_is_not_in_the_text_of_a_context() -> None:
    """A context may be printed by mistake without giving the token away."""
    assert "abc.def" not in repr(Contexts().with_context("dev", _DEV))


def test_home_is_chosen_by_the_environment() -> None:
    """The environment says where contexts are; without it they are in the user's home."""
    assert home_directory({"KVSECURE_HOME": "/elsewhere"}) == Path("/elsewhere")
    assert home_directory({}) == Path.home() / ".kvsecure"

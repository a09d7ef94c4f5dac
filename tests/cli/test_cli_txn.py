"""Transactions as text: the grammar, its errors, and a run on a real server."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.cli.txn_text import TxnSyntaxError, parse_txn
from kvsecure.client.keys import Keys
from kvsecure.client.operations import (
    KEEP,
    Compare,
    Comparison,
    Delete,
    Fetch,
    Operation,
    Put,
    Range,
    Reading,
    Target,
    Txn,
)

__all__: list[str] = []

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("line", "target", "comparison", "operand"),
    [
        (b'mod("k") = "7"', Target.MOD, Comparison.EQUAL, 7),
        (b"mod(k) = 7", Target.MOD, Comparison.EQUAL, 7),
        (b'create("k") > "0"', Target.CREATE, Comparison.GREATER, 0),
        (b'version("k") < "3"', Target.VERSION, Comparison.LESS, 3),
        (b'value("k") != "a b"', Target.VALUE, Comparison.NOT_EQUAL, b"a b"),
        (b'VALUE ( "k" )="x"', Target.VALUE, Comparison.EQUAL, b"x"),
        (b'lease("k") = "694d81417acd4f0a"', Target.LEASE, Comparison.EQUAL, 0x694D81417ACD4F0A),
        (b'lease("k") = "ffffffffffffffff"', Target.LEASE, Comparison.EQUAL, -1),
        (b'value("k") = "\\x00\\"\\\\\\n"', Target.VALUE, Comparison.EQUAL, b'\x00"\\\n'),
    ],
)
def test_condition_is_read(
    line: bytes, target: Target, comparison: Comparison, operand: int | bytes
) -> None:
    """A condition names target, key, comparison and operand, as etcdctl writes them."""
    expected = Compare(keys=Keys.one(b"k"), target=target, comparison=comparison, operand=operand)

    assert parse_txn(line).when == (expected,)


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        (b"get k", Range(keys=Keys.one(b"k"))),
        (b"get a b", Range(keys=Keys.between(b"a", b"b"))),
        (b"get --prefix a --limit 3", Range(keys=Keys.prefix(b"a"), limit=3)),
        (b"get a --from-key --rev=7", Range(keys=Keys.from_key(b"a"), revision=7)),
        (b"get k --count-only", Range(keys=Keys.one(b"k"), fetch=Fetch.COUNT)),
        (b"get k --keys-only", Range(keys=Keys.one(b"k"), fetch=Fetch.KEYS)),
        (b"get k --serializable", Range(keys=Keys.one(b"k"), reading=Reading.SERIALIZABLE)),
        (b"put k v", Put(key=b"k", value=b"v")),
        (b'put "a key" "a value"', Put(key=b"a key", value=b"a value")),
        (b'put k ""', Put(key=b"k", value=b"")),
        (b"put k v --lease ff --prev-kv", Put(key=b"k", value=b"v", lease=255, previous=True)),
        (b"put k --ignore-value", Put(key=b"k", value=KEEP)),
        (b"put k v --ignore-lease", Put(key=b"k", value=b"v", lease=KEEP)),
        (b"put -- k --prev-kv", Put(key=b"k", value=b"--prev-kv")),
        (b"put k \xff", Put(key=b"k", value=b"\xff")),
        (b"del k", Delete(keys=Keys.one(b"k"))),
        (b"del --prefix k --prev-kv", Delete(keys=Keys.prefix(b"k"), previous=True)),
    ],
)
def test_operation_is_read(line: bytes, operation: Operation) -> None:
    """An operation is written as on the command line, in either branch."""
    text = b"\n" + line + b"\n\n" + line

    assert parse_txn(text) == Txn(then=(operation,), otherwise=(operation,))


def test_blocks_may_be_empty_and_comments_anywhere() -> None:
    """Empty lines divide the blocks; a comment is none of them."""
    text = b"# a\n\n# b\nput a 1\n# c\nput b 2\n\n# d\n"

    txn = parse_txn(text)

    assert (txn.when, txn.otherwise) == ((), ())
    assert [operation.key for operation in txn.then if isinstance(operation, Put)] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"mod(k) = x", "line 1: mod is compared with a number"),
        (b"mod(k) == 7", "line 1: expected one word|line 1: mod"),
        (b"mood(k) = 7", "line 1: not a condition"),
        (b"put a b", "line 1: not a condition"),
        (b"mod(k) = 99999999999999999999", "line 1: mod is compared"),
        (b"mod(k) = 9999999999999999999", "line 1: the number is too large"),
        (b"lease(k) = xyz", "line 1: a lease"),
        (b"\nwrite a b", "line 2: not an operation"),
        (b"\nput a", "line 2: expected KEY and VALUE"),
        (b'\nput a "b', "line 2: a quote is not closed"),
        (b'\nput a"b" c', "line 2: words are separated"),
        (b'\nput a "\\q"', "line 2: unknown escape"),
        (b"\nput a b --bogus", "line 2: unknown option --bogus"),
        (b"\nget a --prev-kv", "line 2: unknown option --prev-kv"),
        (b"\nget a --prefix=1", "line 2: unknown option"),
        (b"\nget a b --prefix", "line 2: choose one"),
        (b"\nget a --limit x", "line 2: --limit takes a number"),
        (b"\nget a --limit", "line 2: --limit takes a number"),
        (b"\nget", "line 2: expected KEY"),
        (b"\n\n\nget a", "line 4: there are only three blocks"),
    ],
)
def test_mistake_is_named_with_its_line(text: bytes, message: str) -> None:
    """Each mistake says where it is and what was expected."""
    with pytest.raises(TxnSyntaxError, match=message):
        parse_txn(text)


_PIECES = st.sampled_from(
    [
        b"put ",
        b"get ",
        b"del ",
        b"mod(",
        b") ",
        b"= ",
        b'"',
        b"\\",
        b"\n",
        b"a",
        b"7 ",
        b"--prefix ",
    ]
)


@given(st.binary() | st.lists(_PIECES).map(b"".join))
def test_parsing_is_total(text: bytes) -> None:
    """Any text is a transaction or a `TxnSyntaxError`."""
    try:
        txn = parse_txn(text)
    except TxnSyntaxError:
        return
    assert isinstance(txn, Txn)


def test_branch_is_chosen_and_printed(root: Run) -> None:
    """The output says which branch was taken and what its operations gave."""
    text = b"""# only if nobody was here
version(/branch/leader) = 0

put /branch/leader "host 1"
get --prefix /branch/

get /branch/leader
"""

    first = root("txn", stdin=text)
    second = root("txn", stdin=text)

    assert first.stdout == "SUCCESS\n\nOK\n\n/branch/leader\thost 1\n"
    assert second.stdout == "FAILURE\n\n/branch/leader\thost 1\n"


def test_transaction_in_json_has_every_response(root: Run) -> None:
    """JSON carries each response under the name of its operation."""
    text = b"\nput /txn/j 1 --prev-kv\nget /txn/j\ndel /txn/none\n"

    form = json.loads(root("txn", "--format", "json", stdin=text).stdout)

    put, found, deleted = form["responses"]
    assert form["succeeded"] is True
    assert put["put"]["prev_kv"] is None
    assert found["range"]["kvs"][0]["value_utf8"] == "1"
    assert deleted["delete"]["deleted"] == 0


def test_mistake_in_the_text_is_wrong_usage(root: Run) -> None:
    """A text that is no transaction is wrong usage, with the line."""
    done = root("txn", stdin=b"nonsense\n")

    assert done.exit_code == 2
    assert "line 1" in done.stderr

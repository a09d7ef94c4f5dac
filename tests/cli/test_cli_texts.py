"""Keys and values as text: nothing drives a terminal, and nothing looks like something else."""

import base64
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.cli.texts import (
    bytes_of_argument,
    described,
    id_text,
    json_bytes,
    shown,
    table_text,
)
from kvsecure.client.keys import Keys

__all__: list[str] = []


@given(st.binary())
def test_shown_text_has_no_control_characters(content: bytes) -> None:
    """Whatever is stored, what is shown is printable and on one line."""
    text = shown(content)

    assert text.isprintable()
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in text)


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_shown_texts_of_different_bytes_differ(one: bytes, other: bytes) -> None:
    """Two contents that look the same are the same."""
    assert (shown(one) == shown(other)) == (one == other)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"/app/db", "/app/db"),
        ("grün".encode(), "grün"),
        (b"a\tb\nc\rd", "a\\tb\\nc\\rd"),
        (b"a\\tb", "a\\\\tb"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\x00", "\\xff\\x00"),
        ("\u202e".encode(), "\\xe2\\x80\\xae"),
    ],
)
def test_shown_keeps_text_and_escapes_the_rest(content: bytes, text: str) -> None:
    """Text stays readable; what is not printable is written byte by byte."""
    assert shown(content) == text


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (Keys.one(b"a"), "a"),
        (Keys.prefix(b"/app/"), "/app/ (prefix)"),
        (Keys.prefix(b""), "every key"),
        # What servers answer for role root.
        (Keys(b"", b"\0"), "every key"),
        (Keys.from_key(b"a"), "a and every key after it"),
        (Keys.between(b"a", b"c"), "[a, c)"),
    ],
)
def test_described_says_which_keys(keys: Keys, text: str) -> None:
    """Each way to choose keys reads as such."""
    assert described(*keys) == text


@given(st.binary())
def test_json_bytes_are_exact(content: bytes) -> None:
    """The base64 form gives the bytes back, and the text stands beside it exactly if it is text."""
    fields = json_bytes("key", content)

    assert base64.b64decode(fields["key"]) == content
    assert fields.get("key_utf8", "").encode() == (content if "key_utf8" in fields else b"")


@given(st.binary().filter(lambda content: b"\0" not in content))
def test_arguments_are_bytes(content: bytes) -> None:
    """What the system hands over as an argument becomes the bytes that were typed."""
    import os

    assert bytes_of_argument(os.fsdecode(content)) == content


@pytest.mark.parametrize(
    ("number", "text"), [(1, "0000000000000001"), (-1, "f" * 16), (1 << 63, "8" + "0" * 15)]
)
def test_ids_have_sixteen_digits(number: int, text: str) -> None:
    """An id is written with all its digits, a negative one as its bits."""
    assert id_text(number) == text


def test_tables_are_aligned_and_cut() -> None:
    """Columns begin in one place, and a long cell does not push the others away."""
    lines = table_text(["A", "B"], [["x" * 100, "1"], ["y", "2"]]).splitlines()

    assert [line[-1] for line in lines] == ["B", "1", "2"]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("x" * 59 + "…")

"""The canonical form of records: the rules of RFC 8785, as far as records use them."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.security.canonical import canonical, json_bytes, json_text, text_of

# Each vector follows from the section that is named; the texts are our own.
_VECTORS: Final[tuple[tuple[str, Any, bytes], ...]] = (
    ("3.2.1 no white space", {"a": [1, {"b": 2}]}, b'{"a":[1,{"b":2}]}'),
    ("3.2.2.1 literals", [True, False], b"[true,false]"),
    ("3.2.2.2 quote and backslash", '"\\/', b'"\\"\\\\/"'),
    ("3.2.2.2 short escapes", "\b\t\n\f\r", b'"\\b\\t\\n\\f\\r"'),
    ("3.2.2.2 other controls in lower case", "\x00\x0b\x1f", b'"\\u0000\\u000b\\u001f"'),
    ("3.2.2.2 nothing else is escaped", "\x7f\x80\u2028", '"\x7f\x80\u2028"'.encode()),
    ("3.2.2.2 beyond the basic plane", "\U0001f511", '"\U0001f511"'.encode()),
    ("3.2.2.3 integers", [0, -1, 9007199254740991], b"[0,-1,9007199254740991]"),
    ("3.2.3 members are sorted", {"b": 1, "a": 2, "A": 3}, b'{"A":3,"a":2,"b":1}'),
    ("3.2.3 a prefix comes first", {"key_hex": 1, "key": 2}, b'{"key":2,"key_hex":1}'),
    ("3.2.3 sorted at every depth", [{"z": {"y": 1, "x": 2}}], b'[{"z":{"x":2,"y":1}}]'),
    ("3.2.3 arrays keep their order", ["b", "a"], b'["b","a"]'),
    ("3.2.4 UTF-8", "\u20ac\u00f6", b'"\xe2\x82\xac\xc3\xb6"'),
)


@pytest.mark.parametrize(("rule", "value", "form"), _VECTORS, ids=[each[0] for each in _VECTORS])
def test_canonical_follows_the_rule(rule: str, value: object, form: bytes) -> None:
    """A value has the one form that the section of RFC 8785 gives it."""
    assert canonical(value) == form


_NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABC_0123456789", max_size=6)
_VALUES = st.recursive(
    st.booleans() | st.integers(-(1 << 53) + 1, (1 << 53) - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_canonical_is_a_fixed_point(value: object) -> None:
    """What is read back has the same form again, and is the same value."""
    form = canonical(value)

    assert json.loads(form) == value
    assert canonical(json.loads(form)) == form


@given(st.dictionaries(_NAMES, st.integers(0, 9), min_size=2))
def test_canonical_does_not_depend_on_the_order_of_members(value: dict[str, int]) -> None:
    """Two ways to build one object give the same bytes."""
    other = dict(reversed(value.items()))

    assert canonical(value) == canonical(other)


def test_canonical_refuses_numbers_that_json_has_not() -> None:
    """Infinity and not-a-number have no form, so no record can hold them."""
    for number in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical(number)


@given(st.text())
def test_text_by_itself_has_the_same_form(text: str) -> None:
    """The hot path's strings are those of the general form."""
    assert json_text(text) == canonical(text)


@given(st.binary())
def test_bytes_are_shown_as_text_or_as_digits(content: bytes) -> None:
    """Bytes that are UTF-8 are shown as text, all others as hexadecimal under another name."""
    shown = json.loads(b"{%b}" % json_bytes("key", content))

    if "key" in shown:
        assert shown == {"key": content.decode()}
    else:
        assert shown == {"key_hex": content.hex()}


def test_times_are_rfc_3339() -> None:
    """A second is written as date and time of UTC."""
    assert text_of(0) == "1970-01-01T00:00:00"
    assert text_of(951_782_400) == "2000-02-29T00:00:00"

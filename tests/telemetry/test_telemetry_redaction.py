"""What is taken out of a log line."""

import enum
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.model.secret import Secret
from kvsecure.telemetry.redaction import REDACTED, redact


class Colour(enum.Enum):
    """Something with a name."""

    RED = "hidden"


class Unknown:
    """Something whose text nobody has looked at."""

    def __repr__(self) -> str:
        return "hunter2"


@pytest.mark.parametrize(
    "value",
    [
        Secret(b"hunter2"),
        [Secret(b"hunter2")],
        {"a": {"b": (1, Secret(b"hunter2"))}},
        {"a": {"password": "hunter2"}},
        [{"Token": "hunter2"}],
        b"hunter2",
        bytearray(b"hunter2"),
        {"a": b"hunter2"},
        Unknown(),
        {Unknown()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_redaction_finds_secrets_at_any_depth(value: object) -> None:
    """A Secret, a telling name, bytes and unknown objects are never shown."""
    text = json.dumps(redact({"value": value}))

    assert "hunter2" not in text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "root_password",
        "token",
        "auth-token",
        "authorization",
        "Authorization",
        "secret",
        "key_material",
        "private-key",
    ],
)
def test_redaction_knows_telling_names(name: str) -> None:
    """A value under such a name is replaced whatever it is."""
    assert redact({name: {"a": 1}}) == {name: REDACTED}


@pytest.mark.parametrize("name", ["token_ttl_s", "password_file", "secrets_count", "key"])
def test_redaction_leaves_names_that_only_sound_like_it(name: str) -> None:
    """What is about a secret is no secret."""
    assert redact({name: 7}) == {name: 7}


def test_redaction_keeps_what_a_log_is_for() -> None:
    """Plain values, paths, names and errors are written as they are."""
    fields = {
        "text": "a",
        "number": 1,
        "share": 0.5,
        "switch": True,
        "nothing": None,
        "endless": float("inf"),
        "path": Path("/a/b"),
        "colour": Colour.RED,
        "error": ValueError("bad"),
    }

    assert redact(fields) == {
        "text": "a",
        "number": 1,
        "share": 0.5,
        "switch": True,
        "nothing": None,
        "endless": "inf",
        "path": "/a/b",
        "colour": "RED",
        "error": "ValueError: bad",
    }


def test_redaction_ends_on_a_circle() -> None:
    """A value that contains itself is cut off."""
    circle: list[object] = []
    circle.append(circle)

    assert "<too deep>" in json.dumps(redact({"circle": circle}))


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.integers(), inner),
            max_leaves=20,
        ),
    )
)
def test_redaction_of_anything_can_be_written_as_json(fields: dict[str, object]) -> None:
    """Whatever goes in, strict JSON comes out."""
    text = json.dumps(redact(fields), allow_nan=False)

    assert isinstance(json.loads(text), dict)

"""The words that everything shares: secrets that stay secret, keys, refusals, bounds."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.model.errors import Broken, Code, Failure, Refused, invariant
from kvsecure.model.keys import FROM_KEY, Span, prefix_end, span_of
from kvsecure.model.secret import Secret

_keys = st.binary(max_size=4)


# --- secrets ------------------------------------------------------------------------------------


def test_secret_is_never_shown() -> None:
    """No way of making text of a secret, alone or inside something, shows its content."""
    secret = Secret.of_text("hush-hush")

    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", repr([secret]), f"{secret!s}"]

    assert not any("hush" in text for text in shown)
    assert not hasattr(secret, "__dict__")


def test_secret_is_not_serialised_or_hashed() -> None:
    """A secret cannot be pickled, copied by pickle's way, or be a key of a dictionary."""
    secret = Secret(b"x")

    for act in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError, match="a secret is"):
            act(secret)


def test_secret_is_revealed_only_when_asked() -> None:
    """Content, length and truth are there for whoever asks for them."""
    assert Secret.of_text("é").reveal() == b"\xc3\xa9"
    assert Secret(b"\xc3\xa9").reveal_text() == "é"
    assert (len(Secret(b"abc")), bool(Secret(b"a")), bool(Secret(b""))) == (3, True, False)
    with pytest.raises(UnicodeDecodeError):
        Secret(b"\xff").reveal_text()


def test_secret_equals_secrets_only() -> None:
    """Secrets compare by content among themselves and are equal to nothing else."""
    assert Secret(b"x") == Secret(b"x")
    assert Secret(b"x") != Secret(b"y")
    assert Secret(b"x") != b"x"


# --- keys ---------------------------------------------------------------------------------------


@given(key=_keys, range_end=_keys, other=_keys)
def test_span_holds_what_etcds_convention_says(key: bytes, range_end: bytes, other: bytes) -> None:
    """No end is one key, one zero byte is from here on, anything else is a half-open interval."""
    span = span_of(key, range_end)

    if not range_end:
        expected = other == key
    elif range_end == FROM_KEY:
        expected = other >= key
    else:
        expected = key <= other < range_end
    assert span.holds(other) == expected
    assert not (span.empty and span.holds(other))


@given(prefix=_keys, other=_keys)
def test_prefix_end_makes_a_prefix_a_span(prefix: bytes, other: bytes) -> None:
    """The span up to a prefix's end holds exactly the keys that begin with it."""
    span = span_of(prefix, prefix_end(prefix)) if prefix else Span(b"", None)

    assert span.holds(other) == other.startswith(prefix)


# --- refusals -----------------------------------------------------------------------------------


def test_failures_are_told_apart_by_their_texts() -> None:
    """Clients match failures by code and text: no two have the same, and none is a success."""
    assert len({failure.value for failure in Failure}) == len(Failure.__members__)
    assert all(failure.code is not Code.OK for failure in Failure)


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.name)
def test_refusal_has_the_catalogues_text(failure: Failure) -> None:
    """A refusal says what the catalogue says; a detail only where the catalogue allows one."""
    refused = Refused(failure)
    assert (refused.text, refused.code, str(refused)) == (failure.text, failure.code, failure.text)

    try:
        detailed = Refused(failure, "detail")
    except Broken:
        assert failure.text.startswith(
            (
                "etcdserver:",
                "kvsecure:",
                "unknown",
                "context",
                "RangeStream",
                "mutex:",
                "election:",
                '"leader"',
            )
        )
    else:
        # In grpc-go's words: `... larger than max (5 vs. 4)`, `... for grpc-encoding "x"`.
        form = {Failure.MESSAGE_TOO_LARGE: " (detail)", Failure.UNKNOWN_ENCODING: ' "detail"'}
        assert detailed.text == failure.text + form.get(failure, ": detail")


def test_invariant_stops_when_it_does_not_hold() -> None:
    """What holds passes, what does not is an error of its own kind with the reason."""
    invariant(1, "holds")

    with pytest.raises(Broken, match="does not hold"):
        invariant("", "does not hold")

"""Errors of the client: what a failed call means, and what a text stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.client.errors import (
    ClientError,
    CompactedError,
    Outcome,
    error_of_call,
    error_of_cancel_reason,
)
from kvsecure.model.errors import Code, Failure

__all__: list[str] = []

_REFUSED = "failed to connect to all addresses; last error: Connection refused"


@pytest.mark.parametrize("changes", [True, False])
def test_call_that_reached_nobody_is_unanswered(*, changes: bool) -> None:
    """Without a connection nothing was changed, whatever was asked."""
    error = error_of_call(Code.UNAVAILABLE, _REFUSED, endpoint="a:1", changes=changes)

    assert error.outcome is Outcome.UNANSWERED


@pytest.mark.parametrize(
    "code",
    [
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.INTERNAL,
    ],
)
def test_change_without_definite_answer_is_uncertain(code: Code) -> None:
    """A change whose answer was lost may have been made."""
    error = error_of_call(code, "Socket closed", endpoint="a:1", changes=True)

    assert error.outcome is Outcome.UNCERTAIN


def test_read_without_answer_is_unanswered() -> None:
    """A read whose answer was lost has changed nothing."""
    error = error_of_call(Code.UNAVAILABLE, "Socket closed", endpoint="a:1", changes=False)

    assert error.outcome is Outcome.UNANSWERED


@pytest.mark.parametrize("failure", [Failure.NOT_ENOUGH_STARTED, Failure.UNHEALTHY])
def test_refusal_whose_code_says_little_is_a_refusal(failure: Failure) -> None:
    """What etcd refuses under the codes of lost answers is known by its text."""
    error = error_of_call(failure.code, failure.text, endpoint="a:1", changes=True)

    assert error.outcome is Outcome.REFUSED


def test_definite_code_is_a_refusal() -> None:
    """Every code that servers never send for a change they made is a refusal."""
    definite = set(Code) - {
        Code.OK,
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.INTERNAL,
    }

    outcomes = {error_of_call(code, "no", endpoint="", changes=True).outcome for code in definite}

    assert outcomes == {Outcome.REFUSED}


@pytest.mark.parametrize("failure", list(Failure))
def test_failure_is_found_by_its_exact_text(failure: Failure) -> None:
    """Each text of the catalogue leads back to its entry."""
    error = ClientError(failure.code, failure.text)

    assert error.failure is failure


def test_failure_is_found_before_a_detail() -> None:
    """A detail after the text does not hide the entry, even when the detail has colons."""
    error = ClientError(Code.INVALID_ARGUMENT, f"{Failure.NAME_REJECTED.text}: a: b")

    assert error.failure is Failure.NAME_REJECTED


def test_foreign_text_has_no_failure() -> None:
    """A text that is not in the catalogue stands for nothing in it."""
    assert ClientError(Code.UNKNOWN, "etcdserver: something else").failure is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("PermissionDenied", Code.PERMISSION_DENIED),
        ("Unauthenticated", Code.UNAUTHENTICATED),
        ("InvalidArgument", Code.INVALID_ARGUMENT),
        ("Canceled", Code.CANCELLED),
        ("Gibberish", Code.UNKNOWN),
    ],
)
def test_cancel_reason_gives_code_and_text(name: str, code: Code) -> None:
    """The status inside a cancelled watch is read as Go writes it."""
    error = error_of_cancel_reason(f"rpc error: code = {name} desc = a: b", endpoint="")

    assert (error.code, error.text) == (code, "a: b")


@given(st.text())
def test_cancel_reason_is_total(reason: str) -> None:
    """Any reason gives an error with a text."""
    assert error_of_cancel_reason(reason, endpoint="").text


def test_compacted_error_tells_where_history_begins() -> None:
    """The error of a compacted start carries the oldest revision that is left."""
    error = CompactedError(7, endpoint="a:1")

    assert (error.compact_revision, error.failure) == (7, Failure.COMPACTED)

"""The token of a client: fetched once, renewed once, read without trust."""

import base64
import json
import threading
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.client import ClientError, Secret
from kvsecure.client.session import Relogin, Session, refuses_token, token_expiry_s
from kvsecure.model.errors import Code, Failure

__all__: list[str] = []


class _Door:
    """Counts log-ins and answers with a new token each time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Secret:
        self.count += 1
        return Secret(b"token%d" % self.count)


def test_session_logs_in_once() -> None:
    """Calls that need the first token at the same time cause one log-in."""
    door = _Door()
    session = Session(door)
    threads = [threading.Thread(target=session.token) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert door.count == 1


def test_session_begins_with_the_given_token() -> None:
    """A token from an earlier log-in is used before the password."""
    door = _Door()
    session = Session(door, token=Secret(b"earlier"))

    assert session.token() == Secret(b"earlier")
    assert door.count == 0


def test_session_renews_a_refused_token() -> None:
    """After a renewal the next call carries a new token."""
    session = Session(_Door())
    first = session.token()

    assert session.renew(first)
    assert session.token() == Secret(b"token2")


def test_session_renews_for_the_newest_token_only() -> None:
    """A call that was refused with an older token does not cause another log-in."""
    door = _Door()
    session = Session(door)
    old = session.token()
    session.renew(old)
    session.token()

    assert session.renew(old)
    assert session.token() == Secret(b"token2")


def test_session_without_password_cannot_renew() -> None:
    """Where there is nothing to log in with, a refusal stays one."""
    session = Session(None, token=Secret(b"t"))

    assert not session.renew(session.token())


@pytest.mark.parametrize(
    ("failure", "about_token"),
    [
        (Failure.INVALID_AUTH_TOKEN, True),
        (Failure.USER_EMPTY, True),
        (Failure.PERMISSION_DENIED, False),
        (Failure.AUTH_FAILED, False),
        (Failure.IDENTITY_CONFLICT, False),
    ],
)
def test_only_some_refusals_are_about_the_token(*, failure: Failure, about_token: bool) -> None:
    """A refusal for want of rights is not answered with a log-in."""
    assert refuses_token(ClientError(failure.code, failure.text)) is about_token
    assert refuses_token(
        ClientError(Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    )


_BAD_TOKEN: Final = ClientError(Failure.INVALID_AUTH_TOKEN.code, Failure.INVALID_AUTH_TOKEN.text)
_FORBIDDEN: Final = ClientError(Failure.PERMISSION_DENIED.code, Failure.PERMISSION_DENIED.text)


def test_one_new_log_in_helps_until_something_came() -> None:
    """What is refused with a new token as well is refused; after a success that begins anew."""
    session = Session(_Door())
    relogin = Relogin(session.renew)

    assert relogin.helps(_BAD_TOKEN, session.token())
    assert session.token() == Secret(b"token2")
    assert not relogin.helps(_BAD_TOKEN, session.token())
    relogin.came()
    assert relogin.helps(_BAD_TOKEN, session.token())
    assert session.token() == Secret(b"token3")


def test_new_log_in_helps_only_with_what_it_may_help_with() -> None:
    """Other errors cost no log-in, and which they are may be said."""
    session = Session(_Door())

    assert not Relogin(session.renew).helps(_FORBIDDEN, session.token())
    assert session.token() == Secret(b"token1")
    assert Relogin(session.renew, may_help=lambda _: True).helps(_FORBIDDEN, session.token())


def test_new_log_in_without_password_does_not_help() -> None:
    """Where there is nothing to log in with, trying again is of no use."""
    session = Session(None, token=Secret(b"t"))

    assert not Relogin(session.renew).helps(_BAD_TOKEN, session.token())


def _jwt(claims: object) -> Secret:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return Secret(b"e30." + body + b".c2ln")


def test_expiry_is_read_from_a_jwt() -> None:
    """The end of a JWT is its `exp` claim."""
    assert token_expiry_s(_jwt({"exp": 1_900_000_000})) == 1_900_000_000


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": -1}, [], 7, {"exp": None}])
def test_expiry_of_other_claims_is_unknown(claims: object) -> None:
    """A token that does not say when it ends is not guessed about."""
    assert token_expiry_s(_jwt(claims)) == 0


@given(st.binary())
def test_expiry_is_total(token: bytes) -> None:
    """Any bytes give a time or 0."""
    assert token_expiry_s(Secret(token)) >= 0
    assert token_expiry_s(Secret(b"a." + token + b".c")) >= 0

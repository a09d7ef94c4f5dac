"""Passwords: argon2id as the standards ask, etcd's bcrypt, and the same work for nobody."""

import bcrypt
import pytest
from argon2 import PasswordHasher, extract_parameters

from kvsecure.crypto import passwords
from kvsecure.crypto.passwords import (
    Verdict,
    hash_password,
    is_known_verifier,
    verify_nobody,
    verify_password,
)
from kvsecure.model.secret import Secret

_PASSWORD = Secret(b"lantern-Orbit-zebra-4271")
_VERIFIER = hash_password(_PASSWORD)
_WRONG = Verdict(right=False, replacement=None)


def _bcrypt(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def test_verifiers_are_argon2id_with_the_parameters_that_were_decided() -> None:
    """A new verifier names argon2id, 19 MiB, two passes, one lane, and a salt of its own."""
    _, kind, version, parameters, salt, _ = _VERIFIER.split("$")

    assert (kind, version, parameters) == ("argon2id", "v=19", "m=19456,t=2,p=1")
    assert len(salt) >= 21
    assert hash_password(_PASSWORD) != _VERIFIER


def test_right_password_is_right_and_keeps_its_verifier() -> None:
    """The password of a verifier is right, any other is wrong, and nothing is replaced."""
    assert verify_password(_PASSWORD, _VERIFIER) == Verdict(right=True, replacement=None)
    for other in (b"", b"lantern-Orbit-zebra-4272", b"lantern-Orbit-zebra-4271\0"):
        assert verify_password(Secret(other), _VERIFIER) == _WRONG


def test_verifier_with_other_parameters_is_replaced() -> None:
    """A weaker argon2 verifier still verifies, and is replaced by one with today's parameters."""
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(_PASSWORD.reveal())

    verdict = verify_password(_PASSWORD, old)

    assert verdict.right
    assert verdict.replacement is not None
    assert verdict.replacement.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(_PASSWORD, verdict.replacement).right


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$"])
def test_etcds_verifiers_verify_and_are_replaced(prefix: str) -> None:
    """A bcrypt verifier, as Go or Python write it, is good for one last log-in."""
    old = prefix + _bcrypt(_PASSWORD.reveal())[4:]

    verdict = verify_password(_PASSWORD, old)

    assert verdict.right
    assert verdict.replacement is not None
    assert verify_password(_PASSWORD, verdict.replacement) == Verdict(right=True, replacement=None)
    assert verify_password(Secret(b"other"), old) == _WRONG


def test_bcrypt_never_takes_a_beginning_for_the_whole() -> None:
    """Of a password of more than 72 bytes bcrypt saw the beginning only: it is refused."""
    long = b"x" * 72
    old = _bcrypt(long)

    assert verify_password(Secret(long), old).right
    assert verify_password(Secret(long + b"y"), old) == _WRONG


def test_argon2_sees_the_whole_of_a_long_password() -> None:
    """Behind the 72nd byte every byte counts."""
    long = b"x" * 500
    verifier = hash_password(Secret(long))

    assert verify_password(Secret(long), verifier).right
    assert not verify_password(Secret(long[:-1] + b"y"), verifier).right


@pytest.mark.parametrize(
    "verifier",
    ["", "plain", "$argon2id$", "$2a$", "$2a$04$short", "$argon2id$v=19$m=0,t=0,p=0$$", "\0"],
)
def test_strange_verifiers_are_never_right(verifier: str) -> None:
    """What is no verifier verifies nothing, quietly."""
    assert verify_password(_PASSWORD, verifier) == _WRONG
    assert verify_password(Secret(b""), verifier) == _WRONG


def test_nobodys_password_is_never_right() -> None:
    """Whoever is not there is checked against a verifier of the same kind, and fails."""
    for password in (_PASSWORD, Secret(b""), Secret(b"the password of nobody"), Secret(b"\xff")):
        assert verify_nobody(password) == _WRONG


def test_check_for_nobody_costs_what_any_costs() -> None:
    """Who is not there cannot be told by the time that the answer takes."""
    assert extract_parameters(passwords._NOBODY) == extract_parameters(_VERIFIER)


def test_known_verifiers_are_those_that_can_be_checked() -> None:
    """Argon2 and bcrypt are known, other kinds and nonsense are not."""
    assert is_known_verifier(_VERIFIER)
    assert is_known_verifier(_bcrypt(b"x"))
    for other in ("", "plain", "$1$abc$def", "{SHA}x"):
        assert not is_known_verifier(other)

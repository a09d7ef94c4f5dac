"""Which passwords may be set, and which hashes of passwords may be brought."""

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.bundled import resource
from kvsecure.crypto.passwords import hash_password
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import PASSWORD_BYTES_MAX
from kvsecure.model.secret import Secret
from kvsecure.security.password_policy import PasswordPolicy, check_verifier

_POLICY = PasswordPolicy(["correct horse battery staple", "Password1234567"])


def _why(password: str, user: str = "web", policy: PasswordPolicy = _POLICY) -> str:
    """Return why a password is refused, or nothing."""
    try:
        policy.check(Secret.of_text(password), user)
    except Refused as error:
        refused = error
    else:
        return ""
    assert refused.failure is Failure.PASSWORD_REJECTED
    # Shorter ones may stand in any sentence.
    assert len(password) < 10 or password not in refused.text
    return refused.detail


@pytest.mark.parametrize(
    "password",
    [
        *("lantern-Orbit-zebra-4271", "a horse, a house, a hat", "fifteen letters"),
        *("пароль из многих букв", "\U0001f511\U0001f5dd\U0001f510\U0001f50f\U0001f512" * 3),
        "of words that everybody knows " * 30,
    ],
)
def test_long_passwords_of_any_kind_are_good(password: str) -> None:
    """No rule asks for digits, capitals or signs (NIST SP 800-63B-4 section 3.1.1.2)."""
    assert not _why(password)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "15 characters"),
        ("fourteen chars", "15 characters"),
        ("\U0001f511" * 14, "15 characters"),
        ("correct horse battery staple", "everybody"),
        ("CORRECT  Horse\tBattery staple", "everybody"),
        ("pass word 1 2 3 4 5 6 7", "everybody"),
        ("aaaaaaaaaaaaaaaaaaaaaa", "everybody"),
        ("abababababababababab", "everybody"),
        ("abcdefghijklmnopqrstuvwxyz", "neighbouring"),
        ("9876543210987654321098", "neighbouring"),
        ("x" * (PASSWORD_BYTES_MAX + 1), "bytes"),
    ],
)
def test_bad_passwords_are_refused_with_the_reason(password: str, why: str) -> None:
    """What would be guessed is refused, and the text says why and never what it was."""
    assert why in _why(password)


@pytest.mark.parametrize(
    "password", ["administratoradministrator", "Administrator administrator", "ADMINISTRATOR  " * 2]
)
def test_a_password_is_not_the_users_name(password: str) -> None:
    """The name again and again, in any spelling, is no password."""
    assert "name" in _why(password, "administrator")
    assert not _why(password, "web")


def test_a_name_of_nothing_is_in_no_password() -> None:
    """A user whose name folds to nothing can have any good password."""
    for user in ("", " ", "\t"):
        assert not _why("lantern-Orbit-zebra-4271", user)


def test_compat_takes_any_password() -> None:
    """Under `--compat etcd` everything goes, except what would be work to hash."""
    compat = PasswordPolicy((), characters_min=0)

    assert not _why("", policy=compat)
    assert not _why("x", policy=compat)
    assert "bytes" in _why("x" * (PASSWORD_BYTES_MAX + 1), policy=compat)


def test_the_shipped_list_blocks_what_it_lists() -> None:
    """Every password of the list that is long enough is refused, and so are the examples."""
    path = resource("policies", "blocked-passwords.txt")
    lines = [each for each in path.read_text().splitlines() if each and not each.startswith("#")]
    policy = PasswordPolicy(lines)

    assert len(lines) > 100
    for line in lines:
        assert _why(line, policy=policy), line


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_taken_or_refused(password: str, user: str) -> None:
    """There is no password and no name over which the check fails."""
    assert isinstance(_why(password, user), str)


_BCRYPT = bcrypt.hashpw(b"a password that etcd has hashed", bcrypt.gensalt(4)).decode()
_ARGON2 = hash_password(Secret(b"a password that kvsecure has hashed"))


def _numbered(_: str) -> str:
    """Name a case by its number: the verifiers have other salts in each process."""
    return "verifier"


@pytest.mark.parametrize(
    "verifier",
    [_BCRYPT, _BCRYPT.replace("$2b$", "$2a$"), _BCRYPT.replace("$2b$", "$2y$"), _ARGON2],
    ids=_numbered,
)
def test_verifiers_of_known_kinds_may_be_brought(verifier: str) -> None:
    """A hash of etcd's, whatever it calls bcrypt, and one of our own can be stored as they are."""
    check_verifier(verifier)


@pytest.mark.parametrize(
    "verifier",
    [
        *("", "plain", "$1$abc$def", "$2b$04$short", "$argon2id$", "\xff", _BCRYPT[:-1]),
        *(_BCRYPT + "x", _BCRYPT + "\n", _BCRYPT.replace("$04$", "$4$"), _ARGON2[:-30]),
        *(_ARGON2 + "\n", _ARGON2.replace("m=19456", "m=-1"), _ARGON2.replace("m=", "k=")),
    ],
    ids=_numbered,
)
def test_a_verifier_of_no_use_is_refused(verifier: str) -> None:
    """What no log-in could ever be checked against is not stored."""
    with pytest.raises(Refused, match="no kind known here"):
        check_verifier(verifier)


@pytest.mark.parametrize(
    "verifier",
    [
        *(_BCRYPT.replace("$04$", "$31$"), _BCRYPT.replace("$04$", "$15$")),
        *(_ARGON2.replace("m=19456", "m=4194304"), _ARGON2.replace("m=19456", "m=" + "9" * 30)),
        *(_ARGON2.replace("t=2", "t=1000"), _ARGON2.replace("p=1", "p=255")),
    ],
    ids=_numbered,
)
def test_a_verifier_is_not_endless_work(verifier: str) -> None:
    """Nobody, not a tenant's root, brings a hash whose checking keeps others from logging in."""
    with pytest.raises(Refused, match="more work"):
        check_verifier(verifier)

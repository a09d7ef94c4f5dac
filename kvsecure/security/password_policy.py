"""Which passwords are good enough to be set, and which hashes of passwords may be brought.

Owns: length and the block list; how much work a hash from outside may ask for.
Never: demands kinds of characters or periodic changes; never keeps or shows a password.
Follows: NIST SP 800-63B-4 section 3.1.1: at least 15 characters for a single factor, block list,
    no composition rules.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, final

from kvsecure.crypto.passwords import is_known_verifier
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import PASSWORD_BYTES_MAX, PASSWORD_CHARACTERS_MIN
from kvsecure.model.secret import Secret

__all__ = ["PasswordPolicy", "check_verifier"]

_DISTINCT_CHARACTERS_MIN: Final = 5
_RUN_SHARE_MAX: Final = 0.7

_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2: Final = re.compile(
    r"\$argon2(?:id|i|d)\$(?:v=[0-9]{1,3}\$)?m=([0-9]{1,40}),t=([0-9]{1,40}),p=([0-9]{1,40})"
    r"\$[+/A-Za-z0-9]{11,128}\$[+/A-Za-z0-9]{16,128}"
)
# Checking one takes about a second of a core then; there are two workers for everybody's log-ins.
_BCRYPT_COST_MAX: Final = 14
_ARGON2_KIB_MAX: Final = 256 * 1024
_ARGON2_PASSES_MAX: Final = 10
_ARGON2_LANES_MAX: Final = 8


@final
class PasswordPolicy:
    """Says no to passwords that would be guessed."""

    __slots__ = ("_blocked", "_characters_min")

    def __init__(
        self, blocked: Iterable[str], *, characters_min: int = PASSWORD_CHARACTERS_MIN
    ) -> None:
        """Make a policy.

        Args:
            blocked: Passwords that everybody tries; compared without case and spaces.
            characters_min: The shortest one; 0 where any password will do (`--compat etcd`).
        """
        self._blocked = frozenset(_fold(each) for each in blocked)
        self._characters_min = characters_min

    def check(self, password: Secret, user: str) -> None:
        """Check a password that somebody wants to set.

        Raises:
            Refused: It is not good enough; the text says what is missing and not what it is.
        """
        if len(password) > PASSWORD_BYTES_MAX:
            raise Refused(Failure.PASSWORD_REJECTED, f"more than {PASSWORD_BYTES_MAX} bytes")
        if not self._characters_min:
            return
        text = password.reveal_text()
        if len(text) < self._characters_min:
            raise Refused(
                Failure.PASSWORD_REJECTED, f"at least {self._characters_min} characters are needed"
            )
        folded = _fold(text)
        if folded in self._blocked or len(set(folded)) < _DISTINCT_CHARACTERS_MIN:
            raise Refused(Failure.PASSWORD_REJECTED, "it is among those that everybody tries")
        if _run_share(folded) > _RUN_SHARE_MAX:
            raise Refused(Failure.PASSWORD_REJECTED, "it is a row of neighbouring characters")
        if user and folded.replace(_fold(user), "") == "":
            raise Refused(Failure.PASSWORD_REJECTED, "it repeats the user's name")


def check_verifier(verifier: str) -> None:
    """Check a hash of a password that was made elsewhere and is to be stored as it is.

    Raises:
        Refused: Log-ins could not be checked against it, or only with more work than one is worth.
    """
    bcrypt, argon2 = _BCRYPT.fullmatch(verifier), _ARGON2.fullmatch(verifier)
    if not (bcrypt or argon2) or not is_known_verifier(verifier):
        raise Refused(Failure.PASSWORD_REJECTED, "hashedPassword is of no kind known here")
    fits = int(bcrypt[1]) <= _BCRYPT_COST_MAX if bcrypt else True
    if argon2:
        kib, passes, lanes = map(int, argon2.groups())
        fits = (
            kib <= _ARGON2_KIB_MAX and passes <= _ARGON2_PASSES_MAX and lanes <= _ARGON2_LANES_MAX
        )
    if not fits:
        raise Refused(
            Failure.PASSWORD_REJECTED, "hashedPassword asks for more work than a log-in is worth"
        )


def _fold(text: str) -> str:
    return "".join(text.casefold().split())


def _run_share(text: str) -> float:
    """Return which part of a text's steps goes to the next, the previous or the same character."""
    steps = [ord(after) - ord(before) for before, after in pairwise(text)]
    return sum(step in (-1, 0, 1) for step in steps) / len(steps) if steps else 1.0

"""Which passwords are good enough to be set.

Owns: length and the block list.
Never: demands kinds of characters or periodic changes; never keeps or shows a password.
Follows: NIST SP 800-63B-4 section 3.1.1: at least 15 characters for a single factor, block list,
    no composition rules.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, final

from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import PASSWORD_BYTES_MAX, PASSWORD_CHARACTERS_MIN
from kvsecure.model.secret import Secret

__all__ = ["PasswordPolicy"]

_DISTINCT_CHARACTERS_MIN: Final = 5
_RUN_SHARE_MAX: Final = 0.7


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


def _fold(text: str) -> str:
    return "".join(text.casefold().split())


def _run_share(text: str) -> float:
    """Return which part of a text's steps goes to the next, the previous or the same character."""
    steps = [ord(after) - ord(before) for before, after in pairwise(text)]
    return sum(step in (-1, 0, 1) for step in steps) / len(steps) if steps else 1.0

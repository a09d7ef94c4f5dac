"""Password verifiers: argon2id, and etcd's bcrypt for users that come from there.

Owns: the parameters, hashing, verifying, and when a verifier is due for replacement.
Never: runs on the event loop (about 25 ms of a core each); never says why a check failed.
Follows: RFC 9106 and the OWASP minimum for argon2id (19 MiB, 2 passes, 1 lane).
"""

from typing import Final, NamedTuple

from passlib.context import CryptContext
from passlib.exc import PasslibSecurityError, PasswordSizeError, UnknownHashError

from kvsecure.model.secret import Secret

__all__ = ["Verdict", "hash_password", "is_known_verifier", "verify_nobody", "verify_password"]

_BCRYPT_BYTES_MAX: Final = 72
# Of 32 random bytes that nobody has kept, with the parameters below: a check takes as long as any.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1"
    "$h/A+5zznnPN+T4kRYmzN+Q$YrQDEgHifx+DdaBedrsyvE6v8crgndMAoxSMucapZBs"
)

_context: Final = CryptContext(
    schemes=["argon2", "bcrypt"],
    deprecated=["bcrypt"],
    argon2__type="ID",
    argon2__memory_cost=19_456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)


class Verdict(NamedTuple):
    """Whether a password is right, and the verifier to store instead if the old one is dated."""

    right: bool
    replacement: str | None


def hash_password(password: Secret) -> str:
    """Return a new verifier in PHC string format."""
    return str(_context.hash(password.reveal()))


def verify_password(password: Secret, verifier: str) -> Verdict:
    """Check a password against a verifier of any known kind."""
    secret = password.reveal()
    if verifier.startswith("$2") and len(secret) > _BCRYPT_BYTES_MAX:
        # bcrypt never saw more than 72 bytes, and the library refuses more: so did etcd's.
        verify_nobody(password)
        return Verdict(right=False, replacement=None)
    try:
        right, replacement = _context.verify_and_update(secret, verifier)
    except (ValueError, UnknownHashError, PasswordSizeError, PasslibSecurityError):
        return Verdict(right=False, replacement=None)
    return Verdict(right=bool(right), replacement=str(replacement) if replacement else None)


def verify_nobody(password: Secret) -> Verdict:
    """Take as long as a real check and fail: for users that do not exist or have no password."""
    _context.verify(password.reveal(), _NOBODY)
    return Verdict(right=False, replacement=None)


def is_known_verifier(verifier: str) -> bool:
    """Tell whether a string is a verifier that `verify_password` can check."""
    return bool(_context.identify(verifier))

"""The join tokens of an authority: made, tried, and used once.

    <authority>/tokens/<id>.json     one that may be used: the hash of its secret, and until when
    <authority>/tokens/<id>.gone     one that was used, or was tried with too many wrong secrets

Owns: the files, and whether what somebody brings is a token of ours.
Never: has a secret on the disk: 256 random bits need no salt, and no slow hash.
Keeps: of those who bring one token at once, in whatever processes, one may use it; once that is
    said, a crash does not take it back.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, final

from kvsecure.model.join_token import ID_BYTES, SECRET_BYTES, JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, utc_now
from kvsecure.pki.files import (
    Existing,
    UnsafeFile,
    ensure_directory,
    read_private,
    sync_directory,
    write_private,
)

__all__ = ["TTL_DEFAULT", "TTL_MAX", "JoinTokens", "TokenRejected", "TooManyTokens", "ttl_of"]

TTL_DEFAULT: Final = timedelta(hours=1)
TTL_MAX: Final = timedelta(days=7)

_FORMAT: Final = 1
_TOKENS_MAX: Final = 64
_WRONG_SECRETS_MAX: Final = 8
# What has ended is still told from what never was, for as long.
_KEPT: Final = timedelta(days=1)
_UNKNOWN: Final = "it is not known here, or not whole"


def ttl_of(seconds: int) -> timedelta:
    """Return a lifetime.

    Raises:
        ValueError: It is none that a token may have.
    """
    if not 0 < seconds <= TTL_MAX.total_seconds():
        raise ValueError(f"a join token is good for at most {TTL_MAX.days} days")
    return timedelta(seconds=seconds)


@final
class TokenRejected(Exception):
    """What somebody brings is no token that may be used; the text says why, to who has it."""


@final
class TooManyTokens(Exception):
    """So many tokens are open that one more is not wanted."""


@final
class JoinTokens:
    """The tokens of one authority."""

    __slots__ = ("_clock", "_directory", "_wrong")

    def __init__(self, authority: Path, clock: Callable[[], datetime] = utc_now) -> None:
        """Begin; what is needed on the disk is made with the first token.

        Args:
            authority: The directory of the authority.
            clock: Tells the time in UTC.
        """
        self._clock = clock
        self._directory = authority / "tokens"
        # Wrong secrets by id, of tokens that there are; no more of them than tokens.
        self._wrong: dict[str, int] = {}

    def make(
        self, authority: Authority, address: str, ttl: timedelta = TTL_DEFAULT
    ) -> tuple[JoinToken, datetime]:
        """Make a token; return it, and until when it is good.

        Args:
            authority: Whose certificates it fetches.
            address: Where clients reach the member that it is redeemed at, HOST:PORT.
            ttl: See `ttl_of`.

        Raises:
            ValueError: The address is none.
            TooManyTokens: There are many already.
            OSError: It cannot be written.
        """
        ensure_directory(self._directory)
        self._sweep()
        if sum(1 for _ in self._directory.glob("*.json")) >= _TOKENS_MAX:
            raise TooManyTokens(f"{_TOKENS_MAX} join tokens are open: wait until some have ended")
        token = JoinToken(
            address=address,
            fingerprint=authority.fingerprint,
            token_id=secrets.token_hex(ID_BYTES),
            secret=Secret(secrets.token_bytes(SECRET_BYTES)),
        )
        expires = self._now() + ttl
        record = {
            "format": _FORMAT,
            "secret_sha256": _digest(token.secret),
            "expires": expires.isoformat(),
        }
        content = json.dumps(record).encode() + b"\n"
        write_private(self._open(token.token_id), content, Existing.REFUSE)
        return token, expires

    def check(self, token_id: str, secret: Secret) -> None:
        """Check that a token may be used now; it is no less good afterwards.

        Raises:
            TokenRejected: It may not.
        """
        open_record = self._read(self._open(token_id)) if _is_id(token_id) else None
        gone_record = self._read(self._gone(token_id)) if _is_id(token_id) else None
        digest, expires = open_record or gone_record or ("0" * 64, None)
        # The same work whether there is such a token or not.
        is_right = hmac.compare_digest(digest, _digest(secret))
        if expires is None or not is_right:
            if open_record is not None:
                self._count_wrong(token_id)
            raise TokenRejected(_UNKNOWN)
        if open_record is None:
            raise TokenRejected("it has been used, or was tried with too many wrong secrets")
        if self._now() >= expires:
            raise TokenRejected(f"it ended at {expires:%Y-%m-%d %H:%M:%S}Z")

    def use(self, token_id: str, secret: Secret) -> None:
        """Use a token up: when this returns, nobody else may use it, also after a crash.

        Raises:
            TokenRejected: It may not be used, or not any more.
            OSError: That it was used cannot be written down.
        """
        self.check(token_id, secret)
        self._end(token_id)

    def _now(self) -> datetime:
        return self._clock().replace(microsecond=0)

    def _count_wrong(self, token_id: str) -> None:
        count = self._wrong[token_id] = self._wrong.get(token_id, 0) + 1
        if count >= _WRONG_SECRETS_MAX:
            with contextlib.suppress(TokenRejected):
                self._end(token_id)

    def _end(self, token_id: str) -> None:
        try:
            # Of two that rename one file, one fails.
            self._open(token_id).rename(self._gone(token_id))
        except FileNotFoundError:
            raise TokenRejected("it has been used") from None
        sync_directory(self._directory)
        self._wrong.pop(token_id, None)

    def _sweep(self) -> None:
        """Forget what ended so long ago that nobody has it any more."""
        before = self._now() - _KEPT
        for path in (*self._directory.glob("*.json"), *self._directory.glob("*.gone")):
            record = self._read(path)
            if record is None or record[1] < before:
                path.unlink(missing_ok=True)
                self._wrong.pop(path.stem, None)

    def _read(self, path: Path) -> tuple[str, datetime] | None:
        """Return digest and end of a token, or None if there is no such file, or a damaged one."""
        try:
            fields = json.loads(read_private(path).reveal())
            if fields["format"] != _FORMAT:
                return None
            digest, expires = fields["secret_sha256"], datetime.fromisoformat(fields["expires"])
        except (OSError, UnsafeFile, ValueError, KeyError, TypeError, RecursionError):
            return None
        is_whole = isinstance(digest, str) and digest.isascii() and expires.tzinfo is not None
        return (digest, expires) if is_whole else None

    def _open(self, token_id: str) -> Path:
        return self._directory / f"{token_id}.json"

    def _gone(self, token_id: str) -> Path:
        return self._directory / f"{token_id}.gone"


def _is_id(text: str) -> bool:
    """Tell whether a text can be the id of a token: it goes into the name of a file."""
    return len(text) == 2 * ID_BYTES and set(text) <= set("0123456789abcdef")


def _digest(secret: Secret) -> str:
    return hashlib.sha256(secret.reveal()).hexdigest()

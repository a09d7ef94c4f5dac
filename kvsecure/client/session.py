"""The token of a client: obtained once, shared by all calls, replaced when it is refused.

Owns: the token, the moment at which it is fetched again, and how often that is tried.
Never: stores or prints a password or token, or decides who may do what.
Follows: etcd's Go client: one new log-in for a call whose token was refused, and no token where
    authentication is not enabled.
Keeps: calls that wait for the same log-in cause one log-in.
"""

import base64
import binascii
import json
import threading
from collections.abc import Callable
from typing import Final, final

from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Failure
from kvsecure.model.secret import Secret

__all__ = ["Relogin", "Session", "refuses_token", "token_expiry_s"]

# Refusals that say "the token", not "you may not": nothing was done, and a new token may help. The
# last one is what etcd's JWT provider says after any change of accounts.
_TOKEN_REFUSALS: Final = frozenset(
    {
        Failure.INVALID_AUTH_TOKEN.text,
        Failure.USER_EMPTY.text,
        "etcdserver: revision of auth store is old",
    }
)


@final
class Session:
    """Who the client is to the service.

    Args:
        login: Fetches a new token; None where there is no password to fetch one with. It returns
            None when the service does not ask for tokens.
        token: A token to begin with.
    """

    def __init__(
        self, login: Callable[[], Secret | None] | None, *, token: Secret | None = None
    ) -> None:
        self._login = login
        self._token = token
        # Without a password there is nothing to fetch, with a token nothing to fetch yet.
        self._is_settled = token is not None or login is None
        self._lock = threading.Lock()

    def token(self) -> Secret | None:
        """Return the token to send, after a log-in if it is the first; None for no token.

        Raises:
            ClientError: The log-in failed.
        """
        with self._lock:
            if not self._is_settled and self._login is not None:
                self._token = self._login()
                self._is_settled = True
            return self._token

    def renew(self, used: Secret | None) -> bool:
        """Have the next call log in again; tell whether there is a password to do it with.

        Args:
            used: The token that did not work.
        """
        if self._login is None:
            return False
        with self._lock:
            # Another call may have replaced that token already.
            if self._token is used:
                self._is_settled = False
        return True


@final
class Relogin:
    """One new log-in for what is tried again until something comes of it.

    Args:
        renew: Has the next attempt log in again; see `Session.renew`.
        may_help: Which errors a new token may help with.
    """

    def __init__(
        self,
        renew: Callable[[Secret | None], bool],
        *,
        may_help: Callable[[ClientError], bool] | None = None,
    ) -> None:
        self._renew = renew
        self._may_help = may_help or refuses_token
        self._is_spent = False

    def helps(self, error: ClientError, token: Secret | None) -> bool:
        """Tell whether to try again with a new token, and see to it that there is one.

        Args:
            error: How the last attempt ended.
            token: The token that it was made with.
        """
        if self._is_spent or not self._may_help(error):
            return False
        self._is_spent = self._renew(token)
        return self._is_spent

    def came(self) -> None:
        """Take note that the token was good: when it is not any more, a new one may be had."""
        self._is_spent = False


def refuses_token(error: ClientError) -> bool:
    """Tell whether a refusal was about the token, so that a new one may help."""
    return error.text in _TOKEN_REFUSALS


def token_expiry_s(token: Secret) -> int:
    """Return when a token ends, in seconds of Unix time; 0 when the token does not say.

    The signature is the server's to check; this is for telling a person.
    """
    parts = token.reveal().split(b".")
    if len(parts) != 3:
        return 0
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=="))
        expiry = claims["exp"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return expiry if isinstance(expiry, int) and expiry > 0 else 0

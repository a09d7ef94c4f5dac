"""What can go wrong on the client's side, and whether a change may have been made all the same.

    ClientError             a request failed: code, exact text of the server, outcome
      CompactedError        a watch asked for history that is gone
    SettingsError           the connection settings cannot work; nothing was sent

Owns: the closed tree of client errors and the reading of a failed call.
Never: carries a request, a password or a token; nor the exception of the gRPC library.
Follows: etcd's rule for unknown outcomes: without a definite answer a write may have happened.
"""

import re
from enum import Enum, auto
from typing import Final, final

from kvsecure.model.errors import Code, Failure

__all__ = [
    "ClientError",
    "CompactedError",
    "Outcome",
    "SettingsError",
    "error_of_call",
    "error_of_cancel_reason",
    "was_never_sent",
]


class Outcome(Enum):
    """What a failed request means for the store."""

    REFUSED = auto()
    """The server answered no, and nothing was changed."""
    UNANSWERED = auto()
    """There was no answer, and nothing was changed: not reached, or only read."""
    UNCERTAIN = auto()
    """There was no answer to a change: it may or may not have been made."""


class ClientError(Exception):
    """A request failed.

    Attributes:
        code: The gRPC status code.
        text: The server's own text, or the transport's when no server answered.
        outcome: Whether something may have been changed.
        endpoint: Where it was sent last; empty when it was sent nowhere.
    """

    def __init__(
        self,
        code: Code,
        text: str,
        *,
        outcome: Outcome = Outcome.REFUSED,
        endpoint: str = "",
    ) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.outcome = outcome
        self.endpoint = endpoint

    @property
    def failure(self) -> Failure | None:
        """The entry of the catalogue that the text stands for; None for a foreign text."""
        # Some entries carry a detail after their text, which may have colons of its own.
        stem = self.text
        while stem:
            if stem in _FAILURES:
                return _FAILURES[stem].get(self.code) or next(iter(_FAILURES[stem].values()))
            stem = stem.rpartition(": ")[0]
        return None


@final
class CompactedError(ClientError):
    """A watch cannot start where it was asked to, because that history was compacted.

    Attributes:
        compact_revision: The oldest revision that a watch can still start from.
    """

    def __init__(self, compact_revision: int, *, endpoint: str) -> None:
        failure = Failure.COMPACTED
        super().__init__(failure.code, failure.text, endpoint=endpoint)
        self.compact_revision = compact_revision


@final
class SettingsError(ValueError):
    """The connection settings cannot work; the text says which one and why."""


# By text first: etcd sends some of these texts under another code than the catalogue's.
_FAILURES: Final[dict[str, dict[Code, Failure]]] = {}
for _failure in Failure:
    _FAILURES.setdefault(_failure.text, {})[_failure.code] = _failure

# How the gRPC library begins its text when no connection came up, so that no byte of the request
# has left. Were one of these wrong or missing, a write would not be repeated: the safe side.
_NEVER_SENT: Final = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
    "empty address list",
)

_ANSWERLESS: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
_INDEFINITE: Final = _ANSWERLESS | {Code.UNKNOWN, Code.INTERNAL}
# Refusals whose texts say more than their codes: what was asked was not begun.
_DEFINITE: Final = frozenset({Failure.NOT_ENOUGH_STARTED.text, Failure.UNHEALTHY.text})


def was_never_sent(code: Code, text: str) -> bool:
    """Tell whether the transport says that no server was reached."""
    return code is Code.UNAVAILABLE and text.startswith(_NEVER_SENT)


def error_of_call(code: Code, text: str, *, endpoint: str, changes: bool) -> ClientError:
    """Return the error for a call that ended with this status.

    Args:
        code: The status code.
        text: The status text.
        endpoint: Where the call went.
        changes: Whether the call can change something.
    """
    if was_never_sent(code, text):
        outcome = Outcome.UNANSWERED
    elif text in _DEFINITE:
        outcome = Outcome.REFUSED
    elif changes:
        outcome = Outcome.UNCERTAIN if code in _INDEFINITE else Outcome.REFUSED
    else:
        outcome = Outcome.UNANSWERED if code in _ANSWERLESS else Outcome.REFUSED
    return ClientError(code, text, outcome=outcome, endpoint=endpoint)


# A watch is refused inside its stream, by a status that Go has made into a text.
_REASON: Final = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.DOTALL)
_GO_NAMES: Final = {
    "".join(part.capitalize() for part in code.name.split("_")): code for code in Code
} | {"Canceled": Code.CANCELLED}


def error_of_cancel_reason(reason: str, *, endpoint: str) -> ClientError:
    """Return the error for a watch that the server cancelled with this reason."""
    match = _REASON.fullmatch(reason)
    if match is None:
        code = next(iter(_FAILURES.get(reason, [Code.UNKNOWN])))
        return ClientError(code, reason or "the watch was cancelled", endpoint=endpoint)
    code = _GO_NAMES.get(match[1], Code.UNKNOWN)
    return ClientError(code, match[2], endpoint=endpoint)

"""How a command fails: one line on stderr, a hint where there is one, and an exit status.

Owns: the exit statuses and the words for what went wrong.
Never: a traceback, a secret, or a guess about what the server did.
Keeps: status 3 means that nothing was changed; 4 that something may have been.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import IO, Any, Final, final

import click

__all__ = ["CommandFailure", "ExitStatus", "PipeClosed", "failures_told", "tell"]


class ExitStatus(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    """Refused by the server, or not possible; what was asked for was not found."""
    USAGE = 2
    """The command line is wrong."""
    NO_ANSWER = 3
    """No server could be reached or answered, and nothing was changed."""
    UNCERTAIN = 4
    """The answer to a change was lost: it may or may not have been made."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C, as the shell counts it."""
    PIPE_CLOSED = 141
    """Whoever read the output went away, as the shell counts it."""


@final
class CommandFailure(click.ClickException):
    """A command could not do what it was asked to."""

    def __init__(self, message: str, *, hint: str = "", status: int = ExitStatus.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line, and the hint, to stderr."""
        stream = sys.stderr if file is None else file
        click.echo(f"Error: {self.message}", file=stream)
        if self.hint:
            click.echo(f"Hint: {self.hint}", file=stream)


@final
class PipeClosed(click.ClickException):
    """Whoever read the output went away; there is nobody to tell."""

    exit_code = ExitStatus.PIPE_CLOSED

    def __init__(self) -> None:
        super().__init__("")

    def show(self, file: IO[Any] | None = None) -> None:
        """Say nothing."""


# The transport begins with words that say no more than "cannot reach".
_TRANSPORT_PREFACE: Final = re.compile(
    r"failed to connect to all addresses; last error: [A-Z_]+: (?:\S+: )?"
    r"(?:Failed to connect to remote host: )?"
)

# Parts of the transport's texts, and what a person can do about them.
_TRANSPORT_HINTS: Final = (
    ("Connection refused", "is the server running there? `--endpoint` chooses another one"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the server's certificate is not one that the CA file vouches for: see `--cacert`",
    ),
    (
        "ALERT",
        "the server refused this client's certificate, or asks for one: see `--cert` and `--key`",
    ),
    (
        "TSI_DATA_CORRUPTED",
        "the server refused this client's certificate, or asks for one: see `--cert` and `--key`",
    ),
    ("Handshake read failed", "the server may not speak TLS; `http://` chooses plaintext"),
    ("errors resolving", "the name of the endpoint is not known"),
)


@contextlib.contextmanager
def failures_told(*, who: Callable[[], str], attempt: str) -> Iterator[None]:
    """Turn errors of the client into failures of the command.

    Args:
        who: Says who was refused; asked only when somebody was.
        attempt: What was tried, as it follows "may not".

    Raises:
        CommandFailure: The client raised an error.
    """
    from kvsecure.client.errors import ClientError, SettingsError

    try:
        yield
    except ClientError as error:
        raise tell(error, who=who, attempt=attempt) from None
    except SettingsError as error:
        raise CommandFailure(str(error)) from None
    except UnicodeEncodeError:
        # Keys and values are bytes; names of users, roles and tenants are text on the wire.
        raise CommandFailure("a name is not text in UTF-8", status=ExitStatus.USAGE) from None


def tell(error: Any, *, who: Callable[[], str], attempt: str) -> CommandFailure:
    """Return the failure for a `ClientError`."""
    from kvsecure.client.errors import Outcome

    match error.outcome:
        case Outcome.UNANSWERED:
            text = _TRANSPORT_PREFACE.sub("", error.text)
            verb = "no answer from" if text == error.text else "cannot reach"
            return CommandFailure(
                f"{verb} {error.endpoint}: {text}",
                hint=_transport_hint(error.text),
                status=ExitStatus.NO_ANSWER,
            )
        case Outcome.UNCERTAIN:
            return CommandFailure(
                f"no answer from {error.endpoint}: {error.text}",
                hint="the change may or may not have been made: look before you repeat it",
                status=ExitStatus.UNCERTAIN,
            )
        case _:
            return _refusal(error, who=who, attempt=attempt)


def _refusal(error: Any, *, who: Callable[[], str], attempt: str) -> CommandFailure:
    from kvsecure.model.errors import Code, Failure

    if error.code is Code.PERMISSION_DENIED:
        return CommandFailure(f"{who()} may not {attempt} ({error.text})")
    if error.code is Code.UNIMPLEMENTED:
        return CommandFailure(
            f"this server cannot {attempt} ({error.text})", hint="is it kvsecure, or etcd?"
        )
    hints = {
        Failure.USER_EMPTY: "log in with `kvsecure login`, or give `--cert` and `--key`",
        Failure.INVALID_AUTH_TOKEN: "the log-in has ended: `kvsecure login`",
        Failure.IDENTITY_CONFLICT: "leave out `--cert`, or log in as the user it names",
        Failure.ROOT_USER_MISSING: "add it first: `kvsecure user add root`",
        Failure.AUTH_NOT_ENABLED: "no log-in is needed here; `kvsecure logout` forgets an old one",
        Failure.LEASE_NOT_FOUND: "`kvsecure lease list` shows the leases there are",
    }
    hint = hints.get(error.failure, "") if error.failure is not None else ""
    return CommandFailure(error.text, hint=hint)


def _transport_hint(text: str) -> str:
    for part, hint in _TRANSPORT_HINTS:
        if part in text:
            return hint
    return ""

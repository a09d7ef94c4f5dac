"""Where passwords and values come from: a prompt, a file or stdin; never the command line.

Owns: the reading of secrets from people and scripts.
Never: echoes what is typed, or takes a password from an argument.
Keeps: bytes of values are kept as they are; a password loses one newline at its end, no more.
"""

import os
import stat
import sys
from pathlib import Path
from typing import Any, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.model.secret import Secret
from kvsecure.pki.files import UnsafeFile, read_private

__all__ = [
    "chosen_password",
    "password_from_file",
    "password_from_prompt",
    "password_from_stdin",
    "stdin_bytes",
    "stdin_is_terminal",
    "value_from_prompt",
]

# Far beyond any password; a larger file is a mistake.
_PASSWORD_FILE_BYTES_MAX: Final = 64 * 1024


def stdin_is_terminal() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty()


def stdin_bytes(bytes_max: int) -> bytes:
    """Return all of stdin.

    Raises:
        CommandFailure: It has more than `bytes_max`.
    """
    return _bounded(sys.stdin.buffer.read(bytes_max + 1), bytes_max, "stdin")


def password_from_file(path: Path) -> Secret:
    """Return the password in a file; a pipe, as of a process substitution, is one too.

    Raises:
        CommandFailure: It cannot be read, others can read it, or it is empty.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            content = read_private(path).reveal()
        else:
            with path.open("rb") as stream:
                content = stream.read(_PASSWORD_FILE_BYTES_MAX + 1)
    except UnsafeFile as error:
        raise CommandFailure(str(error)) from None
    except OSError as error:
        raise CommandFailure(f"{path}: {error.strerror}") from None
    return _password(_bounded(content, _PASSWORD_FILE_BYTES_MAX, str(path)), str(path))


def password_from_stdin() -> Secret:
    """Return the password on stdin.

    Raises:
        CommandFailure: It is empty or not text.
    """
    return _password(stdin_bytes(_PASSWORD_FILE_BYTES_MAX), "stdin")


def password_from_prompt(text: str, *, confirm: bool) -> Secret:
    """Ask for a password on the terminal.

    Args:
        text: What to ask.
        confirm: Whether to ask twice, for a new password.

    Raises:
        CommandFailure: There is no terminal.
    """
    if not stdin_is_terminal():
        raise CommandFailure(
            "no terminal to ask for a password on",
            hint="give `--password-file` or `--password-stdin`",
        )
    return Secret(_ask(text, confirm=confirm))


def value_from_prompt(key: str) -> bytes:
    """Ask for a value on the terminal, twice, without showing it."""
    return _ask(f"Value of {key}", confirm=True)


def chosen_password(
    ctx: click.Context,
    *,
    file: Path | None,
    stdin: bool,
    prompt: str,
    confirm: bool,
) -> Secret:
    """Return a password from the one source that was chosen, or ask for it.

    Raises:
        click.UsageError: Two sources were chosen.
        CommandFailure: The source gave none.
    """
    if file is not None and stdin:
        raise click.UsageError("choose one source for the password", ctx=ctx)
    if file is not None:
        return password_from_file(file)
    if stdin:
        return password_from_stdin()
    return password_from_prompt(prompt, confirm=confirm)


def _ask(text: str, *, confirm: bool) -> bytes:
    answer: Any = click.prompt(
        text, hide_input=True, confirmation_prompt="Once more" if confirm else False, err=True
    )
    # A terminal may send bytes that are no text.
    return os.fsencode(str(answer))


def _bounded(content: bytes, bytes_max: int, source: str) -> bytes:
    if len(content) > bytes_max:
        raise CommandFailure(f"{source} has more than {bytes_max} bytes")
    return content


def _password(content: bytes, source: str) -> Secret:
    # An editor or `echo` ends a line; the line's end is not part of the password.
    stripped = content.removesuffix(b"\n").removesuffix(b"\r")
    if not stripped:
        raise CommandFailure(f"{source} holds no password")
    try:
        stripped.decode()
    except UnicodeDecodeError:
        raise CommandFailure(f"{source} holds no text in UTF-8") from None
    return Secret(stripped)

"""Options that several commands share, and what they mean together.

Owns: the choice of keys, formats, lease ids, and the refusal of passwords in arguments.
Never: reads a password from the command line.
"""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from kvsecure.cli.texts import bytes_of_argument

if TYPE_CHECKING:
    from kvsecure.client.keys import Keys

__all__ = [
    "Format",
    "chosen_keys",
    "example",
    "format_option",
    "key_options",
    "lease_id",
    "new_password_options",
    "refuse_password",
    "user_alone",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Format(Enum):
    """How output is written."""

    AUTO = "auto"
    TEXT = "text"
    TABLE = "table"
    LINES = "lines"
    VALUE = "value"
    JSON = "json"


def example(*commands: str) -> str:
    """Return the end of a command's help: how it is used."""
    # The mark keeps click from joining the lines.
    return "\n".join(("\b", "Example:", *(f"  {command}" for command in commands)))


def format_option(*formats: Format) -> Callable[[Decorated], Decorated]:
    """Return the option `--format`; the first one is the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice([form.value for form in formats]),
        callback=_form,
        default=formats[0].value,
        show_default=True,
        help="How to write the output.",
    )


def _form(_ctx: click.Context, _parameter: click.Parameter, value: str) -> Format:
    return Format(value)


def lease_id(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int:
    """Read the id of a lease as the commands write it, hexadecimal; 0 when there is none.

    Raises:
        click.BadParameter: It is not up to 16 hexadecimal digits.
    """
    if value is None:
        return 0
    digits = value.lower().removeprefix("0x")
    if not 0 < len(digits) <= 16 or not set(digits) <= set("0123456789abcdef"):
        raise click.BadParameter(
            f"{value!r} is not the id of a lease (up to 16 hexadecimal digits)",
            ctx=ctx,
            param=parameter,
        )
    number = int(digits, 16)
    # The wire has signed numbers.
    return number - (1 << 64) if number >> 63 else number


def key_options(command: Decorated) -> Decorated:
    """Add KEY, END, `--prefix` and `--from-key`."""
    decorators = (
        click.argument("key"),
        click.argument("end", required=False),
        click.option("--prefix", is_flag=True, help="Every key that begins with KEY."),
        click.option("--from-key", is_flag=True, help="KEY and every key after it."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def chosen_keys(*, key: str, end: str | None, prefix: bool, from_key: bool) -> "Keys":
    """Return the keys that KEY, END, `--prefix` and `--from-key` choose.

    Raises:
        click.UsageError: They do not go together, or choose nothing.
    """
    from kvsecure.client.keys import Keys

    if (end is not None) + prefix + from_key > 1:
        raise click.UsageError("choose one of END, --prefix and --from-key")
    start = bytes_of_argument(key)
    if prefix:
        return Keys.prefix(start)
    if from_key:
        return Keys.from_key(start)
    if end is not None:
        if not bytes_of_argument(end):
            raise click.UsageError("END is empty: for every key after KEY give --from-key")
        return Keys.between(start, bytes_of_argument(end))
    if not start:
        raise click.UsageError("KEY is empty: for every key give --prefix as well")
    return Keys.one(start)


_REFUSAL: Final = (
    "a password is not taken from the command line, where others on this machine and the shell's "
    "history can see it: leave it out to be asked, or give --{stem}-file or --{stem}-stdin"
)


def refuse_password(stem: str = "password") -> Callable[[Decorated], Decorated]:
    """Return a hidden option that refuses a password as an argument, and says what to do."""

    def refuse(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(_REFUSAL.format(stem=stem))

    return click.option(
        f"--{stem}", hidden=True, expose_value=False, callback=refuse, is_eager=True
    )


def user_alone(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Take the name of a user, and refuse etcdctl's `NAME:PASSWORD` without repeating it.

    Raises:
        click.UsageError: There is a colon in it.
    """
    if value is not None and ":" in value:
        raise click.UsageError(f"--user takes a name alone; {_REFUSAL.format(stem='password')}")
    return value


def new_password_options(stem: str = "password") -> Callable[[Decorated], Decorated]:
    """Return the options for a new password: a file, stdin, or none at all."""

    def add(command: Decorated) -> Decorated:
        decorators = (
            click.option(
                f"--{stem}-file",
                "password_file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Read the password from FILE, which only you may be able to read.",
            ),
            click.option(
                f"--{stem}-stdin", "password_stdin", is_flag=True, help="Read it from stdin."
            ),
            refuse_password(stem),
        )
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return add

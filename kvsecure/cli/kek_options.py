"""The options that say where a key-encryption key comes from, for commands that open files.

Owns: their names, which are those of `kvsecure server`, and what was chosen.
Never: reads a key, or takes one from the command line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import click

if TYPE_CHECKING:
    from kvsecure.server.audit_verify import KekSettings

__all__ = ["KekChoice", "kek_options", "kek_settings"]

_PROVIDERS: Final = ("file", "env", "passphrase", "kms")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KekChoice:
    """What was said of where the key comes from."""

    provider: str
    file: Path | None
    variable: str
    passphrase_file: Path | None
    kms_socket: Path | None


def kek_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and hand it the choice as its argument `kek`."""

    @click.option(
        "--kek-provider",
        type=click.Choice(_PROVIDERS),
        default="file",
        show_default=True,
        help="Where the key-encryption key comes from.",
    )
    @click.option(
        "--kek-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The key-encryption key's file; where a context is used, its own if it is not given.",
    )
    @click.option(
        "--kek-env",
        metavar="NAME",
        default="KVSECURE_KEK",
        show_default=True,
        help="The variable that holds the key, for provider env.",
    )
    @click.option(
        "--kek-passphrase-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The passphrase's file or pipe, for provider passphrase; without it you are asked.",
    )
    @click.option(
        "--kek-kms-socket",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The plugin's Unix socket, for provider kms.",
    )
    @wraps(command)
    def chosen(
        *args: Any,
        kek_provider: str,
        kek_file: Path | None,
        kek_env: str,
        kek_passphrase_file: Path | None,
        kek_kms_socket: Path | None,
        **others: Any,
    ) -> Any:
        choice = KekChoice(
            provider=kek_provider,
            file=kek_file,
            variable=kek_env,
            passphrase_file=kek_passphrase_file,
            kms_socket=kek_kms_socket,
        )
        return command(*args, kek=choice, **others)

    return chosen


def kek_settings(choice: KekChoice, file: Path | None = None) -> "KekSettings | None":
    """Return where the key comes from, or None if nothing was said of it.

    Args:
        choice: What was said.
        file: The key's file if none was named.

    Raises:
        click.UsageError: The provider needs more than was said.
    """
    from kvsecure.server.audit_verify import KekProvider, KekSettings

    provider = KekProvider(choice.provider)
    file = choice.file or file
    if provider is KekProvider.FILE and file is None:
        return None
    if provider is KekProvider.KMS and choice.kms_socket is None:
        raise click.UsageError("--kek-provider kms needs --kek-kms-socket")
    return KekSettings(
        provider=provider,
        file=file,
        variable=choice.variable,
        passphrase_file=choice.passphrase_file,
        kms_socket=choice.kms_socket,
    )

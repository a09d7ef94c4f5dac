"""`kvsecure dev`: a complete secured server on this machine, in one command.

Owns: what is said while it starts; the server itself is `kvsecure server`.
Never: anything that a real server would not do: certificates, authentication, sealing and audit
    are on.
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from kvsecure.cli.context import home_directory
from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import stdin_is_terminal
from kvsecure.cli.options import example

__all__ = ["dev"]

_PORT: Final = 2379


@click.command(
    epilog=example(
        "kvsecure dev &",
        "kvsecure role grant reader /app/",
        "kvsecure put /app/db/password",
        "kvsecure dev --tls-min-version TLS1.2",
    )
)
@click.option("--port", default=_PORT, show_default=True, help="Port on 127.0.0.1; 0: a free one.")
@click.option("--reset", is_flag=True, help="Forget the data of earlier runs first.")
@click.option("--yes", is_flag=True, help="Do not ask before --reset.")
@click.option(
    "--tls-min-version",
    type=click.Choice(["TLS1.3", "TLS1.2"]),
    default="TLS1.3",
    show_default=True,
    help="Oldest TLS that is spoken; etcdctl 3.5 and older need TLS1.2.",
)
@click.argument("server_flags", nargs=-1, type=click.UNPROCESSED)
def dev(
    *, port: int, reset: bool, yes: bool, tls_min_version: str, server_flags: tuple[str, ...]
) -> None:
    """Run a complete secured server on 127.0.0.1, until Ctrl-C.

    The first run makes an authority, certificates, keys, a random password of root and a data
    directory below $KVSECURE_HOME (~/.kvsecure), and the context `dev`, so that the other commands
    need no options. Later runs go on with them. What stands behind -- goes to `kvsecure server`.
    """
    from kvsecure.cli.sandbox import free_port, prepare
    from kvsecure.pki.authority import AuthorityError
    from kvsecure.pki.files import UnsafeFile
    from kvsecure.server.lifecycle import run

    home = home_directory()
    if reset:
        _reset(home / "dev", yes=yes)
    # Before anything is changed: the context leads to the server that is running.
    _check_not_running(home / "dev" / "data" / "LOCK")
    try:
        sandbox = prepare(home, port or free_port())
    except (AuthorityError, UnsafeFile, OSError) as error:
        raise CommandFailure(str(error)) from None
    click.echo(
        f"kvsecure dev: https://{sandbox.endpoint}, context `dev`, data in {sandbox.data_dir}"
    )
    click.echo(f"certificates: {sandbox.directory}; more: kvsecure pki issue client NAME")
    if sandbox.new_password is not None:
        click.echo(f"password of root, shown once: {sandbox.new_password.reveal_text()}")
    click.echo(f"password of root, kept in: {sandbox.password_file}")
    click.echo("stop with Ctrl-C; in another terminal: kvsecure put /app/db/password")
    sys.stdout.flush()
    flags = (f"--tls-min-version={tls_min_version}", *server_flags)
    sys.exit(run(sandbox.arguments(flags), os.environ))


def _reset(directory: Path, *, yes: bool) -> None:
    if not directory.exists():
        return
    if not yes:
        if not stdin_is_terminal():
            raise CommandFailure("--reset deletes all data of earlier runs: say --yes as well")
        click.confirm(f"Delete everything in {directory}?", abort=True)
    _check_not_running(directory / "data" / "LOCK")
    shutil.rmtree(directory)


def _check_not_running(lock: Path) -> None:
    """Refuse to take the data away from under a server.

    Raises:
        CommandFailure: One holds its lock.
    """
    try:
        held = lock.open("rb")
    except FileNotFoundError:
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailure(f"a server is running in {lock.parent}: stop it first") from None

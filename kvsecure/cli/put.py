"""`kvsecure put`: write one key.

Owns: the command's options and where a value comes from.
Never: stores an empty value that nobody asked for.
"""

from pathlib import Path

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import stdin_bytes, stdin_is_terminal, value_from_prompt
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option, lease_id
from kvsecure.cli.output import kv_lines, print_json, stored_json
from kvsecure.cli.texts import bytes_of_argument, shown
from kvsecure.client.operations import KEEP, Keep, Put
from kvsecure.model.limits import GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX_DEFAULT

__all__ = ["put"]

_VALUE_BYTES_MAX = REQUEST_BYTES_MAX_DEFAULT + GRPC_OVERHEAD_BYTES


@click.command(
    epilog=example(
        "kvsecure put /app/db/password",
        "kvsecure put /app/db/password --file password.txt",
        "generate-password | kvsecure put /app/db/password",
        "kvsecure put /app/colour blue",
    )
)
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the value from FILE.",
)
@click.option("--stdin", is_flag=True, help="Read the value from stdin, even if it is empty.")
@click.option("--lease", callback=lease_id, metavar="ID", help="Let the key die with it.")
@click.option("--prev-kv", is_flag=True, help="Print what was there before.")
@click.option("--ignore-value", is_flag=True, help="Keep the value that is there.")
@click.option("--ignore-lease", is_flag=True, help="Keep the lease that is there.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def put(
    invocation: Invocation,
    *,
    key: str,
    value: str | None,
    file: Path | None,
    stdin: bool,
    lease: int,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
    form: Format,
) -> None:
    """Write a key.

    Without VALUE the value is asked for, twice and without an echo, or read from stdin when that is
    a pipe or a file. Do not give a secret as VALUE: everybody on this machine can see the arguments
    of a program while it runs, and the shell keeps them. Bytes are stored as they are, a newline at
    the end included. VALUE `-` is the same as --stdin.
    """
    if ignore_lease and lease:
        raise click.UsageError("choose one of --lease and --ignore-lease")
    stdin = stdin or value == "-"
    sources = ((value not in {None, "-"}), file is not None, stdin, ignore_value)
    if sum(sources) > 1:
        raise click.UsageError("choose one of VALUE, --file, --stdin and --ignore-value")
    if not key:
        raise click.UsageError("KEY is empty")
    operation = Put(
        key=bytes_of_argument(key),
        value=KEEP if ignore_value else _value(key, value, file, stdin=stdin),
        lease=KEEP if ignore_lease else lease,
        previous=prev_kv,
    )
    with invocation.client(f"write {shown(operation.key)}") as client:
        stored = client.kv.write(operation)
    if form is Format.JSON:
        print_json(stored_json(stored))
        return
    click.echo("OK")
    if stored.previous is not None:
        click.echo("\n".join(kv_lines([stored.previous])))


def _value(key: str, value: str | None, file: Path | None, *, stdin: bool) -> bytes | Keep:
    if stdin:
        return stdin_bytes(_VALUE_BYTES_MAX)
    if value is not None:
        return bytes_of_argument(value)
    if file is not None:
        return _file_bytes(file)
    if stdin_is_terminal():
        return value_from_prompt(key)
    content = stdin_bytes(_VALUE_BYTES_MAX)
    if not content:
        raise CommandFailure(
            "no value: stdin is empty", hint="for an empty value give --stdin as well"
        )
    return content


def _file_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(_VALUE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandFailure(f"{file}: {error.strerror}") from None
    if len(content) > _VALUE_BYTES_MAX:
        raise CommandFailure(f"{file} has more than {_VALUE_BYTES_MAX} bytes")
    return content

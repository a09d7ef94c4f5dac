"""`kvsecure txn`: compare, then do one thing or the other.

Owns: the command's options and where its text comes from.
Never: reads values from the command line.
"""

from pathlib import Path

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import stdin_bytes
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, result_lines, txn_json
from kvsecure.cli.txn_text import TxnSyntaxError, parse_txn

__all__ = ["txn"]

# Far beyond what a server takes in one transaction.
_TEXT_BYTES_MAX = 16 * 1024 * 1024


@click.command(
    epilog=example(
        "kvsecure txn <<'END'",
        'version("/app/leader") = "0"',
        "",
        "put /app/leader host-1",
        "",
        "get /app/leader",
        "END",
    )
)
@click.argument("file", type=click.Path(path_type=Path), default=Path("-"), metavar="[FILE]")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def txn(invocation: Invocation, *, file: Path, form: Format) -> None:
    r"""Compare, then do one thing or the other, all of it at one revision or nothing.

    FILE, or stdin, has three blocks with an empty line after each: conditions, what to do if all of
    them hold, and what to do otherwise. Each may be empty.

    A condition is TARGET("KEY") COMPARISON "OPERAND": the targets are value, version, create, mod
    and lease, the comparisons =, !=, < and >. An operation is `get`, `put` or `del` as on the
    command line: `get KEY [END] --prefix --from-key --limit N --rev N --keys-only --count-only
    --serializable`, `put KEY VALUE --lease ID --prev-kv --ignore-value --ignore-lease`, `del KEY
    [END] --prefix --from-key --prev-kv`. Lines that begin with # are comments. A word in double
    quotes may hold blanks and the escapes \n, \t, \r, \", \\ and \xNN.

    The first line of the output is SUCCESS if the conditions held, and FAILURE if not; the results
    of the operations follow, each after an empty line.
    """
    try:
        operation = parse_txn(_text(file))
    except TxnSyntaxError as error:
        raise click.UsageError(str(error)) from None
    with invocation.client("do everything in this transaction") as client:
        result = client.kv.transact(operation)
    if form is Format.JSON:
        print_json(txn_json(result))
        return
    click.echo("SUCCESS" if result.succeeded else "FAILURE")
    for each in result.results:
        click.echo("\n".join(["", *result_lines(each)]))


def _text(file: Path) -> bytes:
    if file == Path("-"):
        return stdin_bytes(_TEXT_BYTES_MAX)
    try:
        with file.open("rb") as stream:
            return stream.read(_TEXT_BYTES_MAX)
    except OSError as error:
        raise CommandFailure(f"{file}: {error.strerror}") from None

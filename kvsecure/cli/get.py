"""`kvsecure get`: read one key or many.

Owns: the command's options and the choice of its output.
Never: adds a byte to a value that is printed alone, unless a person reads it.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, chosen_keys, example, format_option, key_options
from kvsecure.cli.output import (
    found_json,
    kv_lines,
    kv_table,
    print_bytes,
    print_json,
    stdout_is_terminal,
)
from kvsecure.cli.texts import described, shown
from kvsecure.client.errors import ClientError
from kvsecure.client.operations import Fetch, Found, Order, Range, Reading, SortBy
from kvsecure.model.errors import Code, Failure

if TYPE_CHECKING:
    from kvsecure.client import Client, Keys, KeyValue

__all__ = ["get"]


@click.command(
    epilog=example(
        "kvsecure get /app/db/password",
        "kvsecure get /app/db/password --at '2h ago'",
        "kvsecure get --prefix /app/ --format json",
        "kvsecure get --prefix /app/ --sort-by modify --order desc --limit 10",
    )
)
@key_options
@click.option("--rev", "revision", type=int, default=0, metavar="REV", help="Read the past.")
@click.option("--at", metavar="TIME", help="Read the past: RFC 3339, or how long ago, like -2h.")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="Read this version.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many keys.")
@click.option(
    "--sort-by",
    type=click.Choice(["key", "version", "create", "modify", "value"]),
    help="Sort by this instead of by key.",
)
@click.option("--order", type=click.Choice(["asc", "desc"]), help="Direction of the order.")
@click.option("--keys-only", is_flag=True, help="Print keys without values.")
@click.option("--count-only", is_flag=True, help="Print how many keys there are.")
@click.option(
    "--serializable", is_flag=True, help="Let one member answer from what it has, even if old."
)
@format_option(Format.AUTO, Format.VALUE, Format.LINES, Format.TABLE, Format.JSON)
@pass_invocation
def get(
    invocation: Invocation,
    *,
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    revision: int,
    at: str | None,
    version: int | None,
    limit: int,
    sort_by: str | None,
    order: str | None,
    keys_only: bool,
    count_only: bool,
    serializable: bool,
    form: Format,
) -> None:
    """Read keys.

    KEY alone prints its value and nothing else, byte by byte; on a terminal a newline follows. A
    key that does not exist is an error (exit status 1). Several keys, with END (not included),
    --prefix or --from-key, are a table on a terminal, and otherwise lines: key, tab, value. In
    tables and lines a backslash is doubled and what is not printable is written as an escape.

    KEY alone is read at a compacted revision too, if the version of then is kept (`kvsecure
    history`). --version is the newest one of this number.
    """
    if keys_only and count_only:
        raise click.UsageError("choose one of --keys-only and --count-only")
    if bool(revision) + (at is not None) + (version is not None) > 1:
        raise click.UsageError("choose one of --rev, --at and --version")
    keys = chosen_keys(key=key, end=end, prefix=prefix, from_key=from_key)
    operation = Range(
        keys=keys,
        limit=limit,
        revision=revision,
        order=_order(sort_by, order),
        sort_by=SortBy.MOD if sort_by == "modify" else SortBy[(sort_by or "key").upper()],
        fetch=_fetch(keys_only=keys_only, count_only=count_only),
        reading=Reading.SERIALIZABLE if serializable else Reading.LINEARIZABLE,
    )
    with invocation.client(f"read {described(*keys)}") as client:
        if at is not None or version is not None:
            operation = replace(operation, revision=_revision(client, keys, at, version))
        if _comes_in_parts(operation, form):
            # Nothing but one part of it is held, however much there is.
            for part in client.kv.read_parts(operation):
                _print(part, operation, form)
            return
        found = _read(client, operation)
    _print(found, operation, form)
    if keys.is_one and not count_only and not found.kvs:
        raise CommandFailure(f"key not found: {shown(keys.key)}")


def _revision(client: "Client", keys: "Keys", at: str | None, version: int | None) -> int:
    from kvsecure.cli.points import Point, read_time, revision_of

    time_s = None if at is None else read_time(at, time.time())
    return revision_of(
        client, Point(version=version, time_s=time_s), keys.key if keys.is_one else None
    )


def _read(client: "Client", operation: Range) -> Found:
    """Read, and of one key a version that was kept although its revision is compacted."""
    try:
        return client.kv.read(operation)
    except ClientError as error:
        if error.failure is not Failure.COMPACTED or not operation.keys.is_one:
            raise
        compacted = error
    try:
        version = client.versions.at(operation.keys.key, operation.revision)
    except ClientError as unkept:
        # It was not kept, or this is etcd.
        if unkept.failure is Failure.COMPACTED or unkept.code is Code.UNIMPLEMENTED:
            raise compacted from None
        raise
    header = client.kv.range(operation.keys, fetch=Fetch.COUNT).header
    kvs: tuple[KeyValue, ...] = (
        () if version is None or version.is_deleted else (version.key_value(),)
    )
    if operation.fetch is Fetch.KEYS:
        kvs = tuple(replace(kv, value=b"") for kv in kvs)
    return Found(header=header, kvs=kvs, count=len(kvs), more=False)


def _fetch(*, keys_only: bool, count_only: bool) -> Fetch:
    if count_only:
        return Fetch.COUNT
    return Fetch.KEYS if keys_only else Fetch.VALUES


def _order(sort_by: str | None, order: str | None) -> Order:
    if order == "desc":
        return Order.DESCEND
    return Order.ASCEND if order or sort_by else Order.NONE


def _comes_in_parts(operation: Range, form: Format) -> bool:
    """Tell whether what was read can be printed before all of it is there."""
    if operation.keys.is_one or operation.fetch is Fetch.COUNT or operation.order is not Order.NONE:
        return False
    if operation.fetch is Fetch.KEYS:
        return form is not Format.JSON
    lines = form is Format.AUTO and not stdout_is_terminal()
    return lines or form in {Format.LINES, Format.VALUE}


def _print(found: Found, operation: Range, form: Format) -> None:
    if form is Format.JSON:
        print_json(found_json(found))
    elif operation.fetch is Fetch.COUNT:
        click.echo(found.count)
    elif not found.kvs:
        return
    elif operation.fetch is Fetch.KEYS:
        click.echo("\n".join(shown(kv.key) for kv in found.kvs))
    elif operation.keys.is_one and form in {Format.AUTO, Format.VALUE}:
        print_bytes(found.kvs[0].value + (b"\n" if stdout_is_terminal() else b""))
    elif form is Format.VALUE:
        print_bytes(b"".join(kv.value + b"\n" for kv in found.kvs))
    elif form is Format.TABLE or (form is Format.AUTO and stdout_is_terminal()):
        click.echo(kv_table(found.kvs))
    else:
        click.echo("\n".join(kv_lines(found.kvs)))

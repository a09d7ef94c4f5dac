"""`kvsecure history`: the versions that are kept of a key.

Owns: the command's options and the form of its table.
Never: prints a value that was not asked for.
"""

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table
from kvsecure.cli.points import time_text
from kvsecure.cli.texts import bytes_of_argument, id_text, json_bytes, shown

if TYPE_CHECKING:
    from kvsecure.client.versions import Version

__all__ = ["history"]


@click.command(
    epilog=example(
        "kvsecure history /app/db/password",
        "kvsecure history /app/colour --limit 3 --values --format json",
    )
)
@click.argument("key")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many versions.")
@click.option("--values", is_flag=True, help="Print the values as well.")
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def history(invocation: Invocation, *, key: str, limit: int, values: bool, form: Format) -> None:
    """Versions of a key, newest first.

    A deletion is a line of its own. How far back it goes is a matter of compaction and of the
    retention policies (`kvsecure retention`). Times are those of writing, to the second.
    """
    name = bytes_of_argument(key)
    if not name:
        raise click.UsageError("KEY is empty")
    with invocation.client(f"read {shown(name)}") as client:
        found = client.versions.history(name, limit=limit, values=values)
        versions = list(islice(found, limit or None))
    if form is Format.JSON:
        print_json({"versions": [_json(each, values=values) for each in versions]})
    elif versions:
        _print(versions, values=values)
    if not versions:
        raise CommandFailure(f"no version of {shown(name)} is kept")


def _print(versions: "list[Version]", *, values: bool) -> None:
    heads = ["REVISION", "VERSION", "TIME", "BYTES", "LEASE"]
    rows = []
    for each in versions:
        row = [str(each.mod_revision), "deleted", time_text(each.time_s), "", ""]
        if not each.is_deleted:
            lease = id_text(each.lease) if each.lease else ""
            row[1], row[3:] = str(each.version), [str(each.value_bytes), lease]
        rows.append([*row, shown(each.value)] if values else row)
    print_table([*heads, "VALUE"] if values else heads, rows)


def _json(version: "Version", *, values: bool) -> dict[str, Any]:
    known = {
        "mod_revision": version.mod_revision,
        "time": time_text(version.time_s) if version.time_s else None,
        "deleted": version.is_deleted,
    }
    if version.is_deleted:
        return known
    return {
        **known,
        "create_revision": version.create_revision,
        "version": version.version,
        "lease": id_text(version.lease) if version.lease else None,
        "value_bytes": version.value_bytes,
        **(json_bytes("value", version.value) if values else {}),
    }

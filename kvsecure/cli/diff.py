"""`kvsecure diff`: what became of a key, or of many, between two points.

Owns: the command's options and the form of differences.
Never: prints values of many keys that were not asked for, or control characters of any.
"""

import difflib
import time
from typing import TYPE_CHECKING

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.cli.points import Point, read_point, revision_of, time_text, version_at
from kvsecure.cli.texts import bytes_of_argument, described, shown

if TYPE_CHECKING:
    from kvsecure.client import Client, Keys, KeyValue
    from kvsecure.client.versions import Version

__all__ = ["diff"]


@click.command(
    epilog=example(
        "kvsecure diff /app/config",
        "kvsecure diff /app/config --from v3 --to v5",
        "kvsecure diff --prefix /app/ --from '1d ago'",
    )
)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="List the keys that begin with KEY and changed.")
@click.option("--from", "first", metavar="POINT", help="The older side; the version before.")
@click.option("--to", "second", metavar="POINT", help="The newer side; what is there now.")
@click.option("--values", is_flag=True, help="With --prefix: the differences of values as well.")
@pass_invocation
def diff(
    invocation: Invocation,
    *,
    key: str,
    prefix: bool,
    first: str | None,
    second: str | None,
    values: bool,
) -> None:
    """What changed in between.

    POINT is a revision, the number of a version as v3, or a time: RFC 3339, or how long ago, like
    '2h ago'. Text is compared line by line; of values that are no text the sizes are told. Nothing
    is printed where nothing differs. With --prefix the keys that were added (A), changed (M) and
    removed (D) are listed.
    """
    from kvsecure.client.keys import Keys

    now_s = time.time()
    before = None if first is None else read_point(first, now_s)
    after = None if second is None else read_point(second, now_s)
    name = bytes_of_argument(key)
    if prefix:
        if before is None:
            raise click.UsageError("--prefix needs --from")
        keys = Keys.prefix(name)
        with invocation.client(f"read {described(*keys)}") as client:
            _many(client, keys, before, after, values=values)
        return
    if not name:
        raise click.UsageError("KEY is empty: for every key give --prefix as well")
    with invocation.client(f"read {shown(name)}") as client:
        old, new = _sides(client, name, before, after)
    _print_lines(_value(old), _value(new), _label(name, old), _label(name, new))


def _sides(
    client: "Client", key: bytes, before: Point | None, after: Point | None
) -> "tuple[Version | None, Version | None]":
    """Return the two versions that are compared."""
    if after is None:
        new = next(client.versions.history(key, limit=1), None)
    else:
        new = version_at(client, key, revision_of(client, after, key))
    if before is not None:
        return version_at(client, key, revision_of(client, before, key)), new
    if new is None:
        raise CommandFailure(f"no version of {shown(key)} is kept")
    earlier = client.versions.history(key, limit=1, before_revision=new.mod_revision)
    return next(earlier, None), new


def _many(
    client: "Client", keys: "Keys", before: Point, after: Point | None, *, values: bool
) -> None:
    from kvsecure.client.restoring import Change, differences

    first = revision_of(client, before, None)
    if after is None:
        second = client.kv.range(keys, limit=1).header.revision
    else:
        second = revision_of(client, after, None)
    marks = {Change.ADDED: "A", Change.CHANGED: "M", Change.REMOVED: "D"}
    for found in differences(client, keys, first, second):
        click.echo(f"{marks[found.change]}\t{shown(found.key)}")
        if values:
            old, new = found.before, found.after
            labels = [f"{shown(found.key)}@{at}" for at in (first, second)]
            _print_lines(_content(old), _content(new), labels[0], labels[1])


def _content(kv: "KeyValue | None") -> bytes | None:
    return None if kv is None else kv.value


def _value(version: "Version | None") -> bytes | None:
    return None if version is None or version.is_deleted else version.value


def _label(key: bytes, version: "Version | None") -> str:
    if version is None:
        return f"{shown(key)} (nothing)"
    deleted = " (deleted)" if version.is_deleted else ""
    return f"{shown(key)}@{version.mod_revision} {time_text(version.time_s)}{deleted}"


def _print_lines(old: bytes | None, new: bytes | None, before: str, after: str) -> None:
    if old == new:
        return
    texts = [_text(old), _text(new)]
    if texts[0] is None or texts[1] is None:
        click.echo(f"binary differs: {_size(old)} in {before}, {_size(new)} in {after}")
        return
    found = difflib.unified_diff(_lines(texts[0]), _lines(texts[1]), before, after, lineterm="")
    click.echo("\n".join(found))
    if texts[0].endswith("\n") != texts[1].endswith("\n"):
        which = before if texts[1].endswith("\n") else after
        click.echo(f"\\ no newline at the end of {which}")


def _text(value: bytes | None) -> str | None:
    """Return a value's text, None if it is none."""
    try:
        text = (value or b"").decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _lines(text: str) -> list[str]:
    lines = [shown(line.encode()) for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _size(value: bytes | None) -> str:
    return "nothing" if value is None else f"{len(value)} bytes"

"""`kvsecure watch`: print changes as they happen.

Owns: the command's options and the form of its lines.
Never: holds back a change until there are more.
"""

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, chosen_keys, example, format_option, key_options
from kvsecure.cli.output import event_json, print_bytes, print_json
from kvsecure.cli.texts import described, shown
from kvsecure.client.errors import CompactedError
from kvsecure.client.watch import Event, EventType, WatchBatch

__all__ = ["watch"]


@click.command(
    epilog=example(
        "kvsecure watch --prefix /app/",
        "kvsecure watch --prefix /app/ --rev 7 --format json",
    )
)
@key_options
@click.option(
    "--rev", "revision", type=click.IntRange(min=0), default=0, metavar="REV", help="Begin there."
)
@click.option("--prev-kv", is_flag=True, help="Print what was there before as well.")
@click.option("--progress", is_flag=True, help="Print now and then how far the server is.")
@format_option(Format.LINES, Format.VALUE, Format.JSON)
@pass_invocation
def watch(
    invocation: Invocation,
    *,
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    revision: int,
    prev_kv: bool,
    progress: bool,
    form: Format,
) -> None:
    """Print changes as they happen, until Ctrl-C.

    Lines are PUT, key and value, or DELETE and key, with tabs between; --prev-kv appends the value
    of before. After a lost connection the watch goes on where it was: nothing is missed, nothing
    comes twice. In JSON each batch of changes is one line: {"revision": N, "events": [...]}.
    """
    keys = chosen_keys(key=key, end=end, prefix=prefix, from_key=from_key)
    with (
        invocation.client(f"watch {described(*keys)}") as client,
        client.watch(keys, start_revision=revision, previous=prev_kv, progress=progress) as changes,
    ):
        try:
            for batch in changes:
                _print(batch, form, prev_kv=prev_kv)
        except CompactedError as error:
            raise CommandFailure(
                error.text, hint=f"the oldest revision there is: --rev {error.compact_revision}"
            ) from None


def _print(batch: WatchBatch, form: Format, *, prev_kv: bool) -> None:
    if form is Format.JSON:
        events = [event_json(event) for event in batch.events]
        print_json({"revision": batch.revision, "events": events})
    elif form is Format.VALUE:
        puts = (event.kv.value for event in batch.events if event.type is EventType.PUT)
        print_bytes(b"".join(value + b"\n" for value in puts))
    else:
        lines = [_line(event, prev_kv=prev_kv) for event in batch.events]
        click.echo("\n".join(lines or [f"PROGRESS\t{batch.revision}"]))


def _line(event: Event, *, prev_kv: bool) -> str:
    parts = [event.type.value, shown(event.kv.key)]
    if event.type is EventType.PUT:
        parts.append(shown(event.kv.value))
    if prev_kv:
        parts.append(shown(event.previous.value) if event.previous is not None else "")
    return "\t".join(parts)

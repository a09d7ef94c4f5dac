"""`kvsecure audit`: check the trail, read it, keep its head.

Owns: what the answers look like, and the exit status that scripts go by.
Never: prints a value, because no record has one.
"""

import base64
import binascii
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.kek_options import KekChoice, kek_options, kek_settings
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_bytes, print_json, print_table
from kvsecure.cli.texts import id_text

if TYPE_CHECKING:
    from kvsecure.client.audit import ToldHead
    from kvsecure.server.audit_verify import Checkpoint

__all__ = ["audit"]

_CANNOT_CHECK: Final = 2
_TAIL_COUNT: Final = 20


@click.group(epilog=example("kvsecure audit verify", "kvsecure audit tail --follow"))
def audit() -> None:
    """Verify and read the audit trail."""


@audit.command(
    epilog=example(
        "kvsecure audit verify",
        "kvsecure audit verify --data-dir /var/lib/kvsecure --kek-file kek --checkpoint head.json",
    )
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The member's data directory; the context's if it is not given.",
)
@kek_options
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What `kvsecure audit head` or `heads --format json` gave: finds out what was cut off.",
)
@click.option("--public-key", metavar="BASE64", help="Who must have signed the checkpoints.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def verify(
    invocation: Invocation,
    *,
    data_dir: Path | None,
    kek: KekChoice,
    checkpoint: Path | None,
    public_key: str | None,
    form: Format,
) -> None:
    """Check every record of a member's trail, from its files.

    Exit status 0: every record is there and right. 1: the first record that is not is named. 2: the
    trail cannot be checked.
    """
    from kvsecure.server.audit_verify import BrokenTrail, StorageError
    from kvsecure.server.audit_verify import verify as verify_trail

    context = invocation.context()
    directory = data_dir or (Path(context.data_dir) if context.data_dir else None)
    if directory is None:
        raise click.UsageError("--data-dir is needed: the context names none")
    settings = kek_settings(kek, Path(context.kek_file) if context.kek_file else None)
    if settings is None:
        raise click.UsageError("--kek-file is needed: the context names none")
    try:
        kept = _checkpoints(checkpoint) if checkpoint else []
        report = verify_trail(directory, settings, kept, _key(public_key))
    except BrokenTrail as broken:
        if form is Format.JSON:
            print_json({"ok": False, "record": broken.seq, "why": broken.why})
        raise CommandFailure(f"audit trail broken at {broken}") from None
    except StorageError as error:
        raise CommandFailure(str(error), status=_CANNOT_CHECK) from None
    head = report.head
    if form is Format.JSON:
        print_json(
            {
                "ok": True,
                "stream": report.stream,
                "first_record": report.first_seq,
                "records": report.record_count,
                "checkpoints": report.checkpoint_count,
                "head": {"record": head.seq, "hash": head.hash.hex()},
                "unfinished_bytes": report.unfinished_bytes,
                "checked_against_checkpoint": bool(kept),
            }
        )
        return
    click.echo(
        f"ok: {report.record_count} records, {report.checkpoint_count} checkpoints, "
        f"head {head.hash.hex()} (record {head.seq} of {report.stream})"
    )
    if report.first_seq > 1:
        click.echo(
            f"note: records 1 to {report.first_seq - 1} are not here: archived, or taken away",
            err=True,
        )
    if report.unfinished_bytes:
        click.echo(f"note: {report.unfinished_bytes} bytes at the end are still being written")
    if not kept:
        click.echo(
            "note: records missing at the very end, or a trail that was rewritten as a whole, show "
            "only against a head that was kept elsewhere (--checkpoint)",
            err=True,
        )


@audit.command(epilog=example("kvsecure audit tail", "kvsecure audit tail --count 100 --follow"))
@click.option("--count", "-n", default=_TAIL_COUNT, show_default=True, help="How many records.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new records until Ctrl-C.")
@pass_invocation
def tail(invocation: Invocation, *, count: int, follow: bool) -> None:
    """Print the newest records, one JSON object a line. Reading them is recorded too."""
    with invocation.client("read the audit trail") as client:
        for record in client.audit.tail(count, follow=follow):
            print_bytes(record + b"\n")


@audit.command(epilog=example("kvsecure audit head > head.json"))
@pass_invocation
def head(invocation: Invocation) -> None:
    """Print the trail's signed head, to be kept where its administrators cannot change it."""
    with invocation.client("read the audit trail") as client:
        newest = client.audit.head()
    print_json(
        {
            "stream": newest.stream,
            "seq": newest.seq,
            "hash": newest.hash.hex(),
            "signature": base64.b64encode(newest.signature).decode(),
            "public_key": base64.b64encode(newest.public_key).decode(),
        }
    )


@audit.command(
    epilog=example("kvsecure audit heads", "kvsecure audit heads --format json > heads.json")
)
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def heads(invocation: Invocation, *, form: Format) -> None:
    """Print how far each member has told the cluster that its trail is.

    It is what the member that is asked has heard: of a member's trail it is worth most from
    another one. With a record of a member's that is LOST its trail was cut off or rewritten.
    """
    with invocation.client("read the audit trail") as client:
        told = client.audit.heads()
    if form is Format.JSON:
        print_json({"heads": [_head_form(each) for each in told]})
        return
    rows = [
        [
            id_text(each.member_id),
            each.name,
            str(each.seq) if each.seq else "",
            _time(each.time_s) if each.seq else "",
            each.hash.hex(),
            "LOST" if each.is_missing else "",
        ]
        for each in told
    ]
    print_table(["MEMBER", "NAME", "RECORD", "TOLD", "HASH", ""], rows)


def _head_form(told: "ToldHead") -> dict[str, Any]:
    return {
        "member_id": id_text(told.member_id),
        "name": told.name,
        "stream": told.stream,
        "seq": told.seq,
        "hash": told.hash.hex(),
        "signature": base64.b64encode(told.signature).decode(),
        "told": _time(told.time_s) if told.seq else None,
        "lost": told.is_missing,
    }


def _time(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        # A member may say anything of its clock.
        return str(time_s)


def _checkpoints(path: Path) -> "list[Checkpoint]":
    """Return the heads of a file; members that have told nothing are left out."""
    try:
        content = json.loads(path.read_bytes())
        several = "heads" in content
        forms = content["heads"] if several else [content]
        found = [_checkpoint(each) for each in forms if not several or each["seq"]]
    except OSError as error:
        raise CommandFailure(f"{path}: {error.strerror}", status=_CANNOT_CHECK) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, binascii.Error):
        raise CommandFailure(
            f"{path} is not what `kvsecure audit head` or `heads` prints", status=_CANNOT_CHECK
        ) from None
    if not found:
        raise CommandFailure(f"{path} has no head of any trail", status=_CANNOT_CHECK)
    return found


def _checkpoint(fields: dict[str, Any]) -> "Checkpoint":
    from kvsecure.server.audit_verify import Checkpoint

    return Checkpoint(
        stream=str(fields["stream"]),
        seq=int(fields["seq"]),
        hash=bytes.fromhex(fields["hash"]),
        signature=base64.b64decode(fields["signature"], validate=True),
    )


def _key(encoded: str | None) -> bytes | None:
    if encoded is None:
        return None
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise click.UsageError("--public-key is 32 bytes in base64")
    return key

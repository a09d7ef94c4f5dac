"""`kvsecure crypto`: the keys that everything is sealed under.

Owns: what the answers look like; waiting for what takes long.
Never: sees a key, or retires one without being told which.
"""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.inputs import stdin_is_terminal
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table

if TYPE_CHECKING:
    from kvsecure.client.crypto import CryptoStatus, KeyTerm

__all__ = ["crypto"]

_LOOK_EVERY_S: Final = 0.5
_ATTEMPT: Final = "manage keys"
_DAY_S: Final = 86_400


@click.group(epilog=example("kvsecure crypto status", "kvsecure crypto rotate"))
def crypto() -> None:
    """Keys that everything is sealed under."""


@crypto.command(epilog=example("kvsecure crypto status", "kvsecure crypto status --format json"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def status(invocation: Invocation, *, form: Format) -> None:
    """Print the data keys, their ages, and what is sealed under each."""
    with invocation.client(_ATTEMPT) as client:
        found = client.crypto.status(count=True)
    if form is Format.JSON:
        print_json(_status_json(found))
        return
    _print(found)


@crypto.command(epilog=example("kvsecure crypto rotate", "kvsecure crypto rotate --kek"))
@click.option(
    "--kek",
    is_flag=True,
    help="Wrap the keys under the key-encryption key that the server's flags lead to now.",
)
@pass_invocation
def rotate(invocation: Invocation, *, kek: bool) -> None:
    """Make a new data key, which everything is sealed under from now on.

    What is there already stays under older ones until `kvsecure crypto reencrypt`.
    """
    with invocation.client(_ATTEMPT) as client:
        rotated = client.crypto.rotate(kek=kek)
    if kek:
        click.echo(f"wrapped by key-encryption key {rotated.kek_id} ({rotated.provider})")
    else:
        click.echo(f"term {rotated.term}: everything new is sealed under it")


@crypto.command(
    epilog=example("kvsecure crypto reencrypt", "kvsecure crypto reencrypt --rows-per-second 2000")
)
@click.option(
    "--rows-per-second",
    type=click.IntRange(min=1, max=1_000_000),
    default=10_000,
    show_default=True,
    help="How fast at most.",
)
@click.option("--no-wait", is_flag=True, help="Begin, and do not wait for the end.")
@pass_invocation
def reencrypt(invocation: Invocation, *, rows_per_second: int, no_wait: bool) -> None:
    """Seal everything under the newest data key, and count that nothing is left.

    The server goes on by itself if this command ends, and after a restart.
    """
    from kvsecure.client.crypto import State

    with invocation.client(_ATTEMPT) as client:
        progress = client.crypto.reencrypt(rows_per_second)
        if no_wait:
            click.echo(f"begun: everything is going under term {progress.term}")
            return
        while progress.state is State.RUNNING:
            # A person watches; the server needs nobody to.
            time.sleep(_LOOK_EVERY_S)
            progress = client.crypto.status(count=False).progress
        found = client.crypto.status(count=True)
    if progress.state is not State.DONE:
        raise CommandFailure(f"not done: {progress.why}")
    _print(found)
    old = [term for term in found.terms if not term.is_current]
    left = sum(term.in_use_count for term in old)
    if left:
        raise CommandFailure(f"{left} rows and segments are under older terms", hint="again")
    click.echo(
        f"ok: {progress.row_count} rows sealed anew; nothing of tables and log is under a term "
        f"before {progress.term}"
    )


@crypto.command(epilog=example("kvsecure crypto retire 1"))
@click.argument("term", metavar="TERM", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def retire(invocation: Invocation, *, term: int, yes: bool) -> None:
    """Destroy a data key under which nothing is sealed any more but the audit trail.

    Refused while anything of tables and log is found under it. Copies of the data directory that
    are older than the end of `kvsecure crypto reencrypt` have it in their own keyring.
    """
    if not yes:
        if not stdin_is_terminal():
            raise click.UsageError("no terminal to ask on: give --yes to retire without a question")
        if not click.confirm(f"Destroy the data key of term {term}?", err=True):
            raise CommandFailure("nothing was retired")
    with invocation.client(_ATTEMPT) as client:
        client.crypto.retire(term)
    click.echo(f"term {term} is retired: its key is destroyed")


def _print(found: "CryptoStatus") -> None:
    name = f", {found.kms_key_id}" if found.kms_key_id else ""
    click.echo(f"key-encryption key {found.kek_id} ({found.provider}{name})")
    rows = [
        [
            str(term.term),
            _state(term),
            _made(term.made_s),
            _age(term.made_s),
            *(
                str(count)
                for count in (
                    term.record_rows,
                    term.index_rows,
                    term.state_rows,
                    term.log_segments,
                    term.audit_segments,
                )
            ),
        ]
        for term in found.terms
    ]
    heads = ["TERM", "STATE", "MADE", "AGE", "RECORDS", "INDEX", "ROWS OF STATE"]
    print_table([*heads, "LOG FILES", "AUDIT FILES"], rows)
    progress = found.progress
    if progress.state.value != "none":
        why = f": {progress.why}" if progress.why else ""
        click.echo(
            f"re-encryption to term {progress.term}: {progress.state.value}, "
            f"{progress.row_count} rows{why}"
        )


def _state(term: "KeyTerm") -> str:
    if term.is_current:
        return "current"
    if term.is_retired:
        return "retired"
    return "in use" if term.in_use_count else "unused"


def _made(made_s: int) -> str:
    if not made_s:
        return "unknown"
    return datetime.fromtimestamp(made_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _age(made_s: int) -> str:
    return f"{max(int(time.time()) - made_s, 0) // _DAY_S} days" if made_s else "unknown"


def _status_json(found: "CryptoStatus") -> dict[str, Any]:
    progress = found.progress
    return {
        "provider": found.provider,
        "kek_id": found.kek_id,
        "kms_key_id": found.kms_key_id,
        "terms": [
            {
                "term": term.term,
                "state": _state(term),
                "made_s": term.made_s,
                "record_rows": term.record_rows,
                "index_rows": term.index_rows,
                "state_rows": term.state_rows,
                "log_segments": term.log_segments,
                "audit_segments": term.audit_segments,
            }
            for term in found.terms
        ],
        "reencryption": {
            "state": progress.state.value,
            "term": progress.term,
            "rows": progress.row_count,
            "rows_per_second": progress.rows_per_second,
            "why": progress.why,
        },
    }

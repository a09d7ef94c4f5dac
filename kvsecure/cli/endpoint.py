"""`kvsecure endpoint`: health, status and hashes of members.

Owns: the commands that ask each endpoint by itself.
Never: says that an endpoint is fine because another one is.
"""

from typing import Any

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import header_json, print_json, print_table
from kvsecure.cli.texts import id_text
from kvsecure.client.maintenance import Status

__all__ = ["endpoint"]


@click.group(epilog=example("kvsecure endpoint health", "kvsecure endpoint status"))
def endpoint() -> None:
    """Health, status and hashes of members."""


@endpoint.command(
    epilog=example("kvsecure endpoint health", "kvsecure --endpoint a:2379,b:2379 endpoint health")
)
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def health(invocation: Invocation, *, form: Format) -> None:
    """Tell whether each endpoint works; exit status 1 if one does not.

    An endpoint works when it decides a linearizable read and no alarm is raised.
    """
    with invocation.client("ask for health") as client:
        found = list(client.maintenance.every_health())
    if form is Format.JSON:
        print_json(
            {
                "endpoints": [
                    {
                        "endpoint": str(each.endpoint),
                        "healthy": each.healthy,
                        "took_s": round(each.took_s, 6),
                        "error": each.error,
                    }
                    for each in found
                ]
            }
        )
    else:
        for each in found:
            state = "is healthy" if each.healthy else f"is unhealthy: {each.error}"
            click.echo(f"{each.endpoint} {state} ({1000 * each.took_s:.1f} ms)")
    sick = sum(not each.healthy for each in found)
    if sick:
        raise CommandFailure(f"{sick} of {len(found)} endpoints unhealthy")


@endpoint.command(epilog=example("kvsecure endpoint status"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def status(invocation: Invocation, *, form: Format) -> None:
    """Print the status of each endpoint."""
    with invocation.client("ask for the status") as client:
        found = list(client.maintenance.every_status())
    if form is Format.JSON:
        print_json({"endpoints": [_status_json(each) for each in found]})
        return
    columns = [
        "ENDPOINT",
        "ID",
        "VERSION",
        "DB SIZE",
        "LEADER",
        "TERM",
        "INDEX",
        "APPLIED",
        "ERRORS",
    ]
    print_table(columns, [_row(each) for each in found])


@endpoint.command(
    epilog=example("kvsecure --timeout 60 endpoint hashkv", "kvsecure endpoint hashkv --rev 1000")
)
@click.option(
    "--rev",
    "revision",
    type=click.IntRange(min=0),
    default=0,
    metavar="REV",
    help="Leave out what is newer than revision REV.",
)
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def hashkv(invocation: Invocation, *, revision: int, form: Format) -> None:
    """Print the hash of all keys, past versions included, of each endpoint.

    Members that hold the same have the same hash, if they are asked with the same --rev and have
    compacted the same. All that is stored is read and checked for it: give it time.
    """
    with invocation.client("hash the keys") as client:
        found = list(client.maintenance.every_versions_hash(revision))
    if form is Format.JSON:
        forms = [
            {
                "endpoint": str(each.endpoint),
                "header": header_json(each.header),
                "hash": each.hash,
                "hash_revision": each.hash_revision,
                "compact_revision": each.compact_revision,
            }
            for each in found
        ]
        print_json({"endpoints": forms})
        return
    for each in found:
        click.echo(f"{each.endpoint}\t{each.hash:08x}\trevision {each.hash_revision}")


def _row(found: Status) -> list[str]:
    leads = found.leader == found.header.member_id
    return [
        str(found.endpoint),
        id_text(found.header.member_id),
        found.version,
        f"{found.size_bytes / 1024:.0f} kB",
        "yes" if leads else "no",
        str(found.header.raft_term),
        str(found.raft_index),
        str(found.raft_applied_index),
        ", ".join(found.errors),
    ]


def _status_json(found: Status) -> dict[str, Any]:
    return {
        "endpoint": str(found.endpoint),
        "header": header_json(found.header),
        "version": found.version,
        "size_bytes": found.size_bytes,
        "size_in_use_bytes": found.size_in_use_bytes,
        "leader": id_text(found.leader) if found.leader else None,
        "is_leader": found.leader == found.header.member_id,
        "is_learner": found.is_learner,
        "raft_index": found.raft_index,
        "raft_applied_index": found.raft_applied_index,
        "errors": list(found.errors),
    }

"""`kvsecure retention`: what compactions leave of the past.

Owns: the commands on retention policies; for the root of a tenant.
Never: compacts anything.
"""

from typing import Any

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table
from kvsecure.cli.texts import bytes_of_argument, json_bytes, shown

__all__ = ["retention"]

_UNITS: tuple[tuple[str, int], ...] = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_ATTEMPT = "manage retention policies"


@click.group(
    epilog=example(
        "kvsecure retention set /app/ --keep-versions 10 --keep-for 30d", "kvsecure retention list"
    )
)
def retention() -> None:
    """Versions that compaction keeps.

    A version stays as long as one of the two says so. The longest prefix of a key counts, and for
    keys without a policy what etcd keeps.
    """


@retention.command(
    name="set",
    epilog=example(
        "kvsecure retention set /app/ --keep-versions 10 --keep-for 30d",
        "kvsecure retention set '' --keep-for 7d",
    ),
)
@click.argument("prefix")
@click.option(
    "--keep-versions",
    type=click.IntRange(min=1, max=1_000_000),
    metavar="N",
    help="The newest N versions, the present one included.",
)
@click.option(
    "--keep-for", metavar="DURATION", help="Versions superseded or deleted less than this ago."
)
@pass_invocation
def set_(
    invocation: Invocation, *, prefix: str, keep_versions: int | None, keep_for: str | None
) -> None:
    """Keep versions of the keys that begin with PREFIX.

    PREFIX may be empty, for every key. Of a deleted key the last version before the deletion counts
    as its newest. The next compaction acts on it; what was compacted before is gone.
    """
    from kvsecure.cli.points import read_duration
    from kvsecure.client.versions import Retention

    if keep_versions is None and keep_for is None:
        raise click.UsageError("give --keep-versions, --keep-for or both")
    policy = Retention(
        prefix=bytes_of_argument(prefix),
        keep_versions=keep_versions or 0,
        keep_for_s=read_duration(keep_for) if keep_for is not None else 0,
    )
    if keep_for is not None and not policy.keep_for_s:
        raise click.UsageError("--keep-for is no time at all")
    with invocation.client(_ATTEMPT) as client:
        client.versions.retain(policy)
    click.echo(f"compactions keep {_said(policy.keep_versions, policy.keep_for_s)}")


@retention.command(name="list", epilog=example("kvsecure retention list"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the policies."""
    with invocation.client(_ATTEMPT) as client:
        policies = client.versions.retention()
    if form is Format.JSON:
        listed: list[dict[str, Any]] = [
            {
                **json_bytes("prefix", policy.prefix),
                "keep_versions": policy.keep_versions,
                "keep_for_s": policy.keep_for_s,
            }
            for policy in policies
        ]
        print_json({"policies": listed})
        return
    rows = [
        [
            shown(policy.prefix) or "(every key)",
            str(policy.keep_versions or ""),
            _duration(policy.keep_for_s),
        ]
        for policy in policies
    ]
    print_table(["PREFIX", "VERSIONS", "FOR"], rows)


@retention.command(epilog=example("kvsecure retention delete /app/"))
@click.argument("prefix")
@pass_invocation
def delete(invocation: Invocation, *, prefix: str) -> None:
    """Delete the policy of PREFIX; the next compaction gives up what only it has kept."""
    with invocation.client(_ATTEMPT) as client:
        client.versions.stop_retaining(bytes_of_argument(prefix))
    click.echo("policy deleted")


def _said(versions: int, for_s: int) -> str:
    parts = []
    if versions:
        parts.append(f"the newest {versions} versions")
    if for_s:
        parts.append(f"versions superseded or deleted less than {_duration(for_s)} ago")
    return " and ".join(parts)


def _duration(seconds: int) -> str:
    """Return a duration as it may be written; nothing for none."""
    parts = []
    for unit, unit_s in _UNITS:
        count, seconds = divmod(seconds, unit_s)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)

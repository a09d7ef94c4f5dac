"""`kvsecure lease`: keys that die together unless somebody renews.

Owns: the commands on leases; ids are hexadecimal, as etcdctl writes them.
Never: keeps a lease alive longer than it runs.
"""

from collections.abc import Iterator
from itertools import islice

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option, lease_id
from kvsecure.cli.output import header_json, print_json
from kvsecure.cli.texts import id_text, json_bytes, shown

__all__ = ["lease"]

_lease_id = click.argument("lease_id", callback=lease_id, metavar="ID")


@click.group(
    epilog=example(
        "kvsecure lease grant 60", "kvsecure put /app/alive yes --lease 694d81417acd4f0a"
    )
)
def lease() -> None:
    """Keys that die together unless somebody renews."""


@lease.command(epilog=example("kvsecure lease grant 60"))
@click.argument("ttl_s", type=click.IntRange(min=1), metavar="SECONDS")
@click.option("--id", "lease_id", callback=lease_id, metavar="ID", help="Use this id.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def grant(invocation: Invocation, *, ttl_s: int, lease_id: int, form: Format) -> None:
    """Make a lease that lives for SECONDS, and print its id."""
    with invocation.client("grant leases") as client:
        granted = client.lease.grant(ttl_s, lease=lease_id)
    if form is Format.JSON:
        print_json(
            {
                "header": header_json(granted.header),
                "lease": id_text(granted.lease),
                "ttl_s": granted.ttl_s,
            }
        )
        return
    click.echo(f"lease {id_text(granted.lease)} granted with TTL({granted.ttl_s}s)")


@lease.command(epilog=example("kvsecure lease revoke 694d81417acd4f0a"))
@_lease_id
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def revoke(invocation: Invocation, *, lease_id: int, form: Format) -> None:
    """End a lease and delete its keys."""
    with invocation.client(f"revoke lease {id_text(lease_id)}") as client:
        revoked = client.lease.revoke(lease_id)
    if form is Format.JSON:
        print_json({"header": header_json(revoked.header), "lease": id_text(lease_id)})
        return
    click.echo(f"lease {id_text(lease_id)} revoked")


@lease.command(epilog=example("kvsecure lease ttl 694d81417acd4f0a --keys"))
@_lease_id
@click.option("--keys", is_flag=True, help="Print its keys as well.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def ttl(invocation: Invocation, *, lease_id: int, keys: bool, form: Format) -> None:
    """Print how long a lease has left; one that is gone is an error (exit status 1)."""
    with invocation.client(f"look at lease {id_text(lease_id)}") as client:
        state = client.lease.ttl(lease_id, keys=keys)
    if state is None:
        raise CommandFailure(f"lease {id_text(lease_id)} is unknown or has expired")
    if form is Format.JSON:
        print_json(
            {
                "header": header_json(state.header),
                "lease": id_text(state.lease),
                "ttl_s": state.ttl_s,
                "granted_ttl_s": state.granted_ttl_s,
                "keys": [json_bytes("key", key) for key in state.keys],
            }
        )
        return
    click.echo(
        f"lease {id_text(state.lease)} granted with TTL({state.granted_ttl_s}s), "
        f"remaining({state.ttl_s}s)"
    )
    for key in state.keys:
        click.echo(shown(key))


@lease.command(name="list", epilog=example("kvsecure lease list"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the ids of all leases."""
    with invocation.client("list leases") as client:
        leases = client.lease.list()
    if form is Format.JSON:
        print_json({"leases": [id_text(each) for each in leases]})
        return
    for each in leases:
        click.echo(id_text(each))


@lease.command(epilog=example("kvsecure lease keep-alive 694d81417acd4f0a"))
@_lease_id
@click.option("--once", is_flag=True, help="Renew it once instead of until Ctrl-C.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def keep_alive(invocation: Invocation, *, lease_id: int, once: bool, form: Format) -> None:
    """Renew a lease every third of its life, until Ctrl-C."""
    with invocation.client(f"renew lease {id_text(lease_id)}") as client:
        renewals: Iterator[int] = client.lease.keep_alive(lease_id)
        for ttl_s in islice(renewals, 1 if once else None):
            if form is Format.JSON:
                print_json({"lease": id_text(lease_id), "ttl_s": ttl_s})
            else:
                click.echo(f"lease {id_text(lease_id)} kept alive with TTL({ttl_s})")

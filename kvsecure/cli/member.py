"""`kvsecure member`: members of the cluster.

Owns: the command that lists them.
Never: changes who is a member.
"""

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table
from kvsecure.cli.texts import id_text

__all__ = ["member"]


@click.group(epilog=example("kvsecure member list"))
def member() -> None:
    """Members of the cluster."""


@member.command(name="list", epilog=example("kvsecure member list"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the members of the cluster."""
    with invocation.client("list members") as client:
        members = client.maintenance.members()
    if form is Format.JSON:
        forms = [
            {
                "id": id_text(each.member_id),
                "name": each.name,
                "peer_urls": list(each.peer_urls),
                "client_urls": list(each.client_urls),
                "is_learner": each.is_learner,
            }
            for each in members
        ]
        print_json({"members": forms})
        return
    rows = [
        [
            id_text(each.member_id),
            "started" if each.name else "unstarted",
            each.name,
            ", ".join(each.peer_urls),
            ", ".join(each.client_urls),
            "yes" if each.is_learner else "no",
        ]
        for each in members
    ]
    print_table(["ID", "STATUS", "NAME", "PEER ADDRESSES", "CLIENT ADDRESSES", "LEARNER"], rows)

"""`kvsecure member` and `kvsecure move-leader`: who is a member, and who leads.

Owns: the commands that list and change members, and what they print of them.
Never: starts or stops a member.
Follows: etcdctl's words; what `member add` prints is what the new member is started with.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table
from kvsecure.cli.texts import id_text

if TYPE_CHECKING:
    from kvsecure.client.members import Added, Changed, Member

__all__ = ["member", "move_leader"]


def _member_id(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    digits = value.lower().removeprefix("0x")
    if not 0 < len(digits) <= 16 or not set(digits) <= set("0123456789abcdef"):
        raise click.BadParameter(
            f"{value!r} is not the id of a member (up to 16 hexadecimal digits)",
            ctx=ctx,
            param=parameter,
        )
    return int(digits, 16)


def _split(_ctx: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> list[str]:
    return [url for text in value for url in text.split(",") if url]


_id = click.argument("member_id", callback=_member_id, metavar="ID")
_peer_urls = click.option(
    "--peer-urls",
    multiple=True,
    required=True,
    callback=_split,
    metavar="URL,...",
    help="Where other members reach it; repeatable.",
)


@click.group(
    epilog=example(
        "kvsecure member list",
        "kvsecure member add m2 --learner --peer-urls https://10.0.0.2:2380",
        "kvsecure member promote 8e9e05c52164694d",
        "kvsecure member remove 8e9e05c52164694d",
    )
)
def member() -> None:
    """Members of the cluster."""


@member.command(name="list", epilog=example("kvsecure member list"))
@click.option(
    "--serializable", is_flag=True, help="Let one member answer from what it has, even if old."
)
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, serializable: bool, form: Format) -> None:
    """Print the members of the cluster."""
    with invocation.client("list members") as client:
        members = client.members.list(serializable=serializable)
    if form is Format.JSON:
        print_json({"members": _forms(members)})
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


@member.command(
    epilog=example(
        "kvsecure member add m2 --peer-urls https://10.0.0.2:2380",
        "kvsecure member add m3 --learner --peer-urls https://10.0.0.3:2380",
    )
)
@click.argument("name")
@_peer_urls
@click.option("--learner", is_flag=True, help="It only follows, until it is promoted.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def add(
    invocation: Invocation, *, name: str, peer_urls: list[str], learner: bool, form: Format
) -> None:
    """Make somebody a member, and print what to start it with.

    A voter counts from now on, started or not: a cluster of one does nothing more until its second
    member is there. Add it with --learner, start it, and promote it, and there is no such wait.
    """
    with invocation.client("add a member") as client:
        added = client.members.add(peer_urls, learner=learner)
    settings = _settings(name, added)
    if form is Format.JSON:
        print_json(
            {
                "cluster_id": id_text(added.header.cluster_id),
                "member": _form(added.member),
                "members": _forms(added.members),
                "environment": settings,
            }
        )
        return
    kind = "added as learner to" if learner else "added to"
    click.echo(
        f"Member {id_text(added.member.member_id)} {kind} cluster "
        f"{id_text(added.header.cluster_id)}\n"
    )
    for variable, value in settings.items():
        click.echo(f'{variable}="{value}"')


@member.command(epilog=example("kvsecure member remove 8e9e05c52164694d"))
@_id
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def remove(invocation: Invocation, *, member_id: int, form: Format) -> None:
    """Make somebody a member no more; its process ends by itself."""
    with invocation.client("remove a member") as client:
        changed = client.members.remove(member_id)
    _print(member_id, changed, "removed from", form)


@member.command(
    epilog=example("kvsecure member update 8e9e05c52164694d --peer-urls https://10.0.0.9:2380")
)
@_id
@_peer_urls
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def update(invocation: Invocation, *, member_id: int, peer_urls: list[str], form: Format) -> None:
    """Say where other members reach a member from now on."""
    with invocation.client("update a member") as client:
        changed = client.members.update(member_id, peer_urls)
    _print(member_id, changed, "updated in", form)


@member.command(epilog=example("kvsecure member promote 8e9e05c52164694d"))
@_id
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def promote(invocation: Invocation, *, member_id: int, form: Format) -> None:
    """Let a learner vote, once it has nearly all that the leader has."""
    with invocation.client("promote a member") as client:
        changed = client.members.promote(member_id)
    _print(member_id, changed, "promoted in", form)


@click.command(epilog=example("kvsecure move-leader 8e9e05c52164694d"))
@_id
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def move_leader(invocation: Invocation, *, member_id: int, form: Format) -> None:
    """Have the leader hand over to another voting member.

    One of the endpoints has to be the leader's.
    """
    with invocation.client("move the leadership") as client:
        before = client.members.move_leader(member_id)
    if before is None:
        raise CommandFailure(
            "none of the endpoints is the leader's", hint="`kvsecure member list` has all of them"
        )
    if form is Format.JSON:
        print_json({"from": id_text(before), "to": id_text(member_id)})
    else:
        click.echo(f"Leadership transferred from {id_text(before)} to {id_text(member_id)}")


def _settings(name: str, added: "Added") -> dict[str, str]:
    """Return the variables with which a member that was added finds the cluster (etcdctl)."""
    own = added.member.member_id
    cluster = [
        f"{name if each.member_id == own else each.name}={url}"
        for each in added.members
        for url in each.peer_urls
    ]
    return {
        "ETCD_NAME": name,
        "ETCD_INITIAL_CLUSTER": ",".join(cluster),
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": ",".join(added.member.peer_urls),
        "ETCD_INITIAL_CLUSTER_STATE": "existing",
    }


def _print(member_id: int, changed: "Changed", how: str, form: Format) -> None:
    cluster = id_text(changed.header.cluster_id)
    if form is Format.JSON:
        print_json({"cluster_id": cluster, "members": _forms(changed.members)})
    else:
        click.echo(f"Member {id_text(member_id)} {how} cluster {cluster}")


def _forms(members: "Iterable[Member]") -> list[dict[str, Any]]:
    return [_form(each) for each in members]


def _form(each: "Member") -> dict[str, Any]:
    return {
        "id": id_text(each.member_id),
        "name": each.name,
        "peer_urls": list(each.peer_urls),
        "client_urls": list(each.client_urls),
        "is_learner": each.is_learner,
    }

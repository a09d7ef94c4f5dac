"""`kvsecure cluster`: a cluster of members that know each other by certificate, in few commands.

Owns: options, texts, where a join token comes from, and patience while another machine joins.
Never: takes a join token from the command line; changes anything in a directory that is complete.
"""

import os
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from kvsecure.cli.context import Context, ContextError, ContextStore, home_directory
from kvsecure.cli.failures import CommandFailure, ExitStatus
from kvsecure.cli.inputs import (
    password_from_file,
    password_from_prompt,
    password_from_stdin,
)
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import example
from kvsecure.model.errors import Failure
from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret

if TYPE_CHECKING:
    from kvsecure.cli.member_directory import Address, MemberDirectory
    from kvsecure.client.joining import Admitted

__all__ = ["cluster"]

_CLIENT_PORT: Final = 2379
_PEER_PORT: Final = 2380
_VARIABLE: Final = "KVSECURE_JOIN_TOKEN"
_FETCH_S: Final = 10.0
# The member that made the token may be on its way up.
_REACH_S: Final = 30.0
# A machine that joins is in step within seconds, unless there is very much to send.
_PATIENCE_S: Final = 120.0
# Nobody tells a newcomer when what it waits for has come; asking is cheap.
_PAUSE_S: Final = 1.0
# The token is as good as before, and a little later the answer may be another one.
_PASSING: Final = frozenset(
    {Failure.TOO_MANY_LEARNERS, Failure.UNHEALTHY, Failure.NO_LEADER, Failure.TIMEOUT}
    | {Failure.TIMEOUT_LEADER_LOST, Failure.NOT_ENOUGH_STARTED}
)

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of the member: keys, certificates, configuration, data.",
)
_name = click.option("--name", required=True, metavar="NAME", help="Name of the member.")
_hosts = click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="H",
    help="DNS name or address of this machine; repeatable, others are told the first.",
)
_client_port = click.option(
    "--client-port",
    type=click.IntRange(1, 65_535),
    default=_CLIENT_PORT,
    show_default=True,
    help="Port for clients.",
)
_peer_port = click.option(
    "--peer-port",
    type=click.IntRange(1, 65_535),
    default=_PEER_PORT,
    show_default=True,
    help="Port for other members.",
)
_no_start = click.option("--no-start", is_flag=True, help="Do not start the server: say how.")


@click.group(
    epilog=example(
        "kvsecure cluster init --dir /var/lib/kvsecure --name m1 --host 10.0.0.1",
        "kvsecure cluster join --dir /var/lib/kvsecure --name m2 --host 10.0.0.2",
        "kvsecure cluster token",
    )
)
def cluster() -> None:
    """Make a cluster, and join it by token."""


@cluster.command(
    epilog=example("kvsecure cluster init --dir /var/lib/kvsecure --name m1 --host 10.0.0.1")
)
@_directory
@_name
@_hosts
@click.option(
    "--cluster",
    "label",
    default="kvsecure",
    show_default=True,
    metavar="NAME",
    help="Label of the trust domain; no other cluster of yours should have it.",
)
@click.option(
    "--root-password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Password of root; without it a random one is made.",
)
@click.option(
    "--tokens",
    type=click.IntRange(0, 16),
    default=2,
    show_default=True,
    help="How many join tokens to make and show.",
)
@_client_port
@_peer_port
@_no_start
def init(
    *,
    directory: Path,
    name: str,
    hosts: Sequence[str],
    label: str,
    root_password_file: Path | None,
    tokens: int,
    client_port: int,
    peer_port: int,
    no_start: bool,
) -> None:
    """Make a cluster with this machine as its first member, and run the server.

    Makes an authority, certificates, a key-encryption key, a password of root and a configuration
    in --dir, and a context, so that other commands need no options here. In a directory that has
    all of it the server is just started.
    """
    from kvsecure.cli.member_directory import MemberDirectory

    place = MemberDirectory(directory)
    if place.is_complete:
        _go_on(place, start=not no_start)
    address = _address(name, hosts, client_port, peer_port)
    password = None if root_password_file is None else password_from_file(root_password_file)
    _found(place, name, address, label, password, tokens)
    _run(place, start=not no_start)


@cluster.command(
    epilog=example(
        "kvsecure cluster join --dir /var/lib/kvsecure --name m2 --host 10.0.0.2",
        "kvsecure cluster join --dir d --name m2 --host 10.0.0.2 --token-file -",
    )
)
@click.argument("rest", nargs=-1, metavar="")
@_directory
@_name
@_hosts
@click.option(
    "--token-file",
    type=click.Path(allow_dash=True, path_type=Path),
    metavar="FILE",
    help=f"The token is in FILE, - for stdin. Without it: ${_VARIABLE}, or a question.",
)
@_client_port
@_peer_port
@_no_start
def join(
    *,
    rest: Sequence[str],
    directory: Path,
    name: str,
    hosts: Sequence[str],
    token_file: Path | None,
    client_port: int,
    peer_port: int,
    no_start: bool,
) -> None:
    """Join a cluster with a token of `kvsecure cluster init` or `token`, and run the server.

    The keys are made here and stay here; the token fetches certificates for them, once. The member
    votes as soon as it is in step. In a directory that has joined the server is just started.
    """
    from kvsecure.cli.member_directory import MemberDirectory

    if rest:
        raise click.UsageError(
            "a join token is not taken from the command line, where others on this machine and the "
            "shell's history can see it: leave it out to be asked, or give --token-file"
        )
    place = MemberDirectory(directory)
    if place.is_complete:
        _go_on(place, start=not no_start)
    address = _address(name, hosts, client_port, peer_port)
    _join(place, name, address, _token(token_file))
    _run(place, start=not no_start)


@cluster.command(epilog=example("kvsecure cluster token --ttl 30m > token"))
@click.option("--ttl", metavar="TTL", default="1h", show_default=True, help="Lifetime: 30m, 1h.")
@pass_invocation
def token(invocation: Invocation, *, ttl: str) -> None:
    """Make a join token and print it; only the member with the authority can, for root.

    It is good for one machine.
    """
    from kvsecure.pki.profiles import ProfileError, parse_duration

    try:
        ttl_s = int(parse_duration(ttl).total_seconds())
    except ProfileError as error:
        raise click.BadParameter(str(error), param_hint="--ttl") from None
    with invocation.client("make a join token") as client:
        made = client.joining.add_token(ttl_s)
    click.echo(made.text.reveal_text())
    click.echo(
        f"good for one machine, until {_moment(datetime.fromtimestamp(made.expires_s, UTC))}: "
        "kvsecure cluster join --token-file FILE --dir DIR --name NAME --host HOST",
        err=True,
    )


# --- init ---------------------------------------------------------------------------------------


def _found(
    place: "MemberDirectory",
    name: str,
    address: "Address",
    label: str,
    password: Secret | None,
    tokens: int,
) -> None:
    from kvsecure.pki.authority import AuthorityError
    from kvsecure.pki.files import UnsafeFile
    from kvsecure.pki.join_tokens import JoinTokens
    from kvsecure.pki.profiles import ProfileError

    try:
        place.begin()
        authority = place.found(label, name, address, password)
        keeper = JoinTokens(place.authority)
        made = [keeper.make(authority, address.client) for _ in range(tokens)]
        place.complete(
            name,
            address,
            [(name, [address.peer_url])],
            cluster=authority.cluster,
            token=f"{authority.cluster}-{secrets.token_hex(8)}",
            more={
                "initial-cluster-state": "new",
                "initial-root-password-file": str(place.root_password),
                "authority-dir": str(place.authority),
            },
        )
    except (AuthorityError, ProfileError, UnsafeFile, OSError, ValueError) as error:
        raise CommandFailure(str(error)) from None
    click.echo(f"member         {name} of cluster {authority.cluster}, {address.client_url}")
    click.echo(f"directory      {place.path}")
    click.echo(f"configuration  {place.configuration}")
    click.echo(f"root           password in {place.root_password}")
    _keep_context(place, authority.cluster, address, first=True)
    click.echo(f"keep copies    {place.kek} and {place.authority}, apart from the data")
    if made:
        click.echo(
            "join           on each other machine: kvsecure cluster join --dir DIR --name NAME "
            "--host HOST"
        )
        click.echo(f"               with one of these, good once, until {_moment(made[0][1])}:")
    for each, _ in made:
        click.echo(each.text().reveal_text())


def _keep_context(place: "MemberDirectory", name: str, address: "Address", *, first: bool) -> None:
    context = Context(
        endpoints=(address.client,),
        cacert=str(place.trust),
        # Who joins has no certificate of root, and logs in.
        cert=str(place.path / "root.crt") if first else "",
        key=str(place.path / "root.key") if first else "",
        user="root" if first else "",
        data_dir=str(place.path / "data"),
        kek_file=str(place.kek),
    )
    try:
        ContextStore(home_directory()).change(
            lambda contexts: contexts.with_context(name, context).using(name)
        )
    except (ContextError, OSError) as error:
        click.echo(f"Warning: no context was made: {error}", err=True)
        return
    more = "other commands need no options here" if first else "log in with `kvsecure login`"
    click.echo(f"context        {name}: {more}")


# --- join ---------------------------------------------------------------------------------------


def _token(file: Path | None) -> JoinToken:
    """Return the token from where it is: a file, stdin, the environment, or a question."""
    if file is not None:
        text = password_from_stdin() if str(file) == "-" else password_from_file(file)
    elif _VARIABLE in os.environ:
        # The server that is started here has no use for it.
        text = Secret.of_text(os.environ.pop(_VARIABLE))
    else:
        text = password_from_prompt("Join token", confirm=False)
    try:
        return JoinToken.parse(text)
    except ValueError as error:
        raise CommandFailure(str(error)) from None


def _join(place: "MemberDirectory", name: str, address: "Address", token: JoinToken) -> None:
    from kvsecure.client.errors import SettingsError
    from kvsecure.client.joining import UntrustedCluster
    from kvsecure.pki.certificates import CertificateError
    from kvsecure.pki.files import UnsafeFile, write_public

    try:
        authority = _fetch(token)
        place.begin()
        write_public(place.trust, authority)
        admitted = _redeem(place, name, address, token)
        place.write_certificate("server", admitted.server_certificate)
        place.write_certificate("peer", admitted.peer_certificate)
        place.complete(
            name,
            address,
            admitted.members,
            cluster=admitted.cluster_name,
            token=admitted.cluster_token,
            more={
                "initial-cluster-state": "existing",
                "heartbeat-interval": admitted.heartbeat_ms,
                "election-timeout": admitted.election_ms,
            },
        )
    except (UntrustedCluster, SettingsError, CertificateError, UnsafeFile, OSError) as error:
        raise CommandFailure(str(error)) from None
    click.echo(f"member         {name} of cluster {admitted.cluster_name}, {address.client_url}")
    click.echo(f"directory      {place.path}")
    click.echo(f"configuration  {place.configuration}")
    _keep_context(place, admitted.cluster_name, address, first=False)
    click.echo(f"keep a copy    {place.kek}, apart from the data")


def _fetch(token: JoinToken) -> bytes:
    """Return the authority of the token's cluster, waiting for a member that is not up yet."""
    from kvsecure.client.joining import NobodyAnswers, fetch_authority

    end_s = time.monotonic() + _REACH_S
    is_told = False
    while True:
        try:
            return fetch_authority(token, timeout_s=_FETCH_S)
        except NobodyAnswers as error:
            if time.monotonic() > end_s:
                raise CommandFailure(str(error), status=ExitStatus.NO_ANSWER) from None
            if not is_told:
                click.echo(f"waiting        {error}", err=True)
            is_told = True
        time.sleep(_PAUSE_S)


def _redeem(
    place: "MemberDirectory", name: str, address: "Address", token: JoinToken
) -> "Admitted":
    """Redeem the token, waiting while another machine joins."""
    from kvsecure.cli.failures import tell
    from kvsecure.client import Client
    from kvsecure.client.errors import ClientError
    from kvsecure.pki.requests import request_of

    requests = {each: request_of(place.key(each)) for each in ("server", "peer")}
    end_s = time.monotonic() + _PATIENCE_S
    is_told = False
    with Client.open(token.address, ca_file=str(place.trust)) as client:
        while True:
            try:
                return client.joining.redeem(
                    token,
                    name=name,
                    peer_urls=[address.peer_url],
                    hosts=address.hosts,
                    server_request=requests["server"],
                    peer_request=requests["peer"],
                )
            except ClientError as error:
                if error.failure is Failure.JOIN_TOKEN_REJECTED:
                    raise CommandFailure(error.text, hint="`kvsecure cluster token`") from None
                if error.failure not in _PASSING or time.monotonic() > end_s:
                    raise tell(error, who=lambda: "a newcomer", attempt="join") from None
                if not is_told:
                    click.echo(f"waiting        {error.text}", err=True)
                is_told = True
            time.sleep(_PAUSE_S)


# --- both ---------------------------------------------------------------------------------------


def _address(name: str, hosts: Sequence[str], client_port: int, peer_port: int) -> "Address":
    from kvsecure.cli.member_directory import Address
    from kvsecure.pki.hosts import HostError, parse_host
    from kvsecure.pki.identity import is_name

    if not is_name(name):
        raise click.BadParameter("use 1 to 128 of A-Z a-z 0-9 . _ -", param_hint="--name")
    if client_port == peer_port:
        raise click.UsageError("clients and members need a port each")
    try:
        found = tuple(str(parse_host(host)) for host in hosts)
    except HostError as error:
        raise click.BadParameter(str(error), param_hint="--host") from None
    if "*" in found[0]:
        raise click.BadParameter("the first one is where others connect", param_hint="--host")
    return Address(hosts=found, client_port=client_port, peer_port=peer_port)


def _go_on(place: "MemberDirectory", *, start: bool) -> NoReturn:
    click.echo(f"{place.path} is set up already: nothing in it is changed")
    _run(place, start=start)


def _run(place: "MemberDirectory", *, start: bool) -> NoReturn:
    """Run the server until it is stopped, and end as it ends."""
    if not start:
        click.echo(f"start it with  kvsecure server --config-file {place.configuration}")
        sys.exit(0)
    sys.stdout.flush()
    from kvsecure.server.lifecycle import run

    sys.exit(run([f"--config-file={place.configuration}"], os.environ))


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"

"""The commands of `kvsecure pki`: make an authority, issue certificates, revoke them, look at them.

Owns: options, texts and exit codes (0 done, 1 refused or failed, 2 wrong usage).
Never: decides what may be issued; the authority and its profiles do. Never prints a key.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from kvsecure.pki.authority import Authority, AuthorityError, Issued, create_authority
from kvsecure.pki.certificates import CertificateError, certificates_of
from kvsecure.pki.files import (
    Existing,
    UnsafeFile,
    ensure_directory,
    read_public,
    write_private,
    write_public,
)
from kvsecure.pki.identity import Identity, Kind, is_name, uri_of
from kvsecure.pki.inspection import Finding, inspect
from kvsecure.pki.profiles import ProfileError, ProfileName, parse_duration
from kvsecure.pki.revoking import revocation_list, revoke, revoked_by

__all__ = ["pki"]

_ISSUED = (ProfileName.SERVER.value, ProfileName.PEER.value, ProfileName.CLIENT.value)


def _default_directory() -> Path:
    home = os.environ.get("KVSECURE_HOME")
    return (Path(home) if home else Path.home() / ".kvsecure") / "pki"


def _example(*commands: str) -> str:
    # The mark keeps click from joining the lines.
    return "\n".join(("\b", "Example:", *(f"  {command}" for command in commands)))


_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=_default_directory,
    show_default="$KVSECURE_HOME/pki or ~/.kvsecure/pki",
    help="Directory of the authority.",
)


@click.group(
    epilog=_example(
        "kvsecure pki init --cluster prod",
        "kvsecure pki issue server db1 --host db1.internal",
        "kvsecure pki issue client alice --tenant acme",
        "kvsecure pki revoke alice",
    )
)
def pki() -> None:
    """Make a certificate authority and issue certificates."""


@pki.command(
    epilog=_example(
        "kvsecure pki init --cluster prod",
    )
)
@_directory
@click.option("--cluster", required=True, metavar="NAME", help="Label of the trust domain.")
def init(directory: Path, cluster: str) -> None:
    """Make the authority of a cluster."""
    try:
        authority = create_authority(directory, cluster)
    except (AuthorityError, ProfileError, OSError) as error:
        _fail(error)
    click.echo(f"authority   {cluster}.kvsecure")
    click.echo(f"expires     {_moment(authority.not_after)}")
    click.echo(f"trust       {directory / 'ca.crt'}")
    click.echo(f"key         {directory / 'ca.key'} (keep it away from the servers)")
    click.echo(f"profiles    {directory / 'profiles'} (may be tightened)")


@pki.command(
    epilog=_example(
        "kvsecure pki issue server db1 --host db1.internal --host 10.0.0.5",
        "kvsecure pki issue peer m1 --host 10.0.0.5",
        "kvsecure pki issue client alice --tenant acme --ttl 24h",
    )
)
@click.argument("profile", type=click.Choice(_ISSUED))
@click.argument("name")
@click.option("--tenant", metavar="T", help="Tenant of a client; the default tenant if left out.")
@click.option(
    "--host", "hosts", multiple=True, metavar="H", help="DNS name or address; repeatable."
)
@click.option("--ttl", metavar="TTL", help="Lifetime such as 90d, 24h or 30m.")
@_directory
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="here",
    help="Directory to write NAME.crt, NAME.key and ca.crt to.",
)
@click.option("--force", is_flag=True, help="Replace NAME.crt and NAME.key if they are there.")
def issue(
    *,
    profile: str,
    name: str,
    tenant: str | None,
    hosts: Sequence[str],
    ttl: str | None,
    directory: Path,
    out: Path,
    force: bool,
) -> None:
    """Issue a certificate, with a new key, to a server, a peer or a client."""
    if not is_name(name):
        raise click.BadParameter("use 1 to 128 of A-Z a-z 0-9 . _ -", param_hint="NAME")
    try:
        lifetime = None if ttl is None else parse_duration(ttl)
    except ProfileError as error:
        raise click.BadParameter(str(error), param_hint="--ttl") from None
    certificate, key = out / f"{name}.crt", out / f"{name}.key"
    if certificate.name == "ca.crt":
        raise click.BadParameter("ca.crt is the authority's own file", param_hint="NAME")
    if not force:
        _refuse_existing(certificate, key)
    try:
        authority = Authority.open(directory)
        issued = authority.issue(ProfileName(profile), name, tenant, hosts, lifetime)
        _write(issued, certificate, key, Existing.REPLACE if force else Existing.REFUSE)
        trust, is_known = _write_trust(authority, out / "ca.crt")
        names = inspect(issued.certificate_pem, datetime.now(UTC)).names
    except (AuthorityError, ProfileError, CertificateError, UnsafeFile, OSError) as error:
        _fail(error)
    click.echo(f"certificate {certificate}")
    click.echo(f"key         {key}")
    click.echo(f"trust       {trust}")
    click.echo(f"identity    {_identity(issued.identity)}")
    click.echo(f"names       {', '.join(names)}")
    click.echo(f"expires     {_moment(issued.not_after)}")
    if not is_known:
        click.echo(f"Warning: {trust} was there and does not hold this authority", err=True)


@pki.command(
    epilog=_example(
        "kvsecure pki show alice.crt",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show a certificate, and whether a server would take it."""
    try:
        finding = inspect(read_public(file), datetime.now(UTC))
    except (CertificateError, UnsafeFile) as error:
        _fail(f"{file}: {error}")
    except OSError as error:
        _fail(error)
    _print(finding)
    if finding.refusals:
        _fail(f"a server would refuse it: {'; '.join(finding.refusals)}")


@pki.command(
    "list",
    epilog=_example(
        "kvsecure pki list",
    ),
)
@_directory
def list_issued(directory: Path) -> None:
    """List what the authority has issued."""
    now = datetime.now(UTC)
    try:
        authority = Authority.open(directory)
        issued = authority.issued()
        revoked = {each.serial for each in revoked_by(authority)}
    except AuthorityError as error:
        _fail(error)
    for record in issued.records:
        state = "valid" if now <= record.not_after else "expired"
        state = "revoked" if record.serial in revoked else state
        click.echo(
            f"{record.serial:040x}  {record.profile.value:6}  {state:7}  "
            f"{_moment(record.not_after)}  {_printable(record.subject)}"
        )
    if issued.damaged_lines:
        lines = ", ".join(map(str, issued.damaged_lines))
        _fail(f"issued.jsonl cannot be read in these lines: {lines}")


@pki.command(
    "revoke",
    epilog=_example(
        "kvsecure pki revoke alice",
        "kvsecure pki crl --out clients.crl",
    ),
)
@click.argument("which", metavar="SERIAL|NAME")
@_directory
def revoke_issued(which: str, directory: Path) -> None:
    """Take back a certificate by its serial number, or all of a name.

    It counts once the servers have a new revocation list; see `kvsecure pki crl`.
    """
    try:
        records = revoke(Authority.open(directory), which)
    except AuthorityError as error:
        _fail(error)
    for record in records:
        click.echo(f"revoked     {record.serial:040x}  {_printable(record.subject)}")
    if not records:
        click.echo("revoked     already")
    click.echo("Servers learn of it from a new list: kvsecure pki crl --out FILE", err=True)


@pki.command(
    epilog=_example(
        "kvsecure pki crl --out clients.crl --ttl 7d",
    )
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write; servers take it as --client-crl-file, and notice a new one.",
)
@click.option(
    "--ttl",
    metavar="TTL",
    default="7d",
    show_default=True,
    help="When the next one must be there; servers refuse all clients if it is not.",
)
@_directory
def crl(out: Path, ttl: str, directory: Path) -> None:
    """Write the list of what was revoked."""
    try:
        lifetime = parse_duration(ttl)
    except ProfileError as error:
        raise click.BadParameter(str(error), param_hint="--ttl") from None
    try:
        authority = Authority.open(directory)
        write_public(out, revocation_list(authority, lifetime))
        count = len(revoked_by(authority))
    except (AuthorityError, OSError) as error:
        _fail(error)
    click.echo(f"list        {out}")
    click.echo(f"revoked     {count}")
    click.echo(f"next        {_moment(authority.now() + lifetime)}")


def _fail(reason: object) -> NoReturn:
    raise click.ClickException(_printable(str(reason)))


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            _fail(f"{path} is there already; --force replaces it")


def _write(issued: Issued, certificate: Path, key: Path, existing: Existing) -> None:
    ensure_directory(certificate.parent)
    write_private(key, issued.private_key, existing)
    write_public(certificate, issued.certificate_pem + issued.chain_pem, existing)


def _write_trust(authority: Authority, path: Path) -> tuple[Path, bool]:
    """Write ca.crt unless it is there; tell whether it now holds the authority."""
    try:
        write_public(path, authority.trust_pem, Existing.REFUSE)
    except FileExistsError:
        ours = certificates_of(authority.trust_pem)[0]
        return path, ours in certificates_of(read_public(path))
    return path, True


def _print(finding: Finding) -> None:
    lines = [
        ("sort", finding.sort.value),
        ("identity", _identity(finding.identity)),
        ("subject", finding.subject or "(none)"),
        ("issuer", finding.issuer),
        ("usages", ", ".join(finding.usages) or "(none)"),
        ("names", ", ".join(finding.names) or "(none)"),
        ("valid from", _moment(finding.validity.not_before)),
        ("valid until", _moment(finding.validity.not_after)),
        ("serial", f"{finding.serial:040x}"),
        ("sha256", finding.fingerprint.hex()),
    ]
    for title, text in lines:
        click.echo(f"{title:11} {_printable(text)}")


def _identity(identity: Identity | None) -> str:
    if identity is None:
        return "(none)"
    kind = "user" if identity.kind is Kind.USER else "member"
    owner = f", tenant {identity.tenant}" if identity.tenant is not None else ""
    return f"{uri_of(identity)} ({kind} {identity.name}{owner}, cluster {identity.cluster})"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _printable(text: str) -> str:
    # A certificate may come from anybody, and a terminal obeys what it is shown.
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)

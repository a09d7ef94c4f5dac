"""`kvsecure snapshot`: backups: save one, check one, make a data directory of one.

Owns: the commands' options, and what is said of a backup.
Never: starts a server on what it restored, or overwrites anything.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.kek_options import KekChoice, kek_options, kek_settings
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, stdout_is_terminal

if TYPE_CHECKING:
    from kvsecure.server.backup_restore import BackupReport

__all__ = ["snapshot"]

_KEY_BYTES: Final = 32
# As etcd's documentation advises: more than a cluster writes in the life of a backup.
_REVISION_BUMP: Final = 1_000_000_000
_BUMP_MAX: Final = 1 << 48

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
_signing_key = click.option(
    "--signing-key", metavar="HEX", help="Who must have signed it; see `snapshot status`."
)


@click.group(epilog=example("kvsecure snapshot save backup", "kvsecure snapshot status backup"))
def snapshot() -> None:
    """Backups: all keys with their history, leases, users, roles and tenants, sealed and signed.

    A backup opens with the key-encryption key of the cluster, and with nothing else. Keep that key,
    and keep it elsewhere.
    """


@snapshot.command(epilog=example("kvsecure snapshot save backup"))
@_file
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def save(invocation: Invocation, *, file: Path, form: Format) -> None:
    """Save a backup of this moment in FILE, which must not be there yet."""
    from kvsecure.client.snapshot import Snapshots

    shows = form is Format.TEXT and stdout_is_terminal()

    def progress(came: int, of: int) -> None:
        if shows:
            click.echo(f"\r{came / 1e6:.1f} of {of / 1e6:.1f} MB", nl=False)

    with invocation.client("save a backup") as client:
        try:
            saved = Snapshots(client.connection).save(file, progress)
        except OSError as error:
            raise CommandFailure(f"{file}: {error.strerror}") from None
        finally:
            if shows:
                click.echo()
    if form is Format.JSON:
        said = {"file": str(file), "size_bytes": saved.size_bytes, "sha256": saved.sha256}
        print_json(said)
        return
    click.echo(f"saved {file}: {saved.size_bytes} bytes, SHA-256 {saved.sha256}")


@snapshot.command(
    epilog=example("kvsecure snapshot status backup --kek-file kek", "kvsecure snapshot status b")
)
@_file
@kek_options
@_signing_key
@format_option(Format.TEXT, Format.JSON)
def status(*, file: Path, kek: KekChoice, signing_key: str | None, form: Format) -> None:
    """Check a backup, and print what it is.

    The key-encryption key opens it, so that all of it is checked; without one only its form, digest
    and signature are.
    """
    from kvsecure.server.backup_restore import StorageError, inspect

    try:
        report = inspect(file, kek_settings(kek), _key(signing_key))
    except StorageError as error:
        raise CommandFailure(str(error)) from None
    if form is Format.JSON:
        print_json(_report_json(report))
        return
    for line in _report_lines(report):
        click.echo(line)


@snapshot.command(
    epilog=example(
        "kvsecure snapshot restore backup --data-dir /var/lib/kvsecure --kek-file kek",
        "kvsecure server --data-dir /var/lib/kvsecure --kek-file kek ...",
    )
)
@_file
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The data directory to make; not there yet, or empty.",
)
@kek_options
@_signing_key
@click.option(
    "--initial-cluster-token",
    "token",
    default="etcd-cluster",
    show_default=True,
    metavar="TEXT",
    help="What the server will be told by the same option.",
)
@click.option(
    "--cluster-name",
    metavar="NAME",
    help="What the server will be told by the same option; the backup's if it is not given.",
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=1, max=_BUMP_MAX),
    default=_REVISION_BUMP,
    show_default=True,
    metavar="N",
    help="By how much the revision goes up, so that the new cluster gives none a second time.",
)
@format_option(Format.TEXT, Format.JSON)
def restore(
    *,
    file: Path,
    data_dir: Path,
    kek: KekChoice,
    signing_key: str | None,
    token: str,
    cluster_name: str | None,
    bump_revision: int,
    form: Format,
) -> None:
    """Make a data directory of a backup, for a new cluster of one member.

    All of the backup is checked before anything is written, and the directory appears when it is
    whole. The new cluster has an id and keys of its own: tokens of the old one are worth nothing.
    Its revision is higher and the history before it is compacted, so that whoever watches on is
    told to read again. Leases begin anew with the time they were granted. The key-encryption key
    that opens the backup wraps the new cluster's keys as well.
    """
    from kvsecure.server.backup_restore import RestoreWish, StorageError
    from kvsecure.server.backup_restore import restore as restore_backup

    wish = RestoreWish(
        data_dir=data_dir, token=token, cluster_name=cluster_name, revision_bump=bump_revision
    )
    settings = kek_settings(kek)
    if settings is None:
        raise click.UsageError("--kek-file is needed, or another --kek-provider")
    try:
        report, identity = restore_backup(file, settings, _key(signing_key), wish)
    except StorageError as error:
        raise CommandFailure(str(error)) from None
    revision = report.header.revision + bump_revision
    if form is Format.JSON:
        print_json(
            {
                "data_dir": str(data_dir),
                "cluster_id": f"{identity.cluster:x}",
                "member_id": f"{identity.member:x}",
                "revision": revision,
                "backup": _report_json(report),
            }
        )
        return
    click.echo(
        f"restored {report.key_count} keys into {data_dir}: cluster {identity.cluster:x}, "
        f"revision {revision}"
    )


def _key(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise click.UsageError("--signing-key is 32 bytes in hexadecimal digits")
    return key


def _report_lines(report: "BackupReport") -> list[str]:
    header = report.header
    lines = [
        f"revision     {header.revision}, compacted {header.compact_revision}",
        f"made         {header.created}",
        f"by           member {header.member_id}, cluster {header.cluster_id}",
        f"named        {header.trust_domain}",
        f"size         {report.size_bytes} bytes, SHA-256 {report.sha256}",
        f"signed by    {header.signing_key.hex()}",
        f"opens with   key-encryption key {header.root.kek.key_id} ({header.root.kek.provider})",
    ]
    if report.versions_hash is None:
        return [*lines, "not opened: --kek-file checks what is in it"]
    return [
        *lines,
        f"keys         {report.key_count}, with {report.version_count} versions",
        f"tenants      {report.tenant_count}",
        f"hash         {report.versions_hash[:8]} (as `kvsecure endpoint hashkv` has it)",
    ]


def _report_json(report: "BackupReport") -> dict[str, Any]:
    header = report.header
    return {
        "revision": header.revision,
        "compact_revision": header.compact_revision,
        "created": header.created,
        "cluster_id": header.cluster_id,
        "member_id": header.member_id,
        "cluster_name": header.trust_domain,
        "size_bytes": report.size_bytes,
        "sha256": report.sha256,
        "signing_key": header.signing_key.hex(),
        "kek_id": header.root.kek.key_id,
        "opened": report.versions_hash is not None,
        "keys": report.key_count,
        "versions": report.version_count,
        "tenants": report.tenant_count,
        "hash": report.versions_hash,
    }

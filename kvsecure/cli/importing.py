"""`kvsecure import`: what another store has, copied into this one.

Owns: the commands' options, the progress on a terminal, and what is said at the end.
Never: reads a password from the command line; says that all is there before it was compared.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import click

from kvsecure.cli.failures import CommandFailure, failures_told
from kvsecure.cli.inputs import password_from_file
from kvsecure.cli.invocation import Invocation, opened, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, stdout_is_terminal

if TYPE_CHECKING:
    from kvsecure.client.importing import AccountsCopied, Compared, Importer, Place
    from kvsecure.client.settings import Settings

__all__ = ["imports"]

_BAR_CELLS: Final = 30
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(name="import", epilog=example("kvsecure import etcd --endpoints etcd1:2379"))
def imports() -> None:
    """Copy what another store has into this one."""


@imports.command(
    epilog=example(
        "kvsecure import etcd --endpoints http://127.0.0.1:2379",
        "kvsecure --endpoint kv1:2379 import etcd --endpoints etcd1:2379 --cacert etcd-ca.crt "
        "--user root --password-file etcd-password",
    )
)
@click.option(
    "--endpoints",
    required=True,
    metavar="HOST:PORT,...",
    help="Members of the etcd; TLS unless they begin with http://.",
)
@click.option("--cacert", type=_file, help="Authorities to trust for the etcd.")
@click.option("--cert", type=_file, help="Client certificate for the etcd.")
@click.option("--key", type=_file, help="Key of the certificate.")
@click.option("--user", default="", metavar="NAME", help="User of the etcd; root for accounts.")
@click.option("--password-file", type=_file, help="The password of --user.")
@click.option(
    "--state",
    type=_file,
    default="kvsecure-import.json",
    show_default=True,
    help="Keeps how far it has come: after an interruption the same command goes on.",
)
@click.option("--restart", is_flag=True, help="Begin anew, whatever the state says.")
@click.option("--merge", is_flag=True, help="Write into a store that has keys.")
@click.option("--without-accounts", is_flag=True, help="Leave users and roles out.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def etcd(
    invocation: Invocation,
    *,
    endpoints: str,
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
    user: str,
    password_file: Path | None,
    state: Path,
    restart: bool,
    merge: bool,
    without_accounts: bool,
    form: Format,
) -> None:
    """Copy keys, leases, users and roles of a running etcd, and compare.

    The keys are those of one revision: stop what writes to the etcd first, or take what it writes
    meanwhile into account. Options before `import` say where to, those behind `etcd` where from.

    etcd's API shows neither passwords nor the past: users come without a password, and revisions
    begin anew. Leases keep their ids and begin anew with the time they were granted.
    """
    from kvsecure.client.importing import Importer, Unusable

    settings = _source(invocation, endpoints, (cacert, cert, key), user, password_file)
    shows = form is Format.TEXT and stdout_is_terminal()
    with (
        invocation.client("import") as target,
        opened(settings) as source,
        failures_told(who=lambda: f"etcd's user {user or 'without a name'}", attempt="be read"),
    ):
        importer = Importer(source.connection, target.connection)
        try:
            place = _place(importer, state, restart=restart, merge=merge)
            place = importer.copy_keys(
                place, lambda reached: reached.save(state), _progress("copied", shows=shows)
            )
            accounts = None if without_accounts else importer.copy_accounts()
            compared = importer.compare(place, _progress("compared", shows=shows))
        except Unusable as error:
            raise CommandFailure(str(error)) from None
        except OSError as error:
            raise CommandFailure(f"{state}: {error.strerror}") from None
    _report(place, accounts, compared, form)
    if not compared.is_whole:
        raise CommandFailure(
            f"{compared.missing} keys are missing and {compared.different} are different",
            hint="something else writes to the target; --restart --merge copies again",
        )
    state.unlink(missing_ok=True)


def _source(
    invocation: Invocation,
    endpoints: str,
    files: tuple[Path | None, Path | None, Path | None],
    user: str,
    password_file: Path | None,
) -> "Settings":
    from kvsecure.client.settings import Settings, Tls

    if bool(user) != bool(password_file):
        raise click.UsageError("--user and --password-file of the etcd go together")
    cacert, cert, key = (str(path) if path else "" for path in files)
    with failures_told(who=str, attempt=""):
        return Settings(
            endpoints=Settings.parse_endpoints(endpoints.replace(",", " ").split()),
            tls=Tls(ca_file=cacert, certificate_file=cert, key_file=key),
            user=user,
            password=password_from_file(password_file) if password_file else None,
            timeout_s=invocation.chosen.timeout_s,
            reach_s=invocation.chosen.timeout_s,
        )


def _place(importer: "Importer", state: Path, *, restart: bool, merge: bool) -> "Place":
    from kvsecure.client.importing import Place

    if state.exists() and not restart:
        place = importer.go_on(Place.load(state))
        click.echo(f"going on behind key {place.copied} of {place.total}", err=True)
        return place
    place = importer.begin(merge=merge)
    place.save(state)
    return place


@final
class _Bar:
    """A bar on a terminal, and nothing elsewhere."""

    def __init__(self, what: str, *, shows: bool) -> None:
        self._what = what
        self._shows = shows

    def __call__(self, done: int, of: int) -> None:
        """Show how far it is."""
        if not self._shows:
            return
        cells = _BAR_CELLS * done // of if of else _BAR_CELLS
        bar = "#" * cells + "." * (_BAR_CELLS - cells)
        click.echo(f"\r{self._what:9} [{bar}] {done} of {of}", nl=done >= of)


def _progress(what: str, *, shows: bool) -> _Bar:
    return _Bar(what, shows=shows)


def _report(
    place: "Place", accounts: "AccountsCopied | None", compared: "Compared", form: Format
) -> None:
    if form is Format.JSON:
        print_json(
            {
                "source_revision": place.revision,
                "source_revision_now": compared.source_revision,
                "keys": place.copied,
                "equal": compared.equal,
                "different": compared.different,
                "missing": compared.missing,
                "expired": compared.expired,
                "extra": compared.extra,
                "roles": accounts.roles if accounts else None,
                "users": accounts.users if accounts else None,
                "users_without_password": list(accounts.without_password) if accounts else None,
            }
        )
        return
    click.echo(f"{compared.equal} keys of revision {place.revision} are equal")
    if compared.expired:
        click.echo(f"{compared.expired} keys ended with their leases meanwhile")
    if compared.extra:
        click.echo(f"{compared.extra} further keys are in the target only")
    if accounts is not None:
        click.echo(f"{accounts.roles} roles, {accounts.users} users")
        if accounts.without_password:
            names = ", ".join(accounts.without_password)
            click.echo(f"without a password, which `kvsecure user passwd` sets: {names}")
    if compared.source_revision != place.revision:
        click.echo(
            f"note: the etcd has gone on to revision {compared.source_revision}; what it wrote "
            "since is not here",
            err=True,
        )

"""The program `kvsecure`: its commands, the options before them, and how it ends.

Owns: the table of commands and the outermost frame of the program.
Never: imports a command that is not run.
Keeps: no exception leaves it as a traceback, and no secret as an exception.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

import kvsecure
from kvsecure.cli.failures import CommandFailure, ExitStatus
from kvsecure.cli.lazy import LazyCommand, LazyGroup
from kvsecure.cli.options import example, refuse_password, user_alone

if TYPE_CHECKING:
    from kvsecure.cli.discovery import Records

__all__ = ["COMMANDS", "kvsecure_command", "main"]

_START: Final = "Getting started"
_KEYS: Final = "Keys and values"
_ACCESS: Final = "Who may do what"
_OPERATION: Final = "Operation"


def _entry(file: str, name: str, section: str, summary: str) -> LazyCommand:
    return LazyCommand(module=f"kvsecure.cli.{file}", name=name, section=section, summary=summary)


COMMANDS: Final = {
    "dev": _entry("dev", "dev", _START, "A complete secured server on this machine."),
    "demo": _entry("demo", "demo", _START, "Watch a secured server at work."),
    "login": _entry("login", "login", _START, "Exchange a password for a token."),
    "logout": _entry("login", "logout", _START, "Forget the token."),
    "context": _entry("context_commands", "context", _START, "Where commands go, and as whom."),
    "get": _entry("get", "get", _KEYS, "Read keys."),
    "put": _entry("put", "put", _KEYS, "Write a key."),
    "del": _entry("delete", "delete", _KEYS, "Delete keys."),
    "watch": _entry("watch", "watch", _KEYS, "Print changes as they happen."),
    "txn": _entry("txn", "txn", _KEYS, "Compare, then do one thing or the other."),
    "lease": _entry("lease", "lease", _KEYS, "Keys that die together."),
    "lock": _entry(
        "lock", "lock", _KEYS, "Hold a lock, for as long as COMMAND runs or until Ctrl-C."
    ),
    "elect": _entry(
        "elect", "elect", _KEYS, "Stand for an election and lead, or follow who leads."
    ),
    "history": _entry("history", "history", _KEYS, "Versions of a key, newest first."),
    "diff": _entry("diff", "diff", _KEYS, "What changed in between."),
    "undelete": _entry("undelete", "undelete", _KEYS, "Bring back a deleted key."),
    "rollback": _entry("rollback", "rollback", _KEYS, "Make keys what they were."),
    "destroy": _entry("destroy", "destroy", _KEYS, "Forget every version of a key for good."),
    "retention": _entry("retention", "retention", _KEYS, "Versions that compaction keeps."),
    "compact": _entry("compact", "compact", _KEYS, "Forget old revisions."),
    "user": _entry("user", "user", _ACCESS, "Users and their roles."),
    "role": _entry("role", "role", _ACCESS, "Roles and what they permit."),
    "auth": _entry("auth", "auth", _ACCESS, "Turn authentication on and off."),
    "tenant": _entry("tenant", "tenant", _ACCESS, "Tenants, who cannot see each other."),
    "pki": _entry("pki", "pki", _ACCESS, "Make an authority and issue certificates."),
    "audit": _entry("audit", "audit", _ACCESS, "Verify and read the audit trail."),
    "server": _entry("server", "server", _OPERATION, "Run a member."),
    "endpoint": _entry("endpoint", "endpoint", _OPERATION, "Health, status and hashes of members."),
    "defrag": _entry("defrag", "defrag", _OPERATION, "Give free space back to the disk."),
    "snapshot": _entry("snapshot", "snapshot", _OPERATION, "Backups: save, check, restore."),
    "import": _entry("importing", "imports", _OPERATION, "Copy what an etcd has into this store."),
    "cluster": _entry("cluster", "cluster", _OPERATION, "Make a cluster, and join it by token."),
    "member": _entry("member", "member", _OPERATION, "Members of the cluster."),
    "move-leader": _entry("member", "move_leader", _OPERATION, "Have another member lead."),
    "alarm": _entry("alarm", "alarm", _OPERATION, "Alarms of the members."),
    "crypto": _entry("crypto", "crypto", _OPERATION, "Keys that everything is sealed under."),
    "version": _entry("version", "version", _OPERATION, "The version of this program."),
}


def _split(_ctx: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> list[str]:
    return [part for text in value for part in text.replace(",", " ").split()]


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example(
        "kvsecure dev &",
        "kvsecure put /app/db/password",
        "kvsecure get /app/db/password",
        "kvsecure --cert web.crt --key web.key get /app/db/password",
    ),
)
@click.version_option(kvsecure.__version__, prog_name="kvsecure", message="%(prog)s %(version)s")
@click.option("--context", envvar="KVSECURE_CONTEXT", metavar="NAME", help="Use this context.")
@click.option(
    "--endpoint",
    "endpoints",
    envvar="KVSECURE_ENDPOINT",
    multiple=True,
    callback=_split,
    metavar="HOST:PORT",
    help="Address of a member; repeatable. TLS unless it begins with http://.",
)
@click.option(
    "-d",
    "--discovery-srv",
    "domain",
    envvar="KVSECURE_DISCOVERY_SRV",
    metavar="DOMAIN",
    help="Find the members by the SRV records of a DNS domain: _etcd-client-ssl._tcp.",
)
@click.option(
    "--discovery-srv-name",
    "service_name",
    envvar="KVSECURE_DISCOVERY_SRV_NAME",
    metavar="NAME",
    help="Which of the domain's clusters: _etcd-client-ssl-NAME._tcp.",
)
@click.option(
    "--insecure-discovery",
    is_flag=True,
    help="Take members without TLS too: _etcd-client._tcp.",
)
@click.option(
    "--cacert", envvar="KVSECURE_CACERT", metavar="FILE", help="Authorities to trust for servers."
)
@click.option("--cert", envvar="KVSECURE_CERT", metavar="FILE", help="Client certificate.")
@click.option("--key", envvar="KVSECURE_KEY", metavar="FILE", help="Key of the certificate.")
@click.option(
    "--user",
    envvar="KVSECURE_USER",
    metavar="NAME",
    callback=user_alone,
    help="Act as this user.",
)
@click.option("--tenant", envvar="KVSECURE_TENANT", metavar="NAME", help="Tenant of the user.")
@click.option(
    "--password-file",
    envvar="KVSECURE_PASSWORD_FILE",
    metavar="FILE",
    help="Log in as --user with the password in FILE.",
)
@click.option(
    "--timeout",
    "timeout_s",
    envvar="KVSECURE_TIMEOUT",
    type=click.FloatRange(min=0.001),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Bound of one request.",
)
@refuse_password()
@click.pass_context
def kvsecure_command(
    ctx: click.Context,
    *,
    context: str | None,
    endpoints: Sequence[str],
    domain: str | None,
    service_name: str | None,
    insecure_discovery: bool,
    cacert: str | None,
    cert: str | None,
    key: str | None,
    user: str | None,
    tenant: str | None,
    password_file: str | None,
    timeout_s: float,
) -> None:
    """A secure, multi-tenant, strongly consistent key-value store that speaks etcd's API.

    Options before the command say where it goes and as whom; each has a variable in the
    environment (KVSECURE_ENDPOINT, KVSECURE_USER and so on), and a context, made by `kvsecure
    login` or `kvsecure dev`, stands in for what neither says.
    """
    from kvsecure.cli.invocation import Chosen, Invocation

    ctx.obj = Invocation(
        Chosen(
            context=context or "",
            endpoints=tuple(endpoints),
            records=_records(domain, service_name, endpoints, with_plaintext=insecure_discovery),
            cacert=_absolute(cacert),
            cert=_absolute(cert),
            key=_absolute(key),
            user=user or "",
            tenant=tenant or "",
            password_file=_absolute(password_file),
            timeout_s=timeout_s,
        )
    )


def _records(
    domain: str | None, service_name: str | None, endpoints: Sequence[str], *, with_plaintext: bool
) -> "Records | None":
    """Return which SRV records are to be asked for, if any.

    Raises:
        click.UsageError: It is said twice where the members are, or not at all.
    """
    if not domain:
        if service_name or with_plaintext:
            raise click.UsageError(
                "--discovery-srv-name and --insecure-discovery are of no use without "
                "--discovery-srv"
            )
        return None
    if endpoints:
        raise click.UsageError("--endpoint and --discovery-srv both say where the members are")
    from kvsecure.cli.discovery import Records

    return Records(domain=domain, service_name=service_name or "", with_plaintext=with_plaintext)


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and end with its exit status.

    Args:
        arguments: What follows the program's name; those of the process if left out.
    """
    status = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = ExitStatus.PIPE_CLOSED
    if status == ExitStatus.PIPE_CLOSED:
        # What is left in the buffer has no reader; the interpreter would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    # The gRPC library would write its own lines about every failed handshake to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        result = kvsecure_command.main(
            args=None if arguments is None else list(arguments),
            prog_name="kvsecure",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing may get past it
        return _report_bug(error)
    # `--help` and `--version` come back as their exit status.
    return result if isinstance(result, int) else ExitStatus.DONE


def _report_bug(error: Exception) -> int:
    if os.environ.get("KVSECURE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    # The exception's own text is not shown: nobody has checked it for secrets.
    failure = CommandFailure(
        f"internal error: {type(error).__name__}",
        hint="this is a bug; KVSECURE_DEBUG=1 shows where, and perhaps data of yours",
    )
    failure.show()
    return failure.exit_code

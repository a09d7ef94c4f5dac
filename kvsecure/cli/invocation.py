"""From the options before the command to a client: where to go, and as whom.

Owns: how command line, environment and context are put together.
Never: sends the token of a context to a server that the context does not vouch for, or together
    with somebody else's name or certificate.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import click

from kvsecure.cli.context import Context, ContextError, Contexts, ContextStore
from kvsecure.cli.discovery import Records, endpoints_of
from kvsecure.cli.failures import CommandFailure, failures_told
from kvsecure.cli.inputs import password_from_file, password_from_prompt, stdin_is_terminal
from kvsecure.model.secret import Secret

if TYPE_CHECKING:
    from kvsecure.client import Client
    from kvsecure.client.settings import Settings

__all__ = [
    "Chosen",
    "Invocation",
    "Target",
    "located",
    "opened",
    "pass_invocation",
    "resolve",
    "who",
]

_PEM_END: Final = "-----END CERTIFICATE-----"

# A person at a terminal does not want to wait while nobody can be reached.
_REACH_S: Final = 0.5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What command line and environment say; empty where they say nothing.

    Attributes:
        context: The context to use.
        endpoints: The members.
        records: Which SRV records name them instead.
        cacert: The authorities that may vouch for the server.
        cert: The client certificate.
        key: Its key.
        user: Who.
        tenant: The user's tenant.
        password_file: The user's password.
        timeout_s: Bound of one request in seconds.
    """

    context: str = ""
    endpoints: tuple[str, ...] = ()
    records: Records | None = None
    cacert: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    tenant: str = ""
    password_file: str = ""
    timeout_s: float = 5.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a command goes, and as whom.

    Attributes:
        endpoints: The members; empty for the default.
        cacert: The authorities that may vouch for the server.
        cert: The client certificate.
        key: Its key.
        user: Who; empty when the certificate says so, or nobody.
        tenant: The user's tenant.
        token: From an earlier log-in, if it may be sent there.
        asks_password: Whether the user was named without anything that proves them.
    """

    endpoints: tuple[str, ...]
    cacert: str
    cert: str
    key: str
    user: str
    tenant: str
    token: Secret | None
    asks_password: bool


def resolve(chosen: Chosen, context: Context, *, now_s: int) -> Target:
    """Put together what was chosen and what the context has.

    Args:
        chosen: What command line and environment say.
        context: The context in use.
        now_s: The time, in seconds of Unix time.
    """
    other_cert = bool(chosen.cert) and chosen.cert != context.cert
    if other_cert and not chosen.user:
        # The certificate says who it is, so the context's user does not count.
        user, tenant = "", chosen.tenant
    else:
        user, tenant = chosen.user or context.user, chosen.tenant or context.tenant
    same_person = (user, _tenant(tenant)) == (context.user, _tenant(context.tenant))
    # The certificate of a context is its user's; anybody else brings their own.
    cert = chosen.cert or (context.cert if same_person else "")
    key = chosen.key or (context.key if same_person else "")
    token = Secret(b"")
    # A token that has ended would only be in the way of the certificate.
    if not (cert and 0 < context.token_expiry_s <= now_s):
        may_be_sent = same_person and not other_cert and _vouches(context, chosen)
        token = context.token if may_be_sent else token
    return Target(
        endpoints=chosen.endpoints or context.endpoints,
        cacert=chosen.cacert or context.cacert,
        cert=cert,
        key=key,
        user=user,
        tenant=_tenant(tenant),
        token=token or None,
        asks_password=bool(chosen.user) and not (cert or token or chosen.password_file),
    )


def located(chosen: Chosen, context: Context) -> Chosen:
    """Return what was chosen with the members' addresses, asking DNS for them if it says so.

    Args:
        chosen: What command line and environment say.
        context: The context in use.

    Raises:
        CommandFailure: There are none.
    """
    if chosen.records is None:
        return chosen
    endpoints = endpoints_of(
        chosen.records,
        has_authority=bool(chosen.cacert or context.cacert),
        answer_s_max=chosen.timeout_s,
    )
    return dataclasses.replace(chosen, endpoints=endpoints, records=None)


def _tenant(name: str) -> str:
    # The default tenant has a label, for certificates; in a log-in it is not written.
    return "" if name == "default" else name


def _vouches(context: Context, chosen: Chosen) -> bool:
    """Tell whether the context's token may go where the command goes."""
    own_authority = not chosen.cacert or chosen.cacert == context.cacert
    if not chosen.endpoints or chosen.endpoints == context.endpoints:
        return own_authority
    # Another address, but a server that the context's own authority must have certified. The
    # public authorities vouch for everybody, so they do not count.
    in_clear = any(endpoint.startswith("http://") for endpoint in chosen.endpoints)
    return bool(context.cacert) and own_authority and not in_clear


@final
class Invocation:
    """One run of the program: its options, its context, and the client made of them."""

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self.store = ContextStore.of_environment()

    def contexts(self) -> Contexts:
        """Return all contexts.

        Raises:
            CommandFailure: They cannot be read.
        """
        try:
            return self.store.load()
        except ContextError as error:
            raise CommandFailure(str(error)) from None

    @property
    def context_name(self) -> str:
        """The name of the context in use; `default` when there is none yet."""
        return self.chosen.context or self.contexts().current or "default"

    def context(self) -> Context:
        """Return the context in use; an empty one when none was ever made.

        Raises:
            CommandFailure: They cannot be read, or there is none of the chosen name.
        """
        contexts = self.contexts()
        name = self.chosen.context or contexts.current
        if not name:
            return Context()
        try:
            return contexts.named(name)
        except ContextError as error:
            raise CommandFailure(str(error), hint="`kvsecure context list`") from None

    def target(self) -> Target:
        """Return where the command goes, and as whom."""
        context = self.context()
        return resolve(located(self.chosen, context), context, now_s=int(time.time()))

    def settings(self, target: Target, password: Secret | None) -> "Settings":
        """Return the settings of a client.

        Raises:
            CommandFailure: They cannot work together.
        """
        from kvsecure.client.settings import ENDPOINT_DEFAULT, Settings, Tls

        with failures_told(who=str, attempt=""):
            return Settings(
                endpoints=Settings.parse_endpoints(target.endpoints or (ENDPOINT_DEFAULT,)),
                tls=Tls(ca_file=target.cacert, certificate_file=target.cert, key_file=target.key),
                user=target.user,
                tenant=target.tenant,
                password=password,
                token=target.token,
                timeout_s=self.chosen.timeout_s,
                reach_s=min(_REACH_S, self.chosen.timeout_s),
            )

    @contextlib.contextmanager
    def client(self, attempt: str) -> "Iterator[Client]":
        """Open a client and tell its errors as failures of the command.

        Args:
            attempt: What the command does, as it follows "may not".

        Raises:
            CommandFailure: It was refused or not answered.
        """
        target = self.target()
        settings = self.settings(target, self._password(target))
        with opened(settings) as client, failures_told(who=lambda: who(target), attempt=attempt):
            yield client

    def _password(self, target: Target) -> Secret | None:
        if self.chosen.password_file:
            if not target.user:
                raise click.UsageError("--password-file without --user: whose password is it?")
            return password_from_file(Path(self.chosen.password_file))
        if not target.asks_password:
            return None
        if not stdin_is_terminal():
            raise click.UsageError(
                f"--user {target.user} needs --password-file, --cert and --key, or a log-in "
                "with `kvsecure login`"
            )
        return password_from_prompt(f"Password of {target.user}", confirm=False)


@contextlib.contextmanager
def opened(settings: "Settings") -> "Iterator[Client]":
    """Open a client that is closed at the end."""
    from kvsecure.client import Client

    with Client(settings) as client:
        yield client


def who(target: Target) -> str:
    """Return in words who the command acts as."""
    if target.user:
        return f"user {target.tenant}/{target.user}" if target.tenant else f"user {target.user}"
    if not target.cert:
        return "a client without a name"
    import ssl

    from kvsecure.pki.files import UnsafeFile, read_public
    from kvsecure.pki.identity import IdentityError, Leaf

    try:
        first = read_public(Path(target.cert)).decode("ascii").partition(_PEM_END)
        identity = Leaf(ssl.PEM_cert_to_DER_cert(first[0] + first[1])).identity()
    except (IdentityError, UnsafeFile, OSError, ValueError):
        return f"the user of {target.cert}"
    tenant = _tenant(identity.tenant or "")
    return f"user {tenant}/{identity.name}" if tenant else f"user {identity.name}"


pass_invocation = click.make_pass_decorator(Invocation)

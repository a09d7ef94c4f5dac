"""`kvsecure login` and `kvsecure logout`: a token instead of a password.

Owns: the commands that put a token into a context and take it out.
Never: keeps a password, or takes a certificate away from the user it belongs to.
"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvsecure.cli.context import Context, ContextError, Contexts
from kvsecure.cli.failures import CommandFailure, failures_told
from kvsecure.cli.inputs import chosen_password
from kvsecure.cli.invocation import (
    Invocation,
    Target,
    located,
    opened,
    pass_invocation,
    resolve,
    who,
)
from kvsecure.cli.options import example, refuse_password, user_alone
from kvsecure.client.settings import ENDPOINT_DEFAULT

if TYPE_CHECKING:
    from kvsecure.client.auth import Token

__all__ = ["login", "logout"]


@click.command(
    epilog=example(
        "kvsecure login --user web",
        "kvsecure --endpoint db.internal:2379 --cacert ca.crt login --user web",
        "kvsecure --context acme login --tenant acme --user root --password-file root.password",
    )
)
@click.option(
    "--user",
    metavar="NAME",
    callback=user_alone,
    help="Who logs in; asked for if nothing says it.",
)
@click.option("--tenant", metavar="NAME", help="Tenant of the user.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the password from FILE, which only you may be able to read.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@refuse_password()
@pass_invocation
@click.pass_context
def login(
    ctx: click.Context,
    invocation: Invocation,
    *,
    user: str | None,
    tenant: str | None,
    password_file: Path | None,
    password_stdin: bool,
) -> None:
    """Exchange a password for a token, and keep the token in the context.

    Later commands then need no options: the context also keeps the endpoint and the files that were
    given before `login`. A context that does not exist yet is made from the current one. The token
    is in a file that only you can read; the password is not kept.
    """
    chosen = dataclasses.replace(
        invocation.chosen,
        user=user or invocation.chosen.user,
        tenant=tenant or invocation.chosen.tenant,
    )
    contexts = invocation.contexts()
    name = chosen.context or contexts.current or "default"
    context = contexts.contexts.get(name) or contexts.contexts.get(contexts.current) or Context()
    if name not in contexts.contexts:
        context = dataclasses.replace(context, user="", tenant="", cert="", key="").without_token()
    if not (chosen.user or context.user):
        chosen = dataclasses.replace(chosen, user=click.prompt("User", err=True))
    target = resolve(located(chosen, context), context, now_s=int(time.time()))
    _refuse_to_lose_certificate(name, context, target)
    source = password_file
    if source is None and not password_stdin and chosen.password_file:
        source = Path(chosen.password_file)
    password = chosen_password(
        ctx,
        file=source,
        stdin=password_stdin,
        prompt=f"Password of {target.user}",
        confirm=False,
    )
    # With the password among the settings they are checked for a way that could be listened to.
    settings = invocation.settings(dataclasses.replace(target, token=None), password)
    with opened(settings) as client, failures_told(who=lambda: who(target), attempt="log in"):
        token = client.auth.log_in(settings.login_name, password)
    _keep(invocation, name, context, target, token)
    _report(name, target, token)


def _refuse_to_lose_certificate(name: str, context: Context, target: Target) -> None:
    if context.cert and not target.cert:
        raise CommandFailure(
            f"context {name} is for user {context.owner}, who has a certificate in it",
            hint=f"a context of its own: `kvsecure --context {target.user} login "
            f"--user {target.user}`",
        )


def _keep(
    invocation: Invocation, name: str, context: Context, target: Target, token: "Token"
) -> None:
    kept = dataclasses.replace(
        context,
        endpoints=target.endpoints or (ENDPOINT_DEFAULT,),
        cacert=target.cacert,
        cert=target.cert,
        key=target.key,
        user=target.user,
        tenant=target.tenant,
        token=token.token,
        token_expiry_s=token.expiry_s,
    )
    try:
        invocation.store.change(lambda contexts: contexts.with_context(name, kept))
    except ContextError as error:
        raise CommandFailure(str(error)) from None


def _report(name: str, target: Target, token: "Token") -> None:
    end = "the token does not say when it ends"
    if token.expiry_s:
        moment = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(token.expiry_s))
        end = f"the token ends at {moment}"
    click.echo(f"logged in as {who(target)} in context {name}; {end}")


@click.command(epilog=example("kvsecure logout"))
@pass_invocation
def logout(invocation: Invocation) -> None:
    """Forget the token of the context; the context itself stays."""
    name = invocation.context_name

    def forget(contexts: Contexts) -> Contexts:
        if name not in contexts.contexts:
            return contexts
        return contexts.with_context(name, contexts.named(name).without_token())

    try:
        invocation.store.change(forget)
    except ContextError as error:
        raise CommandFailure(str(error)) from None
    click.echo(f"logged out of context {name}")

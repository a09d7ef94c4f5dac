"""`kvsecure context`: where commands go, and as whom.

Owns: the commands that show contexts and choose between them.
Never: prints a token.
"""

import time
from typing import Any

import click

from kvsecure.cli.context import Context, ContextError
from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json, print_table

__all__ = ["context"]


@click.group(epilog=example("kvsecure context list", "kvsecure context use dev"))
def context() -> None:
    """Where commands go, and as whom."""


@context.command(name="list", epilog=example("kvsecure context list"))
@format_option(Format.TABLE, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print all contexts; a star marks the one in use."""
    contexts = invocation.contexts()
    current = invocation.chosen.context or contexts.current
    named = sorted(contexts.contexts.items())
    if form is Format.JSON:
        forms = {name: _form(each) for name, each in named}
        print_json({"current": current, "contexts": forms})
        return
    rows = [
        [
            "*" if name == current else "",
            name,
            ", ".join(each.endpoints),
            each.owner,
            _login_state(each),
        ]
        for name, each in named
    ]
    print_table(["", "CONTEXT", "ENDPOINTS", "USER", "LOGGED IN"], rows)


@context.command(epilog=example("kvsecure context use dev"))
@click.argument("name", metavar="CONTEXT")
@pass_invocation
def use(invocation: Invocation, *, name: str) -> None:
    """Use another context from now on."""
    try:
        invocation.store.change(lambda contexts: contexts.using(name))
    except ContextError as error:
        raise CommandFailure(str(error), hint="`kvsecure context list`") from None
    click.echo(f"using context {name}")


@context.command(epilog=example("kvsecure context show", "kvsecure context show dev"))
@click.argument("name", metavar="[CONTEXT]", required=False)
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def show(invocation: Invocation, *, name: str | None, form: Format) -> None:
    """Print a context, without its token."""
    contexts = invocation.contexts()
    chosen = name or invocation.chosen.context or contexts.current
    if not chosen:
        raise CommandFailure("no context yet", hint="`kvsecure login` or `kvsecure dev` makes one")
    try:
        found = contexts.named(chosen)
    except ContextError as error:
        raise CommandFailure(str(error), hint="`kvsecure context list`") from None
    if form is Format.JSON:
        print_json({"name": chosen, **_form(found)})
        return
    click.echo(f"context     {chosen}")
    for field, value in _form(found).items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text and field != "token_expiry":
            click.echo(f"{field:<11} {text}")


def _form(found: Context) -> dict[str, Any]:
    form = found.as_json()
    del form["token"]
    return {**form, "logged_in": _login_state(found)}


def _login_state(found: Context) -> str:
    if not found.token:
        return "by certificate" if found.cert else "no"
    if not found.token_expiry_s:
        return "yes"
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.token_expiry_s))
    return f"{'until' if found.token_expiry_s > time.time() else 'ended'} {moment}"

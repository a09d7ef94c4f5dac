"""`kvsecure del`: delete one key or many.

Owns: the command's options.
Never: deletes more than the keys that were named.
"""

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, chosen_keys, example, format_option, key_options
from kvsecure.cli.output import deleted_json, kv_lines, print_json
from kvsecure.cli.texts import described

__all__ = ["delete"]


@click.command(
    name="del",
    epilog=example("kvsecure del /app/colour", "kvsecure del --prefix /app/old/ --prev-kv"),
)
@key_options
@click.option("--prev-kv", is_flag=True, help="Print what was deleted.")
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def delete(
    invocation: Invocation,
    *,
    key: str,
    end: str | None,
    prefix: bool,
    from_key: bool,
    prev_kv: bool,
    form: Format,
) -> None:
    """Delete keys, and print how many there were.

    Several keys are chosen by END (not included), --prefix or --from-key.
    """
    keys = chosen_keys(key=key, end=end, prefix=prefix, from_key=from_key)
    with invocation.client(f"delete {described(*keys)}") as client:
        deleted = client.kv.delete(keys, previous=prev_kv)
    if form is Format.JSON:
        print_json(deleted_json(deleted))
        return
    click.echo("\n".join([str(deleted.count), *kv_lines(deleted.previous)]))

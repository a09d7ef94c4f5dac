"""The reference of all commands, written from the commands themselves.

Run `PYTHONPATH=tests python -m cli.reference > docs/reference/cli.md` after a change; a test
compares.

Owns: the text of `docs/reference/cli.md`.
Never: says something about a command that its own help does not say.
"""

import importlib.util
import inspect
from collections.abc import Iterator

import click

from kvsecure.cli.failures import ExitStatus
from kvsecure.cli.main import COMMANDS, kvsecure_command

__all__ = ["reference"]

_PREFACE = """\
# The commands

<!-- Written by tests/cli/reference.py; a test keeps it in step with the commands. -->

Options before the command say where it goes and as whom. What they do not say comes from the
environment (the variable stands beside each option), then from the context in use, then from the
defaults. `kvsecure login` and `kvsecure dev` make contexts; they are kept in
`$KVSECURE_HOME/context.json` (by default `~/.kvsecure/context.json`), which only its owner can
read.

- A named `--user` other than the context's brings their own proof: `--password-file`, `--cert`
  and `--key`, or a prompt. The certificate and the token of the context are then not used.
- The token of a context goes only to the context's own endpoints, or to others that the context's
  own CA file vouches for; a password or token never crosses the network without TLS.
- A user of a named tenant logs in with `--tenant`; the name on the wire is `tenant/user`.
- Passwords come from a prompt, a file or stdin. One newline at their end is not part of them. In
  arguments they are refused. Password files and keys must be readable for their owner alone; a
  pipe, like `<(pass show db)`, may stand for a password file.

## Exit statuses

{statuses}

Errors are one line on stderr that begins with `Error:`, and sometimes a line that begins with
`Hint:`. `KVSECURE_DEBUG=1` shows where an internal error came from.

## Output

Text is for people and may change; `--format json` is for programs. Each command prints one object
on one line; `watch` prints one for each batch of changes, and `lease keep-alive` one for each
renewal.

- Bytes are base64 (`key`, `value`, `range_end`); when they are text in UTF-8, the text stands
  beside them (`key_utf8`, `value_utf8`, `range_end_utf8`).
- A key is `{{"key", "value", "create_revision", "mod_revision", "version", "lease"}}`; a list of
  keys is `kvs`, a previous one `prev_kv` (or null), previous ones `prev_kvs`.
- Ids of leases, members and clusters are texts of 16 hexadecimal digits, as they are written
  everywhere; no lease is null. Revisions, counts and seconds are numbers.
- `header` is `{{"cluster_id", "member_id", "revision", "raft_term"}}`.

In tables and lines a backslash in a key or value is doubled, and what is not printable is written
as `\\t`, `\\n`, `\\r` or `\\xNN`, so that a stored value cannot drive a terminal. `get KEY` alone
prints the value as it is.

## Before the command
"""


def reference() -> str:
    """Return the reference as Markdown."""
    statuses = "\n".join(f"- {_status_text(status)}" for status in ExitStatus)
    root = click.Context(kvsecure_command, info_name="kvsecure")
    parts = [_PREFACE.format(statuses=statuses), _options(kvsecure_command, root)]
    for name, entry in COMMANDS.items():
        # A command whose module is not in this installation has nothing to say.
        if importlib.util.find_spec(entry.module) is None:
            continue
        command = kvsecure_command.get_command(root, name)
        if command is not None:
            parts += _sections(command, click.Context(command, info_name=name, parent=root), 2)
    return "\n".join(part.rstrip() + "\n" for part in parts)


_STATUS_TEXTS = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILED: "refused by the server, or not possible; or what was asked for is not there",
    ExitStatus.USAGE: "the command line is wrong",
    ExitStatus.NO_ANSWER: "no server could be reached or answered, and nothing was changed",
    ExitStatus.UNCERTAIN: "the answer to a change was lost: it may or may not have been made",
    ExitStatus.INTERRUPTED: "stopped by Ctrl-C",
    ExitStatus.PIPE_CLOSED: "whoever read the output went away",
}


def _status_text(status: ExitStatus) -> str:
    return f"`{status.value}`: {_STATUS_TEXTS[status]}"


def _sections(command: click.Command, ctx: click.Context, depth: int) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield f"{'#' * depth} {ctx.command_path}\n\n{_help(command)}\n{_example(command)}"
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None:
                inner_ctx = click.Context(inner, info_name=name, parent=ctx)
                yield from _sections(inner, inner_ctx, depth + 1)
        return
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield (
        f"{'#' * depth} {ctx.command_path}\n\n```\n{usage}\n```\n\n{_help(command)}\n"
        f"{_example(command)}{_options(command, ctx)}"
    )


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\f")[0].rstrip() + "\n"


def _example(command: click.Command) -> str:
    if not command.epilog:
        return ""
    lines = [line for line in command.epilog.splitlines() if line not in {"\b", "Example:"}]
    return "\n".join(["```sh", *(line[2:] for line in lines), "```", "", ""])


def _options(command: click.Command, ctx: click.Context) -> str:
    rows = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None or "--help" in parameter.opts:
            continue
        variable = parameter.envvar if isinstance(parameter.envvar, str) else ""
        where = f" Environment: `{variable}`." if variable else ""
        rows.append(f"- `{record[0]}`: {record[1]}{where}")
    return "\n".join([*rows, ""]) if rows else ""


if __name__ == "__main__":
    click.echo(reference(), nl=False)

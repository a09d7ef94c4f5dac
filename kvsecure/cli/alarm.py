"""`kvsecure alarm`: alarms of the members.

Owns: the commands that list alarms and take them back.
Never: takes back an alarm that is not raised.
"""

from typing import TYPE_CHECKING

import click

from kvsecure.cli.invocation import Invocation, pass_invocation
from kvsecure.cli.options import Format, example, format_option
from kvsecure.cli.output import print_json
from kvsecure.cli.texts import id_text

if TYPE_CHECKING:
    from kvsecure.client.maintenance import Alarm

__all__ = ["alarm"]


@click.group(epilog=example("kvsecure alarm list", "kvsecure alarm disarm"))
def alarm() -> None:
    """Alarms of the members."""


@alarm.command(name="list", epilog=example("kvsecure alarm list"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def list_(invocation: Invocation, *, form: Format) -> None:
    """Print the alarms that are raised."""
    with invocation.client("list alarms") as client:
        alarms = client.maintenance.alarms()
    _print(alarms, form)


@alarm.command(epilog=example("kvsecure alarm disarm"))
@format_option(Format.TEXT, Format.JSON)
@pass_invocation
def disarm(invocation: Invocation, *, form: Format) -> None:
    """Take back every alarm, and print which they were."""
    with invocation.client("take back alarms") as client:
        disarmed = tuple(
            done
            for raised in client.maintenance.alarms()
            for done in client.maintenance.disarm(raised)
        )
    _print(disarmed, form)


def _print(alarms: "tuple[Alarm, ...]", form: Format) -> None:
    if form is Format.JSON:
        forms = [{"member_id": id_text(each.member_id), "alarm": each.alarm} for each in alarms]
        print_json({"alarms": forms})
        return
    for each in alarms:
        click.echo(f"{id_text(each.member_id)}\t{each.alarm}")

"""What takes commands to the log of a member on the bench, where a gate would.

Owns: handing them over, and telling whoever asked what came of them.
Never: decides, or records.
"""

from types import SimpleNamespace
from typing import Any

from core.engine_lab import EngineLab
from google.protobuf.message import Message

from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.model.ids import TenantId

__all__ = ["LogGate"]


class LogGate:
    """Of one member."""

    def __init__(self, lab: EngineLab) -> None:
        self.engine = lab.engine
        self.facts = SimpleNamespace(member=lab.engine.replica.node.member)
        self._lab = lab

    def submit_system(self, tenant: TenantId, command: Message, asking: Any = None) -> None:
        """Take a command to the log."""
        told = self._lab.submit(command, tenant)
        if asking is not None:
            told.add_done_callback(lambda done: _finish(asking, done.result()))

    def schedule(self) -> None:
        """End the turn."""
        self.engine.end_turn()


def _finish(asking: Any, outcome: Answer | Refused) -> None:
    if isinstance(outcome, Refused):
        asking.fail(outcome)
    else:
        asking.succeed(outcome)

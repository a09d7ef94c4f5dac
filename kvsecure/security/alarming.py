"""Alarming: the member says to the whole cluster that somebody's state is not to be believed.

Owns: the command that raises CORRUPT, and not raising it twice.
Never: decides that something is damaged, or clears an alarm.
Follows: etcd-surface section 1.6 (alarms).
"""

import contextlib

from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import maintenance_pb2
from kvsecure.security.gate import Gate

__all__ = ["raise_corrupt"]


def raise_corrupt(gate: Gate, member: int) -> None:
    """Raise CORRUPT for a member, unless it is raised; 0 stands for one that nobody can name."""
    if (member, int(maintenance_pb2.CORRUPT)) in gate.engine.state.alarms:
        return
    # If it cannot be taken now, the next look finds the same again.
    with contextlib.suppress(Refused):
        gate.submit_system(
            SYSTEM_TENANT,
            maintenance_pb2.AlarmRequest(
                action=maintenance_pb2.AlarmRequest.ACTIVATE,
                memberID=member,
                alarm=maintenance_pb2.CORRUPT,
            ),
        )

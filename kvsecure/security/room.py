"""Room: whether the store may grow, and the alarm that says that it may not.

Owns: which commands grow the store, and when it has reached its quota.
Never: refuses what makes room: deletions and compactions always pass.
Follows: etcd's quota (server/storage/quota.go), which raises NOSPACE with the first refusal.
"""

from typing import Final

from google.protobuf.message import Message

from kvsecure.core.apply import holds_put
from kvsecure.core.engine import Engine
from kvsecure.core.member import MemberFacts
from kvsecure.model.burst import PutBurst, PutTxn
from kvsecure.proto import kv_pb2, lease_pb2, maintenance_pb2

__all__ = ["is_too_much", "missing_alarm"]

_PUT_OVERHEAD_BYTES: Final = 256
# What always does; other transactions may.
_GROWS: Final = (PutBurst, PutTxn, kv_pb2.PutRequest, lease_pb2.LeaseGrantRequest)


def is_too_much(
    engine: Engine, facts: MemberFacts, command: Message | PutBurst | PutTxn, size_bytes: int
) -> bool:
    """Tell whether a command would grow a store that has reached its quota."""
    quota_bytes = facts.quota_bytes
    if quota_bytes <= 0:
        return False
    used_bytes = engine.statistics.table_bytes_in_use
    if used_bytes + size_bytes + _PUT_OVERHEAD_BYTES < quota_bytes:
        return False
    return isinstance(command, _GROWS) or (
        isinstance(command, kv_pb2.TxnRequest) and holds_put(command)
    )


def missing_alarm(engine: Engine, facts: MemberFacts) -> maintenance_pb2.AlarmRequest | None:
    """Return the command that raises this member's NOSPACE alarm, or None if it is raised."""
    alarm = (facts.member, int(maintenance_pb2.NOSPACE))
    if alarm in engine.state.alarms:
        return None
    return maintenance_pb2.AlarmRequest(
        action=maintenance_pb2.AlarmRequest.ACTIVATE,
        memberID=facts.member,
        alarm=maintenance_pb2.NOSPACE,
    )

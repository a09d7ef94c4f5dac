"""What a member says of itself: its status.

Owns: the answer of Status, and the facts that it and others rest on.
Never: needs a quorum for Status; it is what this member knows.
Follows: etcd-surface section 1.7; the database size is never 0, because etcdctl divides by
    it.
"""

from dataclasses import dataclass
from typing import final

from kvsecure.core.engine import Engine
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.proto import maintenance_pb2

__all__ = ["MemberFacts", "status_body"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """What does not change while a member runs."""

    cluster: ClusterId
    member: MemberId
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    # The version of etcd's API that is spoken.
    version: str
    quota_bytes: int
    # Loud words for `endpoint status`: modes that weaken the defaults.
    warnings: tuple[str, ...] = ()


def status_body(facts: MemberFacts, engine: Engine) -> bytes:
    """Return a StatusResponse without its header."""
    node = engine.replica.node
    statistics = engine.statistics
    errors = list(facts.warnings)
    if not engine.has_leader:
        errors.append("etcdserver: no leader")
    for who, kind in sorted(engine.state.alarms):
        errors.append(f"memberID:{who} alarm:{maintenance_pb2.AlarmType.Name(kind)} ")
    errors += [
        f"kvsecure: memberID:{head.member_id} audit trail behind "
        for head in engine.state.heads
        if head.is_missing
    ]
    own = engine.state.members.get(facts.member)
    return maintenance_pb2.StatusResponse(
        version=facts.version,
        dbSize=max(statistics.table_bytes, 1),
        dbSizeInUse=statistics.table_bytes_in_use,
        leader=node.leader,
        raftIndex=node.log.committed,
        raftTerm=node.term,
        raftAppliedIndex=node.log.applied,
        errors=errors,
        isLearner=own is not None and own.is_learner,
        storageVersion=facts.version,
        dbSizeQuota=facts.quota_bytes,
    ).SerializeToString()

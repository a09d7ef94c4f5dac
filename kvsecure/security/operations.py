"""Operations: what a member answers from what it knows of itself, whoever leads.

Owns: which answer each of these requests has.
Never: decides who may ask, or records: the gate does.
"""

from google.protobuf.message import Message

from kvsecure.core.engine import Engine
from kvsecure.core.member import MemberFacts, status_body
from kvsecure.model.errors import Broken
from kvsecure.proto import maintenance_pb2, state_pb2, tenant_pb2
from kvsecure.security.audit import AuditTrail, stream_of

__all__ = ["operation_body"]


def operation_body(
    request: Message, facts: MemberFacts, engine: Engine, audit: AuditTrail
) -> bytes:
    """Return the answer to a request without its header.

    Raises:
        Broken: There is none.
    """
    match request:
        case maintenance_pb2.StatusRequest():
            return status_body(facts, engine)
        case tenant_pb2.AuditHeadRequest():
            return audit.head_body()
        case tenant_pb2.AuditHeadsRequest():
            return _heads_body(engine)
        case _:
            raise Broken("an operation without an answer was let through")


def _heads_body(engine: Engine) -> bytes:
    """Return what each member has told of its audit trail, as far as it is applied here."""
    state = engine.state
    heads = []
    for member in state.members:
        told = state.heads.of(member.id) or state_pb2.ToldHead()
        heads.append(
            tenant_pb2.AuditToldHead(
                member_id=member.id,
                name=member.name,
                stream=stream_of(member.id),
                seq=told.seq,
                hash=told.hash,
                signature=told.signature,
                time_s=told.time_s,
                is_missing=told.is_missing,
            )
        )
    return tenant_pb2.AuditHeadsResponse(heads=heads).SerializeToString()

"""Declaring: the commands of the log that change who is a member, and whose tokens are good.

Owns: what each of them changes of the state, and how it is answered; what members tell of their
    audit trails.
Never: changes the configuration of consensus; that follows (`core.reconfiguration`).
Follows: etcd-surface sections 1.6 and 10.3 ("apply time").
Keeps: a refused command changes nothing; with a member its alarms, its key and its head are gone.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import Message

from kvsecure.core.members import PUBLIC_KEY_BYTES, member_view
from kvsecure.core.state import State
from kvsecure.proto import cluster_pb2, state_pb2

__all__ = ["DECLARATIONS", "member_list_body"]


def member_list_body(members: Iterable[state_pb2.Member]) -> bytes:
    """Return a MemberListResponse without its header.

    The answers to a member that is removed, updated or promoted have the same fields.
    """
    views = [member_view(each) for each in members]
    return cluster_pb2.MemberListResponse(members=views).SerializeToString()


def _add(state: State, command: state_pb2.MemberAdd) -> bytes:
    members = state.members
    record = members.add(command.member, command.learners_max)
    state.touch_member(record)
    return cluster_pb2.MemberAddResponse(
        member=member_view(record), members=map(member_view, members)
    ).SerializeToString()


def _remove(state: State, command: state_pb2.MemberRemove) -> bytes:
    members = state.members
    has_key = members.key_of(command.id) is not None
    record = members.remove(command.id)
    if state.heads.forget(record.id):
        state.touch_told_head(state_pb2.ToldHead(member_id=record.id), gone=True)
    state.touch_member(record, gone=True)
    if has_key:
        state.touch_signing_key(state_pb2.SigningKey(member_id=record.id), gone=True)
    for member, alarm in sorted(state.alarms):
        if member == record.id:
            state.alarms.discard((member, alarm))
            state.touch_alarm(member, alarm, raised=False)
    # What was proved by a token of this member's is proved no more.
    state.accounts.decide_anew(members.removed_count)
    return member_list_body(members)


def _update(state: State, command: state_pb2.MemberUpdate) -> bytes:
    state.touch_member(state.members.update(command.id, command.peer_urls))
    return member_list_body(state.members)


def _promote(state: State, command: state_pb2.MemberPromote) -> bytes:
    state.touch_member(state.members.promote(command.id))
    return member_list_body(state.members)


def _publish(state: State, command: state_pb2.MemberPublish) -> bytes:
    record = state.members.publish(command.id, command.name, command.client_urls)
    state.touch_member(record)
    return b""


def _add_key(state: State, command: state_pb2.SigningKeyAdd) -> bytes:
    # What is no key verifies nothing.
    if len(command.public_key) == PUBLIC_KEY_BYTES:
        record = state_pb2.SigningKey(member_id=command.member_id, public_key=command.public_key)
        state.members.add_key(record)
        state.touch_signing_key(record)
    return b""


def _tell_head(state: State, command: state_pb2.AuditHeadTell) -> bytes:
    head = state.heads.tell(command) if command.member_id in state.members else None
    if head is not None:
        state.touch_told_head(head)
    return b""


def _miss_head(state: State, command: state_pb2.AuditHeadMiss) -> bytes:
    head = state.heads.miss(command.member_id, command.seq)
    if head is not None:
        state.touch_told_head(head)
    return b""


# What each changes, and the body of its answer.
DECLARATIONS: Final[Mapping[type[Message], Callable[[State, Any], bytes]]] = MappingProxyType(
    {
        state_pb2.MemberAdd: _add,
        state_pb2.MemberRemove: _remove,
        state_pb2.MemberUpdate: _update,
        state_pb2.MemberPromote: _promote,
        state_pb2.MemberPublish: _publish,
        state_pb2.SigningKeyAdd: _add_key,
        state_pb2.AuditHeadTell: _tell_head,
        state_pb2.AuditHeadMiss: _miss_head,
    }
)

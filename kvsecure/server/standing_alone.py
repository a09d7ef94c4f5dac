"""Standing alone: a member goes on as the only one, because the others will never come back.

Owns: what is applied and written for that, before consensus begins.
Never: is done unless somebody has said so (--force-new-cluster): a majority that lives on elsewhere
    would be another cluster from then on, with the same name.
Follows: etcd's --force-new-cluster: ids and data stay, the others are removed for good; differs:
    what this member has in its log and did not know to be committed is kept, where etcd drops it,
    because it may have been acknowledged.
Keeps: a crash leaves the log as it was or with all that makes the member stand alone.
"""

from collections.abc import Callable
from typing import NamedTuple, final

from google.protobuf.message import Message

from kvsecure.core.entry import DamagedEntry, encode, envelope
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.replica import Replica
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import SYSTEM_TENANT, Index, MemberId, Term
from kvsecure.proto import state_pb2
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.log_surgery import append
from kvsecure.storage.files import StorageError
from kvsecure.storage.segments import Tail

__all__ = ["Alone", "stand_alone"]


@final
class Alone(NamedTuple):
    """A member that has no others any more."""

    replica: Replica
    tail: Tail
    # Who is removed now; nobody, if it was alone already.
    left_behind: tuple[MemberId, ...]


def stand_alone(
    directory: DataDirectory,
    replica: Replica,
    tail: Tail,
    make_node: Callable[[RaftLog, HardState], Node],
    now_ns: int,
) -> Alone:
    """Apply all that a member has, and remove the others.

    Args:
        directory: The member's; its log is written to.
        replica: As it was read back.
        tail: Where the log ends.
        make_node: Makes a node of a log and of what is to be durable besides.
        now_ns: Monotonic time.

    Raises:
        StorageError: It is not a member of its own cluster, or its log cannot be written.
    """
    log, own, state = replica.node.log, replica.node.member, replica.state
    log.commit(log.last)
    _apply_all(directory, replica, now_ns)
    members = state.members
    if not members:
        raise StorageError(
            "--force-new-cluster: this member was never sent the cluster's state, so it has "
            "nothing to go on with. Restore a backup, or take another member"
        )
    if own not in members:
        raise StorageError(
            "--force-new-cluster: this member was removed from its cluster. Restore a backup, or "
            "take another member"
        )
    others = tuple(MemberId(each.id) for each in members if each.id != own)
    alone = Configuration((own,))
    if not others and replica.node.configuration == alone:
        return Alone(replica, tail, ())
    commands: list[Message] = []
    if members.is_learner(own):
        commands.append(state_pb2.MemberPromote(id=own))
    commands += [state_pb2.MemberRemove(id=other) for other in others]
    caller = envelope(Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0))
    entries = [
        alone.encode(),
        *(encode(type(each), caller, each.SerializeToString()) for each in commands),
    ]
    # Of a term that nobody has led, which this member has voted for itself in.
    term = Term(max(replica.node.term, log.last_term) + 1)
    first, last = Index(log.last + 1), Index(log.last + len(entries))
    hard_state = HardState(term, own, last)
    tail = append(directory, tail, Ready(hard_state, first, term, entries))
    log.append(term, entries)
    log.durable = last
    replica = Replica(make_node(log, hard_state), state)
    _apply_all(directory, replica, now_ns)
    return Alone(replica, tail, others)


def _apply_all(directory: DataDirectory, replica: Replica, now_ns: int) -> None:
    """Apply what is committed; there is as much as was not in the tables yet."""
    log = replica.node.log
    try:
        while log.applied < log.settled:
            for _ in replica.apply_committed(now_ns):
                pass
    except DamagedEntry as error:
        raise StorageError(f"{directory.wal}: {error}. Restore it from a backup") from None

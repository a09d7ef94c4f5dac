"""What a member says of its part in consensus, for who looks on.

Owns: the form of it.
Never: is read by the algorithm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.progress import Sending
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Dropped", "PeerStatus", "Role", "Status"]


class Role(Enum):
    """What a member is in the current term (Raft section 5.1; thesis 9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Dropped(Enum):
    """Why a message of a peer was not looked at any further."""

    # Not for this member, or its numbers contradict each other.
    IMPOSSIBLE = "impossible"
    # An answer from who was not asked.
    UNKNOWN = "unknown"
    # Of an earlier term, or to a member that is no longer what it was.
    STALE = "stale"
    # A vote was asked for while a leader is heard (thesis 4.2.3).
    DISTURBING = "disturbing"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """What a leader knows of another member."""

    match: Index
    next: Index
    sending: Sending
    is_active: bool
    # Of the snapshot that it is being sent, or 0.
    snapshot: Index
    in_flight: int
    in_flight_bytes: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A member at one moment."""

    member: MemberId
    role: Role
    term: Term
    vote: MemberId
    leader: MemberId
    committed: Index
    applied: Index
    durable: Index
    last: Index
    # In force, and the index since when; it is committed once that is.
    configuration: Configuration
    configuration_index: Index
    # To whom the leader is handing over, or 0.
    transferee: MemberId
    uncommitted_bytes: int
    reads_waiting: int
    dropped: Mapping[Dropped, int]
    # Empty unless it leads.
    peers: Mapping[MemberId, PeerStatus]

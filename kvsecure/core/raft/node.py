"""One member's part in consensus, as a state machine without clock, disk or socket.

    inputs: tick, propose, persisted       work orders: ready, then advance by persisted

Owns: roles, terms, votes, what is committed, when a read is linearizable.
Never: writes, sends or waits. What must be durable is in `Ready`, in order.
Follows: Raft sections 5.1-5.4; thesis section 6.4 for reads without log entries.
Keeps: a vote or term is durable before it counts; a leader commits by counting only entries of its
    own term (Raft section 5.4.2).

Messages between members are not part of this release: a cluster has one voter, whose majority is
itself. Elections, quorums and the commit rule are the general ones.
"""

from collections.abc import Sequence
from enum import Enum
from random import Random
from typing import NamedTuple, final

from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.quorum import agreed_index, has_majority
from kvsecure.model.errors import invariant
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["HardState", "Node", "NotLeader", "Ready", "Role"]


class Role(Enum):
    """What a member is in the current term (Raft section 5.1)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class HardState(NamedTuple):
    """What must survive a crash: the term and whom this member voted for in it."""

    term: Term
    vote: MemberId
    committed: Index


class Ready(NamedTuple):
    """What must be made durable before anything that depends on it happens."""

    hard_state: HardState
    first: Index
    term: Term
    entries: list[bytes]


@final
class NotLeader(Exception):
    """Only a leader can do this."""


@final
class Node:
    """A voter."""

    def __init__(
        self,
        member: MemberId,
        voters: Sequence[MemberId],
        log: RaftLog,
        hard_state: HardState,
        *,
        election_ticks: int,
        rng: Random,
    ) -> None:
        """Restore a member from what was durable.

        Args:
            member: Who this is.
            voters: Everybody whose vote counts, this member included.
            log: The entries recovered from the disk.
            hard_state: The newest one recovered.
            election_ticks: How many ticks without a leader start an election, at least; the actual
                number is drawn between this and twice this (Raft section 5.2).
            rng: Where it is drawn from.
        """
        invariant(member in voters, "a member that takes part is a voter")
        self.member = member
        self.log = log
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader = MemberId(0)
        self._voters = tuple(voters)
        self._match: dict[MemberId, Index] = {}
        self._votes: set[MemberId] = set()
        self._persisted = hard_state
        self._in_flight: tuple[HardState, Index] | None = None
        self._rng = rng
        self._election_ticks = election_ticks
        self._elapsed = 0
        self._confirmed = False
        self._timeout = self._draw_timeout()
        if len(self._voters) == 1:
            # Nobody else can be leader: there is nothing to wait for.
            self._elapsed = self._timeout

    def tick(self) -> None:
        """Let one unit of time pass."""
        if self.role is Role.LEADER:
            return
        self._elapsed += 1
        if self._elapsed >= self._timeout:
            self._campaign()

    def propose(self, entries: Sequence[bytes]) -> Index:
        """Append entries to the leader's log; return the index of the first.

        Raises:
            NotLeader: This member cannot.
        """
        if self.role is not Role.LEADER:
            raise NotLeader
        return self.log.append(self.term, entries)

    def ready(self) -> Ready | None:
        """Return what has to be made durable now, or None; the caller answers with `persisted`.

        At most one work order is out at a time.
        """
        if self._in_flight is not None:
            return None
        hard_state = HardState(self.term, self.vote, self.log.committed)
        log = self.log
        if log.durable == log.last and hard_state[:2] == self._persisted[:2]:
            return None
        if log.durable == log.last:
            run: tuple[Term, list[bytes]] = (self.term, [])
        else:
            run = log.run_after(log.durable)
        self._in_flight = (hard_state, Index(log.durable + len(run[1])))
        return Ready(hard_state, Index(log.durable + 1), *run)

    def persisted(self) -> None:
        """Take note that the work order that is out has been carried out."""
        in_flight = self._in_flight
        invariant(in_flight is not None, "a work order was out")
        assert in_flight is not None  # noqa: S101 - narrows the type; the invariant has checked it
        self._in_flight = None
        self._persisted, self.log.durable = in_flight
        if self.role is Role.CANDIDATE and self._persisted[:2] == (self.term, self.member):
            # One's own vote counts once it is durable, and in its own term only.
            self._count_vote(self.member)
        if self.role is Role.LEADER:
            self._match[self.member] = self.log.durable
            agreed = agreed_index(self._match, self._voters)
            if agreed > self.log.committed and self.log.term_of(agreed) == self.term:
                self.log.commit(agreed)
                self._confirm()

    def committed_after(self, applied: Index) -> list[bytes]:
        """Return the committed entries after an index, in order."""
        return self.log.entries(applied, self.log.committed)

    def read_index(self) -> Index | None:
        """Return the index that a linearizable read has to see applied, or None if it must wait.

        A leader may answer once it has committed an entry of its own term and a majority confirms
        that it still leads (thesis section 6.4). Where its own voice is a majority, it confirms.
        """
        return self.log.committed if self._confirmed else None

    @property
    def is_alone(self) -> bool:
        """Whether nobody else has any part in the cluster."""
        return self._voters == (self.member,)

    def _confirm(self) -> None:
        """Work out whether reads can be confirmed; it changes with role, term and commit only."""
        self._confirmed = (
            self.role is Role.LEADER
            and self.log.term_of(self.log.committed) == self.term
            and has_majority((self.member,), self._voters)
        )

    def _campaign(self) -> None:
        self._confirmed = False
        self.role = Role.CANDIDATE
        self.term = Term(self.term + 1)
        self.vote = self.member
        self.leader = MemberId(0)
        self._votes = set()
        self._elapsed = 0
        self._timeout = self._draw_timeout()

    def _count_vote(self, voter: MemberId) -> None:
        self._votes.add(voter)
        if has_majority(self._votes, self._voters):
            self.role = Role.LEADER
            self.leader = self.member
            self._match = {self.member: self.log.durable}
            # An entry of one's own term commits everything before it (Raft section 8).
            self.log.append(self.term, [b""])

    def _draw_timeout(self) -> int:
        return self._election_ticks + self._rng.randrange(self._election_ticks)

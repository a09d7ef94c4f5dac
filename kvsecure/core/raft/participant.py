"""A member's role: follower, candidate, leader, and what leads from one to the other.

Owns: term, vote, role and leader; elections; what a leader commits; the steps of a change of
    members.
Never: looks at a message (see `listener`), or at what the caller asks (see `node`).
Follows: Raft sections 5.1, 5.2, 5.4 and 6; thesis 4.2.2 (a removed leader), 6.2 (check quorum), 9.6
    (pre-vote).
Keeps: a vote or term is durable before it counts or is told; a leader commits by counting only
    entries of its own term (Raft section 5.4.2).
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from random import Random
from typing import Final, NamedTuple

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.election import Election
from kvsecure.core.raft.following import Following
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.membership import Membership, configurations_in
from kvsecure.core.raft.messages import (
    NUMBER_MAX,
    AppendReply,
    Message,
    PreVote,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
)
from kvsecure.core.raft.outbox import Outbox
from kvsecure.core.raft.reads import Reads
from kvsecure.core.raft.replication import Replication
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Dropped, Role
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["NOBODY", "HardState", "Participant"]

NOBODY: Final = MemberId(0)
# Rounds of reads are numbered from somewhere below this.
_ROUND_BITS: Final = 56


class HardState(NamedTuple):
    """What must survive a crash: the term and whom this member voted for in it."""

    term: Term
    vote: MemberId
    committed: Index


class Participant:
    """A member's state, and the steps that it takes of itself."""

    def __init__(
        self,
        member: MemberId,
        log: RaftLog,
        hard_state: HardState,
        configuration: Configuration,
        settings: Settings,
        rng: Random,
    ) -> None:
        """Restore a member from what was durable.

        Args:
            member: Who this is; it need not be in the configuration (yet).
            log: The entries recovered from the disk, behind those of the snapshot.
            hard_state: The newest one recovered.
            configuration: That of the snapshot; later ones are found in the log.
            settings: Times and sizes.
            rng: Where election timeouts are drawn from; seeded by chance that differs from one
                start to the next.

        Raises:
            DamagedConfiguration: The log has an entry that cannot be read.
        """
        self.member = member
        self.log = log
        self.role = Role.FOLLOWER
        # A term that is in the log was this member's, whatever became of the hard state.
        is_newest = hard_state.term >= log.last_term
        self.term = hard_state.term if is_newest else log.last_term
        self.vote = hard_state.vote if is_newest else NOBODY
        self.leader = NOBODY
        committed = Index(min(hard_state.committed, log.last))
        if committed > log.committed:
            log.commit(committed)
        self._settings = settings
        self._membership = Membership(log.offset, configuration)
        self._membership.add(
            configurations_in(Index(log.offset + 1), log.entries(log.offset, log.last))
        )
        self._election = Election(settings.election_ticks, rng)
        self._following = Following(log, self._membership)
        self._replication = Replication(member, log, self._membership, settings)
        self._reads = Reads(rng.getrandbits(_ROUND_BITS))
        self._outbox = Outbox()
        self._persisted = hard_state
        self._in_flight: tuple[HardState, Index] | None = None
        # Of a leader: until when to the next heartbeat, and since when it has been handing over.
        self._heartbeat_elapsed = 0
        self._transferee = NOBODY
        self._transfer_elapsed = 0
        # Whether an entry of the own term is committed, and whether the own voice confirms reads.
        self._is_settled = False
        self._confirmed = False
        # A configuration is not committed, or is joint.
        self._is_changing = False
        # By last index, what was proposed and is not committed.
        self._uncommitted: deque[tuple[Index, int]] = deque()
        self._uncommitted_bytes = 0
        self._dropped: Counter[Dropped] = Counter()
        if self._membership.current.have_agreed((member,)):
            # Nobody else can be leader: there is nothing to wait for.
            self._election.expire()

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the newest in the log."""
        return self._membership.current

    # --- elections --------------------------------------------------------------------------------

    @property
    def _is_term_durable(self) -> bool:
        """Whether the term and the vote in it survive a crash."""
        stored = self._persisted
        return stored.term == self.term and stored.vote == self.vote

    def _follow(self, leader: MemberId) -> None:
        """Be a follower in the present term; of nobody while no leader is known."""
        if self.role is Role.LEADER:
            self._replication.end()
        self.role = Role.FOLLOWER
        self.leader = leader
        self._transferee = NOBODY
        self._is_settled = self._confirmed = self._is_changing = False
        self._uncommitted.clear()
        self._uncommitted_bytes = 0
        self._election.begin()
        self._following.begin()
        self._reads.restart()

    def _enter_term(self, term: Term, leader: MemberId) -> None:
        """Follow in a term that may be a later one, in which nobody has been voted for."""
        if term > self.term:
            self.term = term
            self.vote = NOBODY
        self._follow(leader)

    def _stand(self) -> None:
        """Ask whether an election would be won, before anybody's term changes (thesis 9.6)."""
        if self.term >= NUMBER_MAX:
            return
        self._follow(NOBODY)
        self.role = Role.PRE_CANDIDATE
        self._count_vote(self.member, granted=True)
        # Where the own voice is a majority, it is past that already.
        if self.role is Role.PRE_CANDIDATE:
            log, asked = self.log, Term(self.term + 1)
            for voter in self._other_voters():
                self._send(PreVote(self.member, voter, asked, log.last, log.last_term))

    def _campaign(self, *, is_transfer: bool = False) -> None:
        """Begin a term and ask for votes in it (Raft section 5.2)."""
        if self.term >= NUMBER_MAX:
            return
        self._follow(NOBODY)
        self.role = Role.CANDIDATE
        self.term = Term(self.term + 1)
        self.vote = self.member
        log = self.log
        for voter in self._other_voters():
            self._outbox.hold(
                Vote(self.member, voter, self.term, log.last, log.last_term, is_transfer)
            )

    def _count_vote(self, voter: MemberId, *, granted: bool) -> None:
        configuration = self.configuration
        if not configuration.can_vote(voter):
            return
        outcome = self._election.count(voter, configuration, granted=granted)
        if outcome is False:
            self._follow(NOBODY)
        elif outcome is True and self.role is Role.PRE_CANDIDATE:
            self._campaign()
        elif outcome is True:
            self._lead()

    def _lead(self) -> None:
        log, membership = self.log, self._membership
        self.role = Role.LEADER
        self.leader = self.member
        self._heartbeat_elapsed = 0
        self._election.begin()
        self._reads.restart()
        inherited = sum(map(len, log.entries(log.committed, log.last)))
        self._uncommitted.append((log.last, inherited))
        self._uncommitted_bytes = inherited
        self._is_changing = membership.current.is_joint or membership.since > log.committed
        self._replication.begin(self._reachable())
        # An entry of one's own term commits everything before it (Raft section 8).
        log.append(self.term, [b""])

    def _other_voters(self) -> list[MemberId]:
        configuration = self.configuration
        return [
            member
            for member in configuration.members
            if member != self.member and configuration.can_vote(member)
        ]

    # --- what a leader commits --------------------------------------------------------------------

    def _commit(self) -> None:
        """Commit what enough members store (Raft sections 5.3 and 5.4.2)."""
        log = self.log
        agreed = self._membership.current.agreed_index(self._replication.match)
        if agreed <= log.committed or log.term_of(agreed) != self.term:
            return
        log.commit(agreed)
        uncommitted = self._uncommitted
        while uncommitted and uncommitted[0][0] <= agreed:
            self._uncommitted_bytes -= uncommitted.popleft()[1]
        if not self._is_settled:
            self._is_settled = True
            self._confirm()
        if self._is_changing:
            self._settle_change()

    def _confirm(self) -> None:
        """Work out whether the own voice confirms reads; it changes with the members only."""
        self._confirmed = self._is_settled and self.configuration.have_agreed((self.member,))

    # --- changes of members -----------------------------------------------------------------------

    def _change(self, configuration: Configuration) -> Index:
        """Put a configuration into the log; it is in force at once (Raft section 6)."""
        index = self.log.append(self.term, [configuration.encode()])
        self._membership.forget(self.log.offset)
        self._membership.add([(index, configuration)])
        self._is_changing = True
        self._replication.reach(self._reachable())
        self._confirm()
        if not configuration.can_vote(self._transferee):
            self._transferee = NOBODY
        return index

    def _settle_change(self) -> None:
        """Take the next step of a change once the last one is committed."""
        membership = self._membership
        if membership.since > self.log.committed:
            return
        # Who goes is told that it is so, as far as one message can tell it.
        self._replication.feed(self.term, self._outbox)
        if membership.current.is_joint:
            self._change(membership.current.left())
            return
        self._is_changing = False
        self._replication.reach(membership.current.members)
        if not membership.current.can_vote(self.member):
            # Thesis 4.2.2: it has led others to do without it. Somebody need not time out.
            match = self._replication.match
            heir = max(membership.current.voters, key=lambda voter: match.get(voter, 0))
            self._send(TimeoutNow(self.member, heir, self.term))
            self._follow(NOBODY)

    def _reachable(self) -> set[MemberId]:
        """Return who is sent entries: also who goes, until it is certain."""
        membership = self._membership
        reached = set(membership.current.members)
        if membership.since > self.log.committed:
            reached.update(membership.previous.members)
        return reached

    # --- reads ------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Begin a round with the reads that wait, if this member can."""
        if self.role is Role.LEADER:
            if self._is_settled:
                self._reads.begin(self.log.committed)
                self._reads.answer(self.member, self._reads.number)
                self._confirm_reads()
                if self._reads.is_asking:
                    self._tell(self._witnesses())
        elif self.leader:
            self._reads.begin(Index(0))
            self._ask_leader()

    def _witnesses(self) -> Collection[MemberId]:
        """Return who is to confirm a round: those who do it quickest, or all while that is open."""
        configuration, witnesses = self.configuration, [self.member]
        for member in self._reads.quickest():
            if member != self.member and configuration.can_vote(member):
                witnesses.append(member)
                if configuration.have_agreed(witnesses):
                    return witnesses[1:]
        return self._replication.peers.keys()

    def _ask_leader(self) -> None:
        self._send(ReadIndex(self.member, self.leader, self.term, self._reads.number))

    def _confirm_reads(self) -> None:
        for member, context, index in self._reads.confirm(self.configuration):
            self._send(ReadIndexReply(self.member, member, self.term, context, index))

    # --- words ------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        self._outbox.send(message)

    def _acknowledge(self) -> None:
        """Tell the leader through where this member stores, durably, what the leader stores."""
        following, durable = self._following, self.log.durable
        following.is_owing = durable < following.verified
        if self.leader:
            index = Index(min(durable, following.verified))
            self._send(
                AppendReply(self.member, self.leader, self.term, index, False, Index(0), Term(0))
            )

    def _heartbeat(self) -> None:
        self._heartbeat_elapsed = 0
        self._tell(self._replication.peers)

    def _tell(self, members: Iterable[MemberId]) -> None:
        self._replication.heartbeat(members, self.term, self._reads.number, self._outbox)

    def _hand_over(self) -> None:
        """Have another stand at once, when it has everything (thesis 3.10)."""
        if self._replication.match.get(self._transferee) == self.log.last:
            self._send(TimeoutNow(self.member, self._transferee, self.term))

"""One member's part in consensus, as a state machine without clock, disk or socket.

    inputs: tick, step, propose, read, transfer, persisted, report_snapshot, restore,
        suspect_leader, report_unreachable
    outputs: ready (one work order for the disk at a time), take_messages, take_reads,
        take_snapshots; `log.settled` is what may be applied

Owns: what the caller asks and gets.
Never: writes, sends or waits. What must be durable is in `Ready`, in order.
Follows: Raft sections 5 to 8 and figure 2; thesis 3.10 (leader transfer), 4.1 to 4.3 and 6.2
    (members), 6.4 (reads without log entries), 9.6 (pre-vote), 10.2.1 (the leader writes its disk
    while it sends).

A cluster of one voter takes the same way: its own voice is a majority.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, final

from kvsecure.core.raft.configuration import MEMBERS_MAX, Configuration
from kvsecure.core.raft.listener import Listener
from kvsecure.core.raft.messages import MEMBER_MAX, Message
from kvsecure.core.raft.participant import NOBODY, HardState
from kvsecure.core.raft.refusals import (
    ChangeRefused,
    NotLeader,
    TooManyReads,
    TooMuchUncommitted,
    TransferRefused,
    Transferring,
)
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.raft.status import Role, Status
from kvsecure.model.errors import invariant
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["HardState", "Node", "Ready"]


class Ready(NamedTuple):
    """What must be made durable before anything that depends on it happens.

    Entries take the place of whatever was stored from `first` on: a leader may have cut off what
    an earlier one had sent (Raft section 5.3).
    """

    hard_state: HardState
    first: Index
    term: Term
    entries: list[bytes]


@final
class Node(Listener):
    """A member."""

    # --- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one unit of time pass."""
        if self.role is Role.LEADER:
            self._tick_leader()
            return
        if self._election.tick():
            if self._membership.can_stand(self.member, self.log.committed):
                self._stand()
            elif self.leader:
                self._follow(NOBODY)
        elif self._reads.is_asking:
            # The question may be lost, or its answer.
            self._ask_leader()

    def _tick_leader(self) -> None:
        settings = self._settings
        if self._transferee:
            self._transfer_elapsed += 1
            if self._transfer_elapsed >= settings.election_ticks:
                # It did not take over in time: go on leading (thesis 3.10).
                self._transferee = NOBODY
        self._election.elapsed += 1
        if self._election.elapsed >= settings.election_ticks:
            self._election.elapsed = 0
            if not self.configuration.have_agreed(self._replication.active()):
                # Nobody could commit here; clients had better look elsewhere (thesis 6.2).
                self._follow(NOBODY)
                return
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= settings.heartbeat_ticks:
            self._heartbeat()

    def suspect_leader(self) -> None:
        """Take note that the leader seems to be gone: its connections have broken, both ways.

        Rather than wait for the timeout this member stands within two ticks, and votes for others
        who do; unless it hears of the leader before. Who hears it all the time votes for nobody
        (thesis 4.2.3), and a pre-vote that is lost changes nothing (thesis 9.6): a suspicion that
        is wrong costs next to nothing, and where a majority has it, nothing could be committed.
        """
        if self.role is Role.FOLLOWER and self.leader != NOBODY:
            self._election.suspect()

    def report_unreachable(self, member: MemberId) -> None:
        """Take note that a member could not be reached, so what it was sent may be lost (etcd).

        A leader that has asked it for nothing but its voice asks everybody, at once.
        """
        if self.role is Role.LEADER and self._reads.is_asking and member in self._replication.peers:
            self._heartbeat()

    # --- what the caller wants --------------------------------------------------------------------

    def propose(self, entries: Sequence[bytes], size_bytes: int | None = None) -> Index:
        """Append entries to the leader's log; return the index of the first.

        Args:
            entries: Each is empty or begins with a byte of 1 or more (see `core.entry`).
            size_bytes: What they are together, from a caller who has counted it already.

        Raises:
            NotLeader: This member cannot.
            Transferring: It is handing over.
            TooMuchUncommitted: It has taken as much as it may.
        """
        self._check_leading()
        size = sum(map(len, entries)) if size_bytes is None else size_bytes
        held = self._uncommitted_bytes
        if held and held + size > self._settings.uncommitted_bytes_max:
            raise TooMuchUncommitted
        log = self.log
        first = log.append(self.term, entries)
        self._uncommitted.append((log.last, size))
        self._uncommitted_bytes = held + size
        return first

    def propose_change(
        self, voters: Collection[MemberId], learners: Collection[MemberId] = ()
    ) -> Index:
        """Begin a change to these voters and learners; it leaves the joint step by itself.

        Args:
            voters: Who shall vote; a learner among them is promoted.
            learners: Who shall be sent everything without a vote; a voter among them is demoted.

        Returns:
            The index of the entry with which it begins.

        Raises:
            NotLeader: This member cannot.
            Transferring: It is handing over.
            ChangeRefused: A change is under way, the leader is too new, or nothing or nobody would
                be left to change.
        """
        self._check_leading()
        if self._is_changing:
            raise ChangeRefused("another change is under way")
        if not self._is_settled:
            # Two leaders' changes could miss each other (thesis 4.1, as corrected in 2015).
            raise ChangeRefused("the leader has not committed an entry of its term yet")
        if not voters or set(voters) & set(learners):
            raise ChangeRefused("somebody has to vote, and nobody can be voter and learner")
        everybody = {*voters, *learners, *self.configuration.members}
        if len(everybody) > MEMBERS_MAX or not all(0 < one <= MEMBER_MAX for one in everybody):
            raise ChangeRefused("there are too many members, or one with an impossible number")
        wanted = self.configuration.towards(voters, learners)
        if wanted == self.configuration:
            raise ChangeRefused("nothing would change")
        return self._change(wanted)

    def transfer(self, to: MemberId) -> None:
        """Hand over to a voter: bring it up to date, then have it stand at once (thesis 3.10).

        Raises:
            NotLeader: This member cannot.
            TransferRefused: The other cannot.
        """
        if self.role is not Role.LEADER:
            raise NotLeader
        if to == self.member or not self.configuration.can_vote(to):
            raise TransferRefused("only another voter can take over")
        if to != self._transferee:
            self._transferee = to
            self._transfer_elapsed = 0
            self._hand_over()

    def read(self, context: int) -> None:
        """Ask for the index that a linearizable read has to see; `take_reads` has the answer.

        Any member can ask. What is asked is answered once this member knows a leader with a
        majority; nothing is forgotten before.

        Raises:
            TooManyReads: As many as may be wait already.
        """
        if self._reads.count >= self._settings.reads_max:
            raise TooManyReads
        self._reads.add(context)

    def read_index(self) -> Index | None:
        """Return the index that a linearizable read has to see applied, or None if it must ask.

        A leader may answer once it has committed an entry of its own term and a majority confirms
        that it still leads (thesis 6.4). Where its own voice is a majority, it confirms.
        """
        return self.log.committed if self._confirmed else None

    def restore(self, index: Index, term: Term, configuration: Configuration) -> bool:
        """Go on behind a snapshot of another member's, whose body is about to take effect here.

        Args:
            index: Of the last entry in it.
            term: Of that entry.
            configuration: In force there.

        Returns:
            Whether it is wanted. If not, nothing has changed, and the body must not take effect.
            If it is and the log ends with it now (`log.last`), nothing that the disk has of the log
            may stay, nor what a work order that is out still writes, but for the hard state.
        """
        log = self.log
        if self.role is Role.LEADER or index <= log.committed:
            return False
        if term > self.term or self.role is not Role.FOLLOWER:
            self._enter_term(max(term, self.term), NOBODY)
        keeps = log.restore(index, term)
        self._membership.restore(index, configuration, keeps=keeps)
        self._following.restore(index, keeps=keeps)
        if self._in_flight is not None:
            hard_state, through = self._in_flight
            self._in_flight = (hard_state, through if keeps else index)
        return True

    def report_snapshot(self, peer: MemberId, *, ok: bool) -> None:
        """Take note that a snapshot which was ordered has been installed by a peer, or given up."""
        if self.role is Role.LEADER:
            self._replication.report_snapshot(peer, is_installed=ok)

    # --- what the caller gets ---------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """Return what has to be made durable now, or None; the caller answers with `persisted`.

        At most one work order is out at a time.
        """
        if self._in_flight is not None:
            return None
        log = self.log
        durable = log.durable
        term, vote = self.term, self.vote
        if durable == log.last:
            stored = self._persisted
            if term == stored.term and vote == stored.vote:
                return None
            run: tuple[Term, list[bytes]] = (term, [])
        else:
            run = log.run_after(durable)
        hard_state = HardState(term, vote, log.committed)
        self._in_flight = (hard_state, Index(durable + len(run[1])))
        return Ready(hard_state, Index(durable + 1), *run)

    def persisted(self) -> None:
        """Take note that the work order that is out has been carried out."""
        in_flight = self._in_flight
        invariant(in_flight is not None, "a work order was out")
        assert in_flight is not None  # noqa: S101 - narrows the type; the invariant has checked it
        self._in_flight = None
        self._persisted, self.log.durable = in_flight
        if self.role is Role.LEADER:
            self._replication.match[self.member] = self.log.durable
            self._commit()
        elif self._is_term_durable:
            self._outbox.release(self.term)
            if self.role is Role.CANDIDATE:
                # One's own vote counts once it is durable, and in its own term only.
                self._count_vote(self.member, granted=True)
            elif self._following.is_owing:
                self._acknowledge()

    def committed_after(self, applied: Index) -> list[bytes]:
        """Return the entries after an index that may be applied, in order.

        They are committed, and durable here.
        """
        return self.log.entries(applied, self.log.settled)

    @property
    def is_alone(self) -> bool:
        """Whether nobody else has any part in the cluster."""
        return self.configuration.members == (self.member,)

    @property
    def partners(self) -> frozenset[MemberId]:
        """Who has a part in consensus, also who goes until that is certain."""
        return frozenset(self._reachable())

    def take_messages(self) -> list[Message]:
        """Return what may be sent now, once."""
        if self._reads.can_begin:
            self._ask()
        if self.role is Role.LEADER:
            self._replication.feed(self.term, self._outbox)
        return self._outbox.take()

    def take_reads(self) -> list[tuple[int, Index]]:
        """Return the reads that were confirmed: each may be answered once its index is applied."""
        if self._reads.can_begin:
            self._ask()
        return self._reads.take()

    def take_snapshots(self) -> list[SnapshotOrder]:
        """Return which snapshots have to be sent, once; each is answered by `report_snapshot`.

        The caller may send a later one than was ordered, if it says at which index it is.
        """
        return self._replication.take_orders()

    def configuration_at(self, index: Index) -> Configuration:
        """Return the configuration that a snapshot at an index has to carry."""
        return self._membership.at(index)

    def status(self) -> Status:
        """Return how this member stands."""
        log = self.log
        return Status(
            member=self.member,
            role=self.role,
            term=self.term,
            vote=self.vote,
            leader=self.leader,
            committed=log.committed,
            applied=log.applied,
            durable=log.durable,
            last=log.last,
            configuration=self.configuration,
            configuration_index=self._membership.since,
            transferee=self._transferee,
            uncommitted_bytes=self._uncommitted_bytes,
            reads_waiting=self._reads.count,
            dropped=dict(self._dropped),
            peers=self._replication.status(),
        )

    def _check_leading(self) -> None:
        if self.role is not Role.LEADER:
            raise NotLeader
        if self._transferee:
            raise Transferring

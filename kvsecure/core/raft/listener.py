"""What a member does about a message.

Owns: which messages are looked at, which are dropped and counted, and the answers.
Never: raises because of what a peer says.
Follows: Raft figure 2 (rules for all servers; receiver implementation); thesis 3.10, 4.2.3, 6.4,
    9.6.
Keeps: who is not in the configuration may lead and ask for votes, for this member may not know the
    newest one (thesis 4.1); but only who was asked can answer.
"""

from typing import Final

from kvsecure.core.raft.following import Taken
from kvsecure.core.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
    is_possible,
)
from kvsecure.core.raft.participant import NOBODY, Participant
from kvsecure.core.raft.status import Dropped, Role
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Listener"]

# Only members answer, and only members ask a leader.
_OF_MEMBERS: Final = (AppendReply, HeartbeatReply, VoteReply, PreVoteReply, ReadIndex)


class Listener(Participant):
    """A member that hears others."""

    def step(self, message: Message) -> None:
        """Take a message of another member's, whatever it is.

        Who the sender is has been proven: the transport says so, not the message alone.
        """
        if message.to != self.member or not is_possible(message):
            self._drop(Dropped.IMPOSSIBLE)
        elif isinstance(message, _OF_MEMBERS) and not self._is_known(message.sender):
            self._drop(Dropped.UNKNOWN)
        elif isinstance(message, PreVote):
            self._on_pre_vote(message)
        elif message.term < self.term:
            self._answer_earlier(message)
        elif message.term == self.term or self._enters(message):
            self._receive(message)

    def _receive(self, message: Message) -> None:
        """Act on a message of the present term."""
        match message:
            case Append():
                self._on_append(message)
            case AppendReply():
                self._on_append_reply(message)
            case Heartbeat():
                self._on_heartbeat(message)
            case HeartbeatReply():
                self._on_heartbeat_reply(message)
            case ReadIndex():
                self._on_read_index(message)
            case ReadIndexReply():
                self._on_read_index_reply(message)
            case PreVote():
                self._on_pre_vote(message)
            case PreVoteReply():
                self._on_pre_vote_reply(message)
            case Vote():
                self._on_vote(message)
            case VoteReply():
                self._on_vote_reply(message)
            case TimeoutNow():
                self._on_timeout_now(message)

    def _is_known(self, member: MemberId) -> bool:
        return member in self.configuration.members or member in self._replication.peers

    def _drop(self, why: Dropped) -> None:
        self._dropped[why] += 1

    # --- terms ------------------------------------------------------------------------------------

    def _answer_earlier(self, message: Message) -> None:
        """Let who is behind know the term; a leader of an earlier one would never learn it.

        A member that was cut off may be in a later term than the leader, and takes nothing from it
        until both are in one term again.
        """
        if isinstance(message, Append | Heartbeat):
            self._send(
                AppendReply(
                    self.member, message.sender, self.term, Index(0), True, Index(0), Term(0)
                )
            )
        elif isinstance(message, Vote):
            self._send(VoteReply(self.member, message.sender, self.term, granted=False))
        else:
            self._drop(Dropped.STALE)

    def _enters(self, message: Message) -> bool:
        """Go over to a message's later term (Raft section 5.1); tell whether to look at it."""
        if isinstance(message, PreVoteReply) and message.granted:
            # It speaks of a term that nobody is in yet.
            return True
        if isinstance(message, Vote) and not message.is_transfer and self._hears_leader:
            self._drop(Dropped.DISTURBING)
            return False
        if isinstance(message, TimeoutNow | ReadIndexReply):
            # From somebody who is not known to lead.
            self._drop(Dropped.STALE)
            return False
        leads = isinstance(message, Append | Heartbeat)
        self._enter_term(message.term, message.sender if leads else NOBODY)
        return True

    @property
    def _hears_leader(self) -> bool:
        """Whether an election would disturb (thesis 4.2.3)."""
        return self.leader != NOBODY and self._election.is_quiet

    # --- elections --------------------------------------------------------------------------------

    def _is_up_to_date(self, message: PreVote | Vote) -> bool:
        """Tell whether a candidate's log has everything that may be committed (section 5.4.1)."""
        log = self.log
        return (message.last_term, message.last_index) >= (log.last_term, log.last)

    def _on_pre_vote(self, message: PreVote) -> None:
        if message.term > self.term and self._hears_leader:
            self._drop(Dropped.DISTURBING)
            return
        granted = message.term > self.term and self._is_up_to_date(message)
        if granted:
            # Two who stand at once may both lose.
            self._election.relent()
        term = message.term if granted else self.term
        self._send(PreVoteReply(self.member, message.sender, term, granted))

    def _on_pre_vote_reply(self, message: PreVoteReply) -> None:
        asked = self.term + 1 if message.granted else self.term
        if self.role is Role.PRE_CANDIDATE and message.term == asked:
            self._count_vote(message.sender, granted=message.granted)
        else:
            self._drop(Dropped.STALE)

    def _on_vote(self, message: Vote) -> None:
        free = self.vote == NOBODY and self.leader == NOBODY
        if (free or self.vote == message.sender) and self._is_up_to_date(message):
            self.vote = message.sender
            self._election.hear()
            reply = VoteReply(self.member, message.sender, self.term, granted=True)
            self._outbox.hold(reply)
            if self._is_term_durable:
                self._outbox.release(self.term)
        else:
            self._send(VoteReply(self.member, message.sender, self.term, granted=False))

    def _on_vote_reply(self, message: VoteReply) -> None:
        if self.role is Role.CANDIDATE:
            self._count_vote(message.sender, granted=message.granted)
        else:
            self._drop(Dropped.STALE)

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        can_stand = self._membership.can_stand(self.member, self.log.committed)
        if self.role is Role.FOLLOWER and message.sender == self.leader and can_stand:
            self._campaign(is_transfer=True)
        else:
            self._drop(Dropped.STALE)

    # --- following --------------------------------------------------------------------------------

    def _is_led_by(self, sender: MemberId) -> bool:
        """Follow who leads the present term; tell whether it can be that one."""
        if self.role is Role.LEADER or self.leader not in (NOBODY, sender):
            # A term has one leader (Raft section 5.2).
            self._drop(Dropped.IMPOSSIBLE)
            return False
        if self.leader == NOBODY:
            self._follow(sender)
        self._election.hear()
        return True

    def _on_append(self, message: Append) -> None:
        if not self._is_led_by(message.sender):
            return
        committed = self.log.committed
        taken = self._following.take(message)
        if taken is Taken.IMPOSSIBLE:
            self._drop(Dropped.IMPOSSIBLE)
        elif taken is Taken.REJECTED:
            self._reject(message)
        else:
            self._note_truncation()
            end = message.prev_index + len(message.entries)
            if end <= self.log.durable and self._is_term_durable:
                # Nobody waits for an answer to the news that something is committed. A leader that
                # asks what has come has no news, or asks again (see `take_heartbeat_reply`).
                if message.entries or self.log.committed == committed:
                    self._acknowledge()
            else:
                self._following.is_owing = True

    def _reject(self, message: Append) -> None:
        log, prev = self.log, message.prev_index
        hint = log.last_not_after(Index(min(prev, log.last)), message.prev_term)
        self._send(
            AppendReply(
                self.member,
                message.sender,
                self.term,
                prev,
                True,
                hint,
                log.term_of(hint) or Term(0),
            )
        )

    def _note_truncation(self) -> None:
        """See that a work order that is out makes nothing durable that was cut off since."""
        after, self._following.truncated = self._following.truncated, None
        if after is not None and self._in_flight is not None:
            hard_state, through = self._in_flight
            self._in_flight = (hard_state, Index(min(through, after)))

    def _on_heartbeat(self, message: Heartbeat) -> None:
        if not self._is_led_by(message.sender):
            return
        self._following.hear(message.committed, message.committed_term)
        self._outbox.hold(HeartbeatReply(self.member, message.sender, self.term, message.context))
        if self._is_term_durable:
            self._outbox.release(self.term)

    # --- leading ----------------------------------------------------------------------------------

    def _on_append_reply(self, message: AppendReply) -> None:
        progress = self._replication.peers.get(message.sender)
        if self.role is not Role.LEADER or progress is None:
            self._drop(Dropped.STALE)
        elif message.through > self.log.last:
            self._drop(Dropped.IMPOSSIBLE)
        elif self._replication.take_reply(progress, message):
            self._commit()
            if message.sender == self._transferee:
                self._hand_over()

    def _on_heartbeat_reply(self, message: HeartbeatReply) -> None:
        progress = self._replication.peers.get(message.sender)
        if self.role is not Role.LEADER or progress is None:
            self._drop(Dropped.STALE)
            return
        self._replication.take_heartbeat_reply(message.sender, progress, self.term, self._outbox)
        self._reads.answer(message.sender, message.context)
        self._confirm_reads()

    # --- reads ------------------------------------------------------------------------------------

    def _on_read_index(self, message: ReadIndex) -> None:
        if self.role is Role.LEADER and message.sender in self._replication.peers:
            self._reads.add_other(message.sender, message.context)
        else:
            self._drop(Dropped.STALE)

    def _on_read_index_reply(self, message: ReadIndexReply) -> None:
        if self.role is Role.FOLLOWER and message.sender == self.leader:
            self._reads.confirm_asked(message.context, message.read_index)
        else:
            self._drop(Dropped.STALE)

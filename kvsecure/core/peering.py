"""Peering: what this member and the others say to each other.

    messages of consensus     out as consensus makes them, in as they come
    what clients want         to the leader, and at the leader from the others (see `relay`)
    snapshots                 ordered by consensus, sent by the server

Owns: which of what comes is for whom here, and what another member may have put into the log.
Never: opens a connection, or decides what a client may do: the member that was asked has.
Follows: design D2; docs/adr/0021-peer-links.md.
Keeps: whatever bytes come, what is not a message is counted and passed over.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol, final

from google.protobuf.message import Message

from kvsecure.core.entry import DamagedEntry, decode
from kvsecure.core.members import Members
from kvsecure.core.raft import codec
from kvsecure.core.raft.participant import NOBODY
from kvsecure.core.raft.refusals import Refusal, TooMuchUncommitted
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.raft.status import Role
from kvsecure.core.relay import Relay, type_answered
from kvsecure.core.relay_codec import (
    RELAYED,
    Answer,
    Ask,
    DamagedRelay,
    Declined,
    Propose,
    Proposed,
    Reason,
    Relayed,
)
from kvsecure.core.relay_codec import decode as decode_relayed
from kvsecure.core.relay_codec import encode as encode_relayed
from kvsecure.core.replica import Proposal, Replica
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT, Index, MemberId, TenantId

__all__ = ["NoPeers", "Peering", "Peers", "SnapshotDone", "type_answer"]

# Answers a question of another member, at once or later.
type_answer = Callable[[TenantId, Message, type_answered], None]

# Requests to other members are numbered from somewhere below this.
_NUMBER_BITS: Final = 56
# What comes so long after a way was lost was said after that.
_UNDER_WAY_NS_MAX: Final = 200_000_000
_REASONS: Final = {
    Reason.TOO_MUCH: Failure.TOO_MANY_REQUESTS,
    Reason.NO_SPACE: Failure.NO_SPACE,
    # The leader is of another version, or one of us is broken; it is not for the client to mend.
    Reason.DAMAGED: Failure.CORRUPT,
}


class SnapshotDone(Protocol):
    """Told what became of a snapshot that was to be sent."""

    def __call__(self, *, is_installed: bool) -> None:
        """Take note of it."""
        ...


class Peers(Protocol):
    """The ways to the other members."""

    def follow(self, members: Members, partners: frozenset[MemberId], /) -> None:
        """Have ways to the members that are declared and to partners in consensus, no others."""
        ...

    def send(self, member: MemberId, text: bytes, /) -> bool:
        """Send bytes, without ever waiting; return whether they are on their way."""
        ...

    def send_snapshot(self, order: SnapshotOrder, done: SnapshotDone, /) -> None:
        """Send the applied state; tell whether it was installed, once."""
        ...


@final
class NoPeers:
    """For a member that is alone."""

    def follow(self, _: Members, __: frozenset[MemberId], /) -> None:
        """Have none."""

    def send(self, _: MemberId, __: bytes, /) -> bool:
        """Drop it."""
        return False

    def send_snapshot(self, _: SnapshotOrder, done: SnapshotDone, /) -> None:
        """Give it up."""
        done(is_installed=False)


class _Member(Protocol):
    """What the others' words come to, in the engine."""

    def put(self, proposals: Sequence[Proposal]) -> Index:
        """Put commands that were taken into the log, as its leader; return the first one's index.

        Raises:
            Refusal: Consensus does not take them.
        """
        ...

    def adopt(self, proposals: Sequence[Proposal]) -> Index:
        """Put commands that another member has taken into the log, as its leader.

        Raises:
            Refused: There is no room for them now.
            Refusal: Consensus does not take them.
        """
        ...

    def lose(self, proposals: Iterable[Proposal], refused: Refused) -> None:
        """Finish commands without their having been applied here."""
        ...

    def drive_soon(self) -> None:
        """Do what follows, once everything that has come by now was looked at."""
        ...


@final
class Peering:
    """One member's conversations."""

    __slots__ = (
        "_lost_ns",
        "_member",
        "_now_ns",
        "_peers",
        "_replica",
        "answering",
        "damaged",
        "relay",
    )

    def __init__(
        self, replica: Replica, peers: Peers, member: _Member, now_ns: Callable[[], int]
    ) -> None:
        """Say nothing yet.

        Args:
            replica: Takes part in consensus.
            peers: The ways to the others.
            member: What their words come to.
            now_ns: Monotonic time in nanoseconds.
        """
        self._replica = replica
        self._peers = peers
        self.relay = Relay(peers.send, secrets.randbits(_NUMBER_BITS))
        self._member = member
        self._now_ns = now_ns
        # How much came that was nothing.
        self.damaged = 0
        # When the way to the leader was last lost.
        self._lost_ns = 0
        # Who answers here what another member asks, by the kind of the question.
        self.answering: dict[type[Message], type_answer] = {}

    # --- out --------------------------------------------------------------------------------------

    def speak(self) -> None:
        """Send what consensus has to say."""
        node, peers = self._replica.node, self._peers
        for message in node.take_messages():
            # What cannot be sent is lost, as it may be on its way: consensus sends it again.
            peers.send(message.to, codec.encode(message))
        for order in node.take_snapshots():
            peers.send_snapshot(order, partial(self._report, order.to))

    def hand_on(self) -> None:
        """Put the commands that wait into the log, or send them to whoever leads."""
        relay, node = self.relay, self._replica.node
        if not relay.waiting:
            return
        if node.role is not Role.LEADER:
            if node.leader:
                relay.carry(node.leader)
            return
        batch, relay.waiting = relay.waiting, []
        try:
            self._member.put(batch)
        except TooMuchUncommitted:
            self._member.lose(batch, Refused(Failure.TOO_MANY_REQUESTS))
        except Refusal:
            # It is handing over: they go to whoever comes.
            relay.waiting = batch

    def forsake(self, leader: MemberId) -> None:
        """Let go of what others than this leader were sent: it is not known what becomes of it.

        Who waits for it is told once somebody leads.
        """
        lost = self.relay.forsake(leader)
        if lost:
            self._member.lose(lost, Refused(Failure.TIMEOUT_LEADER_LOST))

    def lost(self, member: MemberId) -> None:
        """Take note that a member cannot be reached: what it was sent may not have got there."""
        if member == self._replica.node.leader:
            self._lost_ns = self._now_ns()
            self.forsake(NOBODY)
        else:
            self.relay.lost(member)
            self._replica.node.report_unreachable(member)

    def parted(self, member: MemberId) -> None:
        """Take note that a member neither can be reached nor reaches us: it seems to be gone."""
        if member == self._replica.node.leader:
            self._replica.node.suspect_leader()

    def ask(self, tenant: TenantId, request: Message, answered: type_answered) -> None:
        """Ask the leader, which this member is not, what only it knows."""
        leader = self._replica.node.leader
        if leader:
            self.relay.ask(leader, tenant, request, self._now_ns(), answered)
        else:
            answered(0, Refused(Failure.TIMEOUT))

    def ask_member(
        self, member: MemberId, request: Message, answered: type_answered, grace_ns: int = 0
    ) -> None:
        """Ask another member, as the leader, what only that one knows.

        Args:
            member: Who.
            request: What.
            answered: Told the answer, or why there is none; at the latest when another one leads.
            grace_ns: How much longer than a command it may take.
        """
        self.relay.ask(member, SYSTEM_TENANT, request, self._now_ns(), answered, grace_ns)

    # --- in ---------------------------------------------------------------------------------------

    def take(self, sender: MemberId, text: bytes) -> None:
        """Take in what another member has said."""
        try:
            if text[:1] == bytes((RELAYED,)):
                self._take_relayed(sender, decode_relayed(text))
            else:
                message = codec.decode(text)
                if message.sender != sender:
                    # A member speaks as no other.
                    self.damaged += 1
                    return
                self._replica.node.step(message)
            if self.relay.has_orphans and sender == self._replica.node.leader:
                self._found(sender)
        except (DamagedRelay, codec.DamagedMessage):
            self.damaged += 1
            return
        self._member.drive_soon()

    def _found(self, leader: MemberId) -> None:
        """Take note that a leader whose way was lost leads on, if it has not said that before."""
        if self._now_ns() - self._lost_ns > _UNDER_WAY_NS_MAX:
            self.forsake(leader)

    def _take_relayed(self, sender: MemberId, said: Relayed) -> None:
        match said:
            case Propose():
                answer: Relayed = self._propose_for(said)
                self._peers.send(sender, encode_relayed(answer))
            case Proposed(number, term, first):
                proposals = self.relay.proposed(sender, number)
                lost = self._replica.expect(first, term, proposals) if proposals else ()
                self._member.lose(lost, Refused(Failure.TIMEOUT_LEADER_LOST))
            case Declined(number, reason):
                self._declined(list(self.relay.proposed(sender, number)), reason)
            case Ask(number, tenant, request):
                answer_it = self.answering.get(type(request), _answer_nothing)
                answer_it(tenant, request, partial(self._answer, sender, number))
            case Answer():
                self.relay.answered(sender, said)

    def _propose_for(self, said: Propose) -> Proposed | Declined:
        """Put into the log, as the leader, what another member's clients want."""
        if self._replica.node.role is not Role.LEADER:
            return Declined(said.number, Reason.NOT_LEADER)
        now_ns = self._now_ns()
        try:
            proposals = []
            for entry in said.entries:
                # Nothing gets into the log that could not be read by whoever applies it.
                caller, command = decode(entry)
                proposal = Proposal(entry, caller, command, now_ns, None)
                # Nobody waits for it here.
                proposal.done = True
                proposals.append(proposal)
            first = self._member.adopt(proposals)
        except DamagedEntry:
            return Declined(said.number, Reason.DAMAGED)
        except TooMuchUncommitted:
            return Declined(said.number, Reason.TOO_MUCH)
        except Refusal:
            return Declined(said.number, Reason.NOT_LEADER)
        except Refused as refused:
            is_full = refused.failure is Failure.NO_SPACE
            return Declined(said.number, Reason.NO_SPACE if is_full else Reason.TOO_MUCH)
        return Proposed(said.number, self._replica.node.term, first)

    def _declined(self, proposals: list[Proposal], reason: Reason) -> None:
        failure = _REASONS.get(reason)
        if failure is not None:
            self._member.lose(proposals, Refused(failure))
        else:
            # They go to whoever leads, once that is known better: with the next tick at the latest.
            self.relay.waiting[:0] = proposals

    def _answer(self, sender: MemberId, number: int, revision: int, came: bytes | Refused) -> None:
        said = came.failure if isinstance(came, Refused) else came
        self._peers.send(sender, encode_relayed(Answer(number, revision, said)))

    def _report(self, peer: MemberId, *, is_installed: bool) -> None:
        self._replica.node.report_snapshot(peer, ok=is_installed)
        self._member.drive_soon()


def _answer_nothing(_: TenantId, __: Message, answered: type_answered) -> None:
    answered(0, Refused(Failure.NOT_LEADER))

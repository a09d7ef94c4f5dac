"""The relay: what this member's clients want and only the leader can do.

    commands   kept while nobody leads -> sent to the leader -> a place in its log, or not taken
    questions  sent to the leader -> answered

Owns: what waits for a leader, what the leader was asked, and who waits for the answers.
Never: proposes or applies; knows who may ask what.
Follows: etcd's members pass on what they are asked; differs: a command whose leader is lost is
    finished as soon as somebody leads, with the failure that says that its outcome is not known.
    Not before: who tries again at once would be told the same again.
Keeps: a command is sent once, unless the leader has said that it did not take it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, final

from google.protobuf.message import Message

from kvsecure.core.raft.participant import NOBODY
from kvsecure.core.relay_codec import (
    RELAY_ENTRIES_MAX,
    Answer,
    Ask,
    Propose,
    encode,
)
from kvsecure.core.replica import Proposal
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import MemberId, TenantId

__all__ = ["Relay", "Send", "type_answered"]

# Entries in one message; a single one may be larger.
_BYTES_MAX: Final = 1024 * 1024

type_answered = Callable[[int, bytes | Refused], None]


class Send(Protocol):
    """Sends bytes to a member, without ever waiting."""

    def __call__(self, member: MemberId, text: bytes, /) -> bool:
        """Return whether they are on their way."""
        ...


class _Sent(NamedTuple):
    to: MemberId
    proposals: Sequence[Proposal]


class _Asked(NamedTuple):
    to: MemberId
    # When it would have been asked if it could take no longer than a command.
    since_ns: int
    answered: type_answered


@final
class Relay:
    """What waits for a leader, or for its answer."""

    __slots__ = ("_asked", "_number", "_orphans", "_send", "_sent", "waiting")

    def __init__(self, send: Send, number: int) -> None:
        """Begin with nothing.

        Args:
            send: Sends to another member.
            number: Where numbers begin; drawn by chance, so that answers to what was sent before a
                restart answer nothing.
        """
        self._send = send
        self._number = number
        # Commands that nobody has been asked for yet.
        self.waiting: list[Proposal] = []
        self._sent: dict[int, _Sent] = {}
        # Commands whose leader is lost, while nobody leads.
        self._orphans: list[Proposal] = []
        self._asked: dict[int, _Asked] = {}

    def carry(self, leader: MemberId) -> None:
        """Send the leader the commands that wait; what cannot be sent now goes on waiting."""
        waiting, self.waiting = self.waiting, []
        left = iter(_batched(waiting))
        for batch in left:
            self._number += 1
            entries = [proposal.entry for proposal in batch]
            if not self._send(leader, encode(Propose(self._number, entries))):
                self.waiting = batch
                break
            self._sent[self._number] = _Sent(leader, batch)
        for batch in left:
            self.waiting += batch

    def proposed(self, sender: MemberId, number: int) -> Sequence[Proposal]:
        """Return the commands that a member has answered; none if it was not asked that."""
        sent = self._sent.get(number)
        if sent is None or sent.to != sender:
            return ()
        del self._sent[number]
        return sent.proposals

    def ask(
        self,
        member: MemberId,
        tenant: TenantId,
        request: Message,
        now_ns: int,
        answered: type_answered,
        grace_ns: int = 0,
    ) -> None:
        """Ask another member something.

        Args:
            member: The leader, or as the leader any other.
            tenant: Whose lease, if it is about one.
            request: What is asked.
            now_ns: Monotonic time in nanoseconds.
            answered: Told the revision and the answer's bytes, or why there is none.
            grace_ns: How much longer than for a command the answer is waited for.
        """
        self._number += 1
        if self._send(member, encode(Ask(self._number, tenant, request))):
            self._asked[self._number] = _Asked(member, now_ns + grace_ns, answered)
        else:
            answered(0, Refused(Failure.TIMEOUT))

    def answered(self, sender: MemberId, answer: Answer) -> None:
        """Pass on an answer; one to what was not asked is passed over."""
        asked = self._asked.get(answer.number)
        if asked is not None and asked.to == sender:
            del self._asked[answer.number]
            came = answer.came
            asked.answered(answer.revision, Refused(came) if isinstance(came, Failure) else came)

    def lost(self, member: MemberId) -> None:
        """Take note that a member cannot be reached, and will not answer what it was asked."""
        for number in [n for n, asked in self._asked.items() if asked.to == member]:
            self._asked.pop(number).answered(0, Refused(Failure.TIMEOUT))

    @property
    def has_orphans(self) -> bool:
        """Whether commands were lost with a leader, and wait for another one to be told so."""
        return bool(self._orphans)

    def forsake(self, leader: MemberId) -> list[Proposal]:
        """Take note that this member is all that may lead; return the commands others have lost.

        Whether they will be carried out is not known. While nobody leads they are kept.
        """
        lost = [number for number, sent in self._sent.items() if sent.to != leader]
        unanswered = [number for number, asked in self._asked.items() if asked.to != leader]
        for number in unanswered:
            self._asked.pop(number).answered(0, Refused(Failure.TIMEOUT_LEADER_LOST))
        for number in lost:
            self._orphans += self._sent.pop(number).proposals
        if leader == NOBODY:
            return []
        orphans, self._orphans = self._orphans, []
        return orphans

    def expired(self, before_ns: int) -> Iterator[Proposal]:
        """Yield the commands that have waited since before a time; questions are let go of."""
        for number in [n for n, asked in self._asked.items() if asked.since_ns < before_ns]:
            self._asked.pop(number).answered(0, Refused(Failure.TIMEOUT))
        sent = (each.proposals for each in self._sent.values())
        for proposals in (self.waiting, self._orphans, *sent):
            for proposal in proposals:
                if not proposal.done and proposal.since_ns < before_ns:
                    yield proposal

    def drop_done(self) -> list[Proposal]:
        """Forget commands that nobody waits for any more; return them.

        Those that nobody was asked for are not carried out.
        """
        dropped = [each for each in (*self.waiting, *self._orphans) if each.done]
        if dropped:
            self.waiting = [proposal for proposal in self.waiting if not proposal.done]
            self._orphans = [proposal for proposal in self._orphans if not proposal.done]
        for number, sent in list(self._sent.items()):
            if all(proposal.done for proposal in sent.proposals):
                dropped += self._sent.pop(number).proposals
        return dropped


def _batched(proposals: Sequence[Proposal]) -> Iterator[list[Proposal]]:
    batch: list[Proposal] = []
    size = 0
    for proposal in proposals:
        length = len(proposal.entry)
        if batch and (size + length > _BYTES_MAX or len(batch) == RELAY_ENTRIES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(proposal)
        size += length
    if batch:
        yield batch

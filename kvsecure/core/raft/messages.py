"""What members say to each other.

Owns: one class for each kind of message, and which numbers in it are possible.
Never: encodes (see `codec`), or knows what follows from a message.
Follows: Raft figure 2; thesis 9.6 for PreVote, 3.10 for TimeoutNow, 6.4 for ReadIndex.
Keeps: every message begins with who sends it, to whom, and in which term.

The body of a snapshot is not a message: it is carried by the transport (see `Node.take_snapshots`).
"""

from typing import Final, NamedTuple

from kvsecure.model.ids import Index, MemberId, Term

__all__ = [
    "MEMBER_MAX",
    "NUMBER_MAX",
    "Append",
    "AppendReply",
    "Heartbeat",
    "HeartbeatReply",
    "Message",
    "PreVote",
    "PreVoteReply",
    "ReadIndex",
    "ReadIndexReply",
    "TimeoutNow",
    "Vote",
    "VoteReply",
    "is_possible",
]

# No term, index or context is larger, or negative: whatever is added to them fits 64 bits.
NUMBER_MAX: Final = (1 << 62) - 1
# Members have any number of 64 bits but 0.
MEMBER_MAX: Final = (1 << 64) - 1


class PreVote(NamedTuple):
    """Would you vote for me? (thesis 9.6) Nobody's term changes by it."""

    sender: MemberId
    to: MemberId
    # In which the sender would stand: the one after its own.
    term: Term
    last_index: Index
    last_term: Term


class PreVoteReply(NamedTuple):
    """The answer to `PreVote`; it promises nothing."""

    sender: MemberId
    to: MemberId
    # If granted the term that was asked about, otherwise the sender's own.
    term: Term
    granted: bool


class Vote(NamedTuple):
    """Vote for me (RequestVote, Raft section 5.2); sent once the own vote is durable."""

    sender: MemberId
    to: MemberId
    term: Term
    last_index: Index
    last_term: Term
    # The leader itself wants this election (thesis 3.10): it is no disturbance.
    is_transfer: bool


class VoteReply(NamedTuple):
    """The answer to `Vote`; sent once a vote that was given is durable."""

    sender: MemberId
    to: MemberId
    term: Term
    granted: bool


class Append(NamedTuple):
    """Entries of one term that follow on an entry (AppendEntries, Raft section 5.3)."""

    sender: MemberId
    to: MemberId
    term: Term
    prev_index: Index
    prev_term: Term
    # Of all the entries; that of the message if there are none.
    entry_term: Term
    committed: Index
    entries: list[bytes]


class AppendReply(NamedTuple):
    """The answer to `Append`, sent once what it says is durable.

    Also the answer to any leader of an earlier term, which learns the term from it.
    """

    sender: MemberId
    to: MemberId
    term: Term
    # To where the sender's log is durable and the same as the leader's; if rejected the
    # `prev_index` that did not match.
    through: Index
    is_rejected: bool
    # The last entry at or before `through` whose term is not later than the one asked for: nothing
    # after it can match (thesis 3.3 and Raft section 5.3, at the end). 0 unless rejected.
    hint_index: Index
    hint_term: Term


class Heartbeat(NamedTuple):
    """I lead (Raft section 5.2)."""

    sender: MemberId
    to: MemberId
    term: Term
    # Who has this very entry has all that is before it as well (Raft section 5.3, log matching).
    committed: Index
    committed_term: Term
    # The number of the newest round of reads (thesis 6.4).
    context: int


class HeartbeatReply(NamedTuple):
    """You led when this context was sent (thesis 6.4)."""

    sender: MemberId
    to: MemberId
    term: Term
    context: int


class TimeoutNow(NamedTuple):
    """Stand for election at once (thesis 3.10)."""

    sender: MemberId
    to: MemberId
    term: Term


class ReadIndex(NamedTuple):
    """Through where must a linearizable read of mine see? (thesis 6.4)."""

    sender: MemberId
    to: MemberId
    term: Term
    context: int


class ReadIndexReply(NamedTuple):
    """Reads that were asked for by this context or an earlier one have to see this index."""

    sender: MemberId
    to: MemberId
    term: Term
    context: int
    read_index: Index


Message = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)


def is_possible(message: Message) -> bool:
    """Tell whether an honest member could have sent a message, by its own numbers alone."""
    numbers = message[2:-1] if isinstance(message, Append) else message[2:]
    if min(numbers) < 0 or max(numbers) > NUMBER_MAX or not message.term:
        return False
    sender, to = message.sender, message.to
    if sender == to or not (0 < sender <= MEMBER_MAX and 0 < to <= MEMBER_MAX):
        return False
    if isinstance(message, Append):
        # Terms in a log never fall and are never ahead of the leader's; nothing is before entry 1.
        return (
            message.prev_term <= message.entry_term <= message.term
            and (message.prev_index == 0) == (message.prev_term == 0)
            and (message.prev_index + len(message.entries)) <= NUMBER_MAX
            and message.entry_term > 0
        )
    if isinstance(message, AppendReply) and message.is_rejected:
        return message.hint_index <= message.through and message.hint_term <= message.term
    if isinstance(message, Heartbeat):
        return message.committed_term <= message.term
    if isinstance(message, PreVote | Vote):
        return message.last_term < message.term
    return True

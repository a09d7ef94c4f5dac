"""One member's replica: consensus above, the applied state below; no clock, no disk, no socket.

Owns: carrying committed entries into the state in order, and who waits for which entry.
Never: waits or writes. `ready` says what must be durable; `persisted` is told that it is.
Follows: Raft section 5.3: an entry is applied once it is committed, in log order.
Keeps: a proposal is finished exactly once, with its answer or a refusal.
"""

import struct
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Final, NamedTuple, final

from google.protobuf.message import Message

from kvsecure.core.apply import apply, type_steps
from kvsecure.core.entry import DamagedEntry, decode, encode_clock
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.state import State
from kvsecure.model.answer import Answer
from kvsecure.model.burst import PutBurst, PutTxn
from kvsecure.model.caller import Caller
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index, MemberId, Term

__all__ = [
    "DamagedFrame",
    "LogFrame",
    "Outcome",
    "Proposal",
    "Replica",
    "clock_proposal",
    "decode_frame",
    "encode_frame",
]

_FRAME: Final = struct.Struct(">QQQQ")
_LENGTH: Final = struct.Struct(">I")

# A member that was away may have very many to apply.
_REPLAYED_AT_ONCE: Final = 16

Outcome = Answer | Refused


@final
class Proposal:
    """A command on its way through the log."""

    __slots__ = ("caller", "command", "context", "done", "entry", "since_ns")

    def __init__(
        self,
        entry: bytes,
        caller: Caller,
        command: Message | PutBurst | PutTxn,
        since_ns: int,
        context: object,
    ) -> None:
        self.entry = entry
        self.caller = caller
        self.command = command
        self.since_ns = since_ns
        # Whatever the one who submits it wants back with its outcome.
        self.context = context
        # Nobody waits any more once it is done: it timed out, or its connection is gone.
        self.done = False


def clock_proposal(time_s: int, now_ns: int) -> Proposal:
    """Return a command that says which second it is, for which nobody waits."""
    entry = encode_clock(time_s)
    caller, command = decode(entry)
    proposal = Proposal(entry, caller, command, now_ns, None)
    proposal.done = True
    return proposal


class _Waiting(NamedTuple):
    """Commands with a place in the leader's log."""

    first: Index
    # Of the leader that has put them there: another one's entries at these indexes are others.
    term: Term
    proposals: Sequence[Proposal]

    @property
    def last(self) -> Index:
        """The index of the last of them."""
        return Index(self.first + len(self.proposals) - 1)


@final
class DamagedFrame(Exception):
    """A frame of the log cannot be read."""


class LogFrame(NamedTuple):
    """What was written to the log for a work order."""

    hard_state: HardState
    # Of the entries.
    term: Term
    entries: list[bytes]
    # What the frame carries for others; nothing of it is consensus.
    carried: bytes


def encode_frame(ready: Ready, carried: bytes = b"") -> bytes:
    """Return what is written to the log for a work order, with what it carries for others."""
    hard = ready.hard_state
    parts = [_FRAME.pack(hard.term, hard.vote, hard.committed, ready.term)]
    pack = _LENGTH.pack
    for entry in ready.entries:
        parts.append(pack(len(entry)))
        parts.append(entry)
    parts.append(carried)
    return b"".join(parts)


def decode_frame(text: bytes, count: int) -> LogFrame:
    """Read what `encode_frame` wrote.

    Raises:
        DamagedFrame: It is not that.
    """
    entries = []
    try:
        term, vote, committed, entry_term = _FRAME.unpack_from(text)
        offset = _FRAME.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(text, offset)
            offset += _LENGTH.size
            entries.append(text[offset : offset + length])
            offset += length
    except struct.error:
        raise DamagedFrame("a frame of the log is cut off") from None
    if offset > len(text):
        raise DamagedFrame("an entry of the log is cut off")
    hard_state = HardState(Term(term), MemberId(vote), Index(committed))
    return LogFrame(hard_state, Term(entry_term), entries, text[offset:])


@final
class Replica:
    """Consensus and state together."""

    __slots__ = ("_lost", "_steps", "_waiting", "node", "state")

    def __init__(self, node: Node, state: State) -> None:
        self.node = node
        self.state = state
        self._waiting: deque[_Waiting] = deque()
        # Those whose place has become another's, and who have not been told.
        self._lost: list[Proposal] = []
        # Of the command that is being carried out.
        self._steps: type_steps | None = None

    @property
    def is_between(self) -> bool:
        """Whether a long command has been begun and is not done.

        `apply_committed` goes on with it, one step each time. Meanwhile the state is that before
        the command for whoever reads ranges of keys; nothing else of it is to be read or stored.
        """
        return self._steps is not None

    def propose(self, proposals: Sequence[Proposal]) -> Index:
        """Hand commands to consensus, as its leader; return the index of the first.

        Raises:
            Refusal: This member cannot; nothing was proposed.
        """
        node = self.node
        first = node.propose([proposal.entry for proposal in proposals])
        self._waiting.append(_Waiting(first, node.term, proposals))
        return first

    def expect(self, first: Index, term: Term, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Wait for commands that another member, the leader of a term, has put into its log.

        Returns:
            Those, of these or of earlier ones, whose place is or was another's: whether they are
            carried out is not known here.
        """
        lost: list[Proposal] = []
        waiting = self._waiting
        expected = _Waiting(first, term, proposals)
        if first <= self.node.log.applied or (waiting and waiting[-1].term > term):
            return list(proposals)
        while waiting and waiting[-1].last >= first:
            # A later leader has its own entries there: those of the earlier one can come no more
            # (Raft section 5.4.3, leader completeness).
            cut = waiting.pop()
            kept = max(first - cut.first, 0)
            if kept:
                waiting.append(cut._replace(proposals=cut.proposals[:kept]))
            lost += cut.proposals[kept:]
        waiting.append(expected)
        return lost

    def ready(self) -> Ready | None:
        """Return what has to be made durable now, or None."""
        return self.node.ready()

    def persisted(self) -> None:
        """Take note that the last work order is durable; the next one may go out at once."""
        self.node.persisted()

    def apply_committed(
        self, now_ns: int
    ) -> Generator[tuple[Proposal, Outcome] | None, None, None]:
        """Apply what is committed, durable here, and not applied, or one step of what is long.

        Yields:
            Each proposal that is finished, with its outcome, in log order; None now and then
            among entries that nobody here waits for. Whoever has enough closes the iterator, and
            goes on with another one.
        """
        if self._lost:
            yield from self._take_lost()
        log = self.node.log
        settled = log.settled
        if settled == log.applied:
            return
        entries = log.entries(log.applied, settled)
        index: int = log.applied
        waiting = self._waiting
        ahead = waiting[0] if waiting else None
        # Through where it is certain that the entries ahead are those that are waited for.
        certain = 0
        for entry in entries:
            index += 1
            if ahead is not None and ahead.first <= index > certain:
                certain = self._certain_through(ahead, Index(index), settled)
                if certain < index:
                    waiting.popleft()
                    self._lost += ahead.proposals[index - ahead.first :]
                    ahead = waiting[0] if waiting else None
                    yield from self._take_lost()
            if ahead is not None and index >= ahead.first:
                proposal = ahead.proposals[index - ahead.first]
                outcome = self._carry_out(proposal.caller, proposal.command, now_ns)
                if outcome is None:
                    return
                if index == ahead.first + len(ahead.proposals) - 1:
                    waiting.popleft()
                    ahead = waiting[0] if waiting else None
                self._note_applied(index)
                yield proposal, outcome
            elif entry and entry[0] and self._replay(entry, index, now_ns) is None:
                # It is a command: neither a leader's empty entry nor a configuration.
                return
            else:
                self._note_applied(index)
                if not index % _REPLAYED_AT_ONCE:
                    yield None

    def _take_lost(self) -> Generator[tuple[Proposal, Outcome], None, None]:
        while self._lost:
            yield self._lost.pop(0), Refused(Failure.TIMEOUT_LEADER_LOST)

    def _certain_through(self, ahead: _Waiting, index: Index, settled: Index) -> int:
        """Return through where committed entries from an index on are the ones waited for.

        An index and a term name one entry, and all that are before it (Raft section 5.3).
        """
        log, last = self.node.log, Index(min(ahead.last, settled))
        if log.term_of(last) == ahead.term:
            return last
        return index if log.term_of(index) == ahead.term else 0

    def _note_applied(self, index: int) -> None:
        self.state.index = self.node.log.applied = Index(index)
        self.state.term = self.node.log.term_of(Index(index)) or self.state.term

    def _carry_out(
        self, caller: Caller, command: Message | PutBurst | PutTxn, now_ns: int
    ) -> Outcome | None:
        """Carry out a command, or the next step of it; return what it came to once it is done."""
        try:
            if self._steps is None:
                came = apply(self.state, caller, command, now_ns)
                if isinstance(came, Answer):
                    return came
                self._steps = came
            next(self._steps)
        except StopIteration as end:
            self._steps = None
            done: Answer = end.value
            return done
        except Refused as refused:
            return refused
        return None

    def _replay(self, entry: bytes, index: int, now_ns: int) -> Outcome | None:
        """Apply an entry that nobody here waits for.

        If it is refused, it was when it was first applied as well; that changes nothing.

        Raises:
            DamagedEntry: It cannot be read.
        """
        try:
            caller, command = decode(entry)
        except DamagedEntry as error:
            raise DamagedEntry(f"entry {index}: {error}") from None
        return self._carry_out(caller, command, now_ns)

    def expire(self, before_ns: int) -> Iterator[Proposal]:
        """Yield the proposals that have waited since before a time and are still waited for."""
        for group in self._waiting:
            for proposal in group.proposals:
                if not proposal.done and proposal.since_ns < before_ns:
                    yield proposal

    @property
    def waiting_count(self) -> int:
        """How many proposals are not finished."""
        return sum(len(group.proposals) for group in self._waiting)

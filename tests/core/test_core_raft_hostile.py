"""Whatever peers send: a node neither raises nor takes back what it has committed."""

import random
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.raft_messages import ANY_MESSAGES

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.messages import Message, PreVoteReply, VoteReply
from kvsecure.core.raft.node import HardState, Node
from kvsecure.core.raft.refusals import Refusal
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import Index, MemberId, Term

_NUMBERS = st.integers(0, 8)


class _Besieged(RuleBasedStateMachine):
    """One member among three, whose peers send anything at all."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(
            MemberId(1),
            RaftLog(Index(0), Term(0)),
            HardState(Term(0), MemberId(0), Index(0)),
            Configuration((MemberId(1), MemberId(2), MemberId(3))),
            Settings(election_ticks=4, append_bytes_max=8, in_flight_max=2),
            random.Random(1),
        )
        self.committed: dict[int, tuple[int | None, bytes]] = {}
        self.term = 0

    @rule(messages=st.lists(ANY_MESSAGES, min_size=1, max_size=8), mine=st.booleans())
    def hear(self, messages: list[Message], *, mine: bool) -> None:
        """Hear anything, of this term or of any."""
        for message in messages:
            meant = message._replace(to=MemberId(1))
            self.node.step(meant._replace(term=self.node.term) if mine else meant)

    @rule()
    def win(self) -> None:
        """Lead, by votes that are given whenever they are wanted."""
        for _ in range(12):
            self.node.tick()
            while self.node.ready() is not None:
                self.node.persisted()
            for message in self.node.take_messages():
                asked = type(message).__name__
                if asked in {"Vote", "PreVote"}:
                    reply = VoteReply(message.to, MemberId(1), message.term, granted=True)
                    self.node.step(reply)
                    self.node.step(_granted(reply))

    @rule(count=st.integers(1, 6))
    def tick(self, count: int) -> None:
        """Let time pass."""
        for _ in range(count):
            self.node.tick()

    @rule()
    def begin(self) -> None:
        """Hand out a work order; it is carried out later."""
        self.node.ready()

    @rule()
    def persist(self) -> None:
        """Carry out the work order that is out, if one is."""
        if self.node._in_flight is not None:
            self.node.persisted()

    @rule()
    def take(self) -> None:
        """Take what there is to send, apply what there is to apply."""
        self.node.take_messages()
        self.node.take_reads()
        for order in self.node.take_snapshots():
            self.node.report_snapshot(order.to, ok=order.index % 2 == 0)
        self.node.log.applied = max(self.node.log.applied, self.node.log.settled)

    @rule()
    def compact(self) -> None:
        """Forget what was applied."""
        self.node.log.forget(self.node.log.applied)

    @rule(index=_NUMBERS, term=_NUMBERS)
    def restore(self, index: int, term: int) -> None:
        """Be given a snapshot."""
        if term >= self.node.log.last_term:
            self.node.restore(Index(index), Term(term), Configuration((MemberId(1),)))

    @rule(ask=st.integers(0, 4), number=st.integers(1, 4))
    def ask(self, ask: int, number: int) -> None:
        """Want something."""
        node, other = self.node, MemberId(number)
        wishes: list[Callable[[], object]] = [
            lambda: node.propose([b"\x01x"] * number),
            lambda: node.propose_change([MemberId(1), other]),
            lambda: node.propose_change([MemberId(2), MemberId(3)], [other]),
            lambda: node.transfer(other),
            lambda: node.read(number),
        ]
        try:
            wishes[ask]()
        except Refusal:
            return

    @invariant()
    def marks_are_in_order(self) -> None:
        """Check that the marks of the log are in order, and that the term has not fallen."""
        log = self.node.log
        assert log.offset <= log.applied <= log.committed <= log.last
        assert log.applied <= log.durable <= log.last
        assert self.node.term >= max(self.term, log.last_term)
        self.term = self.node.term
        assert (self.node.role is Role.LEADER) == (self.node.leader == 1)
        self.node.status()

    @invariant()
    def committed_stays(self) -> None:
        """Check that what was committed is still there, unless a snapshot has it."""
        log = self.node.log
        known = {
            index: (log.term_of(Index(index)), log.entries(Index(index - 1), Index(index))[0])
            for index in range(log.offset + 1, log.committed + 1)
        }
        for index, entry in known.items():
            assert self.committed.setdefault(index, entry) == entry


def _granted(reply: VoteReply) -> Message:
    return PreVoteReply(*reply)


def test_nothing_that_peers_send_raises_or_takes_back() -> None:
    """Any message in any order leaves a node standing, with everything it has committed."""
    run_state_machine_as_test(
        _Besieged, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
    )

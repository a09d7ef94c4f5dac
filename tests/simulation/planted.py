"""Mistakes that are planted in consensus and around it, to see that a simulation finds them.

    MISTAKES        by name: what is replaced, by what
    planted         a member is made with one of them for a while

Owns: one wrong step each, in the place of the right one.
Never: changes the source; what was replaced is put back.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, final

from simulation.disk import SimulatedDisk
from simulation.kernel import MS
from simulation.leases import Leases
from simulation.machine import Machine
from simulation.member import Member
from simulation.network import Weather
from simulation.profile import Mishap, Profile, drawn

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.election import Election
from kvsecure.core.raft.following import Following, Taken
from kvsecure.core.raft.listener import Listener
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.membership import configurations_in
from kvsecure.core.raft.messages import (
    Append,
    AppendReply,
    PreVote,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kvsecure.core.raft.node import Node
from kvsecure.core.raft.outbox import Outbox
from kvsecure.core.raft.participant import NOBODY, HardState, Participant
from kvsecure.core.raft.reads import Reads
from kvsecure.core.raft.replication import Replication
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["MISTAKES", "Mistake", "planted"]


@final
class Mistake(NamedTuple):
    """A wrong step in the place of a right one."""

    # Of which class, under which name, and by what.
    replaced: tuple[tuple[type, str, Any], ...]
    # In runs that are like this, and otherwise as they are drawn.
    focus: Mapping[str, Any] = MappingProxyType({})
    # Within a few runs, as a rule.
    is_soon_found: bool = True

    def profile(self, seed: int) -> Profile:
        """Return the run of a seed in which it is looked for."""
        return replace(drawn(seed), **self.focus)


@contextlib.contextmanager
def planted(mistake: Mistake) -> Iterator[None]:
    """Let every member make a mistake, until the end of the block."""
    right = [owner.__dict__[name] for owner, name, _ in mistake.replaced]
    for owner, name, wrong in mistake.replaced:
        setattr(owner, name, wrong)
    try:
        yield
    finally:
        for (owner, name, _), was in zip(mistake.replaced, right, strict=True):
            setattr(owner, name, was)


def _one(owner: type, name: str, wrong: Any, **how: Any) -> Mistake:
    return Mistake(((owner, name, wrong),), **how)


# --- votes ----------------------------------------------------------------------------------------


def _vote_for_whoever_asks(self: Any, message: Vote) -> None:
    if self._is_up_to_date(message):
        self.vote = message.sender
        self._election.elapsed = 0
        self._outbox.hold(VoteReply(self.member, message.sender, self.term, granted=True))
        if self._is_term_durable:
            self._outbox.release(self.term)


def _compare_terms_alone(self: Any, message: PreVote | Vote) -> bool:
    return bool(message.last_term >= self.log.last_term)


def _trust_a_transfer(self: Any, message: PreVote | Vote) -> bool:
    log = self.log
    if isinstance(message, Vote) and message.is_transfer:
        return True
    return (message.last_term, message.last_index) >= (log.last_term, log.last)


def _hand_over_at_once(self: Any) -> None:
    self._send(TimeoutNow(self.member, self._transferee, self.term))


def _count_every_reply(
    self: Any, voter: MemberId, configuration: Configuration, *, granted: bool
) -> bool | None:
    self.votes[len(self.votes)] = granted
    if 2 * sum(self.votes.values()) > len(configuration.voters):
        return True
    return None


def _raise_the_term(self: Any, message: PreVote) -> None:
    if message.term > self.term:
        self._enter_term(message.term, NOBODY)
    _on_pre_vote(self, message)


_on_pre_vote = Listener._on_pre_vote
_restore = Participant.__init__


def _forget_the_vote(
    self: Any, member: MemberId, log: RaftLog, hard_state: HardState, *others: Any
) -> None:
    _restore(self, member, log, hard_state._replace(vote=NOBODY), *others)


def _forget_the_term(
    self: Any, member: MemberId, log: RaftLog, hard_state: HardState, *others: Any
) -> None:
    _restore(self, member, log, HardState(log.last_term, NOBODY, hard_state.committed), *others)


# --- entries --------------------------------------------------------------------------------------


def _commit_by_counting(self: Any) -> None:
    agreed = self._membership.current.agreed_index(self._replication.match)
    if agreed > self.log.committed:
        self.log.commit(agreed)
        self._is_settled = True
        self._confirm()
        if self._is_changing:
            self._settle_change()


def _answer_before_durable(self: Any, message: Append) -> None:
    if self._is_led_by(message.sender):
        taken = self._following.take(message)
        if taken is Taken.REJECTED:
            self._reject(message)
        elif taken is Taken.STORED:
            self._note_truncation()
            through = self._following.verified
            self._send(
                AppendReply(self.member, self.leader, self.term, through, False, Index(0), Term(0))
            )


def _take_with(self: Any, message: Append, *, compares: bool, cuts_always: bool) -> Taken:
    """Take entries without one of the checks."""
    log = self._log
    prev, entries, term = message.prev_index, message.entries, message.entry_term
    if prev < log.committed:
        entries, prev = entries[log.committed - prev :], log.committed
    elif prev > log.last or (compares and log.term_of(prev) != message.prev_term):
        return Taken.REJECTED
    kept = 0 if cuts_always else log.matching_after(prev, term, len(entries))
    cut = Index(prev + kept)
    if kept < len(entries) or cuts_always:
        if (log.term_of(cut) or 0) > term:
            return Taken.IMPOSSIBLE
        if cut < log.last:
            self._truncate(cut)
        log.append(term, entries[kept:])
        self._membership.add(configurations_in(Index(cut + 1), entries[kept:]))
    self.verified = Index(max(self.verified, prev + len(entries)))
    self.commit(message.committed)
    return Taken.STORED


def _skip_the_check(self: Any, message: Append) -> Taken:
    return _take_with(self, message, compares=False, cuts_always=False)


def _cut_what_matches(self: Any, message: Append) -> Taken:
    return _take_with(self, message, compares=True, cuts_always=True)


def _commit_what_is_there(self: Any, index: Index, term: Term) -> None:
    log = self._log
    index = Index(min(index, log.last))
    if index > log.committed:
        log.commit(index)


# --- members --------------------------------------------------------------------------------------


def _count_learners(self: Configuration, match: Mapping[MemberId, Index]) -> Index:
    numbers = sorted((match.get(member, Index(0)) for member in self.members), reverse=True)
    return numbers[len(numbers) // 2]


def _count_the_union(self: Configuration, match: Mapping[MemberId, Index]) -> Index:
    union = {*self.voters, *self.outgoing}
    numbers = sorted((match.get(member, Index(0)) for member in union), reverse=True)
    return numbers[len(numbers) // 2]


def _elect_by_the_union(self: Configuration, votes: Collection[MemberId]) -> bool:
    union = {*self.voters, *self.outgoing}
    return 2 * sum(voter in votes for voter in union) > len(union)


def _elect_by_the_new(self: Configuration, votes: Collection[MemberId]) -> bool:
    return 2 * sum(voter in votes for voter in self.voters) > len(self.voters)


def _change_at_once(
    self: Configuration, voters: Collection[MemberId], learners: Collection[MemberId]
) -> Configuration:
    return Configuration(tuple(voters), (), tuple(learners))


def _change_whenever(
    *, waits: bool, commits_first: bool
) -> Callable[[Any, Collection[MemberId], Collection[MemberId]], Index]:
    right = Node.propose_change

    def propose(
        self: Any, voters: Collection[MemberId], learners: Collection[MemberId] = ()
    ) -> Index:
        changing, settled = self._is_changing, self._is_settled
        self._is_changing = changing and waits and not self.configuration.is_joint
        self._is_settled = settled or not commits_first
        try:
            return right(self, voters, learners)
        finally:
            self._is_changing |= changing
            self._is_settled = settled

    return propose


# --- reads ----------------------------------------------------------------------------------------


def _confirm_alone(self: Configuration, rounds: Mapping[MemberId, int]) -> int:
    return max(rounds.values(), default=0)


def _ask_too_early(self: Any) -> None:
    settled, self._is_settled = self._is_settled, True
    _ask(self)
    self._is_settled = settled


_ask = Participant._ask


def _take_any_answer(self: Any, member: MemberId, number: int) -> None:
    self._answered[member] = self.number


def _take_any_index(self: Any, number: int, index: Index) -> None:
    asked, self._asked = self._asked, None
    if asked is not None:
        self._confirmed += [(context, index) for context in asked.own]


def _read_here(self: Any, context: int) -> None:
    self._reads._confirmed.append((context, self.log.committed))


# --- around consensus -----------------------------------------------------------------------------


def _forget_before_durable(self: Any) -> None:
    running = self._running
    if running is None or running.is_saving:
        return
    applied = running.node.log.applied
    if applied > running.saved_index:
        running.is_saving = True
        saved = self._saved(running).encode()
        self._saved_own(running, applied)
        running.is_saving = True
        self.disk.replace_tables(saved, lambda: self._saved_own(running, applied))


def _purge_everything(self: Any, through: int) -> None:
    while self._segments and self._segments[0].last <= through:
        self._remove(self._segments[0])


def _lead_with_old_leases(self: Any, term: Term) -> None:
    self.led = term
    self._ending.clear()
    self._deadlines = {
        owner: deadline_us
        for owner, deadline_us in self._deadlines.items()
        if owner in self._machine.leases
    }


def _tell_again(self: Any, index: int) -> Any:
    return _changes_after(self, max(index - 1, 0))


_changes_after = Machine.changes_after
_saved = Member._saved


def _leave_one_out(self: Any, running: Any) -> Any:
    saved = _saved(self, running)
    log = running.node.log
    following = Index(saved.applied + 1)
    term = log.term_of(following)
    return saved if term is None else saved._replace(applied=following, term=term)


_take_over = Member._take_over


def _keep_the_state(self: Any, running: Any, saved: Any, *others: Any) -> None:
    before = running.machine.save()
    _take_over(self, running, saved, *others)
    running.machine.load(before)


def _move_back(self: Any, index: Index, term: Term, configuration: Configuration) -> bool:
    log = self.log
    if self.role is Role.LEADER or index <= log.offset:
        return False
    keeps = log.restore(index, term)
    self._membership.restore(index, configuration, keeps=keeps)
    self._following.restore(index, keeps=keeps)
    return True


def _always(self: Any) -> bool:
    return True


def _nothing(self: Any) -> None:
    pass


_REPLACING: Final = {
    "voters": 3,
    "mishap_us_max": 800 * MS,
    "weights": {Mishap.REPLACE_HALF_WAY: 3, Mishap.HEAL: 2, Mishap.CRASH_LEADER: 1},
}

_CRASHING: Final = {
    "voters": 5,
    "tick_us": 20 * MS,
    "settings": Settings(election_ticks=3),
    "mishap_us_max": 80 * MS,
    "down_us_max": 60 * MS,
    "tables_every": 15,
    "weathers": (Weather(delay_us_max=30 * MS, late=0.2, late_us_max=300 * MS, doubled=0.2),),
    "weights": {
        Mishap.CRASH: 4,
        Mishap.CRASH_WRITING: 2,
        Mishap.CRASH_ALL: 1,
        Mishap.HALVES: 1,
        Mishap.HEAL: 4,
    },
}
_PARTING: Final = {
    "voters": 5,
    "tick_us": 20 * MS,
    "client_pause_us": 30 * MS,
    "mishap_us_max": 500 * MS,
    "weathers": (Weather(delay_us_max=30 * MS, late=0.2, late_us_max=2_000 * MS),),
    "weights": {
        Mishap.LEADER_ALONE: 3,
        Mishap.HALVES: 3,
        Mishap.PAUSE_LEADER: 1,
        Mishap.HEAL: 3,
        Mishap.TRANSFER: 3,
    },
}

_HANDING_OVER: Final = {
    "voters": 3,
    "tick_us": 20 * MS,
    "client_pause_us": 30 * MS,
    "clients": 6,
    "troubled_us": 10_000 * MS,
    "mishap_us_max": 2_000 * MS,
    "weathers": (Weather(),),
    "weights": {Mishap.TRANSFER: 1},
}

_DEAF: Final = {"ends_deaf": True, "voters": 3, "weights": {}}

_OVERSLEEPING: Final = {
    "voters": 3,
    "tick_us": 20 * MS,
    "client_pause_us": 30 * MS,
    "mishap_us_max": 1_500 * MS,
    "down_us_max": 500 * MS,
    "weathers": (Weather(delay_us_max=2 * MS, late=0.3, late_us_max=2_000 * MS),),
    "weights": {Mishap.PAUSE_LEADER: 2, Mishap.LEADER_ALONE: 1, Mishap.HEAL: 2},
}

MISTAKES: Final[dict[str, Mistake]] = {
    "a vote is told before it is durable": _one(Outbox, "hold", Outbox.send),
    "a term counts as durable at once": _one(Participant, "_is_term_durable", property(_always)),
    "a vote is given twice in a term": _one(Listener, "_on_vote", _vote_for_whoever_asks),
    "a vote is given to whoever asks": _one(Listener, "_is_up_to_date", lambda *_: True),
    "logs are compared by their terms alone": _one(
        Listener, "_is_up_to_date", _compare_terms_alone
    ),
    "a transfer needs nothing to be there": Mistake(
        (
            (Participant, "_hand_over", _hand_over_at_once),
            (Listener, "_is_up_to_date", _trust_a_transfer),
        ),
        focus=_PARTING,
    ),
    "a vote counts twice": _one(
        Election, "count", _count_every_reply, focus=_CRASHING, is_soon_found=False
    ),
    "a pre-vote raises the term": _one(Listener, "_on_pre_vote", _raise_the_term),
    "a restart forgets the vote": _one(Participant, "__init__", _forget_the_vote, focus=_CRASHING),
    "a restart forgets the term": _one(Participant, "__init__", _forget_the_term, focus=_CRASHING),
    "entries of older terms are committed by counting": _one(
        Participant, "_commit", _commit_by_counting
    ),
    "a follower answers before it is durable": _one(Listener, "_on_append", _answer_before_durable),
    "the entry before is not compared": _one(
        Following, "take", _skip_the_check, focus=_PARTING, is_soon_found=False
    ),
    "entries that match are cut off": _one(
        Following, "take", _cut_what_matches, is_soon_found=False
    ),
    "a heartbeat commits what a follower happens to have": _one(
        Following, "hear", _commit_what_is_there
    ),
    "a write counts though it was cut off meanwhile": _one(
        Listener, "_note_truncation", _nothing, is_soon_found=False
    ),
    "a leader that hears nobody goes on": _one(
        Replication, "active", lambda self: [self._member, *self.peers], focus=_DEAF
    ),
    "learners count as voters": _one(Configuration, "agreed_index", _count_learners),
    "half of both groups together is a majority": _one(
        Configuration, "agreed_index", _count_the_union
    ),
    "both groups together elect": _one(
        Configuration, "have_agreed", _elect_by_the_union, focus=_REPLACING, is_soon_found=False
    ),
    "the new group alone elects": _one(
        Configuration, "have_agreed", _elect_by_the_new, focus=_REPLACING, is_soon_found=False
    ),
    "several voters change in one step": _one(Configuration, "towards", _change_at_once),
    "two changes go on at once": _one(
        Node, "propose_change", _change_whenever(waits=False, commits_first=True)
    ),
    "a change begins before the leader has committed": _one(
        Node, "propose_change", _change_whenever(waits=True, commits_first=False)
    ),
    "a read is confirmed by one voice": _one(
        Configuration, "agreed_round", _confirm_alone, focus=_PARTING, is_soon_found=False
    ),
    "a read is asked before the leader has committed": _one(Participant, "_ask", _ask_too_early),
    "an earlier answer confirms a later read": _one(
        Reads, "answer", _take_any_answer, focus=_OVERSLEEPING, is_soon_found=False
    ),
    "an earlier index answers a later read": _one(Reads, "confirm_asked", _take_any_index),
    "a read asks nobody": _one(Node, "read", _read_here),
    "the log is forgotten before the tables are durable": _one(
        Member, "write_tables", _forget_before_durable, focus=_CRASHING, is_soon_found=False
    ),
    "the newest vote is purged with the log": _one(
        SimulatedDisk, "purge", _purge_everything, focus=_CRASHING
    ),
    "a snapshot says that it holds one entry more": _one(Member, "_saved", _leave_one_out),
    "a snapshot's state is not taken over": _one(Member, "_take_over", _keep_the_state),
    "an old snapshot is taken over": _one(Node, "restore", _move_back, is_soon_found=False),
    "a watcher is told of a change twice": _one(Machine, "changes_after", _tell_again),
    "a new leader goes by old leases": _one(
        Leases, "begin", _lead_with_old_leases, focus=_HANDING_OVER
    ),
}

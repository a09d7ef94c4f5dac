"""What must be true of a cluster at every step, by somebody who sees all of it.

    Invariants      told of every step of every member; raises Violated

Owns: what was committed, written, elected and voted so far, in the whole cluster.
Never: asks a member what is right: majorities are counted here again, on what is durable.
Follows: Raft figure 3 (election safety, leader append-only, log matching, leader completeness,
    state machine safety), section 5.4.2, and section 6 with thesis 4.
"""

from typing import Final, NamedTuple, final

from simulation.durable import Durable
from simulation.machine import Machine

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import AppendReply, Message, Vote, VoteReply
from kvsecure.core.raft.node import Node, Ready
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import Index, MemberId

__all__ = ["Invariants", "Violated", "is_configuration"]

_CONFIGURATION: Final = 0


class Violated(AssertionError):
    """Something that must never be the case is."""


class _Seen(NamedTuple):
    """A member at its last step."""

    term: int
    is_leader: bool
    committed: int
    last: int


def is_configuration(entry: bytes) -> bool:
    """Tell whether an entry says who the members are."""
    return bool(entry) and entry[0] == _CONFIGURATION


@final
class Invariants:
    """The cluster so far."""

    def __init__(self, founding: Configuration) -> None:
        # By index; entry 0 is none.
        self.committed: list[tuple[int, bytes]] = [(0, b"")]
        # By index, in which term it was committed first.
        self._committed_in = [0]
        self.founding = founding
        self.durable: dict[MemberId, Durable] = {}
        # The state's digest by index, of the first who applied it.
        self.digests: dict[int, int] = {}
        # Counted for reports.
        self.elections = 0
        # Terms in which somebody stood for election.
        self._stood: set[int] = {0}
        self._leaders: dict[int, MemberId] = {}
        self._written: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._votes: dict[tuple[MemberId, int], MemberId] = {}
        self._seen: dict[MemberId, _Seen] = {}

    @property
    def highest(self) -> int:
        """The highest index that anybody knows to be committed."""
        return len(self.committed) - 1

    def state(self) -> Machine:
        """Return what there is after everything that was committed, with all changes to it."""
        machine = Machine(changes_max=len(self.committed))
        for index, (_, entry) in enumerate(self.committed[1:], 1):
            if is_configuration(entry):
                machine.skip(index, entry)
            else:
                machine.apply(index, entry)
        return machine

    def forget(self, member: MemberId) -> None:
        """Take note that a member has ended; what it said stays said."""
        self._seen.pop(member, None)

    # --- steps ------------------------------------------------------------------------------------

    def stepped(self, node: Node) -> None:
        """Check a member after a step of its own."""
        member, log = node.member, node.log
        is_leader = node.role is Role.LEADER
        now = _Seen(node.term, is_leader, log.committed, log.last)
        before = self._seen.get(member)
        if before == now:
            return
        self._seen[member] = now
        if before is not None:
            if now.term < before.term:
                raise Violated(f"the term of {member} falls from {before.term} to {now.term}")
            if now.committed < before.committed:
                raise Violated(
                    f"what {member} knows as committed falls from {before.committed} to "
                    f"{now.committed}"
                )
        if node.role is Role.CANDIDATE:
            self._stood.add(now.term)
        elif now.term not in self._stood:
            raise Violated(f"{member} is in term {now.term}, in which nobody stood for election")
        if is_leader:
            was_leader = before is not None and before.is_leader and before.term == now.term
            if not was_leader:
                self._elected(node)
            elif before is not None and now.last < before.last:
                raise Violated(f"the leader {member} cuts its log from {before.last} to {now.last}")
        if before is None or now.committed > before.committed:
            # Who is removed by what it commits leads no more after this step.
            led = before is not None and before.is_leader and before.term == now.term
            since = before.committed if before is not None else log.offset
            self._commit(node, since, leads=is_leader or led)

    def _elected(self, node: Node) -> None:
        leader = self._leaders.setdefault(node.term, node.member)
        if leader != node.member:
            raise Violated(f"{leader} and {node.member} both lead in term {node.term}")
        self.elections += 1
        log = node.log
        for index in range(self.highest, log.offset, -1):
            term = self.committed[index][0]
            # Of later terms it may know nothing: it was elected by votes that came late.
            if self._committed_in[index] < node.term and log.term_of(Index(index)) != term:
                raise Violated(
                    f"{node.member} leads in term {node.term} without entry {index} of term {term}"
                    f", which was committed in term {self._committed_in[index]}"
                )

    def _commit(self, node: Node, after: int, *, leads: bool) -> None:
        log = node.log
        through = log.committed
        first_known = max(after, log.offset)
        known = min(through, self.highest)
        for index in range(first_known + 1, known + 1):
            term, entry = self.committed[index]
            if log.term_of(index) != term or log.entries(index - 1, index) != [entry]:  # type: ignore[arg-type]  # as above
                raise Violated(
                    f"{node.member} has committed another entry {index} than was committed before: "
                    f"of term {log.term_of(index)} and not {term}"  # type: ignore[arg-type]  # as above
                )
        if through <= self.highest:
            return
        if log.offset > self.highest:
            raise Violated(f"{node.member} has a snapshot through {log.offset}, not yet committed")
        self._check_first_commit(node, leads=leads)
        for index in range(self.highest + 1, through + 1):
            added = log.term_of(index)  # type: ignore[arg-type]  # as above
            assert added is not None
            (entry,) = log.entries(index - 1, index)  # type: ignore[arg-type]  # as above
            self.committed.append((added, entry))
            self._committed_in.append(node.term)

    def _check_first_commit(self, node: Node, *, leads: bool) -> None:
        """Whoever is first to commit leads, counts in its own term, and a majority has it."""
        member, through, term = node.member, node.log.committed, node.term
        if not leads:
            raise Violated(f"{member} commits {through} before any leader does")
        if node.log.term_of(through) != term:
            raise Violated(
                f"the leader {member} of term {term} commits {through}, which is of term "
                f"{node.log.term_of(through)}, by counting"
            )
        configuration = node.configuration
        for group in (configuration.voters, configuration.outgoing):
            have = [each for each in group if self._has(each, through, term)]
            if group and 2 * len(have) <= len(group):
                raise Violated(
                    f"the leader {member} of term {term} commits {through}, which of {group} is "
                    f"durable on {have} alone"
                )

    def _has(self, member: MemberId, index: int, term: int) -> bool:
        durable = self.durable.get(member)
        return durable is not None and durable.has(index, term)

    # --- what is written and said -----------------------------------------------------------------

    def ordered(self, node: Node, ready: Ready) -> None:
        """Check what a member is about to write."""
        member, written = node.member, self._written
        if not ready.entries:
            return
        previous = node.log.term_of(ready.first - 1)  # type: ignore[arg-type]  # an index
        if previous is None:
            raise Violated(f"{member} writes {ready.first} without having the entry before it")
        for index, entry in enumerate(ready.entries, ready.first):
            known = written.setdefault((index, ready.term), (previous, entry))
            if known != (previous, entry):
                raise Violated(f"there are two entries {index} of term {ready.term}: logs differ")
            previous = ready.term
            if is_configuration(entry):
                self._check_configuration(node, index, entry)

    def is_durable(self, member: MemberId, ready: Ready, *, is_void: bool) -> None:
        """Take note that what a member wrote is durable, and check that it votes once in a term."""
        self.durable[member].take(ready, is_void=is_void)
        hard = ready.hard_state
        if hard.vote:
            given = self._votes.setdefault((member, hard.term), hard.vote)
            if given != hard.vote:
                raise Violated(f"{member} votes for {given} and {hard.vote} in term {hard.term}")

    def _check_configuration(self, node: Node, index: int, entry: bytes) -> None:
        log = node.log
        begin = min(max(log.offset, self.highest), index - 1)
        for between in log.entries(begin, index - 1):  # type: ignore[arg-type]  # indexes
            if is_configuration(between):
                raise Violated(f"{node.member} begins change {index} before another is committed")
        before = self.configuration_before(index)
        after = Configuration.decode(entry)
        if not _may_follow(before, after):
            raise Violated(f"change {index} goes from {before} to {after} in one step")
        leads = node.role is Role.LEADER and log.term_of(index) == node.term  # type: ignore[arg-type]  # an index
        if leads and log.term_of(log.committed) != node.term:
            raise Violated(f"{node.member} begins change {index} before it has committed anything")

    def configuration_before(self, index: int) -> Configuration:
        """Return the last configuration that was committed before an entry."""
        for at in range(min(index - 1, self.highest), 0, -1):
            entry = self.committed[at][1]
            if is_configuration(entry):
                return Configuration.decode(entry)
        return self.founding

    def said(self, node: Node, message: Message) -> None:
        """Check that what a message promises is durable."""
        durable = self.durable[message.sender]
        hard = durable.hard_state
        match message:
            case VoteReply(granted=True) | Vote():
                vote = message.to if isinstance(message, VoteReply) else message.sender
                if (hard.term, hard.vote) != (message.term, vote) and hard.term <= message.term:
                    raise Violated(
                        f"{message.sender} votes for {vote} in term {message.term} before that is "
                        f"durable: it has {hard}"
                    )
            case AppendReply(is_rejected=False, through=index):
                term = node.log.term_of(index)
                if index > durable.last or not (term is None or durable.has(index, term)):
                    raise Violated(
                        f"{message.sender} answers that it has {index} before that is durable"
                    )
                if hard.term < message.term:
                    raise Violated(
                        f"{message.sender} answers in term {message.term} with {hard.term} durable"
                    )
            case _:
                return

    # --- what is applied and read -----------------------------------------------------------------

    def applied(self, member: MemberId, index: int, digest: int) -> None:
        """Check that a member has applied what all others have, in the same order."""
        known = self.digests.setdefault(index, digest)
        if known != digest:
            raise Violated(f"{member} is in another state than others after entry {index}")
        if index > self.highest:
            raise Violated(f"{member} applies {index}, which is not committed")

    def may_read(self, member: MemberId, index: int, asked_at: int) -> None:
        """Check that a linearizable read sees what was committed when it was asked for.

        Args:
            member: Who reads.
            index: Through where it will see.
            asked_at: The highest index that was committed anywhere when it was asked for.
        """
        if index < asked_at:
            raise Violated(f"a read of {member} sees {index}; {asked_at} was committed before it")


def _may_follow(before: Configuration, after: Configuration) -> bool:
    """Tell whether any majorities of both meet (Raft section 6, thesis 4.1)."""
    if before.is_joint:
        return not after.is_joint and after.voters == before.voters
    if after.is_joint:
        return after.outgoing == before.voters
    return len(set(before.voters) ^ set(after.voters)) <= 1

"""The Raft log against plain lists."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kvsecure.core.raft.log import RaftLog
from kvsecure.model.errors import Broken
from kvsecure.model.ids import Index, Term


@dataclass
class _Plain:
    """Every entry there ever was, and the marks."""

    entries: list[tuple[int, bytes]] = field(default_factory=list)
    offset: int = 0


class _LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog(Index(0), Term(0))
        self.plain = _Plain()
        self.term = 1

    @rule(entries=st.lists(st.binary(max_size=3), max_size=4), rise=st.integers(0, 1))
    def append(self, entries: list[bytes], rise: int) -> None:
        """Append entries of this or the next term."""
        self.term += rise
        first = self.log.append(Term(self.term), entries)
        assert first == len(self.plain.entries) + 1
        self.plain.entries += [(self.term, entry) for entry in entries]

    @rule(data=st.data())
    def persist(self, data: st.DataObject) -> None:
        """Make a run durable, as a work order does."""
        if self.log.durable < self.log.last:
            term, run = self.log.run_after(self.log.durable)
            start = self.log.durable
            expected = self.plain.entries[start : start + len(run)]
            assert expected == [(term, entry) for entry in run]
            following = self.plain.entries[start + len(run) :][:1]
            assert not following or following[0][0] != term, "a run ends where the term does"
            self.log.durable = Index(start + data.draw(st.integers(1, len(run))))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Commit some of what there is, durable or not."""
        index = data.draw(st.integers(self.log.committed, self.log.last))
        self.log.commit(Index(index))

    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        """Apply some of what is committed and durable."""
        log = self.log
        through = Index(data.draw(st.integers(log.applied, log.settled)))
        got = log.entries(log.applied, through)
        assert got == [entry for _, entry in self.plain.entries[log.applied : through]]
        log.applied = through

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Drop entries that a snapshot holds; never more than were applied and are durable."""
        through = data.draw(st.integers(0, self.log.last + 2))
        self.log.forget(Index(through))
        allowed = min(through, self.log.applied, self.log.durable)
        self.plain.offset = max(self.plain.offset, allowed)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        """Cut off some of what is not committed."""
        after = data.draw(st.integers(self.log.committed, self.log.last))
        self.log.truncate(Index(after))
        del self.plain.entries[after:]

    @rule(data=st.data(), ahead=st.integers(1, 5))
    def restore(self, data: st.DataObject, ahead: int) -> None:
        """Begin behind a snapshot: of an entry that is durable with more, or of another log."""
        index = self.log.committed + ahead
        has_it = index < self.log.durable and data.draw(st.booleans())
        if has_it:
            term = self.plain.entries[index - 1][0]
        else:
            self.term += 1
            term = self.term
            self.plain.entries[index - 1 :] = []
            lacking = index - len(self.plain.entries)
            self.plain.entries += [(term, b"from the snapshot")] * lacking
        assert self.log.restore(Index(index), Term(term)) is has_it
        self.plain.offset = index
        assert self.log.committed == self.log.applied == index

    @rule(data=st.data(), entries_max=st.integers(1, 4), bytes_max=st.integers(1, 6))
    def take_a_run(self, data: st.DataObject, entries_max: int, bytes_max: int) -> None:
        """Take a bounded run: of one term, as long as its bounds let it be, and never empty."""
        log = self.log
        if log.offset < log.last:
            after = data.draw(st.integers(log.offset, log.last - 1))
            term, run, size = log.bounded_run_after(Index(after), entries_max, bytes_max)
            longest = []
            for entry_term, entry in self.plain.entries[after : after + entries_max]:
                fits = sum(map(len, longest)) + len(entry) <= bytes_max
                if entry_term != self.plain.entries[after][0] or (longest and not fits):
                    break
                longest.append(entry)
            assert (term, run) == (self.plain.entries[after][0], longest)
            assert size == sum(map(len, run))

    @rule(data=st.data(), term=st.integers(0, 12), count=st.integers(0, 4))
    def compare_terms(self, data: st.DataObject, term: int, count: int) -> None:
        """Look for terms, as a consistency check does."""
        log = self.log
        index = data.draw(st.integers(log.offset, log.last))
        terms = [entry_term for entry_term, _ in self.plain.entries]
        matching = 0
        for entry_term in terms[index : index + count]:
            if entry_term != term:
                break
            matching += 1
        assert log.matching_after(Index(index), Term(term), count) == matching
        found = [i for i in range(log.offset + 1, index + 1) if terms[i - 1] <= term]
        assert log.last_not_after(Index(index), Term(term)) == max(found, default=log.offset)

    @precondition(lambda self: self.log.committed > 0)
    @rule()
    def commit_never_moves_back(self) -> None:
        """Refuse to take back a commit."""
        with pytest.raises(Broken):
            self.log.commit(Index(self.log.committed - 1))

    @precondition(lambda self: self.log.last_term > 1)
    @rule()
    def terms_never_fall(self) -> None:
        """Refuse an entry of an earlier term."""
        with pytest.raises(Broken):
            self.log.append(Term(self.log.last_term - 1), [b"x"])

    @rule()
    def end_is_respected(self) -> None:
        """Refuse to commit or read behind the end, or before the snapshot."""
        with pytest.raises(Broken):
            self.log.commit(Index(self.log.last + 1))
        with pytest.raises(Broken):
            self.log.truncate(Index(self.log.committed - 1))
        with pytest.raises(Broken):
            self.log.restore(self.log.committed, Term(self.term))
        with pytest.raises(Broken):
            self.log.entries(self.log.applied, Index(self.log.last + 1))
        if self.log.offset:
            with pytest.raises(Broken):
                self.log.entries(Index(self.log.offset - 1), self.log.last)

    @invariant()
    def marks_are_in_order(self) -> None:
        """Check the order of the marks, and every term that is still known."""
        log = self.log
        assert log.offset == self.plain.offset
        assert log.offset <= log.applied <= log.settled <= log.committed <= log.last
        assert log.settled <= log.durable <= log.last
        assert log.last == len(self.plain.entries)
        for index in range(log.offset + 1, log.last + 1):
            assert log.term_of(Index(index)) == self.plain.entries[index - 1][0]
        assert log.term_of(Index(log.last + 1)) is None
        if log.offset:
            assert log.offset_term == self.plain.entries[log.offset - 1][0]
            assert log.term_of(Index(log.offset - 1)) is None


def test_raft_log_equals_plain_lists_section_5_3() -> None:
    """Whatever is appended, written, cut off, committed, applied and dropped: it all holds."""
    run_state_machine_as_test(
        _LogMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )

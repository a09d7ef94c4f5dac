"""Reading the log back: which entries count, against a plain model and against leaders' logs."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.model.ids import Index, MemberId, Term
from kvsecure.server.log_reading import LogReading, MissingEntries


class _Frame(NamedTuple):
    first: int
    term: int
    entries: list[bytes]


def _read(frames: list[_Frame], known: int, term: int, kept_bytes_max: int = 1 << 20) -> LogReading:
    reading = LogReading(Index(known), Term(term), kept_bytes_max)
    for frame in frames:
        reading.take(frame.first, Term(frame.term), frame.entries)
    return reading


def _entries(log: RaftLog) -> dict[int, tuple[int, bytes]]:
    found = log.entries(log.offset, log.last)
    return {
        index: (log.term_of(Index(index)) or 0, entry)
        for index, entry in enumerate(found, log.offset + 1)
    }


# --- what frames leave ----------------------------------------------------------------------------


@st.composite
def _written(draw: st.DrawFn) -> tuple[list[_Frame], int, dict[int, tuple[int, bytes]]]:
    """Frames as a member may have written them, the end of its tables, and what they leave."""
    start = draw(st.integers(0, 5))
    left: dict[int, tuple[int, bytes]] = {}
    frames, last, term, committed = list[_Frame](), start, 1, start
    for _ in range(draw(st.integers(1, 12))):
        term += draw(st.integers(0, 2))
        first = draw(st.integers(committed + 1, last + 1))
        if first <= last:
            # Another leader's entries are of a later term than those that they take the place of.
            term = max(term, max(left[at][0] for at in range(first, last + 1)) + 1)
        entries = [b"\2%d.%d" % (term, at) for at in range(draw(st.integers(0, 4)))]
        frames.append(_Frame(first, term, entries))
        left = {at: kept for at, kept in left.items() if at < first}
        left |= {at: (term, entry) for at, entry in enumerate(entries, first)}
        last = first + len(entries) - 1
        committed = draw(st.integers(committed, last))
    return frames, draw(st.integers(start, committed)), left


@given(_written(), st.integers(0, 60))
def test_frames_leave_what_a_plain_table_of_them_has(
    written: tuple[list[_Frame], int, dict[int, tuple[int, bytes]]], kept_bytes_max: int
) -> None:
    """Behind the tables everything, and before their end a bounded part without a gap."""
    frames, known, left = written
    term = left[known][0] if known in left else 1

    reading = _read(frames, known, term, kept_bytes_max)
    log = reading.log()

    assert reading.leads_to_tables()
    found = _entries(log)
    assert {at: kept for at, kept in found.items() if at > known} == {
        at: kept for at, kept in left.items() if at > known
    }
    assert all(left[at] == kept for at, kept in found.items())
    assert log.offset <= log.applied == log.committed == known
    assert log.durable == log.last == max([known, *left])
    if log.offset in left:
        assert log.offset_term == left[log.offset][0]
    before = [frame.entries for frame in frames if frame.first + len(frame.entries) - 1 < known]
    most = kept_bytes_max + max((sum(map(len, each)) for each in before), default=0) + 40
    assert sum(len(entry) for at, (_, entry) in found.items() if at <= known) <= most


def test_entries_that_are_nowhere_are_missed() -> None:
    """A frame may jump ahead within what the tables hold, and no further."""
    _read([_Frame(1, 1, [b"\2"]), _Frame(8, 2, [b"\2"])], known=7, term=2).check_whole(9)

    with pytest.raises(MissingEntries, match="entries 8 to 8 are missing"):
        _read([_Frame(1, 1, [b"\2"]), _Frame(9, 2, [b"\2"])], known=7, term=2).check_whole(10)
    with pytest.raises(MissingEntries, match="entries 8 to 9 are missing"):
        _read([_Frame(10, 1, [b"\2"])], known=7, term=2).check_whole(11)
    with pytest.raises(MissingEntries, match="entries 3 to 4 are missing"):
        _read([_Frame(1, 1, [b"\2", b"\2"])], known=0, term=0).check_whole(5)


def test_a_log_that_begins_anew_misses_nothing_of_what_it_cut_off() -> None:
    """Of a log that is removed from its oldest entry on, a crash may leave the end."""
    reading = _read([_Frame(5, 1, [b"\2", b"\2"]), _Frame(3, 2, [])], known=2, term=2)

    reading.check_whole(3)

    assert reading.leads_to_tables()
    assert reading.log().last == 2


def test_what_is_kept_begins_behind_the_configuration_in_force() -> None:
    """What the tables say of the members has to be true from the log's beginning on."""
    change = Configuration((MemberId(1), MemberId(2))).encode()
    frames = [_Frame(1, 1, [b"\2a", b"\2b"]), _Frame(3, 1, [change, b"\2c", b"\2d", b"\2e"])]

    log = _read(frames, known=5, term=1).log()

    assert (log.offset, log.offset_term, log.last) == (3, 1, 6)
    assert log.entries(Index(3), Index(6)) == [b"\2c", b"\2d", b"\2e"]


# --- tables of another member ---------------------------------------------------------------------


class _Past(NamedTuple):
    """What a cluster has come to: of each entry the term, which says whose it is."""

    # What one member has written, and what that leaves.
    frames: list[_Frame]
    heard: list[int]
    committed: list[int]


@st.composite
def _pasts(draw: st.DrawFn) -> _Past:
    """Leaders that have all that is committed, and a member that hears some of them."""
    logs: list[list[int]] = [[]]
    committed, heard, frames = list[int](), list[int](), list[_Frame]()
    for term in range(1, draw(st.integers(2, 8))):
        able = [log for log in logs if log[: len(committed)] == committed]
        before = draw(st.sampled_from(able))
        kept = draw(st.integers(len(committed), len(before)))
        log = before[:kept] + [term] * draw(st.integers(1, 4))
        logs.append(log)
        if draw(st.booleans()):
            # An entry of the leader's own term, and with it all before.
            committed = log[: draw(st.integers(kept + 1, len(log)))]
        if draw(st.booleans()):
            agree = 0
            while agree < min(len(heard), len(log)) and heard[agree] == log[agree]:
                agree += 1
            through = draw(st.integers(agree, len(log)))
            frames += [
                _Frame(at + 1, log[at], [b"\2%d.%d" % (log[at], at + 1)])
                for at in range(agree, through)
            ]
            heard = log[:through] if through > agree else heard
    return _Past(frames, heard, committed)


@given(_pasts(), st.data())
def test_entries_behind_a_received_state_count_if_they_are_of_its_log(
    past: _Past, data: st.DataObject
) -> None:
    """The log leads to a committed state exactly if it has all of it; then what follows stays."""
    if not past.committed:
        return
    known = data.draw(st.integers(1, len(past.committed)))
    reading = _read(past.frames, known, past.committed[known - 1])

    leads = reading.leads_to_tables()

    assert leads == (past.heard[:known] == past.committed[:known])
    if leads:
        found = {at: term for at, (term, _) in _entries(reading.log()).items() if at > known}
        assert found == dict(enumerate(past.heard[known:], known + 1))


@given(_pasts(), st.data())
def test_a_log_that_begins_anew_keeps_what_follows_and_nothing_else(
    past: _Past, data: st.DataObject
) -> None:
    """However much of the old log a crash leaves, and wherever the tables are by then."""
    if not past.committed:
        return
    known = data.draw(st.integers(1, len(past.committed)))
    term = past.committed[known - 1]
    if _read(past.frames, known, term).leads_to_tables():
        return
    anew = _Frame(known + 1, term, [])
    left = past.frames[data.draw(st.integers(0, len(past.frames))) :]
    # A start that does not get as far as to have removed the old log begins anew again.
    begun = _read([*left, anew], known, term)
    begun.check_whole(known + 1)
    if begun.leads_to_tables():
        assert begun.log().last == known
    newest = max([term, *past.heard]) + 1
    later = [_Frame(known + at, newest, [b"\2%d" % at]) for at in range(1, 4)]

    for flushed in range(4):
        reading = _read([anew, *later], known + flushed, newest if flushed else term)

        reading.check_whole(known + 4)
        assert reading.leads_to_tables()
        behind = {at for at in _entries(reading.log()) if at > known + flushed}
        assert behind == set(range(known + flushed + 1, known + 4))

"""What a member makes of its disk when it starts: tables first, then the log behind them.

    Saved           the content of the tables: the state after an index, and who the members are
    recovered       a machine, a log and a hard state

Owns: the order of recovery.
Never: reads a disk; never repairs anything.
Follows: `kvsecure.server.restore`, whose order and rules these are.
Keeps: entries behind tables that came from another member count only if the log had the last entry
    of the tables (Raft section 7).
"""

import pickle
from typing import NamedTuple, final

from simulation.disk import Recovered
from simulation.machine import Machine

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState
from kvsecure.core.replica import decode_frame
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Restored", "Saved", "recovered"]


@final
class Saved(NamedTuple):
    """Tables."""

    # Of the last entry that is in them.
    applied: Index
    term: Term
    configuration: Configuration
    machine: bytes

    def encode(self) -> bytes:
        """Return the tables as bytes."""
        entry = self.configuration.encode()
        return pickle.dumps((self.applied, self.term, entry, self.machine))

    @staticmethod
    def decode(content: bytes) -> "Saved":
        """Read what `encode` wrote."""
        index, term, entry, machine = pickle.loads(content)
        return Saved(index, term, Configuration.decode(entry), machine)


@final
class Restored(NamedTuple):
    """A member as it was."""

    machine: Machine
    log: RaftLog
    hard_state: HardState
    # At the beginning of the log.
    configuration: Configuration
    saved_index: Index
    # Whether what the files of the log hold has nothing to do with the tables.
    is_severed: bool


def recovered(found: Recovered, founding: Configuration) -> Restored:
    """Make a member of what is on its disk.

    Raises:
        AssertionError: Entries are missing.
    """
    machine = Machine()
    saved = Saved(Index(0), Term(0), founding, machine.save())
    if found.tables is not None:
        saved = Saved.decode(found.tables)
    machine.load(saved.machine)
    hard_state = HardState(Term(0), MemberId(0), Index(0))
    # What the frames say, from wherever they begin.
    offset, terms, entries = saved.applied, list[Term](), list[bytes]()
    for at, frame in enumerate(found.frames):
        hard_state, term, batch, _ = decode_frame(frame.text, frame.count)
        if at == 0:
            offset = Index(min(saved.applied, frame.first - 1))
        begin = frame.first - 1 - offset
        if begin > len(entries):
            # Only the snapshot of another member can be ahead of the log.
            assert frame.first - 1 <= saved.applied, f"entries before {frame.first} are missing"
            offset, terms, entries = Index(frame.first - 1), [], []
            begin = 0
        if begin < 0:
            # It begins with entries that the tables hold.
            batch, begin = batch[-begin:], 0
        del terms[begin:], entries[begin:]
        terms += [term] * len(batch)
        entries += batch
    behind = saved.applied - offset
    keeps = behind == 0 or (behind <= len(terms) and terms[behind - 1] == saved.term)
    log = RaftLog(saved.applied, saved.term)
    if keeps:
        for term, entry in zip(terms[behind:], entries[behind:], strict=True):
            log.append(term, [entry])
    log.durable = log.last
    log.committed = Index(max(log.offset, min(hard_state.committed, log.last)))
    return Restored(machine, log, hard_state, saved.configuration, saved.applied, not keeps)
